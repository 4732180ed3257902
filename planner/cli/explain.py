"""planner explain"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from planner.cli.answer import Question, show, understood
from planner.cli.guard import guarded
from planner.cli.options import (
    MODEL_HELP,
    MOST,
    CacheName,
    CacheOption,
    ContextDegree,
    DataDegree,
    EngineOption,
    ExpertDegree,
    Format,
    FormatOption,
    Gpu,
    InputTokens,
    ObjectiveName,
    ObjectiveOption,
    OutputTokens,
    PipelineDegree,
    PromptDegree,
    Quant,
    TensorDegree,
    TopologyReference,
    TpotTarget,
    TtftTarget,
)
from planner.cli.traffic import (
    Acceptance,
    CachedShare,
    DraftModel,
    DraftTokens,
    Guess,
    Guessing,
    InFlight,
    RequestRate,
    StaticBatch,
    TargetPercentile,
    Traffic,
)
from planner.errors import BadInput


@guarded
def explain(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False),
    ] = None,
    topology: TopologyReference = None,
    tensor: TensorDegree = 1,
    pipeline: PipelineDegree = 1,
    data: DataDegree = 1,
    expert: ExpertDegree = 1,
    context: ContextDegree = 1,
    prompts: PromptDegree = 1,
    input_tokens: InputTokens = 1024,
    output_tokens: OutputTokens = 256,
    concurrency: InFlight = None,
    request_rate: RequestRate = None,
    batch: StaticBatch = None,
    cached: CachedShare = 0.0,
    speculative: Guessing = None,
    draft_tokens: DraftTokens = None,
    acceptance: Acceptance = None,
    draft_model: DraftModel = None,
    ttft_ms: TtftTarget = None,
    tpot_ms: TpotTarget = None,
    percentile: TargetPercentile = None,
    objective: ObjectiveOption = ObjectiveName.throughput,
    engine: EngineOption = "vllm",
    quant: Quant = None,
    cache: CacheOption = CacheName.auto,
    gpu: Gpu = None,
    depth: Annotated[
        int | None,
        typer.Option("--depth", min=1, max=MOST, help="How many levels of the tree to show.", show_default=False),
    ] = None,
    formulas: Annotated[bool, typer.Option("--formulas", help="List every formula of the cost model instead.")] = False,
    form: FormatOption = Format.table,
) -> None:
    """Take an estimate apart: from TPOT, TTFT, throughput and memory down to formulas, with what went in.

    The options are those of estimate. Exit code 0 with the tree, 1 if the layout does not fit, 2 for bad input.
    """
    from planner import api
    from planner.render import explanation as render

    if formulas:
        if model is not None:
            raise BadInput("lists all formulas, whatever the model", path="--formulas", hint="leave out MODEL, or --formulas")
        _write(render.formulas_document(api.formulas())) if form is Format.json else render.formulas(api.formulas())
        return
    if model is None:
        raise BadInput("no model", path="MODEL", hint="planner explain llama-3.1-70b -t dgx-h100 --tp 8, or --formulas")
    from planner.core.plan import Parallelism

    guess = Guess(speculative, draft_tokens, acceptance, draft_model)
    traffic = Traffic(input_tokens, output_tokens, concurrency, request_rate, batch, cached, ttft_ms, tpot_ms, percentile, guess)
    question = Question(model, topology, traffic, objective, engine, quant, gpu, cache.value)
    spec, machine, workload, by = understood(question)
    degrees = Parallelism(tensor, pipeline, data, expert, context, prompts)
    answer, tree = api.explain(spec, machine, workload, degrees, engine=engine, objective=by)
    if tree is None:  # the refusal is what there is to explain
        show(answer, form)
    elif form is Format.json:
        _write(render.explanation_document(answer, tree, depth))
    else:
        render.explanation(answer, tree, depth)


def _write(document: dict[str, object]) -> None:
    from planner.render import json

    sys.stdout.write(json.write(document))
