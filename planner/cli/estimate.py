"""planner estimate"""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.answer import Question, Wanted, ask, deliver
from planner.cli.guard import guarded
from planner.cli.launch_options import EmitInto, Force, Image, Inline, Name, Namespace, Ranks, SavePlan, TargetOption
from planner.cli.options import (
    MOST,
    Concurrency,
    EngineOption,
    Format,
    FormatOption,
    Gpu,
    InputTokens,
    Model,
    ObjectiveName,
    ObjectiveOption,
    OutputTokens,
    Quant,
    TopologyReference,
    TpotTarget,
    TtftTarget,
)


@guarded
def estimate(
    model: Model,
    topology: TopologyReference = None,
    tensor: Annotated[int, typer.Option("--tp", "--tensor-parallel-size", min=1, max=MOST, help="Tensor-parallel size.")] = 1,
    pipeline: Annotated[
        int, typer.Option("--pp", "--pipeline-parallel-size", min=1, max=MOST, help="Pipeline-parallel size.")
    ] = 1,
    data: Annotated[int, typer.Option("--dp", "--data-parallel-size", min=1, max=MOST, help="Replicas.")] = 1,
    expert: Annotated[int, typer.Option("--ep", "--expert-parallel-size", min=1, max=MOST, help="Expert-parallel size.")] = 1,
    input_tokens: InputTokens = 1024,
    output_tokens: OutputTokens = 256,
    concurrency: Concurrency = 32,
    ttft_ms: TtftTarget = None,
    tpot_ms: TpotTarget = None,
    objective: ObjectiveOption = ObjectiveName.throughput,
    engine: EngineOption = "vllm",
    quant: Quant = None,
    gpu: Gpu = None,
    output: SavePlan = None,
    inline: Inline = False,
    emit: EmitInto = None,
    target: TargetOption = "shell",
    name: Name = None,
    namespace: Namespace = None,
    image: Image = None,
    force: Force = False,
    ranks: Ranks = False,
    form: FormatOption = Format.table,
) -> None:
    """Price one TP x PP x DP (x EP) layout of MODEL on a machine, placed as well as can be.

    Exit code 0 with the estimate, 1 if it does not fit, 2 for bad input.
    """
    question = Question(
        model, topology, input_tokens, output_tokens, concurrency, ttft_ms, tpot_ms, objective, engine, quant, gpu
    )
    answer, stated = ask(question, degrees=(tensor, pipeline, data, expert))
    wanted = Wanted(output, inline, emit, target, name, namespace, image, force, ranks)
    deliver(question, answer, stated, wanted, form)
