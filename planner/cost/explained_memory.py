"""The memory of one GPU of every stage as steps."""

from __future__ import annotations

from dataclasses import replace

from planner.core.engine import MemoryRules
from planner.core.explanation import Bar, Constants, Quantity, Step, added, numbered
from planner.core.model import Layer, MoeMlp
from planner.cost import memory
from planner.cost.drafting import drafting_layers, drafting_weights
from planner.cost.stage_memory import FORWARD, REQUESTS, SAMPLER, WORKSPACE, activation_parts, spread, stage_graphs
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
    rules, ranges = strategy.traits.memory, strategy.traits.memory.ranges
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
    drafting = drafting_layers(strategy.model, strategy.workload.speculation) if last else ()
    if drafting:
        more = drafting_weights(strategy.model, drafting, strategy.parallelism)
        held = (*held, Step("layers that guess", more, "B", "formula", formula="joining_weights"))
    source = (Constants(f"memory rules of {strategy.traits.name}", rules.source, ()),)
    buffers = memory.buffers(rules, memory.expert_shards(strategy.parallelism), nvlink=nvlink)
    graphs = stage_graphs(rules, layers, tensor)
    overhead = (
        Step(
            "context and communication buffers", buffers, "B", "given", constants=source, bar=_bar(buffers, ranges.buffers, rules)
        ),
        Step(
            "CUDA graphs",
            graphs,
            "B",
            "formula",
            formula="cuda_graphs",
            inputs=(Quantity("layers", len(layers)), Quantity("of experts", sum(isinstance(one.mlp, MoeMlp) for one in layers))),
            bar=_bar(graphs, ranges.cuda_graphs, rules),
        ),
    )
    activation = added("activation", _activation(strategy, layers, last=last), unit="B")
    return added(
        "stage",
        (
            added("weights", held, unit="B"),
            _cache(strategy, number, layers),
            replace(activation, bar=_bar(Bytes(activation.value), ranges.activation, rules)),
            added("overhead", tuple(one for one in overhead if one.value), unit="B"),
        ),
        unit="B",
    )


def _bar(size: Bytes, shares: tuple[float, float], rules: MemoryRules) -> Bar:
    """The range of a part that only logs tell."""
    return Bar(*spread(size, shares), rules.ranges.source)


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
    bar = Bar(*stage.kv_cache_range, "activation, buffers and graphs at the other ends of their ranges")
    return Step("KV cache", stage.kv_cache, "B", "formula", 1.0, "kv_budget", asked, source=source, bar=bar)


def _activation(strategy: Strategy, layers: tuple[Layer, ...], *, last: bool) -> tuple[Step, ...]:
    """A forward pass or the sampler, and what the engine keeps beside them."""
    model, limits, rules = strategy.model, strategy.limits, strategy.traits.memory
    parts = activation_parts(model, layers, rules, limits, strategy.parallelism, last=last)
    rules_of = Constants(f"memory rules of {strategy.traits.name}", rules.source, ())
    tokens = Quantity("tokens of a step", limits.max_batched_tokens)
    passing = "layer_activation" if rules.forward == "by-layer" else "forward_activation"
    options = [Step(FORWARD, parts[FORWARD], "B", "formula", formula=passing, inputs=(tokens,))]
    if last:
        asked = (Quantity("sequences", limits.max_sequences), Quantity("vocabulary", model.vocabulary_size))
        options.append(
            Step(SAMPLER, parts[SAMPLER], "B", "formula", formula="sampler_activation", inputs=asked, constants=(rules_of,))
        )
    steps = [Step("largest of a step", max(one.value for one in options), "B", "max", children=tuple(options))]
    if parts[WORKSPACE]:
        steps.append(Step(WORKSPACE, parts[WORKSPACE], "B", "formula", formula="expert_workspace", inputs=(tokens,)))
    if parts[REQUESTS]:
        steps.append(Step(REQUESTS, parts[REQUESTS], "B", "given", constants=(rules_of,)))
    return tuple(steps)
