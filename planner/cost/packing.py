"""The linear programme of ring packing, by column generation and the revised simplex method.

maximise    the sum of all rates x
such that   for every link, the sum of rate × crossings stays within its capacity

There are (n-1)! rings; only those that pay under the current link prices enter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from planner.graph.paths import DirectedLink

MAX_STEPS = 3000
_TINY = 1e-9
_NUDGE = 1e-7

Column = Mapping[DirectedLink, int]


@dataclass(frozen=True, slots=True)
class Packing:
    """The largest total rate, B/s, and the prices of the links that prove it: no ring costs less than 1 under them, and
    all capacity together costs ``rate``.
    """

    rate: float
    prices: Mapping[DirectedLink, float]


def fractional_packing(
    columns: Sequence[Column],
    capacity: Mapping[DirectedLink, float],
    cheapest: Callable[[Mapping[DirectedLink, float]], Sequence[tuple[Column, float]]],
) -> Packing:
    """The largest total rate under ``capacity`` (B/s of every link that some ring crosses).

    ``columns`` are the crossings of some rings to start from; ``cheapest`` finds, for prices of the links, rings and what
    they cost: first the one whose crossings cost least, then others that may be cheap.
    """
    rows = sorted(capacity)
    scale = max(capacity.values(), default=0.0)
    if scale <= 0:
        return Packing(0.0, {})
    simplex = _Simplex([capacity[link] / scale for link in rows])
    place = {link: number for number, link in enumerate(rows)}
    waiting = [{place[link]: times for link, times in column.items()} for column in columns]
    for _ in range(MAX_STEPS):
        slack = min(range(len(rows)), key=simplex.prices.__getitem__)
        if simplex.prices[slack] < -_TINY:
            if not simplex.enter({slack: 1}, 0.0):
                break
            continue
        waiting = [column for column in waiting if simplex.cost(column) < 1 - _TINY]
        if not waiting:
            found = cheapest({link: max(0.0, simplex.prices[place[link]]) for link in rows})
            if found[0][1] >= 1 - _TINY:
                break
            waiting = [{place[link]: times for link, times in ring.items()} for ring, cost in found if cost < 1 - _TINY]
        if not simplex.enter(min(waiting, key=simplex.cost), 1.0):
            break
    prices = {link: max(0.0, simplex.prices[place[link]]) for link in rows}
    return Packing(sum(prices[link] * capacity[link] for link in rows), prices)


class _Simplex:
    """A basis of the programme: it starts as the slacks of all rows, and takes one column in for one out.

    Capacities are nudged apart, each by another hair, so that no step goes nowhere (Charnes 1952). The prices of the last
    basis are those of a basis of the true capacities.
    """

    def __init__(self, capacity: Sequence[float]) -> None:
        size = len(capacity)
        self.prices = [0.0] * size
        self._inverse = [[float(i == j) for j in range(size)] for i in range(size)]
        self._value = [room * (1 + _NUDGE * (1 + number) / size) for number, room in enumerate(capacity)]

    def cost(self, column: Mapping[int, int]) -> float:
        """What the crossings of a ring cost."""
        prices = self.prices
        return sum(prices[row] * times for row, times in column.items())

    def enter(self, column: Mapping[int, int], worth: float) -> bool:
        """Take ``column`` into the basis, for whichever reaches zero first; false where nothing does."""
        inverse, value = self._inverse, self._value
        terms = list(column.items())
        direction = [sum([row[place] * times for place, times in terms]) for row in inverse]
        falling = [i for i, step in enumerate(direction) if step > _TINY]
        if not falling:
            return False
        leaving = min(falling, key=lambda i: value[i] / direction[i])
        gained = worth - self.cost(column)
        pivot = direction[leaving]
        inverse[leaving] = taken = [entry / pivot for entry in inverse[leaving]]
        value[leaving] /= pivot
        for i, factor in enumerate(direction):
            if factor and i != leaving:
                inverse[i] = [a - factor * b for a, b in zip(inverse[i], taken, strict=True)]
                value[i] = max(0.0, value[i] - factor * value[leaving])
        self.prices = [a + gained * b for a, b in zip(self.prices, taken, strict=True)]
        return True
