"""The ways between a few GPUs with the names taken off, so that groups that the wires treat alike are priced once.

Links are numbered in the order in which the ways between the members, in canonical order, first cross them. Equal shapes
are therefore the same wires; equal wires mostly, not always, get equal shapes (a class of look-alikes is not searched for
the order with the smallest description, which would cost more than it saves).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from planner.graph.paths import DirectedLink, PathKind, Paths

_Likeness = tuple[PathKind, bool, tuple[float, ...]]
"""What a path is like: its class, whether it rests in host memory, what each of its links carries."""


class Way(NamedTuple):
    """From one member to another: the class of the path, whether it rests in host memory, and the links it crosses, by
    their number in the shape.
    """

    kind: PathKind
    staged: bool
    links: tuple[DirectedLink, ...]


@dataclass(frozen=True)
class Shape:
    """All that a ring over ``count`` members can know of the wires.

    ``ways`` holds every ordered pair of members, row by row. ``rates`` are what a link carries in its first and its second
    direction, B/s.
    """

    count: int
    ways: tuple[Way, ...]
    rates: tuple[tuple[float, float], ...]

    @cached_property
    def _hash(self) -> int:
        return hash((self.ways, self.rates))

    def __hash__(self) -> int:
        return self._hash

    def way(self, a: int, b: int) -> Way:
        """The way from member ``a`` to member ``b``."""
        return self.ways[a * (self.count - 1) + b - (b > a)]

    @cached_property
    def capacity(self) -> dict[DirectedLink, float]:
        """What each directed link carries, B/s."""
        return {(number, first): rates[not first] for number, rates in enumerate(self.rates) for first in (True, False)}


@dataclass(frozen=True, slots=True)
class Seen:
    """A shape as found on some GPUs: ``links`` are the links of the topology by their number in the shape, each as it is
    taken in its first direction.
    """

    shape: Shape
    links: tuple[DirectedLink, ...]

    def named(self, link: DirectedLink) -> DirectedLink:
        """The link of the topology that is ``link`` in the shape."""
        number, first = link
        there, forward = self.links[number]
        return there, forward == first


class Shapes:
    """The shapes of groups on one machine."""

    def __init__(self, paths: Paths, capacity: Mapping[DirectedLink, float]) -> None:
        self._paths = paths
        self._capacity = capacity
        self._likenesses: dict[tuple[str, str], _Likeness] = {}

    def of(self, group: Sequence[str]) -> Seen:
        """The shape of a group of GPU ids."""
        members = self._ordered(sorted(group))
        numbers: dict[int, int] = {}
        links: list[DirectedLink] = []
        ways = []
        for a in members:
            for b in members:
                if a != b:
                    path = self._paths.between(a, b)
                    crossed = []
                    for link, forward in path.links:
                        if link not in numbers:
                            numbers[link] = len(links)
                            links.append((link, forward))
                        crossed.append((numbers[link], links[numbers[link]][1] == forward))
                    ways.append(Way(path.kind, path.staged, tuple(crossed)))
        rates = tuple((self._capacity[link, forward], self._capacity[link, not forward]) for link, forward in links)
        return Seen(Shape(len(members), tuple(ways), rates), tuple(links))

    def _likeness(self, a: str, b: str) -> _Likeness:
        found = self._likenesses.get((a, b))
        if found is None:
            path = self._paths.between(a, b)
            found = path.kind, path.staged, tuple(self._capacity[link] for link in path.links)
            self._likenesses[a, b] = found
        return found

    def _ordered(self, group: Sequence[str]) -> list[str]:
        """The members by what their ways to each other are like: first the one that is most special, then always the one
        whose ways to those before it come first.
        """
        likeness = {(a, b): self._likeness(a, b) for a in group for b in group if a != b}
        number = {one: place for place, one in enumerate(sorted(set(likeness.values())))}
        label = {pair: number[one] for pair, one in likeness.items()}
        sight = {a: tuple(sorted([label[a, b] for b in group if b != a])) for a in group}
        wider = {a: (sight[a], tuple(sorted([(label[a, b], sight[b]) for b in group if b != a]))) for a in group}
        rank = {one: place for place, one in enumerate(sorted(set(wider.values())))}
        keys: dict[str, tuple[int, ...]] = {a: (rank[wider[a]],) for a in group}
        order: list[str] = []
        while keys:
            taken = min(keys, key=keys.__getitem__)
            order.append(taken)
            del keys[taken]
            for other in keys:
                keys[other] += (label[taken, other],)
        return order
