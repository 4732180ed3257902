"""A strategy (degrees, layer partition, engine limits) priced as far as it can be before any GPU is chosen.

What remains open is the wires: :mod:`planner.cost.placed` adds them for one placement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.core.engine import EngineTraits
from planner.core.estimate import StageMemory
from planner.core.hardware import GpuSpec
from planner.core.model import LatentAttention, Layer, Mixer, ModelSpec, MoeMlp, kinds
from planner.core.plan import EngineLimits, Infeasible, Parallelism
from planner.core.workload import Workload
from planner.cost import memory, pipeline
from planner.cost.calibration import Calibration
from planner.cost.drafting import drafting_layers, drafting_time, with_drafting
from planner.cost.layer import Chunks, LayerCost, cut
from planner.cost.serving import tokens_per_iteration
from planner.cost.stage_memory import activation_parts, stage_activation, stage_graphs, stage_on_gpu
from planner.units import Bytes, Seconds

HIDDEN_BYTES = 2
SUM_BYTES = 4


@dataclass(frozen=True, slots=True)
class StageWork:
    """One stage's work on one GPU without communication, and how many all-reduces go with it.

    ``decode`` and ``prefill`` are seconds by part, of a decode step and of a whole prompt alone; ``riding`` is what a
    whole prompt adds to the decode steps it shares. The counts are of one decode step, and of one chunk of a prompt.
    ``exchanges`` are all-reduces over the whole expert group, ``contexts`` the layers of each kind of attention whose partial
    results ranks exchange because they share out the cache, or of attention and experts before which they bring a batch together.
    ``norm_sums`` are layers whose norms ranks sum, ``draft_passes`` and ``draft_all_reduces`` what guessing tokens takes on the
    wires.
    """

    decode: dict[str, Seconds]
    prefill: dict[str, Seconds]
    riding: Seconds
    all_reduces: int
    exchanges: int
    contexts: tuple[tuple[Mixer | MoeMlp, int], ...]
    last: bool
    norm_sums: int = 0
    draft_passes: int = 0
    draft_all_reduces: int = 0

    @property
    def decode_total(self) -> Seconds:
        """A decode step without communication."""
        return Seconds(sum(self.decode.values()))

    @property
    def prefill_total(self) -> Seconds:
        """A whole prompt without communication."""
        return Seconds(sum(self.prefill.values()))


@dataclass(frozen=True)
class Strategy:
    """Degrees, partition, limits, memory, and the work of each stage.

    ``requests`` run at once on one replica, ``offered`` are in flight there; ``batch`` is a decode micro-batch.
    """

    parallelism: Parallelism
    partition: tuple[int, ...]
    limits: EngineLimits
    workload: Workload
    model: ModelSpec
    traits: EngineTraits
    calibration: Calibration
    memory: tuple[StageMemory, ...]
    kv_cache_tokens: int
    max_concurrency: int
    offered: float
    requests: int
    micro_batches: int
    batch: int
    chunks: Chunks
    stages: tuple[StageWork, ...]
    vendor: str

    @property
    def step_overhead(self) -> Seconds:
        """What the engine adds to a decode step of all requests, its layers apart."""
        return self.calibration.overhead(self.traits.stack).of_step(self.requests)

    @property
    def slower(self) -> float:
        """How many times as long kernels and wires take as priced: 1, or what runs on another vendor's GPUs say."""
        return self.calibration.slower.get(self.vendor, 1.0)

    @property
    def held_up(self) -> float:
        """How many times as long as its kernels take on this vendor's GPUs a prompt keeps the others from decoding."""
        return self.slower * self.calibration.overhead(self.traits.stack).interference

    @property
    def interference(self) -> float:
        """Prompts of others that hold up one token of an answer in the mean, each with all its chunks; the first waits for its own."""
        output = self.workload.output_tokens
        return 0.0 if self.workload.load == "batch" or output == 1 else (self.requests - 1) / output

    @property
    def tokens_a_step(self) -> float:
        """Tokens that a decode step yields for each sequence: one, and the guesses that are right."""
        guess = self.workload.speculation
        return 1.0 if guess is None else tokens_per_iteration(guess.acceptance, guess.draft_tokens)

    @property
    def weights_read(self) -> float:
        """The share that weights have in what a decode step reads with as many requests as fit: the rest is their cache."""
        kept = self.workload.mean_context / self.workload.total_tokens
        return min(stage.weights / (stage.weights + kept * stage.kv_cache) for stage in self.memory)

    @property
    def room(self) -> int:
        """Requests that can run at once on one replica."""
        return max(1, min(self.max_concurrency, self.limits.max_sequences))

    @property
    def step_tokens(self) -> int:
        """Tokens of one decode micro-batch: one of each sequence, or those that are verified together."""
        return self.batch * self.workload.verified

    @property
    def decode_bytes(self) -> Bytes:
        """Hidden states of one decode micro-batch: the message of an all-reduce."""
        return self.chunk_bytes(self.step_tokens)

    @staticmethod
    def norm_bytes(tokens: int) -> Bytes:
        """Sums of squares of the queries and of the keys of ``tokens`` tokens: the message where tensor ranks sum their norms."""
        return Bytes(tokens * 2 * SUM_BYTES)

    @property
    def draft_bytes(self) -> Bytes:
        """Hidden states of one token of each sequence of a micro-batch: the message of an all-reduce while tokens are guessed."""
        return Bytes(self.batch * self.model.hidden_size * HIDDEN_BYTES)

    @property
    def draft_logits_bytes(self) -> Bytes:
        """Logits of one guess for each sequence of a micro-batch."""
        return Bytes(self.batch * self.model.vocabulary_size * HIDDEN_BYTES)

    def chunk_bytes(self, tokens: int) -> Bytes:
        """Hidden states of one chunk of a prompt, or of one tensor group's share of it."""
        groups = self.parallelism.prefill_context
        return Bytes(-(-tokens // groups) * self.model.hidden_size * HIDDEN_BYTES)

    @property
    def logits_bytes(self) -> Bytes:
        """Logits of one decode micro-batch, gathered over the tensor ranks of the last stage."""
        return Bytes(self.step_tokens * self.model.vocabulary_size * HIDDEN_BYTES)


def stages_of(model: ModelSpec, partition: Sequence[int]) -> list[tuple[Layer, ...]]:
    """The layers of each stage."""
    stages, start = [], 0
    for count in partition:
        stages.append(model.layers[start : start + count])
        start += count
    return stages


def stage_memory(
    model: ModelSpec,
    parallelism: Parallelism,
    partition: Sequence[int],
    limits: EngineLimits,
    gpu_memory: Bytes,
    traits: EngineTraits,
    *,
    nvlink: bool,
) -> list[StageMemory]:
    """Memory of one GPU of each stage; the KV cache is what the engine's budget leaves, negative where it does not fit."""
    stages = []
    last_stage = len(partition) - 1
    for number, layers in enumerate(stages_of(model, partition)):
        weights = memory.stage_weights(
            model,
            layers,
            parallelism,
            first=number == 0,
            last=number == last_stage,
            multiple=traits.vocabulary_multiple,
        )
        total = Bytes(sum(weights.values()))
        tensor = parallelism.tensor
        rules = traits.memory
        parts = activation_parts(model, layers, rules, limits, parallelism, last=number == last_stage)
        stages.append(
            stage_on_gpu(
                gpu_memory,
                limits.memory_fraction,
                total,
                stage_activation(parts),
                memory.buffers(rules, memory.expert_shards(parallelism), nvlink=nvlink),
                stage_graphs(rules, layers, tensor),
                rules,
                traits.budget_rule,
            )
        )
    return stages


def price_strategy(
    model: ModelSpec,
    workload: Workload,
    parallelism: Parallelism,
    partition: tuple[int, ...],
    limits: EngineLimits,
    gpu: GpuSpec,
    gpu_memory: Bytes,
    traits: EngineTraits,
    calibration: Calibration,
    *,
    nvlink: bool,
) -> Strategy | Infeasible:
    """The strategy with memory and work of every stage, or why it does not fit.

    ``gpu`` and ``gpu_memory`` are those of the weakest GPU of the plan. ``nvlink`` says whether the machine has any.
    """
    stages = stage_memory(model, parallelism, partition, limits, gpu_memory, traits, nvlink=nvlink)
    layers_of = stages_of(model, partition)
    drafting = drafting_layers(model, workload.speculation)
    if drafting:
        stages[-1] = with_drafting(stages[-1], model, drafting, parallelism)
        layers_of[-1] = (*layers_of[-1], *drafting)
    refusal = _memory_refusal(model, workload, parallelism, layers_of, limits, stages, traits)
    if refusal is not None:
        return refusal
    tensor, chunk = parallelism.tensor, limits.max_batched_tokens
    element, grouped = model.kv_element_bytes, traits.cache_groups
    held = workload.input_tokens + math.ceil(traits.answer_reserved * workload.output_tokens)
    ranks = parallelism.decode_context
    need = memory.rounded_tokens(-(-held // ranks), traits.block_tokens)
    room = min(
        int(stage.kv_cache // memory.kv_bytes(layers, tensor, need, chunk, element, grouped=grouped))
        for stage, layers in zip(stages, layers_of, strict=True)
        if any(layer.attention for layer in layers)
    )
    most = max(1, min(room, limits.max_sequences))
    offered = most if workload.load == "full" else workload.concurrency / parallelism.data
    requests = min(math.ceil(offered), most)
    tokens = min(
        (
            int((stage.kv_cache - requests * memory.state_bytes(layers, tensor)) // each)
            for stage, layers in zip(stages, layers_of, strict=True)
            if (each := memory.kv_bytes_of_token(layers, tensor, element, grouped=grouped))
        ),
        default=room * need,
    )
    static = workload.load == "batch"
    micro_batches = 1 if static and not traits.static_in_turn else min(requests, parallelism.pipeline)
    batch = pipeline.micro_batch(requests, micro_batches)
    chunks = cut(workload.new_tokens, limits.max_batched_tokens, requests if static else 1, workload.cached_tokens)
    cost = LayerCost(model, parallelism, gpu, calibration, calibration.overhead(traits.stack))
    return Strategy(
        parallelism=parallelism,
        partition=partition,
        limits=limits,
        workload=workload,
        model=model,
        traits=traits,
        calibration=calibration,
        memory=tuple(stages),
        kv_cache_tokens=tokens // traits.block_tokens * traits.block_tokens * ranks,
        max_concurrency=room,
        offered=offered,
        requests=requests,
        micro_batches=micro_batches,
        batch=batch,
        chunks=chunks,
        stages=tuple(
            _work(cost, layers, batch, workload, chunks, drafting, first=number == 0, last=number == len(partition) - 1)
            for number, layers in enumerate(stages_of(model, partition))
        ),
        vendor=gpu.vendor,
    )


def _work(
    cost: LayerCost,
    layers: Sequence[Layer],
    batch: int,
    workload: Workload,
    chunks: Chunks,
    drafting: Sequence[Layer],
    *,
    first: bool,
    last: bool,
) -> StageWork:
    degrees, context, verified = cost.parallelism, workload.mean_context, workload.verified
    decode: dict[str, float] = {}
    prefill: dict[str, float] = {}
    riding = 0.0
    all_reduces = exchanges = norm_sums = 0
    contexts: dict[Mixer | MoeMlp, int] = {}
    for layer, count in kinds(layers):
        for part, time in cost.decode(layer, batch, context, verified).items():
            decode[part] = decode.get(part, 0.0) + count * time
        for part, time in cost.prefill(layer, chunks).items():
            prefill[part] = prefill.get(part, 0.0) + count * time
        riding += count * cost.riding(layer, chunks, batch * verified)
        exchanged = degrees.attention_data_parallel and isinstance(layer.mlp, MoeMlp)
        exchanges += count * exchanged
        all_reduces += count * (layer.reductions - exchanged)
        norm_sums += count * layer.sums_norms
        if layer.attention is not None and degrees.decode_context > 1:
            contexts[layer.attention] = contexts.get(layer.attention, 0) + count
        if degrees.prefill_context > 1:
            for split in (layer.attention, layer.mlp):
                if isinstance(split, LatentAttention | MoeMlp):
                    contexts[split] = contexts.get(split, 0) + count
    passes = workload.speculation.draft_tokens if workload.speculation is not None and drafting and last else 0
    if last:
        decode["head"] = cost.head(batch * verified)
    if passes:
        decode["drafting"] = drafting_time(cost, drafting, batch, context, passes)
    return StageWork(
        decode={part: Seconds(time) for part, time in decode.items()},
        prefill={part: Seconds(time) for part, time in prefill.items()},
        riding=Seconds(riding),
        all_reduces=(all_reduces + first) * (degrees.tensor > 1),
        exchanges=exchanges,
        contexts=tuple(contexts.items()),
        last=last,
        norm_sums=norm_sums * (degrees.tensor > 1),
        draft_passes=passes,
        draft_all_reduces=passes * sum(layer.reductions for layer in drafting) * (degrees.tensor > 1),
    )


def _memory_refusal(
    model: ModelSpec,
    workload: Workload,
    parallelism: Parallelism,
    layers_of: Sequence[Sequence[Layer]],
    limits: EngineLimits,
    stages: Sequence[StageMemory],
    traits: EngineTraits,
) -> Infeasible | None:
    """Why the poorest stage cannot hold its weights and one request, with the numbers; ``None`` if it can."""
    need_tokens = memory.rounded_tokens(-(-workload.total_tokens // parallelism.decode_context), traits.block_tokens)
    worst: tuple[float, int, Bytes] | None = None
    for number, (stage, layers) in enumerate(zip(stages, layers_of, strict=True)):
        one = memory.kv_bytes(
            layers,
            parallelism.tensor,
            need_tokens,
            limits.max_batched_tokens,
            model.kv_element_bytes,
            grouped=traits.cache_groups,
        )
        short = one - stage.kv_cache
        if short > 0 and (worst is None or short > worst[0]):
            worst = short, number, one
    if worst is None:
        return None
    short, number, one = worst
    stage = stages[number]
    taken = stage.weights + stage.activation + stage.overhead + one
    have = stage.kv_cache + stage.weights + stage.activation + stage.overhead
    where = f"stage {number + 1} of {len(stages)}" if len(stages) > 1 else "each GPU"
    return Infeasible(
        parallelism,
        "memory",
        have=have,
        need=taken,
        unit="bytes",
        message=f"{where} needs {_gib(taken)} (weights {_gib(stage.weights)}, one request's KV cache {_gib(one)}, "
        f"activations {_gib(stage.activation)}, buffers and graphs {_gib(stage.overhead)}); "
        f"the engine's budget is {_gib(have)} of {_gib(stage.capacity)}",
    )


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
