"""What recommend and estimate share: from options to an answer, and from an answer to the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import typer

from planner.cli.options import Format, ObjectiveName
from planner.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from planner.core.workload import Objective
    from planner.search.recommendation import Recommendation


@dataclass(frozen=True)
class Question:
    """The options as they were given; targets in milliseconds."""

    model: str
    topology: str | None
    input_tokens: int
    output_tokens: int
    concurrency: int
    ttft_ms: float | None
    tpot_ms: float | None
    objective: ObjectiveName
    engine: str
    quant: str | None
    gpu: str | None


def ask(question: Question, *, degrees: tuple[int, int, int, int] | None = None, top: int = 1) -> Recommendation:
    """The recommendation, or with ``degrees`` (tensor, pipeline, data, expert) the estimate of that one layout."""
    from planner import api
    from planner.core.plan import Parallelism
    from planner.core.workload import Workload
    from planner.units import Seconds

    for option, target in (("--ttft-ms", question.ttft_ms), ("--tpot-ms", question.tpot_ms)):
        if target is not None and not isfinite(target):  # some releases of typer let nan pass their bounds
            raise BadInput(f"must be a number of milliseconds, found {target}", path=option)
    model = api.load_model(question.model, quant=question.quant)
    topology = api.find_topology(question.topology, gpu=question.gpu)
    workload = Workload(
        question.input_tokens,
        question.output_tokens,
        question.concurrency,
        None if question.ttft_ms is None else Seconds(question.ttft_ms * 1e-3),
        None if question.tpot_ms is None else Seconds(question.tpot_ms * 1e-3),
    )
    engine = question.engine
    objective: Objective = "latency" if question.objective is ObjectiveName.latency else "throughput"
    if degrees is None:
        return api.recommend(model, topology, workload, engine=engine, objective=objective, top=top)
    return api.estimate(model, topology, workload, Parallelism(*degrees), engine=engine, objective=objective)


def show(answer: Recommendation, form: Format) -> None:
    """Write the answer; exit with 1 where nothing fits."""
    if form is Format.json:
        from planner.render import json

        sys.stdout.write(json.write(json.recommendation(answer)))
    else:
        from planner.render import table

        table.recommendation(answer)
    if not answer.plans:
        sys.stdout.flush()
        raise typer.Exit(ExitCode.NO)
