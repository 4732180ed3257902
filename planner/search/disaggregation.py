"""The answer to how to divide a machine into two pools, ready to be shown; and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.core.engine import EngineTraits
from planner.core.model import ModelSpec
from planner.core.plan import Infeasible
from planner.core.pools import HandoverRules, PairLaunch, PoolPair
from planner.core.topology import Topology
from planner.core.workload import Workload
from planner.cost.disaggregated import DECODE_SHARE, LINK_SHARE, PREFILL_SHARE
from planner.search.fit import remedy
from planner.search.pools import Pairs
from planner.search.rank import Ranked, Search

FACTORS = (
    f"{PREFILL_SHARE:.0%} of what the prefill pool serves and {DECODE_SHARE:.0%} of what the decode pool serves are counted on, as aiconfigurator "
    f"assumes of pools that never quite match, and {LINK_SHARE:.0%} of a link"
).replace("%", " %")
BY_CHANCE = (
    "requests come by chance (a queue before the prefill pool); to the plan without pools too, where there are targets or a rate"
)
NOT_PROVEN = "the best that was found: divisions of the GPUs are not searched to proof"
_FEWEST = 2


@dataclass(frozen=True, slots=True)
class PlannedPair:
    """One pair with its launches, and the commands of the prefill pool, of the decode pool and of what goes before them as shell lines."""

    rank: int
    pair: PoolPair
    launch: PairLaunch
    commands: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Disaggregation:
    """Pairs best first, and why. ``aggregated`` is the best plan without pools for the same traffic and targets on the same machine,
    ``gain`` how much more (below zero: less) the first pair serves, as a share of it.
    """

    topology: Topology
    model: ModelSpec
    workload: Workload
    engine: EngineTraits
    rules: HandoverRules
    pairs: tuple[PlannedPair, ...]
    aggregated: Ranked | None
    gain: float | None
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]
    considered: int


def gain_of(pairs: Sequence[PoolPair], aggregated: Ranked | None) -> float | None:
    """How much more the first pair serves than the best plan without pools."""
    if not pairs or aggregated is None:
        return None
    return pairs[0].requests_per_second / aggregated.estimate.serving.requests_per_second - 1


def assumed(rules: HandoverRules) -> tuple[str, ...]:
    """What every pair of an engine leans on."""
    staged = () if rules.prefill_stages else (f"{rules.connector} reads from one pipeline stage into one: PP 1 in both pools",)
    return (FACTORS, BY_CHANCE, *staged, NOT_PROVEN)


def reasons(search: Search, found: Pairs, aggregated: Ranked | None, rules: HandoverRules) -> tuple[str, ...]:
    """Why the first pair serves what it does, and how that compares; or why there is none, and what would do."""
    if not found.ranked:
        return _nothing(search, found, rules)
    first = found.ranked[0]
    lines = [_limited(first)]
    if rules.handover == "prompt" and first.transfer.exposed > first.transfer.by_layer:
        lines.append(
            f"{rules.connector} hands a prompt's cache over when it is done: {_time(first.transfer.exposed)} of each first token; layer by layer "
            f"it would be {_time(first.transfer.by_layer)}"
        )
    return (*lines, *_compared(first, aggregated, search.pricer.workload))


def _limited(pair: PoolPair) -> str:
    limits = pair.limits
    most = {
        "prefill": f"the prefill pool sets the pace: {pair.prefill.requests_per_second:.3g} prompts a second, of which {PREFILL_SHARE:.0%} count; "
        f"the decode pool would take {limits['decode']:.3g}",
        "decode": f"the decode pool sets the pace: {pair.decode.requests_per_second:.3g} requests a second, of which {DECODE_SHARE:.0%} count; "
        f"the prefill pool would give {limits['prefill']:.3g}",
        "link": f"{pair.transfer.link} sets the pace: it carries the caches of {pair.transfer.requests_per_second:.3g} prompts a second, of which "
        f"{LINK_SHARE:.0%} count",
        "prefill-cache": "the prefill pool's cache sets the pace: it has no room for more prompts until they are read",
        "ttft": f"the target for the first token sets the pace: more than {pair.requests_per_second:.3g} requests a second would queue "
        f"longer before the prefill pool, which could take {limits['prefill']:.3g}",
        "asked": f"keeps up with {pair.requests_per_second:g} requests a second; the prefill pool would take {limits['prefill']:.3g}, the decode "
        f"pool {limits['decode']:.3g}, the links {limits['link']:.3g}",
    }
    return most[pair.limited_by].replace("%", " %")


def _compared(first: PoolPair, aggregated: Ranked | None, workload: Workload) -> list[str]:
    if aggregated is None:
        return ["without pools nothing fits"]
    other, gain = aggregated.estimate, gain_of([first], aggregated) or 0.0
    head = f"the best without pools is {aggregated.plan.parallelism}"
    missed = aggregated.missed(workload)
    if missed and not first.missed:
        return [f"{head}, which misses the target for {' and '.join(missed)}"]
    if workload.load == "request-rate":
        mine, theirs = first.gpus, aggregated.plan.parallelism.gpus
        if mine != theirs:
            return [
                f"{head} on {theirs} GPU{'s' * (theirs > 1)}: pools take {abs(mine - theirs)} {'more' if mine > theirs else 'fewer'}"
            ]
        return [f"{head} on as many GPUs, TTFT {_time(other.ttft)} and TPOT {_time(other.tpot)}"]
    words = f"{other.serving.requests_per_second:.3g} requests a second, TTFT {_time(other.ttft)}, TPOT {_time(other.tpot)}"
    verdict = f"pools serve {abs(gain):.0%} {'more' if gain > 0 else 'less'}".replace("%", " %")
    return [f"{head} ({words}): {verdict}"]


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _nothing(search: Search, found: Pairs, rules: HandoverRules) -> tuple[str, ...]:
    """No pair: by what, and what would do."""
    pricer, model = search.pricer, search.pricer.model
    there, hardware = len(pricer.topology.gpus), " and ".join(pricer.topology.hardware)
    if there < _FEWEST:
        return (f"two pools take 2 GPUs at least, {pricer.topology.name} has {there}",)
    if found.nearest is not None:
        return _overrun(found.nearest, pricer.workload)
    lines = [f"no two pools fit {model.name} ({model.weight_format.name}) on {there}× {hardware}"]
    lines += [f"a {role} pool takes {gpus} GPUs at least" for role, gpus in found.smallest.items()]
    if found.unjoined:
        return (*lines, *found.unjoined)
    if len(found.smallest) == _FEWEST:
        together = sum(found.smallest.values())
        apart = "no network joins the hosts: no KV cache gets from one to another"
        lines.append(f"together {together}: {together - there} more than there are" if together > there else apart)
        return tuple(lines)
    return (*lines, *_too_large(search, found.unfit, rules))


def _overrun(nearest: PoolPair, workload: Workload) -> tuple[str, ...]:
    prefill, decode = nearest.prefill.plan.parallelism, nearest.decode.plan.parallelism
    most = nearest.requests_per_second
    return (
        f"no pair of pools keeps up with {workload.request_rate:g} requests a second",
        f"the nearest is {prefill} for prefill and {decode} for decode: {most:.3g} requests a second",
        f"{math.ceil(workload.request_rate / most)} of these machines would keep up, each with that pair",
    )


def _too_large(search: Search, unfit: Sequence[Infeasible], rules: HandoverRules) -> list[str]:
    pricer = search.pricer
    hardware = " and ".join(pricer.topology.hardware)
    memory = [one for one in unfit if one.rule == "memory"]
    if not memory:
        return [f"the nearest is {unfit[0].parallelism}: {unfit[0].message}"] if unfit else []
    nearest = min(memory, key=lambda one: one.need - one.have)
    lines = [f"the nearest pool is {nearest.parallelism}: {nearest.message}"]
    if not rules.prefill_stages:
        pricer = replace(pricer, traits=replace(pricer.traits, most_stages=1))
    what = remedy(pricer, 1)
    if what.gpus is not None:
        lines.append(f"{what.gpus}× {hardware} would hold one pool, as {what.gpus_parallelism}: {2 * what.gpus} both")
    half = len(pricer.topology.gpus) // 2
    smaller = [name for name, degrees in what.formats if degrees.gpus <= half]
    if smaller:
        lines.append(f"--quant {' or '.join(smaller)} would fit in a pool of {half}{' or fewer' * (half > 1)} of these")
    return lines
