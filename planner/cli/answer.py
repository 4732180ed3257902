"""What recommend and estimate share: from options to an answer, and from an answer to the terminal."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from planner.cli.launch_options import STDOUT
from planner.cli.options import Format, ObjectiveName
from planner.cli.traffic import Traffic, workload_of
from planner.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from planner.core.model import ModelSpec
    from planner.core.quantization import CacheDtype
    from planner.core.topology import Topology
    from planner.core.workload import Objective, Workload
    from planner.search.recommendation import Recommendation


@dataclass(frozen=True)
class Question:
    """The options as they were given."""

    model: str
    topology: str | None
    traffic: Traffic
    objective: ObjectiveName
    engine: str
    quant: str | None
    gpu: str | None
    cache: CacheDtype = "auto"


DEFAULT_TARGET = "shell"


@dataclass(frozen=True)
class Wanted:
    """What else is to be done with the first plan: where it is saved, where its files go, and for which target."""

    output: str | None = None
    inline: bool = False
    emit: str | None = None
    target: str = DEFAULT_TARGET
    name: str | None = None
    namespace: str | None = None
    image: str | None = None
    force: bool = False
    ranks: bool = False


def ask(question: Question, *, degrees: tuple[int, ...] | None = None, top: int = 1) -> tuple[Recommendation, Topology]:
    """The recommendation, or with ``degrees`` (those of ``Parallelism``, in order) the estimate of that one layout; and the
    topology as it was stated.
    """
    from planner import api
    from planner.core.plan import Parallelism

    model, topology, workload, objective = understood(question)
    engine = question.engine
    if degrees is None:
        return api.recommend(model, topology, workload, engine=engine, objective=objective, top=top), topology
    return api.estimate(model, topology, workload, Parallelism(*degrees), engine=engine, objective=objective), topology


def understood(question: Question) -> tuple[ModelSpec, Topology, Workload, Objective]:
    """What the options name. Raises ``BadInput``."""
    from planner import api

    objective: Objective = "latency" if question.objective is ObjectiveName.latency else "throughput"
    workload = workload_of(question.traffic)
    model = api.load_model(question.model, quant=question.quant, cache=question.cache)
    topology = api.find_topology(question.topology, gpu=question.gpu)
    return model, topology, workload, objective


def deliver(question: Question, answer: Recommendation, topology: Topology, wanted: Wanted, form: Format) -> None:
    """Show the answer, and save and emit its first plan where that is wanted; with ``-`` the saved plan is all that is shown."""
    _refuse_idle(wanted)
    if wanted.output is None and wanted.emit is None:
        show(answer, form, ranks=wanted.ranks)
        return
    from planner import api
    from planner.cli.emit import put, say

    if not answer.plans:  # nothing to save: the refusals are the answer
        with redirect_stdout(sys.stderr if wanted.output == STDOUT else sys.stdout):
            show(answer, form)
    plan = api.plan_of(answer, topology, model=question.model, reference=_named(question), inline=wanted.inline)
    launch = None
    if wanted.emit is not None:
        launch = api.emit_plan(plan, wanted.target, name=wanted.name, namespace=wanted.namespace, image=wanted.image)
        put(launch[1], wanted.emit, force=wanted.force)
    if wanted.output == STDOUT:
        sys.stdout.write(api.plan_yaml(plan))
    else:
        if wanted.output is not None:
            api.save_text(api.plan_yaml(plan), Path(wanted.output), force=wanted.force)
            sys.stderr.write(f"wrote {wanted.output}\n")
        show(answer, form, ranks=wanted.ranks)
    if launch is not None and wanted.emit is not None:
        sys.stdout.flush()
        say(*launch, sys.stderr, wanted.emit)


def _refuse_idle(wanted: Wanted) -> None:
    """Raise ``BadInput`` for options that would do nothing."""
    idle = [("--name", wanted.name), ("--namespace", wanted.namespace), ("--image", wanted.image)]
    for option, value in [*idle, ("--target", None if wanted.target == DEFAULT_TARGET else wanted.target)]:
        if value is not None and wanted.emit is None:
            raise BadInput("is for --emit", path=option, hint=f"add --emit DIR, or use 'planner emit PLAN {option} {value}'")
    if wanted.inline and wanted.output is None:
        raise BadInput("is for -o", path="--inline")


def _named(question: Question) -> str | None:
    """How the topology can be found again: not by its name alone where the GPUs were named beside it."""
    return question.topology if question.gpu is None else None


def show(answer: Recommendation, form: Format, *, ranks: bool = False) -> None:
    """Write the answer; exit with 1 where nothing fits."""
    if form is Format.json:
        from planner.render import json

        sys.stdout.write(json.write(json.recommendation(answer)))
    else:
        from planner.render import table

        table.recommendation(answer, ranks=ranks)
    if not answer.plans:
        sys.stdout.flush()
        raise typer.Exit(ExitCode.NO)
