"""Ring bandwidth of an arbitrary set of GPUs of a graph, with links as shared resources.

One ring crosses a directed link as often as its hops do; it sustains the smallest capacity over crossings. All rings
together may not load a directed link beyond its capacity: a fractional packing of Hamiltonian cycles. Greedy packing
(best ring on what is left, subtract, repeat) mostly meets the cut bound and is then optimal; where it does not, the
linear programme decides. So the answer depends on the links alone, not on how the GPUs are numbered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.cost.cycles import Crossings, Cycles, Hop
from planner.cost.formula import formula
from planner.cost.packing import fractional_packing
from planner.graph.paths import DirectedLink, PathKind, Paths
from planner.units import BytesPerSecond

MAX_ROUNDS = 12
EXHAUSTIVE_RANKS = 8
_TINY = 1e-9
_NO_BANDWIDTH = BytesPerSecond(0.0)


@dataclass(frozen=True, slots=True)
class RingPacking:
    """The rings of a group.

    ``fastest`` is the rate of the best single ring, ``bandwidth`` what all rings carry together (the bus bandwidth of
    a large all-reduce), both B/s. ``kind`` is the worst path the best ring takes, ``staged`` whether it rests in host
    memory, ``limiting`` a directed link that stops it.
    """

    fastest: BytesPerSecond
    bandwidth: BytesPerSecond
    kind: PathKind
    staged: bool
    limiting: DirectedLink | None


NO_RING = RingPacking(_NO_BANDWIDTH, _NO_BANDWIDTH, PathKind.SELF, staged=False, limiting=None)


@formula(
    source="ring channels over a capacitated graph as NCCL searches them (v2.30.7 src/graph/search.cc), as a fractional packing",
    valid="one host; exact up to 8 ranks, one hierarchical ring above",
)
def pack_rings(group: Sequence[str], paths: Paths, capacity: Mapping[DirectedLink, float]) -> RingPacking:
    """The rings of ``group`` (GPU ids of one host) under ``capacity`` (B/s of each directed link)."""
    if len(group) < 2:
        return NO_RING
    if len(group) > EXHAUSTIVE_RANKS:
        return _one_ring(tuple(sorted(group, key=lambda gpu: (paths.ancestors(gpu)[::-1], gpu))), paths, capacity)
    members = sorted(group)
    hops = {(a, b): Counter(paths.between(a, b).links) for a in members for b in members if a != b}
    cycles = Cycles(members, _without_doubles(hops, capacity))
    order, fastest = _best_of_best_kind(paths, cycles, capacity)
    if not order:
        return NO_RING
    first = _described(order, fastest, paths, capacity)
    together = _packed(cycles, capacity, order, fastest)
    return RingPacking(first.fastest, BytesPerSecond(together), first.kind, first.staged, first.limiting)


def _without_doubles(hops: Mapping[Hop, Crossings], capacity: Mapping[DirectedLink, float]) -> dict[Hop, Crossings]:
    """The hops without links that every hop crosses just as often as a narrower one: those never limit."""
    use: dict[tuple[int, ...], DirectedLink] = {}
    for link in sorted({link for hop in hops.values() for link in hop}):
        pattern = tuple(hop[link] for hop in hops.values())
        known = use.get(pattern)
        if known is None or capacity[link] < capacity[known]:
            use[pattern] = link
    kept = set(use.values())
    return {pair: Counter({link: times for link, times in hop.items() if link in kept}) for pair, hop in hops.items()}


def _best_of_best_kind(paths: Paths, cycles: Cycles, capacity: Mapping[DirectedLink, float]) -> tuple[tuple[str, ...], float]:
    """The fastest ring; of equally fast ones one that keeps to the best kind of paths."""
    order, fastest = cycles.best(capacity)
    qualities = {hop: (paths.between(*hop).kind, paths.between(*hop).staged) for hop in cycles.hops}
    for limit in sorted(set(qualities.values()))[:-1]:
        allowed = {hop for hop, quality in qualities.items() if quality <= limit}
        within, rate = cycles.best(capacity, allowed)
        if within and rate >= fastest * (1 - _TINY):
            return within, fastest
    return order, fastest


def _packed(cycles: Cycles, capacity: Mapping[DirectedLink, float], order: tuple[str, ...], rate: float) -> float:
    """What all rings carry together: greedily if that meets the cut bound, else by the linear programme."""
    capacity = {link: capacity[link] for hop in cycles.hops.values() for link in hop}
    residual = dict(capacity)
    total, columns, bound = 0.0, [], cycles.cut_bound(capacity)
    for _ in range(MAX_ROUNDS):
        crossings = cycles.crossings(order)
        columns.append(crossings)
        for link, count in crossings.items():
            residual[link] -= rate * count
        total += rate
        if total >= bound * (1 - _TINY):
            return total
        order, rate = cycles.best(residual)
        if not order or rate <= _TINY * bound:
            break
    return fractional_packing(columns, capacity, cycles.cheapest).rate


def _one_ring(order: tuple[str, ...], paths: Paths, capacity: Mapping[DirectedLink, float]) -> RingPacking:
    """A ring in hierarchical order: it crosses every switch and socket boundary once each way, as any ring must."""
    crossings = Counter(link for a, b in _round(order) for link in paths.between(a, b).links)
    rate = min((capacity[link] / count for link, count in crossings.items()), default=0.0)
    return _described(order, rate, paths, capacity)


def _described(order: tuple[str, ...], rate: float, paths: Paths, capacity: Mapping[DirectedLink, float]) -> RingPacking:
    steps = [paths.between(a, b) for a, b in _round(order)]
    crossings = Counter(link for step in steps for link in step.links)
    limiting = min(crossings, key=lambda link: (capacity[link] / crossings[link], link), default=None)
    bandwidth = BytesPerSecond(rate)
    return RingPacking(bandwidth, bandwidth, max(step.kind for step in steps), any(step.staged for step in steps), limiting)


def _round(order: Sequence[str]) -> list[tuple[str, str]]:
    return [(order[place], order[(place + 1) % len(order)]) for place in range(len(order))]
