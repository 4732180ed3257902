"""The linear programme of ring packing, by column generation and the revised simplex method.

maximise    the sum of all rates x
such that   for every directed link, the sum of rate × crossings stays within its capacity

There are (n-1)! rings; only those that pay under the current link prices enter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from planner.graph.paths import DirectedLink

MAX_STEPS = 3000
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Packing:
    """The largest total rate, B/s, and the prices of the links that prove it: no ring costs less than 1 under them, and
    all capacity together costs ``rate``.
    """

    rate: float
    prices: Mapping[DirectedLink, float]


def fractional_packing(
    columns: Sequence[Mapping[DirectedLink, int]],
    capacity: Mapping[DirectedLink, float],
    cheapest: Callable[[Mapping[DirectedLink, float]], tuple[Mapping[DirectedLink, int], float]],
) -> Packing:
    """The largest total rate under ``capacity`` (B/s of every link that some ring crosses).

    ``columns`` are the crossings of some rings to start from; ``cheapest`` finds, for prices of the links, the ring
    whose crossings cost least, and that cost.
    """
    rows = sorted(capacity)
    scale = max(capacity.values(), default=0.0)
    if scale <= 0:
        return Packing(0.0, {})
    place = {link: number for number, link in enumerate(rows)}
    size = len(rows)
    # the basis starts as the slacks of all links; inverse is its inverse, value the current basic solution
    inverse = [[float(i == j) for j in range(size)] for i in range(size)]
    value = [capacity[link] / scale for link in rows]
    gain = [0.0] * size
    waiting = list(columns)
    for _ in range(MAX_STEPS):
        prices = [sum(gain[i] * inverse[i][j] for i in range(size) if gain[i]) for j in range(size)]
        entering = None
        while waiting and entering is None:
            column = waiting.pop()
            if 1 - sum(prices[place[link]] * times for link, times in column.items()) > _TINY:
                entering = column
        slack = min(range(size), key=lambda j: prices[j])
        if entering is None and prices[slack] < -_TINY:
            entering = {rows[slack]: 1}
            worth = 0.0
        else:
            worth = 1.0
            if entering is None:
                ring, cost = cheapest({link: max(0.0, prices[place[link]]) for link in rows})
                if cost >= 1 - _TINY:
                    break
                entering = ring
        direction = [sum(inverse[i][place[link]] * times for link, times in entering.items()) for i in range(size)]
        leaving = min((i for i in range(size) if direction[i] > _TINY), key=lambda i: (value[i] / direction[i], i), default=None)
        if leaving is None:
            break
        pivot = direction[leaving]
        inverse[leaving] = [entry / pivot for entry in inverse[leaving]]
        value[leaving] /= pivot
        for i in range(size):
            if i != leaving and direction[i]:
                factor = direction[i]
                inverse[i] = [a - factor * b for a, b in zip(inverse[i], inverse[leaving], strict=True)]
                value[i] = max(0.0, value[i] - factor * value[leaving])
        gain[leaving] = worth
    total = scale * sum(amount for amount, worth in zip(value, gain, strict=True) if worth)
    prices = [sum(gain[i] * inverse[i][j] for i in range(size) if gain[i]) for j in range(size)]
    return Packing(total, {link: max(0.0, prices[place[link]]) for link in rows})
