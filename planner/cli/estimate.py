"""planner estimate"""

from __future__ import annotations

from planner.cli.answer import Question, Wanted, ask, deliver
from planner.cli.guard import guarded
from planner.cli.launch_options import EmitInto, Force, Image, Inline, Name, Namespace, Ranks, SavePlan, TargetOption
from planner.cli.options import (
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
    Model,
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


@guarded
def estimate(
    model: Model,
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
    guess = Guess(speculative, draft_tokens, acceptance, draft_model)
    traffic = Traffic(input_tokens, output_tokens, concurrency, request_rate, batch, cached, ttft_ms, tpot_ms, percentile, guess)
    question = Question(model, topology, traffic, objective, engine, quant, gpu, cache.value)
    answer, stated = ask(question, degrees=(tensor, pipeline, data, expert, context, prompts))
    wanted = Wanted(output, inline, emit, target, name, namespace, image, force, ranks)
    deliver(question, answer, stated, wanted, form)
