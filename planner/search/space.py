"""Which degrees are legal for a model on a machine, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterator

from planner.core.engine import EngineTraits
from planner.core.hardware import GpuSpec
from planner.core.model import Attention, DenseMlp, LatentAttention, Layer, LinearAttention, Mixer, ModelSpec, kinds
from planner.core.plan import Infeasible, Parallelism
from planner.core.quantization import WeightFormat
from planner.core.workload import Workload

FEW_GPUS = 16
"""Up to here every count of stages and replicas is tried; above, powers of two, divisors, and the most that fit."""
PIPELINE_STAGES = "pipeline-stages"
"""The rule that an engine runs no pipelines as deep."""


def candidates(gpus: int, model: ModelSpec, traits: EngineTraits) -> Iterator[Parallelism]:
    """All degrees that fit ``gpus`` GPUs by number, smaller tensor degrees first."""
    for tensor in range(1, gpus + 1):
        for pipeline in _counts(gpus // tensor, gpus):
            for data in _counts(gpus // (tensor * pipeline), gpus):
                yield Parallelism(tensor, pipeline, data)
                if model.experts:
                    for expert in traits.expert_degrees(tensor, data):
                        yield Parallelism(tensor, pipeline, data, expert)


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


def _too_deep(degrees: Parallelism, engine: str, most: int) -> str:
    what = "has no pipeline parallelism" if most == 1 else f"runs at most {most} pipeline stages"
    return f"{engine} {what}, PP {degrees.pipeline} was asked for: raise TP or DP, or take another engine"


def _format_rules(model: ModelSpec, gpu: GpuSpec) -> Iterator[tuple[str, float, float, str]]:
    least, found = model.weight_format.minimum_capability, gpu.compute_capability
    if found is not None and found < least:
        have, need = float(f"{found[0]}.{found[1]}"), float(f"{least[0]}.{least[1]}")
        message = f"{model.weight_format.name} kernels need compute capability {need}, {gpu.name} has {have}"
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
        together = degrees.tensor * (degrees.data if degrees.attention_data_parallel else 1)
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
    if degrees.expert not in traits.expert_degrees(degrees.tensor, degrees.data):
        known = traits.expert_degrees(degrees.tensor, degrees.data)
        words = ", ".join(str(degree) for degree in known) or "none"
        yield (
            "expert-degree",
            degrees.expert,
            max(known, default=1),
            f"{traits.name} runs EP {words} beside TP {degrees.tensor} × DP {degrees.data}",
        )
    if model.experts % degrees.expert:
        yield "experts", model.experts, degrees.expert, f"{model.experts} experts are not divisible by EP {degrees.expert}"
    if degrees.attention_data_parallel and degrees.pipeline > 1:
        yield "attention-data-parallel", degrees.pipeline, 1, "attention data parallelism is planned with one pipeline stage"


def _context_rules(degrees: Parallelism, model: ModelSpec, traits: EngineTraits) -> Iterator[tuple[str, float, float, str]]:
    """Decode context parallelism shares out what tensor parallelism would hold twice (vLLM config/model.py): the latent, or KV heads
    beyond their number.
    """
    shared, tensor = degrees.decode_context, degrees.tensor
    if shared == 1:
        return
    rule = "decode-context"
    if not traits.decode_context:
        yield rule, 1, shared, f"{traits.name} is not planned with decode context parallelism: take vllm, or DCP 1"
    if tensor % shared:
        yield rule, tensor, shared, f"TP {tensor} is not divisible by DCP {shared}"
    for layer, _ in kinds(model.layers):
        mixer = layer.attention
        if isinstance(mixer, Attention) and mixer.window is None:
            copies = tensor // mixer.kv_heads
            if shared > max(1, copies):
                message = f"TP {tensor} holds {mixer.kv_heads} KV heads {max(1, copies)} times: DCP {shared} has no more copies to share out"
                yield rule, max(1, copies), shared, message
            elif mixer.query_heads // mixer.kv_heads % shared:
                each = mixer.query_heads // mixer.kv_heads
                yield rule, each, shared, f"{each} query heads a KV head are not divisible by DCP {shared}"
        elif not isinstance(mixer, LatentAttention | None) or (isinstance(mixer, LatentAttention) and mixer.indexer is not None):
            yield (
                rule,
                1,
                shared,
                "decode context parallelism is planned for full and latent attention alone: no windows, no states, no indexer",
            )
