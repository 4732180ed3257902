"""The memory of one GPU of a stage put together: what a step takes, what an engine keeps, what is left, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.core.engine import BudgetRule, EngineTraits, MemoryRules
from planner.core.estimate import StageMemory
from planner.core.model import Layer, ModelSpec, MoeMlp, kinds
from planner.core.plan import EngineLimits, Parallelism
from planner.cost import memory
from planner.units import Bytes

FORWARD, SAMPLER = "forward pass", "sampler"
WORKSPACE, REQUESTS = "workspace of experts", "table of requests"
"""Parts of what a step takes: one or the other of the first two, and beside it the others."""
_LONGEST_REQUEST = 2**17
"""Positions a table of requests is sized for before the longest request of a plan is known."""


def activation_parts(
    model: ModelSpec, layers: Sequence[Layer], rules: MemoryRules, limits: EngineLimits, degrees: Parallelism, *, last: bool
) -> dict[str, Bytes]:
    """What a stage takes for a step, by part: the forward pass or, on the last stage, the sampler, whichever is more; beside that
    the buffers of experts and the table of requests.
    """
    tokens, tensor, hidden = limits.max_batched_tokens, degrees.tensor, model.hidden_size
    different = [layer for layer, _ in kinds(layers)]
    if rules.forward == "by-layer":
        width = max((_dense_width(layer) / tensor for layer in different), default=0.0)
        parts = {FORWARD: memory.layer_activation(tokens, hidden, width)}
    else:
        parts = {FORWARD: memory.forward_activation(tokens, hidden, tensor)}
    if last:
        parts[SAMPLER] = memory.sampler_activation(
            limits.max_sequences, model.vocabulary_size, rules.sampler_base, rules.sampler_bytes_per_logit
        )
    slices = max(1, memory.expert_shards(degrees) // degrees.expert)
    parts[WORKSPACE] = Bytes(
        max(
            (
                memory.expert_workspace(
                    tokens, mlp.experts_per_token, mlp.width(hidden), mlp.intermediate_size / slices, gated=mlp.gated
                )
                for mlp in (layer.mlp for layer in different)
                if isinstance(mlp, MoeMlp)
            ),
            default=0.0,
        )
    )
    # while a plan is searched for, its limits do not say yet how long the longest request is
    positions = limits.max_model_tokens or min(model.max_positions, _LONGEST_REQUEST)
    parts[REQUESTS] = Bytes(rules.request_table * limits.max_sequences * positions)
    return parts


def _dense_width(layer: Layer) -> float:
    """What a token takes within the dense feed-forward block of a layer, shared experts included."""
    mlp = layer.mlp.shared if isinstance(layer.mlp, MoeMlp) else layer.mlp
    return 0.0 if mlp is None else (2 + mlp.gated) * mlp.intermediate_size


def stage_activation(parts: Mapping[str, Bytes]) -> Bytes:
    """Activation peak of a stage out of its :func:`activation_parts`."""
    return Bytes(max(parts[FORWARD], parts.get(SAMPLER, 0.0)) + parts[WORKSPACE] + parts[REQUESTS])


def stage_graphs(rules: MemoryRules, layers: Sequence[Layer], tensor: int) -> Bytes:
    """CUDA graphs of a stage that holds ``layers``."""
    experts = sum(count for layer, count in kinds(layers) if isinstance(layer.mlp, MoeMlp))
    return memory.cuda_graphs(len(layers), tensor, rules.cuda_graphs, experts, rules.cuda_graphs_expert_layer)


def spread(size: Bytes, shares: tuple[float, float]) -> tuple[Bytes, Bytes]:
    """Between which sizes a part lies, from its share of what is predicted."""
    return Bytes(shares[0] * size), Bytes(shares[1] * size)


def stage_on_gpu(
    capacity: Bytes,
    fraction: float,
    weights: Bytes,
    activation: Bytes,
    context: Bytes,
    graphs: Bytes,
    rules: MemoryRules,
    rule: BudgetRule,
) -> StageMemory:
    """Memory of one GPU of a stage with its ranges; ``context`` are its context and communication buffers. The cache is what the
    budget leaves, negative where the rest does not fit.
    """
    ranges = rules.ranges
    steps = spread(activation, ranges.activation)
    contexts = spread(context, ranges.buffers)
    captured = spread(graphs, ranges.cuda_graphs)

    def left(step: Bytes, buffer: Bytes, graph: Bytes) -> Bytes:
        return memory.kv_budget(
            capacity, fraction, weights, step, Bytes(buffer + graph * rules.graphs_in_budget), rule, before_loading=buffer
        )

    return StageMemory(
        weights,
        left(activation, context, graphs),
        activation,
        Bytes(context + graphs),
        capacity,
        kv_cache_range=(left(steps[1], contexts[1], captured[1]), left(steps[0], contexts[0], captured[0])),
        activation_range=steps,
        overhead_range=(Bytes(contexts[0] + captured[0]), Bytes(contexts[1] + captured[1])),
    )


def tight_note(
    stages: Sequence[StageMemory],
    layers_of: Sequence[Sequence[Layer]],
    model: ModelSpec,
    tokens: int,
    degrees: Parallelism,
    limits: EngineLimits,
    traits: EngineTraits,
) -> str | None:
    """A warning where a request of ``tokens`` fits on every stage, yet by less than what is not sure of activations, buffers and
    graphs; ``None`` where there is room enough.
    """
    worst: tuple[float, float] | None = None
    for stage, layers in zip(stages, layers_of, strict=True):
        one = memory.request_bytes(layers, model, tokens, degrees, limits, traits)
        room, unsure = stage.kv_cache - one, stage.kv_cache - stage.kv_cache_range[0]
        if room < unsure and (worst is None or room - unsure < worst[0] - worst[1]):
            worst = room, unsure
    if worst is None:
        return None
    room, unsure = worst
    return f"memory is tight: one request fits by {room / 2**30:.1f} GiB, less than the uncertainty of {unsure / 2**30:.1f} GiB"
