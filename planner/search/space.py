"""Which degrees are legal for a model on a machine, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterator

from planner.core.engine import EngineTraits
from planner.core.hardware import GpuSpec
from planner.core.model import DenseMlp, ModelSpec, kinds
from planner.core.plan import Infeasible, Parallelism
from planner.core.workload import Workload

FEW_GPUS = 16
"""Up to here every count of stages and replicas is tried; above, powers of two, divisors, and the most that fit."""


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
    if degrees.pipeline > len(model.layers):
        yield "layers", len(model.layers), degrees.pipeline, f"{len(model.layers)} layers for {degrees.pipeline} stages"
    for layer, _ in kinds(model.layers):
        yield from _attention_rules(layer.attention.query_heads, layer.attention.kv_heads, tensor)
        yield from _mlp_rules(layer.mlp, model, degrees)
    yield from _expert_rules(degrees, model, traits)


def _format_rules(model: ModelSpec, gpu: GpuSpec) -> Iterator[tuple[str, float, float, str]]:
    least, found = model.weight_format.minimum_capability, gpu.compute_capability
    if found is not None and found < least:
        have, need = float(f"{found[0]}.{found[1]}"), float(f"{least[0]}.{least[1]}")
        message = f"{model.weight_format.name} kernels need compute capability {need}, {gpu.name} has {have}"
        yield "weight-format", have, need, message


def _attention_rules(heads: int, kv_heads: int, tensor: int) -> Iterator[tuple[str, float, float, str]]:
    if heads % tensor:
        yield "attention-heads", heads, tensor, f"{heads} attention heads are not divisible by TP {tensor}"
    elif kv_heads % tensor and tensor % kv_heads:
        yield "kv-heads", kv_heads, tensor, f"{kv_heads} KV heads neither divide nor are divided by TP {tensor}"


def _mlp_rules(mlp: object, model: ModelSpec, degrees: Parallelism) -> Iterator[tuple[str, float, float, str]]:
    if isinstance(mlp, DenseMlp):
        size, shards, what = mlp.intermediate_size, degrees.tensor, "intermediate size"
    else:
        size, what = getattr(mlp, "intermediate_size", 1), "expert intermediate size"
        together = degrees.tensor * (degrees.data if degrees.attention_data_parallel else 1)
        shards = max(1, together // degrees.expert)
    multiple = model.weight_format.shard_multiple
    if size % shards:
        yield "intermediate-size", size, shards, f"{what} {size} is not divisible by {shards}"
    elif shards > 1 and size // shards % multiple:
        share = size // shards
        message = f"{what} {size} over {shards} ranks is {share}, no multiple of {model.weight_format.name}'s block of {multiple}"
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
