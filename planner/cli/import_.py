"""planner import"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from planner.cli.guard import guarded
from planner.cli.launch_options import STDOUT, Force
from planner.cli.options import (
    MOST,
    Format,
    FormatOption,
    Gpu,
    InputTokens,
    ObjectiveName,
    ObjectiveOption,
    OutputTokens,
    Quant,
    TopologyReference,
)
from planner.cli.traffic import DEFAULT_CONCURRENCY, Acceptance, Traffic, workload_of
from planner.errors import BadInput, ExitCode


@guarded
def import_(
    launch: Annotated[
        list[str],
        typer.Argument(
            metavar="LAUNCH",
            help="What starts servers of vLLM, SGLang, TensorRT-LLM or TGI: scripts, systemd units, compose files, Kubernetes manifests "
            "(of several nodes in the order of ranks; - for stdin); or after -- the command itself.",
            show_default=False,
        ),
    ],
    topology: TopologyReference = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Which model it is, or where its config.json is, if the name in the launch does not say.",
            show_default=False,
        ),
    ] = None,
    input_tokens: InputTokens = 1024,
    output_tokens: OutputTokens = 256,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=MOST, help="Requests in flight, over all replicas together.")
    ] = DEFAULT_CONCURRENCY,
    acceptance: Acceptance = None,
    objective: ObjectiveOption = ObjectiveName.throughput,
    quant: Quant = None,
    gpu: Gpu = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Also save the launch as a plan to this YAML file. With - it goes to standard output, and nothing else.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    form: FormatOption = Format.table,
) -> None:
    """Read a launch that you have, say what it will do on a machine, what is wrong with it, and the better plan beside it.

    Exit code 0 if nothing is better by more than 5 %, 1 with the reason if not, 2 for what cannot be read.
    """
    from planner import api
    from planner.core.workload import Objective
    from planner.render import judgement

    machine = api.find_topology(topology, gpu=gpu)
    best: Objective = "latency" if objective is ObjectiveName.latency else "throughput"
    workload = workload_of(Traffic(input_tokens, output_tokens, str(concurrency)))
    named = topology if gpu is None else None
    answer = api.import_launch(
        launch, machine, workload, model=model, quant=quant, reference=named, objective=best, acceptance=acceptance
    )
    if output is not None and answer.saved is None:
        raise BadInput(f"is no plan to save: {answer.found.problems[0]}", path="the launch")
    if output is not None and output != STDOUT and answer.saved is not None:
        api.save_text(api.plan_yaml(answer.saved), Path(output), force=force)
        sys.stderr.write(f"wrote {output}\n")
    if output == STDOUT and answer.saved is not None:
        sys.stdout.write(api.plan_yaml(answer.saved))
    elif form is Format.json:
        from planner.render import json

        document = judgement.imported(answer.model, answer.plan, answer.engine, answer.found, answer.notes)
        sys.stdout.write(json.write(document))
    else:
        judgement.show(answer.model, answer.plan, answer.engine.name, answer.found, notes=answer.notes)
    if not answer.found.stands:
        sys.stdout.flush()
        raise typer.Exit(ExitCode.NO)
