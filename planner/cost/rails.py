"""What the network cards of one host give some of its GPUs, with the PCIe between them as a shared resource.

A ring over several hosts leaves a host at one of its members and comes back at one: any card next to any member serves.
Cards that GPUDirect reaches are used alone where there are any (NCCL v2.30.7 ``src/graph/search.cc`` looks for channels at
the nearest class of path first, and goes beyond the reach of GPUDirect only where it finds none); elsewhere the bytes go
through host memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from planner.core.topology import LinkKind
from planner.cost.packing import fractional_packing
from planner.graph.paths import DirectedLink, Paths, reverse
from planner.graph.uplinks import Uplinks

_Column = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a host's cards carry for a group, in either direction, B/s; how many of them; whether they reach the memory of
    the GPUs; and the PCIe or socket link that stops them, ``None`` where the cards or the switches above do.
    """

    rate: float
    cards: int
    gpudirect: bool
    limiting: DirectedLink | None


NO_OFFER = Offer(0.0, 0, gpudirect=True, limiting=None)


@dataclass(frozen=True, slots=True)
class _Exit:
    """A card as a member reaches it: the links that one byte out and one byte back cross, and the leaf at the other end."""

    card: str
    leaf: str
    crossings: Mapping[DirectedLink, int]


class Rails:
    """The offers of hosts to groups, memoised."""

    def __init__(self, paths: Paths, capacity: Mapping[DirectedLink, float], uplinks: Uplinks) -> None:
        self._paths = paths
        self._capacity = capacity
        self._uplinks = uplinks
        self._exits: dict[tuple[tuple[str, ...], bool], tuple[bool, list[_Exit]]] = {}

    def offer(self, members: Sequence[str], hosts: Sequence[str], *, reads: bool) -> Offer:
        """What the host of ``members`` (GPU ids) gives them where the group is on ``hosts``; ``reads`` is whether its cards
        may read the memory of GPUs, not only write it.
        """
        key = tuple(members), reads
        if key not in self._exits:
            self._exits[key] = self._ways(members, reads=reads)
        direct, exits = self._exits[key]
        if not exits:
            return NO_OFFER
        shares = {one.leaf: self._uplinks.share(one.leaf, hosts) for one in exits}
        room: dict[Hashable, float] = {link: self._capacity[link] for one in exits for link in one.crossings}
        room |= {leaf: share for leaf, share in shares.items() if share < float("inf")}
        place = {row: number for number, row in enumerate(room)}
        columns = tuple(
            tuple((place[link], times) for link, times in one.crossings.items())
            + (((place[one.leaf], 1),) if one.leaf in place else ())
            for one in exits
        )
        rate, row = together(columns, tuple(room.values()))
        limit = list(room)[row]
        links = self._paths.topology.links
        inside = isinstance(limit, tuple) and links[limit[0]].kind is not LinkKind.NETWORK
        limiting = limit if inside and isinstance(limit, tuple) else None
        return Offer(rate, len({one.card for one in exits}), direct, limiting)

    def exits(self, members: Sequence[str], *, reads: bool) -> list[tuple[str, Mapping[DirectedLink, int]]]:
        """The ways out of the host of ``members`` and back that serve them: the card, and what one byte crosses."""
        return [(one.card, one.crossings) for one in self._ways(members, reads=reads)[1]]

    def _ways(self, members: Sequence[str], *, reads: bool) -> tuple[bool, list[_Exit]]:
        """Whether GPUDirect reaches the cards that are used, and the ways to each of them from the members next to it."""
        paths = self._paths
        near = [(gpu, found) for gpu in members if (found := paths.near_cards(gpu)) is not None]
        pairs = [(kind, gpu, card) for gpu, (kind, cards) in near for card in cards]
        reached = [one for one in pairs if paths.gpudirect(*one[1:])]
        direct = bool(reached)
        pairs = reached or pairs
        best = {card: min(kind for kind, _, other in pairs if other == card) for _, _, card in pairs}
        exits = []
        for kind, gpu, card in pairs:
            if kind is best[card]:
                inside = Counter(paths.to_card(gpu, card, gpudirect=direct and reads))
                inside.update(reverse(paths.to_card(gpu, card, gpudirect=direct)))
                for number, link in self._network_links(card):
                    outside = Counter({(number, True): 1, (number, False): 1})
                    exits.append(_Exit(card, link, inside + outside))
        return direct and reads, exits

    def _network_links(self, card: str) -> list[tuple[int, str]]:
        """The network links of a card and where they end."""
        links = self._paths.topology.links
        numbers = self._paths.network_links(card)
        return [(number, links[number].b if links[number].a == card else links[number].a) for number in numbers]


@lru_cache(maxsize=4096)
def together(columns: tuple[_Column, ...], room: tuple[float, ...]) -> tuple[float, int]:
    """The most that goes over all ways at once, and the row that costs most of it.

    A column holds the rows, by number, that one byte a second of a way takes room of, and how often.

    >>> together((((0, 1), (2, 1)), ((1, 1), (2, 1))), (25.0, 25.0, 48.0))
    (48.0, 2)
    """
    crossed = [dict(column) for column in columns]
    kept: dict[tuple[int, ...], int] = {}  # of rows that every way takes room of alike the narrowest
    for row, rate in enumerate(room):
        pattern = tuple(way.get(row, 0) for way in crossed)
        if pattern not in kept or rate <= room[kept[pattern]]:
            kept[pattern] = row
    rows = {(row, True): room[row] for row in kept.values()}
    ways = [Counter({link: way[link[0]] for link in rows if link[0] in way}) for way in crossed]

    def cheapest(prices: Mapping[DirectedLink, float]) -> list[tuple[Counter[DirectedLink], float]]:
        costs = ((way, sum(prices[row] * times for row, times in way.items())) for way in ways)
        return sorted(costs, key=lambda one: one[1])

    packing = fractional_packing(ways, rows, cheapest)
    limiting = max(packing.prices, key=lambda row: (packing.prices[row] * rows[row], -row[0]), default=(0, True))
    return packing.rate, limiting[0]
