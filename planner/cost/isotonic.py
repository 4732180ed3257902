"""Measured times made to rise with size, or rid of what sticks out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TypeVar

Size = TypeVar("Size", bound=float)


def isotonic(rows: Sequence[tuple[Size, float]]) -> list[tuple[Size, float]]:
    """The nearest times (in the logarithm) that never fall with size: neighbours out of order are pooled.

    ``rows`` are (size, time), ascending in size; times are above 0.

    >>> [(size, round(time, 3)) for size, time in isotonic([(1, 4.0), (2, 9.0), (3, 4.0), (4, 10.0)])]
    [(1, 4.0), (2, 6.0), (3, 6.0), (4, 10.0)]
    """
    pools: list[tuple[float, int]] = []
    for _, time in rows:
        pools.append((math.log(time), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (left, weight), (right, other) = pools[-2:]
            pools[-2:] = [((left * weight + right * other) / (weight + other), weight + other)]
    smooth = [math.exp(value) for value, weight in pools for _ in range(weight)]
    return [(size, time) for (size, _), time in zip(rows, smooth, strict=True)]


def without_spikes(rows: Sequence[tuple[Size, float]]) -> list[tuple[Size, float]]:
    """The running median of three: a time above or below both its neighbours takes the nearer of theirs; the ends stay.

    >>> without_spikes([(1, 50.0), (2, 49.0), (3, 90.0), (4, 48.0), (5, 60.0)])
    [(1, 50.0), (2, 50.0), (3, 49.0), (4, 60.0), (5, 60.0)]
    """
    times = [time for _, time in rows]
    inner = [median(times[place - 1 : place + 2]) for place in range(1, len(times) - 1)]
    smooth = [*times[:1], *inner, *times[1:][-1:]]
    return [(size, time) for (size, _), time in zip(rows, smooth, strict=True)]
