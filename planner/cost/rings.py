"""Ring bandwidth of an arbitrary set of GPUs of a graph, with links as shared resources.

One ring crosses a directed link as often as its hops do; it sustains the smallest capacity over crossings. All rings
together may not load a directed link beyond its capacity: a fractional packing of Hamiltonian cycles. Greedy packing
(best ring on what is left, subtract, repeat) mostly meets the cut bound and is then optimal; where it does not, the
linear programme decides. So the answer depends on the links alone, not on how the GPUs are numbered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from planner.cost.cycles import Crossings, Cycles, Hop
from planner.cost.formula import formula
from planner.cost.packing import fractional_packing
from planner.cost.shapes import Shape, Shapes
from planner.graph.paths import DirectedLink, PathKind, Paths
from planner.units import BytesPerSecond

MAX_ROUNDS = 12
EXHAUSTIVE_RANKS = 8
_TINY = 1e-9
Member = TypeVar("Member")
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


class Rings:
    """The rings of groups of one machine; groups that the wires treat alike are packed once."""

    def __init__(self, paths: Paths, capacity: Mapping[DirectedLink, float]) -> None:
        self._paths = paths
        self._capacity = capacity
        self._shapes = Shapes(paths, capacity)
        self._packed: dict[Shape, RingPacking] = {}

    @property
    def classes(self) -> int:
        """How many groups had to be packed so far."""
        return len(self._packed)

    def of(self, group: Sequence[str]) -> RingPacking:
        """The rings of ``group``, GPU ids of one host."""
        if len(group) < 2:
            return NO_RING
        if len(group) > EXHAUSTIVE_RANKS:
            return _one_ring(group, self._paths, self._capacity)
        seen = self._shapes.of(group)
        packed = self._packed.get(seen.shape)
        if packed is None:
            packed = self._packed[seen.shape] = pack_shape(seen.shape)
        return packed if packed.limiting is None else replace(packed, limiting=seen.named(packed.limiting))


def pack_rings(group: Sequence[str], paths: Paths, capacity: Mapping[DirectedLink, float]) -> RingPacking:
    """The rings of ``group`` (GPU ids of one host) under ``capacity`` (B/s of each directed link)."""
    return Rings(paths, capacity).of(group)


@formula(
    source="ring channels over a capacitated graph as NCCL searches them (v2.30.7 src/graph/search.cc), as a fractional packing",
    valid="one host; exact up to 8 ranks",
)
def pack_shape(shape: Shape) -> RingPacking:
    """The rings over the members of ``shape``, exactly; ``limiting`` is a link of the shape.

    >>> from planner.cost.shapes import Way
    >>> there, back = Way(PathKind.NVLINK, False, ((0, True),)), Way(PathKind.NVLINK, False, ((0, False),))
    >>> pack_shape(Shape(2, (there, back), ((48e9, 48e9),))).bandwidth
    48000000000.0
    """
    members = range(shape.count)
    hops = {(a, b): Counter(shape.way(a, b).links) for a in members for b in members if a != b}
    cycles = Cycles(members, _without_doubles(hops, shape.capacity))
    order, fastest = _best_of_best_kind(shape, cycles)
    if not order:
        return NO_RING
    together = _packed(hops, cycles, shape.capacity, order, fastest)
    ways = [shape.way(a, b) for a, b in _round(order)]
    return _described([(way.kind, way.staged, way.links) for way in ways], fastest, together, shape.capacity)


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


def _best_of_best_kind(shape: Shape, cycles: Cycles) -> tuple[tuple[int, ...], float]:
    """The fastest ring; of equally fast ones one that keeps to the best kind of paths."""
    order, fastest = cycles.best(shape.capacity)
    qualities = {hop: (way.kind, way.staged) for hop in cycles.hops for way in (shape.way(*hop),)}
    for limit in sorted(set(qualities.values()))[:-1]:
        allowed = {hop for hop, quality in qualities.items() if quality <= limit}
        within, rate = cycles.best(shape.capacity, allowed)
        if within and rate >= fastest * (1 - _TINY):
            return within, fastest
    return order, fastest


def _packed(
    hops: Mapping[Hop, Crossings], cycles: Cycles, capacity: Mapping[DirectedLink, float], order: tuple[int, ...], rate: float
) -> float:
    """What all rings carry together: greedily if that meets the cut bound, else by the linear programme."""
    residual = {link: capacity[link] for link in cycles.links}
    total, orders, bound = 0.0, [], cycles.cut_bound(capacity)
    for _ in range(MAX_ROUNDS):
        orders.append(order)
        for link, count in cycles.crossings(order).items():
            residual[link] -= rate * count
        total += rate
        if total >= bound * (1 - _TINY):
            return total
        order, rate = cycles.best(residual)
        if not order or rate <= _TINY * bound:
            break
    if _same_both_ways(hops, capacity):
        # with every ring its reverse does as well, so only the two directions of a link together matter
        capacity = {link: capacity[link] + capacity[_reverse(link)] for link in capacity}
        cycles = Cycles(cycles.members, _without_doubles({hop: _one_way(there) for hop, there in hops.items()}, capacity))
    limits = {link: capacity[link] for link in cycles.links}
    return fractional_packing([cycles.crossings(one) for one in orders], limits, cycles.cheapest).rate


def _reverse(link: DirectedLink) -> DirectedLink:
    return link[0], not link[1]


def _one_way(crossings: Crossings) -> Crossings:
    """Crossings of a link either way, all written as its first."""
    total: Crossings = Counter()
    for (number, _), times in crossings.items():
        total[number, True] += times
    return total


def _same_both_ways(hops: Mapping[Hop, Crossings], capacity: Mapping[DirectedLink, float]) -> bool:
    """Whether the way back is the way there, over links that carry as much."""
    used = {link for hop in hops.values() for link in hop}
    return all(capacity[_reverse(link)] == capacity[link] for link in used) and all(
        hops[b, a] == {_reverse(link): times for link, times in there.items()} for (a, b), there in hops.items()
    )


def _one_ring(group: Sequence[str], paths: Paths, capacity: Mapping[DirectedLink, float]) -> RingPacking:
    """A ring in hierarchical order: it crosses every switch and socket boundary once each way, as any ring must."""
    order = sorted(group, key=lambda gpu: (paths.ancestors(gpu)[::-1], gpu))
    steps = [paths.between(a, b) for a, b in _round(order)]
    crossings = Counter(link for step in steps for link in step.links)
    rate = min((capacity[link] / count for link, count in crossings.items()), default=0.0)
    return _described([(step.kind, step.staged, step.links) for step in steps], rate, rate, capacity)


def _described(
    ways: Sequence[tuple[PathKind, bool, Sequence[DirectedLink]]],
    fastest: float,
    together: float,
    capacity: Mapping[DirectedLink, float],
) -> RingPacking:
    """Rings of which the best takes ``ways``."""
    crossings = Counter(link for _, _, links in ways for link in links)
    limiting = min(crossings, key=lambda link: (capacity[link] / crossings[link], link), default=None)
    kind, staged = max(kind for kind, _, _ in ways), any(staged for _, staged, _ in ways)
    return RingPacking(BytesPerSecond(fastest), BytesPerSecond(together), kind, staged, limiting)


def _round(order: Sequence[Member]) -> list[tuple[Member, Member]]:
    return [(order[place], order[(place + 1) % len(order)]) for place in range(len(order))]
