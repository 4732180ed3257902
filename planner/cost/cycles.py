"""Hamiltonian cycles over a few GPUs: the one with the highest rate, and those with the lowest price."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from planner.graph.paths import DirectedLink

_NEVER = 1 << 20
Hop = tuple[int, int]
Crossings = Counter[DirectedLink]
Steps = Sequence[Sequence[tuple[tuple[int, int], ...] | None]]
"""From member to member (by place): which links (by place) are crossed how often; ``None`` for a hop that is not taken."""


class Cycles:
    """All rings over ``members``; ``hops`` says which directed links a hop crosses, and how often."""

    def __init__(self, members: Sequence[int], hops: Mapping[Hop, Crossings]) -> None:
        self.members = members
        self.hops = hops
        self.links = sorted({link for hop in hops.values() for link in hop})
        place = {link: number for number, link in enumerate(self.links)}
        self._steps: Steps = [
            [None if a == b else tuple((place[link], times) for link, times in hops[a, b].items()) for b in members]
            for a in members
        ]

    @cached_property
    def _least(self) -> list[int]:
        """How often any ring crosses each link at least."""
        return [self._least_crossings(link) for link in range(len(self.links))]

    def _least_crossings(self, link: int) -> int:
        """Every GPU sends once and receives once, and GPUs that hops without the link do not join are joined by it."""
        count = len(self.members)
        times = [[0] * count for _ in range(count)]
        for a, row in enumerate(self._steps):
            for b, step in enumerate(row):
                times[a][b] = _NEVER if step is None else next((often for place, often in step if place == link), 0)
        back: list[list[int]] = [list(column) for column in zip(*times, strict=True)]
        sent, received = sum(min(row) for row in times), sum(min(column) for column in back)
        if sent or received:
            return max(sent, received)
        for way in (times, back):
            seen, edge = {0}, [0]
            while edge:
                at = edge.pop()
                for other in range(count):
                    if other not in seen and not way[at][other]:
                        seen.add(other)
                        edge.append(other)
            if len(seen) < count:
                return min(often for row in times for often in row if often)
        return 0

    def crossings(self, order: Sequence[int]) -> Crossings:
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
    ) -> tuple[tuple[int, ...], float]:
        """The ring with the highest rate under ``capacity`` and that rate; no ring where nothing is left.

        Depth first, the fastest hop first, giving up a branch as soon as it is no faster than the best ring so far.
        """
        steps = self._steps
        if allowed is not None:
            members = self.members
            steps = [
                [step if (a, b) in allowed else None for b, step in zip(members, row, strict=True)]
                for a, row in zip(members, steps, strict=True)
            ]
        order, rate = _Search(steps, [capacity[link] for link in self.links], self._least).run()
        return tuple(self.members[place] for place in order), rate

    def cheapest(self, prices: Mapping[DirectedLink, float]) -> list[tuple[Crossings, float]]:
        """The ring whose crossings cost least and what it costs, then the cheapest of each other last GPU.

        By dynamic programming over subsets (Held and Karp 1962).
        """
        members, price = self.members, [prices[link] for link in self.links]
        count = len(members)
        cost = [
            [math.inf if step is None else sum([times * price[link] for link, times in step]) for step in row]
            for row in self._steps
        ]
        # reach[mask][last]: cheapest way from member 0 through all of mask (members 1..) to last; came: from where
        size = 1 << (count - 1)
        reach = [[math.inf] * count for _ in range(size)]
        came = [[0] * count for _ in range(size)]
        for last in range(1, count):
            reach[1 << (last - 1)][last] = cost[0][last]
        outside = [
            [(member, mask | 1 << (member - 1)) for member in range(1, count) if not mask >> (member - 1) & 1]
            for mask in range(size)
        ]
        for mask in range(1, size):
            here, ahead = reach[mask], outside[mask]
            for last in range(1, count):
                so_far = here[last]
                if so_far == math.inf:
                    continue
                row = cost[last]
                for following, wider in ahead:
                    total = so_far + row[following]
                    if total < reach[wider][following]:
                        reach[wider][following] = total
                        came[wider][following] = last
        ends = sorted((reach[-1][last] + cost[last][0], last) for last in range(1, count))
        found = []
        for total, end in ends:
            order, mask, last = [], size - 1, end
            while last:
                order.append(members[last])
                mask, last = mask ^ (1 << (last - 1)), came[mask][last]
            found.append((self.crossings([members[0], *reversed(order)]), total))
        return found


class _Search:
    """Depth-first search for the fastest ring; GPUs and links go by their places. ``least`` is how often any ring crosses a
    link at least.
    """

    def __init__(self, steps: Steps, capacity: Sequence[float], least: Sequence[int]) -> None:
        self._least = least
        self._steps = steps
        self._capacity = capacity
        self._count = len(steps)
        self._bound = self._rate_bound()
        self._loads = [0] * len(capacity)
        self._order = [0]
        self._found: tuple[tuple[int, ...], float] = ((), 0.0)

    def run(self) -> tuple[tuple[int, ...], float]:
        """The order of the fastest ring, and its rate."""
        if self._bound > 0:
            self._extend(list(range(1, self._count)), self._bound)
        return self._found

    def _extend(self, left: Sequence[int], rate: float) -> None:
        row, loads = self._steps[self._order[-1]], self._loads
        if not left:
            closed = self._sustained(row[0], rate)
            if closed > self._found[1]:
                self._found = tuple(self._order), closed
            return
        choices = sorted([(-self._sustained(row[member], rate), member) for member in left])
        for negative, member in choices:
            if -negative <= self._found[1] or self._found[1] >= self._bound * (1 - 1e-12):
                return
            step = row[member] or ()
            for link, times in step:
                loads[link] += times
            self._order.append(member)
            self._extend([other for other in left if other != member], -negative)
            self._order.pop()
            for link, times in step:
                loads[link] -= times

    def _sustained(self, step: Sequence[tuple[int, int]] | None, rate: float) -> float:
        """``rate``, or what the links of one more hop sustain if that is less; 0 for a hop that is not allowed."""
        if step is None:
            return 0.0
        for link, times in step:
            here = self._capacity[link] / (self._loads[link] + times)
            rate = min(rate, here)
        return rate

    def _rate_bound(self) -> float:
        """No single ring is faster: every GPU sends over some first hop and receives over some last one, and a link that
        parts the GPUs is crossed.
        """
        steps, capacity = self._steps, self._capacity
        alone = [
            [0.0 if step is None else min((capacity[link] / times for link, times in step), default=math.inf) for step in row]
            for row in steps
        ]
        bounds: list[float] = [max(row) for row in alone] + [max(column) for column in zip(*alone, strict=True)]
        bounds += [room / times for room, times in zip(capacity, self._least, strict=True) if times]
        return min(bounds)
