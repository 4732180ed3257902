"""Ring bandwidth of an arbitrary set of GPUs of a graph, with links as shared resources.

One ring crosses a directed link as often as its hops do; it sustains the smallest capacity over crossings. All rings
together may not load a directed link beyond its capacity: a fractional packing of Hamiltonian cycles. Greedy packing
(best ring on what is left, subtract, repeat) reaches the optimum on every case of the worked example.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.cost.formula import formula
from planner.graph.paths import DirectedLink, PathKind, Paths
from planner.units import BytesPerSecond

MAX_ROUNDS = 12
EXHAUSTIVE_RANKS = 8
_NEGLIGIBLE = 1e-3


@dataclass(frozen=True, slots=True)
class Ring:
    """An order of the group and the rate it sustains beside the rings before it, B/s."""

    order: tuple[str, ...]
    rate: BytesPerSecond


@dataclass(frozen=True, slots=True)
class RingPacking:
    """The rings of a group. ``kind`` is the worst path a ring takes, ``limiting`` the directed link that stops the first."""

    rings: tuple[Ring, ...]
    kind: PathKind
    staged: bool
    limiting: DirectedLink | None

    @property
    def bandwidth(self) -> BytesPerSecond:
        """What all rings carry together, B/s: the bus bandwidth of a large all-reduce."""
        return BytesPerSecond(sum(ring.rate for ring in self.rings))


@formula(
    source="ring channels over a capacitated graph as NCCL searches them (v2.30.7 src/graph/search.cc), as a fractional packing",
    valid="one host; exact search up to 8 ranks, hierarchical order above",
)
def pack_rings(group: Sequence[str], paths: Paths, capacity: Mapping[DirectedLink, float]) -> RingPacking:
    """The rings of ``group`` (GPU ids of one host) under ``capacity`` (B/s of each directed link)."""
    if len(group) < 2:
        return RingPacking((), PathKind.SELF, staged=False, limiting=None)
    residual = dict(capacity)
    rings: list[Ring] = []
    limiting: DirectedLink | None = None
    kind, staged = PathKind.SELF, False
    while len(rings) < MAX_ROUNDS:
        order, rate = _best_ring(group, paths, residual)
        if not order or (rings and rate <= _NEGLIGIBLE * rings[0].rate):
            break
        crossings = _crossings(order, paths)
        if not rings:
            hops = [paths.between(a, b) for a, b in _hops(order)]
            kind, staged = max(hop.kind for hop in hops), any(hop.staged for hop in hops)
            limiting = min(crossings, key=lambda link: (residual[link] / crossings[link], link))
        for link, count in crossings.items():
            residual[link] -= rate * count
        rings.append(Ring(order, BytesPerSecond(rate)))
    return RingPacking(tuple(rings), kind, staged, limiting)


def _hops(order: Sequence[str]) -> list[tuple[str, str]]:
    return [(order[place], order[(place + 1) % len(order)]) for place in range(len(order))]


def _crossings(order: Sequence[str], paths: Paths) -> Counter[DirectedLink]:
    return Counter(link for a, b in _hops(order) for link in paths.between(a, b).links)


def _best_ring(group: Sequence[str], paths: Paths, residual: Mapping[DirectedLink, float]) -> tuple[tuple[str, ...], float]:
    """The order with the highest rate on ``residual``, and that rate; no order where nothing is left."""
    hop_links = {(a, b): Counter(paths.between(a, b).links) for a in group for b in group if a != b}
    bound = _upper_bound(group, hop_links, residual)
    if bound <= 0:
        return (), 0.0
    if len(group) > EXHAUSTIVE_RANKS:
        order = tuple(sorted(group, key=lambda gpu: (paths.ancestors(gpu)[::-1], gpu)))
        crossings = _crossings(order, paths)
        return order, min((residual[link] / count for link, count in crossings.items()), default=0.0)
    best: tuple[tuple[str, ...], float] = ((), 0.0)
    loads: Counter[DirectedLink] = Counter()

    def sustained(hop: Counter[DirectedLink]) -> float:
        """The rate the links of one more hop would sustain."""
        return min((residual[link] / (loads[link] + times) for link, times in hop.items()), default=bound)

    def extend(order: list[str], rate: float) -> None:
        nonlocal best
        if best[1] >= bound * (1 - 1e-12):
            return
        last = order[-1]
        if len(order) == len(group):
            closing = sustained(hop_links[last, order[0]])
            if min(rate, closing) > best[1]:
                best = tuple(order), min(rate, closing)
            return
        left = [gpu for gpu in group if gpu not in order]
        choices = [(-min(rate, sustained(hop_links[last, gpu])), gpu) for gpu in left]
        for negative, gpu in sorted(choices):
            if -negative <= best[1]:
                break
            loads.update(hop_links[last, gpu])
            order.append(gpu)
            extend(order, -negative)
            order.pop()
            loads.subtract(hop_links[last, gpu])

    extend([group[0]], bound)
    return best


def _upper_bound(
    group: Sequence[str],
    hop_links: Mapping[tuple[str, str], Counter[DirectedLink]],
    residual: Mapping[DirectedLink, float],
) -> float:
    """No ring is faster: every GPU sends over some first hop and receives over some last one."""

    def best(hops: list[Counter[DirectedLink]]) -> float:
        return max((min((residual[link] / times for link, times in hop.items()), default=0.0) for hop in hops), default=0.0)

    leaving = min(best([hop_links[gpu, other] for other in group if other != gpu]) for gpu in group)
    arriving = min(best([hop_links[other, gpu] for other in group if other != gpu]) for gpu in group)
    return min(leaving, arriving)
