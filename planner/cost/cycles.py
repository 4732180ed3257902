"""Hamiltonian cycles over a few GPUs: the one with the highest rate, and the one with the lowest price."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from planner.graph.paths import DirectedLink

Hop = tuple[str, str]
Crossings = Counter[DirectedLink]


class Cycles:
    """All rings over ``members``; ``hops`` says which directed links a hop crosses, and how often."""

    def __init__(self, members: Sequence[str], hops: Mapping[Hop, Crossings]) -> None:
        self.members = members
        self.hops = hops

    def crossings(self, order: Sequence[str]) -> Crossings:
        """How often a ring crosses each directed link."""
        total: Crossings = Counter()
        for place, gpu in enumerate(order):
            total.update(self.hops[gpu, order[(place + 1) % len(order)]])
        return total

    def cut_bound(self, capacity: Mapping[DirectedLink, float]) -> float:
        """No packing carries more than any GPU can send, or receive, over the links next to it."""
        bounds = []
        for gpu in self.members:
            for ends in (
                [hop for pair, hop in self.hops.items() if pair[0] == gpu],
                [hop for pair, hop in self.hops.items() if pair[1] == gpu],
            ):
                # a link that every hop of this end crosses carries all of it; else each link its own share
                shared = [link for link in ends[0] if all(link in hop for hop in ends)]
                if shared:
                    bounds.append(min(capacity[link] / min(hop[link] for hop in ends) for link in shared))
                else:
                    bounds.append(sum({link: capacity[link] for hop in ends for link in hop}.values()))
        return min(bounds)

    def best(
        self, capacity: Mapping[DirectedLink, float], allowed: Collection[Hop] | None = None
    ) -> tuple[tuple[str, ...], float]:
        """The ring with the highest rate under ``capacity`` and that rate; no ring where nothing is left.

        Depth first, the fastest hop first, giving up a branch as soon as it is no faster than the best ring so far.
        """
        members, hops = self.members, self.hops if allowed is None else {hop: self.hops[hop] for hop in allowed}
        bound = self._rate_bound(hops, capacity)
        if bound <= 0:
            return (), 0.0
        found: tuple[tuple[str, ...], float] = ((), 0.0)
        loads: Crossings = Counter()

        def sustained(hop: Crossings | None) -> float:
            """The rate the links of one more hop would sustain; 0 for a hop that is not allowed."""
            if hop is None:
                return 0.0
            return min((capacity[link] / (loads[link] + times) for link, times in hop.items()), default=bound)

        def extend(order: list[str], rate: float) -> None:
            nonlocal found
            if found[1] >= bound * (1 - 1e-12):
                return
            if len(order) == len(members):
                closed = min(rate, sustained(hops.get((order[-1], order[0]))))
                if closed > found[1]:
                    found = tuple(order), closed
                return
            left = [gpu for gpu in members if gpu not in order]
            choices = [(-min(rate, sustained(hops.get((order[-1], gpu)))), gpu) for gpu in left]
            for negative, gpu in sorted(choices):
                if -negative <= found[1]:
                    break
                loads.update(hops[order[-1], gpu])
                order.append(gpu)
                extend(order, -negative)
                order.pop()
                loads.subtract(hops[order[-1], gpu])

        extend([members[0]], bound)
        return found

    def _rate_bound(self, hops: Mapping[Hop, Crossings], capacity: Mapping[DirectedLink, float]) -> float:
        """No single ring is faster: every GPU sends over some first hop and receives over some last one."""

        def most(pairs: list[Crossings]) -> float:
            return max((min((capacity[link] / times for link, times in hop.items()), default=0.0) for hop in pairs), default=0.0)

        bounds = []
        for gpu in self.members:
            bounds.append(most([hop for pair, hop in hops.items() if pair[0] == gpu]))
            bounds.append(most([hop for pair, hop in hops.items() if pair[1] == gpu]))
        return min(bounds)

    def cheapest(self, prices: Mapping[DirectedLink, float]) -> tuple[Crossings, float]:
        """The ring whose crossings cost least, by dynamic programming over subsets (Held and Karp 1962)."""
        members = self.members
        count = len(members)
        cost = [
            [sum(times * prices[link] for link, times in self.hops[a, b].items()) if a != b else math.inf for b in members]
            for a in members
        ]
        # reach[mask][last]: cheapest way from member 0 through all of mask (members 1..) to last, and where it came from
        reach: list[dict[int, tuple[float, int]]] = [{} for _ in range(1 << (count - 1))]
        for last in range(1, count):
            reach[1 << (last - 1)][last] = cost[0][last], 0
        for mask in range(1, len(reach)):
            for last, (so_far, _) in list(reach[mask].items()):
                row = cost[last]
                for following in range(1, count):
                    bit = 1 << (following - 1)
                    if not mask & bit:
                        total = so_far + row[following]
                        known = reach[mask | bit].get(following)
                        if known is None or total < known[0]:
                            reach[mask | bit][following] = total, last
        full = len(reach) - 1
        last = min(reach[full], key=lambda end: reach[full][end][0] + cost[end][0])
        price = reach[full][last][0] + cost[last][0]
        order, mask = [], full
        while last:
            order.append(members[last])
            mask, last = mask ^ (1 << (last - 1)), reach[mask][last][1]
        return self.crossings([members[0], *reversed(order)]), price
