"""Which degrees are legal for a model on a machine, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from planner.core.context import not_shared, not_split
from planner.core.engine import EngineTraits
from planner.core.hardware import GpuSpec
from planner.core.model import Attention, DenseMlp, LatentAttention, Layer, LinearAttention, Mixer, ModelSpec, kinds
from planner.core.plan import Infeasible, Parallelism
from planner.core.quantization import WeightFormat
from planner.core.workload import Workload

FEW_GPUS = 16
"""Up to here every count of stages and replicas is tried; above, powers of two, divisors, and the most that fit."""
DECODE_CONTEXT = "decode-context"
"""The rule that tensor ranks cannot share out the cache."""
PREFILL_CONTEXT = "prefill-context"
"""The rule that tensor groups cannot split prompts."""
PIPELINE_STAGES = "pipeline-stages"
"""The rule that an engine runs no pipelines as deep."""
VENDOR = "vendor"
"""The rule that an engine does not run on GPUs of that vendor."""
_NVIDIA = "NVIDIA"
_NVIDIA_FORMATS = frozenset({"nvfp4"})
"""Formats with kernels on NVIDIA's GPUs alone; elsewhere vLLM 0.33 emulates them (kernels/linear/nvfp4/emulation.py)."""


def candidates(gpus: int, model: ModelSpec, traits: EngineTraits) -> Iterator[Parallelism]:
    """All degrees that fit ``gpus`` GPUs by number, smaller tensor degrees first."""
    for tensor in range(1, gpus + 1):
        for pipeline in _counts(gpus // tensor, gpus):
            for data in _counts(gpus // (tensor * pipeline), gpus):
                yield Parallelism(tensor, pipeline, data)
                if model.experts:
                    for expert in traits.expert_degrees(tensor, data):
                        yield Parallelism(tensor, pipeline, data, expert)


def shared_caches(degrees: Parallelism, model: ModelSpec, traits: EngineTraits) -> Iterator[Parallelism]:
    """The same degrees with every number of tensor ranks that may share out the cache, fewest first."""
    if not_shared(model, traits) is not None:
        return
    for ranks in range(2, degrees.tensor + 1):
        shared = replace(degrees, decode_context=ranks)
        if not any(_context_rules(shared, model, traits)):
            yield shared


def _counts(most: int, gpus: int) -> list[int]:
    """How many stages or replicas to try, of at most ``most``."""
    if gpus <= FEW_GPUS:
        return list(range(1, most + 1))
    return [count for count in range(1, most + 1) if count == most or gpus % count == 0 or count & (count - 1) == 0]


def illegal(
    degrees: Parallelism, model: ModelSpec, workload: Workload, gpu: GpuSpec, gpus: int, traits: EngineTraits
) -> Infeasible | None:
    """The first rule ``degrees`` break, or ``None``."""
    for rule, have, need, message in _broken(degrees, model, workload, gpu, gpus, traits):
        return Infeasible(degrees, rule, have, need, message)
    return None


def _broken(
    degrees: Parallelism, model: ModelSpec, workload: Workload, gpu: GpuSpec, gpus: int, traits: EngineTraits
) -> Iterator[tuple[str, float, float, str]]:
    tensor = degrees.tensor
    if degrees.gpus > gpus:
        yield "gpus", gpus, degrees.gpus, f"{degrees} takes {degrees.gpus} GPUs, there are {gpus}"
    if traits.vendors is not None and gpu.vendor not in traits.vendors:
        known = " and ".join(sorted(traits.vendors, reverse=True))
        yield VENDOR, 0, 1, f"{traits.name} runs on {known} GPUs, {gpu.name} is {gpu.vendor}'s"
    if workload.total_tokens > model.max_positions:
        asked = f"{workload.input_tokens} + {workload.output_tokens} tokens"
        yield "context", model.max_positions, workload.total_tokens, f"{asked}, the model takes {model.max_positions}"
    yield from _format_rules(model, gpu)
    if traits.most_stages is not None and degrees.pipeline > traits.most_stages:
        yield PIPELINE_STAGES, traits.most_stages, degrees.pipeline, _too_deep(degrees, traits.name, traits.most_stages)
    if degrees.pipeline > len(model.layers):
        yield "layers", len(model.layers), degrees.pipeline, f"{len(model.layers)} layers for {degrees.pipeline} stages"
    for layer, _ in kinds(model.layers):
        yield from _attention_rules(layer.attention, tensor)
        if layer.attention is not None:
            rows, stored = layer.attention.output_width(), layer.format_of("attention", model.weight_format)
            yield from _split_rules(rows, tensor, "attention output", stored)
        yield from _mlp_rules(layer, model, degrees)
    yield from _expert_rules(degrees, model, traits)
    yield from _context_rules(degrees, model, traits)
    yield from _prompt_rules(degrees, model, workload, traits)
    if degrees.decode_context > 1 and workload.speculation is not None:
        yield DECODE_CONTEXT, 1, degrees.decode_context, "decode context parallelism is not planned with tokens that are guessed"
    guess = workload.speculation
    if guess is not None and degrees.pipeline > 1 and guess.method not in traits.pipelined_speculation:
        yield "speculation", 1, degrees.pipeline, f"{traits.name} guesses tokens by {guess.method} without pipeline stages only"


def _too_deep(degrees: Parallelism, engine: str, most: int) -> str:
    what = "has no pipeline parallelism" if most == 1 else f"runs at most {most} pipeline stages"
    return f"{engine} {what}, PP {degrees.pipeline} was asked for: raise TP or DP, or take another engine"


def _format_rules(model: ModelSpec, gpu: GpuSpec) -> Iterator[tuple[str, float, float, str]]:
    least, found, name = model.weight_format.minimum_capability, gpu.compute_capability, model.weight_format.name
    if name in _NVIDIA_FORMATS and gpu.vendor != _NVIDIA:
        yield "weight-format", 0, 1, f"{name} kernels need {_NVIDIA} GPUs, {gpu.name} is {gpu.vendor}'s"
    if found is not None and found < least:
        have, need = float(f"{found[0]}.{found[1]}"), float(f"{least[0]}.{least[1]}")
        message = f"{name} kernels need compute capability {need}, {gpu.name} has {have}"
        yield "weight-format", have, need, message


def _attention_rules(mixer: Mixer | None, tensor: int) -> Iterator[tuple[str, float, float, str]]:
    """Query heads are split. KV heads and Mamba's groups are split or replicated; a latent is shared by all heads, so whole."""
    if isinstance(mixer, Attention):
        yield from _head_rules(mixer.query_heads, mixer.kv_heads, "attention heads", "KV heads", tensor)
    elif isinstance(mixer, LatentAttention):
        yield from _head_rules(mixer.query_heads, 1, "attention heads", "latents", tensor)
    elif isinstance(mixer, LinearAttention):
        yield from _head_rules(mixer.value_heads, mixer.key_heads, "linear-attention heads", "key heads or groups", tensor)


def _head_rules(heads: int, fewer: int, what: str, which: str, tensor: int) -> Iterator[tuple[str, float, float, str]]:
    if heads % tensor:
        yield "attention-heads", heads, tensor, f"{heads} {what} are not divisible by TP {tensor}"
    elif fewer % tensor and tensor % fewer:
        yield "kv-heads", fewer, tensor, f"{fewer} {which} neither divide nor are divided by TP {tensor}"


def _mlp_rules(layer: Layer, model: ModelSpec, degrees: Parallelism) -> Iterator[tuple[str, float, float, str]]:
    mlp, stored = layer.mlp, model.weight_format
    if isinstance(mlp, DenseMlp):
        size = mlp.intermediate_size
        yield from _split_rules(size, degrees.tensor, "intermediate size", layer.format_of("mlp", stored))
    elif mlp is not None:
        together = degrees.gpus_per_stage * (degrees.data if degrees.attention_data_parallel else 1)
        slices = max(1, together // degrees.expert)
        kept = layer.format_of("experts", stored)
        yield from _split_rules(mlp.intermediate_size, slices, "expert intermediate size", kept)
        if mlp.shared is not None:
            size, kept = mlp.shared.intermediate_size, layer.format_of("shared_experts", stored)
            yield from _split_rules(size, degrees.tensor, "shared expert's intermediate size", kept)


def _split_rules(size: int, shards: int, what: str, stored: WeightFormat) -> Iterator[tuple[str, float, float, str]]:
    multiple = stored.shard_multiple
    if size % shards:
        yield "intermediate-size", size, shards, f"{what} {size} is not divisible by {shards}"
    elif shards > 1 and stored.expert_multiples[0] == 1 and size // shards % multiple:
        share = size // shards
        message = f"{what} {size} over {shards} ranks is {share}, no multiple of {stored.name}'s block of {multiple}"
        yield "quantisation-block", share, multiple, message


def _expert_rules(degrees: Parallelism, model: ModelSpec, traits: EngineTraits) -> Iterator[tuple[str, float, float, str]]:
    if degrees.expert == 1:
        return
    if not model.experts:
        yield "experts", 0, degrees.expert, "the model has no experts to spread"
        return
    known = traits.expert_degrees(degrees.gpus_per_stage, degrees.data)
    if degrees.expert not in known:
        words = ", ".join(str(degree) for degree in known) or "none"
        yield (
            "expert-degree",
            degrees.expert,
            max(known, default=1),
            f"{traits.name} runs EP {words} beside TP {degrees.tensor} × DP {degrees.data}{_beside(degrees)}",
        )
    if model.experts % degrees.expert:
        yield "experts", model.experts, degrees.expert, f"{model.experts} experts are not divisible by EP {degrees.expert}"
    if degrees.attention_data_parallel and degrees.pipeline > 1:
        yield "attention-data-parallel", degrees.pipeline, 1, "attention data parallelism is planned with one pipeline stage"


def _beside(degrees: Parallelism) -> str:
    return f" × PCP {degrees.prefill_context}" if degrees.prefill_context > 1 else ""


def _prompt_rules(
    degrees: Parallelism, model: ModelSpec, workload: Workload, traits: EngineTraits
) -> Iterator[tuple[str, float, float, str]]:
    """Prefill context parallelism as vLLM takes it (v1/worker/gpu/pcp_manager.py), and as far as it is planned."""
    groups = degrees.prefill_context
    if groups == 1:
        return
    refused = not_split(model, traits)
    if refused is not None:
        yield PREFILL_CONTEXT, 1, groups, refused
    beside = {
        "pipeline stages": degrees.pipeline,
        "replicas that share their experts": degrees.data if degrees.attention_data_parallel else 1,
        "decode context parallelism": degrees.decode_context,
    }
    for what, degree in beside.items():
        if degree > 1:
            yield PREFILL_CONTEXT, 1, degree, f"prefill context parallelism is not planned with {what}"
    if workload.speculation is not None:
        yield PREFILL_CONTEXT, 1, groups, "prefill context parallelism is not planned with tokens that are guessed"


def _context_rules(degrees: Parallelism, model: ModelSpec, traits: EngineTraits) -> Iterator[tuple[str, float, float, str]]:
    """Decode context parallelism shares out what tensor parallelism would hold twice (vLLM config/model.py, SGLang srt/layers/dcp): the
    latent, or KV heads beyond their number.
    """
    shared, tensor = degrees.decode_context, degrees.tensor
    if shared == 1:
        return
    refused = not_shared(model, traits)
    if refused is not None:
        yield DECODE_CONTEXT, 1, shared, f"{refused}: take vllm, or DCP 1" if traits.name != "vllm" else refused
    if tensor % shared:
        yield DECODE_CONTEXT, tensor, shared, f"TP {tensor} is not divisible by DCP {shared}"
    for layer, _ in kinds(model.layers):
        mixer = layer.attention
        if not isinstance(mixer, Attention):
            continue
        copies, each = max(1, tensor // mixer.kv_heads), mixer.query_heads // mixer.kv_heads
        if shared > copies:
            message = f"TP {tensor} holds {mixer.kv_heads} KV heads {copies} times: DCP {shared} has no more copies to share out"
            yield DECODE_CONTEXT, copies, shared, message
        elif each % shared:
            yield DECODE_CONTEXT, each, shared, f"{each} query heads a KV head are not divisible by DCP {shared}"
