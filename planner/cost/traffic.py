"""What a group of GPUs, or one send, puts on the links that others use as well."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, permutations

from planner.core.plan import Group
from planner.core.topology import PEER_LINKS, DeviceKind, Link, LinkKind
from planner.cost.calibration import PointToPointFit
from planner.cost.contention import Demand, Flow, meetings, share_out
from planner.cost.interconnect import GroupFacts, Interconnect
from planner.cost.point_to_point import hop_rate
from planner.graph.paths import DirectedLink, PathKind

EXHAUSTIVE_RANKS = 5
"""Up to here all rings are tried: two larger groups meet only on hosts of twelve GPUs and more."""
EXHAUSTIVE_ORDERS = 4
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Pairing:
    """The receivers in the order of their senders, and what the sends, which leave together, keep of their bandwidth."""

    order: Group
    kept: tuple[float, ...]


class Traffic:
    """The demands of groups and sends on the links of one machine where two of them can meet, memoised.

    Nobody meets on NVLink: a link between two GPUs, or from a GPU to its switch, is used by groups that hold that GPU,
    and a GPU does one thing at a time. Links between network switches are left out: traffic spreads over the spines.
    """

    def __init__(self, wires: Interconnect, fit: PointToPointFit) -> None:
        self.wires = wires
        self._fit = fit
        self._groups: dict[frozenset[int], Demand] = {}
        self._sends: dict[tuple[int, int], Demand] = {}
        self._boundaries: dict[tuple[Group, Group], tuple[float, ...]] = {}
        self._pairings: dict[tuple[Group, Group], list[Pairing]] = {}

    @cached_property
    def _common(self) -> frozenset[int]:
        """The links where two can meet."""
        topology = self.wires.topology
        return frozenset(
            number
            for number, link in enumerate(topology.links)
            if link.kind not in PEER_LINKS
            and (link.kind is not LinkKind.NETWORK or self._ends_at_card(link))
            and self.wires.capacity[number, True] > 0
        )

    def _ends_at_card(self, link: Link) -> bool:
        return any(self.wires.topology.by_id[end].kind is DeviceKind.NIC for end in (link.a, link.b))

    def send(self, sender: int, receiver: int) -> Demand:
        """What GPU ``sender`` puts on the way to GPU ``receiver``."""
        found = self._sends.get((sender, receiver))
        if found is None:
            crossings = Counter(link for link in self.wires.path(sender, receiver).links if link[0] in self._common)
            found = self._demand(hop_rate(self.wires, self._fit, sender, receiver), crossings)
            self._sends[sender, receiver] = found
        return found

    def among_themselves(self, senders: Group, receivers: Group) -> tuple[float, ...]:
        """What the sends of one stage boundary leave each other of their bandwidth."""
        if len(receivers) == 1:
            return (1.0,)
        key = senders, receivers
        found = self._boundaries.get(key)
        if found is None:
            demands = [self.send(a, b) for a, b in zip(senders, receivers, strict=True)]
            found = (1.0,) * len(demands)
            if len(set().union(*(one.crossings for one in demands))) < sum(len(one.crossings) for one in demands):
                flows = [
                    Flow(frozenset(pair), 0, 0, demand)
                    for pair, demand in zip(zip(senders, receivers, strict=True), demands, strict=True)
                ]
                found = tuple(share.kept for share in share_out(flows, meetings(flows), self.wires.capacity, 1))
            self._boundaries[key] = found
        return found

    def pairings(self, senders: Group, receivers: Group) -> list[Pairing]:
        """The pairings of a stage's ranks with the next's that differ in how fast a send is or in what the links carry;
        above :data:`EXHAUSTIVE_ORDERS` ranks only the one that is given.
        """
        if len(receivers) == 1:
            return [Pairing(receivers, (1.0,))]
        key = senders, receivers
        found = self._pairings.get(key)
        if found is None:
            orders = permutations(receivers) if len(receivers) <= EXHAUSTIVE_ORDERS else [receivers]
            sends = {(a, b): (self.send(a, b), self.wires.path(a, b)) for a in senders for b in receivers}
            if not any(demand.crossings for demand, _ in sends.values()):
                orders = orders if len({(demand.rate, path.kind) for demand, path in sends.values()}) > 1 else [receivers]
            different: dict[object, Pairing] = {}
            for order in orders:
                kept = self.among_themselves(senders, order)
                taken = [sends[pair] for pair in zip(senders, order, strict=True)]
                # what a send takes depends on its rate and on these three alone
                speeds = {
                    (path.kind is PathKind.NVLINK, path.kind is PathKind.NETWORK, path.staged, share * demand.rate)
                    for (demand, path), share in zip(taken, kept, strict=True)
                }
                load = Counter(item for demand, _ in taken for item in demand.crossings.items())
                different.setdefault((frozenset(speeds), frozenset(load.items())), Pairing(order, kept))
            found = self._pairings[key] = list(different.values())
        return found

    def group(self, gpus: Sequence[int]) -> Demand:
        """What the rings of a collective put on the links, per byte of its bus bandwidth."""
        key = frozenset(gpus)
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = self._of_group(self.wires.group(gpus))
        return found

    def _of_group(self, facts: GroupFacts) -> Demand:
        rate, crossings = float(facts.packing.bandwidth), Counter[DirectedLink]()
        if facts.nvlink_everywhere or facts.ranks < 2:
            return Demand(rate, {})
        gpus = self.wires.topology.gpus
        if facts.nodes == 1:
            return self._demand(rate, self._rings([gpus[gpu].id for gpu in facts.gpus]))
        for host in dict.fromkeys(gpus[gpu].host for gpu in facts.gpus):
            members = [gpu for gpu in facts.gpus if gpus[gpu].host == host]
            if len(members) > 1:
                _add(crossings, self._rings([gpus[gpu].id for gpu in members]))
            _add(crossings, self._outside(members))
        return self._demand(min(rate or math.inf, float(facts.network)), crossings)

    def _demand(self, rate: float, crossings: Mapping[DirectedLink, float]) -> Demand:
        """No link carries more of one than it can: where several rings divide the load, each link has its part of it."""
        capacity = self.wires.capacity
        return Demand(
            rate, {link: min(times, capacity[link] / rate) for link, times in crossings.items() if times} if rate else {}
        )

    def _rings(self, members: Sequence[str]) -> Mapping[DirectedLink, float]:
        """Crossings of the fastest rings, of those the ones that cross fewest common links; of several such the mean, so
        that the numbers of the GPUs do not matter. Many ranks: one ring in hierarchical order, either way round.
        """
        paths, capacity = self.wires.paths, self.wires.capacity
        if len(members) > EXHAUSTIVE_RANKS:
            order = tuple(sorted(members, key=lambda gpu: (paths.ancestors(gpu)[::-1], gpu)))
            orders = [order, order[::-1]]
        else:
            orders = [(members[0], *rest) for rest in permutations(members[1:])]
        rings = []
        for order in orders:
            crossings = Counter(link for hop in pairwise((*order, order[0])) for link in paths.between(*hop).links)
            rate = min((capacity[link] / times for link, times in crossings.items()), default=math.inf)
            common = {link: times for link, times in crossings.items() if link[0] in self._common}
            rings.append((rate, sum(common.values()), common))
        fastest = max(rate for rate, _, _ in rings)
        best = [(total, common) for rate, total, common in rings if rate >= fastest * (1 - _TINY)]
        fewest = min(total for total, _ in best)
        kept = [common for total, common in best if total == fewest]
        mean: Counter[DirectedLink] = Counter()
        for common in kept:
            _add(mean, {link: times / len(kept) for link, times in common.items()})
        return mean

    def _outside(self, members: Sequence[int]) -> Mapping[DirectedLink, float]:
        """Crossings on the way out of a host and back, spread over the cards that serve its members by how fast each is."""
        capacity, exits = self.wires.capacity, self.wires.exits(members)
        doors = Counter(card for card, _ in exits)
        weights = [min(capacity[link] / times for link, times in way.items()) / doors[card] for card, way in exits]
        together = sum(weights)
        crossings: Counter[DirectedLink] = Counter()
        for (_, way), weight in zip(exits, weights, strict=True):
            _add(crossings, {link: times * weight / together for link, times in way.items() if link[0] in self._common})
        return crossings


def _add(total: Counter[DirectedLink], more: Mapping[DirectedLink, float]) -> None:
    for link, times in more.items():
        total[link] += times  # type: ignore[assignment]  # typeshed's Counter counts in whole numbers
