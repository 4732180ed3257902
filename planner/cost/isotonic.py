"""Measured times made to rise with size, or rid of what sticks out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TypeVar

Size = TypeVar("Size", bound=float)

STICKS_OUT = 2.0
"""A message that took so many times as long as a larger one, or more, did not take that by itself."""
_AROUND = 8


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


def without_outliers(rows: Sequence[tuple[Size, float]]) -> list[tuple[Size, float]]:
    """The rows but those that stick out, at least one of which stays.

    A row and a larger message near it that took a fraction of its time cannot both be right: it is the one that is at odds with
    more of the rows around it, of equals the slower, for other traffic slows a message down and nothing speeds it up.

    >>> without_outliers([(1, 12.0), (2, 13.0), (4, 270.0), (8, 16.0), (16, 28.0), (32, 5.0), (64, 30.0)])
    [(1, 12.0), (2, 13.0), (8, 16.0), (16, 28.0), (64, 30.0)]
    """
    kept = list(rows)
    while True:
        odds = _at_odds(kept)
        if not any(odds):
            return kept
        blame = [(len(others), time) for others, (_, time) in zip(odds, kept, strict=True)]
        kept = [
            row
            for row, own, others in zip(kept, blame, odds, strict=True)
            if not others or any(blame[other] > own for other in others)
        ]


def _at_odds(rows: Sequence[tuple[Size, float]]) -> list[list[int]]:
    """For every row the places of those near it of which one, smaller, took too long beside the other."""
    found: list[list[int]] = [[] for _ in rows]
    for place, (_, time) in enumerate(rows):
        for later in range(place + 1, min(place + 1 + _AROUND, len(rows))):
            if time >= STICKS_OUT * rows[later][1]:
                found[place].append(later)
                found[later].append(place)
    return found


def without_spikes(rows: Sequence[tuple[Size, float]]) -> list[tuple[Size, float]]:
    """The running median of three: a time above or below both its neighbours takes the nearer of theirs; the ends stay.

    >>> without_spikes([(1, 50.0), (2, 49.0), (3, 90.0), (4, 48.0), (5, 60.0)])
    [(1, 50.0), (2, 50.0), (3, 49.0), (4, 60.0), (5, 60.0)]
    """
    times = [time for _, time in rows]
    inner = [median(times[place - 1 : place + 2]) for place in range(1, len(times) - 1)]
    smooth = [*times[:1], *inner, *times[1:][-1:]]
    return [(size, time) for (size, _), time in zip(rows, smooth, strict=True)]
