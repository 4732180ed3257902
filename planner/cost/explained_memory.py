"""The memory of one GPU of every stage as steps."""

from __future__ import annotations

from dataclasses import replace

from planner.core.explanation import Constants, Quantity, Step, added, numbered
from planner.core.model import Layer
from planner.cost import memory
from planner.cost.strategy import Strategy, stages_of
from planner.units import Bytes

_FORMULAS = {
    "attention": "attention_weights",
    "mlp": "mlp_weights",
    "embedding": "vocabulary_table",
    "head": "vocabulary_table",
    "rope": "rope_table",
}


def memory_step(strategy: Strategy, *, nvlink: bool) -> Step:
    """What the engine takes of one GPU of the fullest stage, and of the others."""
    layers_of = stages_of(strategy.model, strategy.partition)
    stages = [_stage(strategy, number, layers, nvlink=nvlink) for number, layers in enumerate(layers_of)]
    if len(stages) == 1:
        return replace(stages[0], name="memory per GPU")
    value = max(stage.value for stage in stages)
    return Step("memory per GPU", value, "B", "max", children=numbered("stage", stages, together=False))


def _stage(strategy: Strategy, number: int, layers: tuple[Layer, ...], *, nvlink: bool) -> Step:
    rules = strategy.traits.memory
    tensor, last = strategy.parallelism.tensor, number == len(strategy.partition) - 1
    parts = memory.stage_weights(
        strategy.model,
        layers,
        strategy.parallelism,
        first=number == 0,
        last=last,
        multiple=strategy.traits.vocabulary_multiple,
    )
    held = tuple(
        Step(name, size, "B", "formula" if name in _FORMULAS else "given", formula=_FORMULAS.get(name))
        for name, size in parts.items()
        if size
    )
    source = (Constants(f"memory rules of {strategy.traits.name}", rules.source, ()),)
    buffers = memory.buffers(rules, tensor, nvlink=nvlink)
    graphs = memory.cuda_graphs(len(layers), tensor, rules.cuda_graphs)
    overhead = (
        Step("context and communication buffers", buffers, "B", "given", constants=source),
        Step("CUDA graphs", graphs, "B", "formula", formula="cuda_graphs", inputs=(Quantity("layers", len(layers)),)),
    )
    return added(
        "stage",
        (
            added("weights", held, unit="B"),
            _cache(strategy, number, layers),
            added("activation", _activation(strategy, last=last), unit="B"),
            added("overhead", tuple(one for one in overhead if one.value), unit="B"),
        ),
        unit="B",
    )


def _cache(strategy: Strategy, number: int, layers: tuple[Layer, ...]) -> Step:
    """What the engine's budget leaves for the KV cache."""
    stage, limits, traits = strategy.memory[number], strategy.limits, strategy.traits
    each = memory.kv_bytes_of_token(
        layers, strategy.parallelism.tensor, strategy.model.kv_element_bytes, grouped=traits.cache_groups
    )
    each = Bytes(each / strategy.parallelism.decode_context)
    asked = (
        Quantity("capacity", stage.capacity, "B"),
        Quantity("memory fraction", limits.memory_fraction),
        Quantity("rule", traits.budget_rule),
        Quantity("one token", each, "B"),
        Quantity("tokens", strategy.kv_cache_tokens),
        Quantity("requests", strategy.max_concurrency),
    )
    source = "the budget less weights, activation and overhead"
    return Step("KV cache", stage.kv_cache, "B", "formula", 1.0, "kv_budget", asked, source=source)


def _activation(strategy: Strategy, *, last: bool) -> tuple[Step, ...]:
    """A forward pass or the sampler, and what the engine keeps beside them."""
    model, limits, rules = strategy.model, strategy.limits, strategy.traits.memory
    tensor = strategy.parallelism.tensor
    bare = replace(rules, request_table=0.0, moe_workspace=type(rules.moe_workspace)(0))
    without_table = replace(rules, request_table=0.0)
    peak = memory.stage_activation(model, bare, limits, tensor, last=last)
    with_workspace = memory.stage_activation(model, without_table, limits, tensor, last=last)
    whole = memory.stage_activation(model, rules, limits, tensor, last=last)
    passed = memory.forward_activation(limits.max_batched_tokens, model.hidden_size, tensor)
    tokens = Quantity("tokens of a step", limits.max_batched_tokens)
    options = [Step("forward pass", passed, "B", "formula", formula="forward_activation", inputs=(tokens,))]
    rules_of = Constants(f"memory rules of {strategy.traits.name}", rules.source, ())
    if last:
        logits = memory.sampler_activation(
            limits.max_sequences, model.vocabulary_size, rules.sampler_base, rules.sampler_bytes_per_logit
        )
        asked = (Quantity("sequences", limits.max_sequences), Quantity("vocabulary", model.vocabulary_size))
        options.append(Step("sampler", logits, "B", "formula", formula="sampler_activation", inputs=asked, constants=(rules_of,)))
    steps = [Step("largest of a step", peak, "B", "max", children=tuple(options))]
    if with_workspace > peak:
        steps.append(Step("workspace of experts", with_workspace - peak, "B", "given", constants=(rules_of,)))
    if whole > with_workspace:
        steps.append(Step("table of requests", whole - with_workspace, "B", "given", constants=(rules_of,)))
    return tuple(steps)
