"""Measured all-reduces of machines whose GPUs are all joined by NVLink, and what they say of a group that was not measured.

A measurement stands for a group of as many GPUs with the same NVLinks. For another number of GPUs it is interpolated, or
scaled as a machine of another generation does; for GPUs of the generation with other NVLinks, an engine's kernel
takes as long as with the message that is as long on the measured wires.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean

from planner.core.engine import EngineTraits
from planner.core.estimate import Basis, Confidence
from planner.core.implementation import Implementation
from planner.cost.calibration import Anchor
from planner.cost.formula import formula
from planner.cost.interconnect import GroupFacts
from planner.units import Bytes, BytesPerSecond, Seconds

Points = tuple[tuple[Bytes, Seconds], ...]
_SIZES = tuple(Bytes(2.0**power) for power in range(8, 31))


@formula(source="measured table; log-log between points, constant time below, constant bandwidth above")
def interpolate(points: Points, size: Bytes) -> Seconds:
    """The time of ``size`` bytes on measured (bytes, time) ``points``, ascending in both.

    >>> interpolate(((Bytes(1024), Seconds(1e-6)), (Bytes(4096), Seconds(4e-6))), Bytes(2048))
    2e-06
    """
    if size <= points[0][0]:
        return points[0][1]
    if size >= points[-1][0]:
        return Seconds(points[-1][1] * size / points[-1][0])
    for (low_size, low_time), (high_size, high_time) in pairwise(points):
        if size <= high_size:
            share = math.log(size / low_size) / math.log(high_size / low_size)
            return Seconds(low_time * (high_time / low_time) ** share)
    raise AssertionError(size)


def version_key(version: str) -> tuple[int, ...]:
    """The numbers of a version, to put versions in order.

    >>> version_key("0.5.9") < version_key("0.5.14") < version_key("1.3.0rc20")
    True
    """
    return tuple(int(number) for number in re.findall(r"\d{1,9}", version))


@dataclass(frozen=True, slots=True)
class Reading:
    """What measurements say of a group: (bytes, s) ascending in both, what that rests on, and where it comes from.

    ``whole`` says whether it holds for all sizes, or only inside the gates of the engine's own kernel.
    """

    points: Points
    basis: Basis
    source: str
    whole: bool

    @property
    def confidence(self) -> Confidence:
        """High only where these very GPUs were measured."""
        return "high" if self.basis == "same" else "medium"


class Anchors:
    """The measurements of one engine's stack, as its version would repeat them."""

    def __init__(self, anchors: Iterable[Anchor], traits: EngineTraits | Implementation) -> None:
        found: dict[tuple[str, int], list[Anchor]] = {}
        for one in anchors:
            if one.stack == traits.stack:
                found.setdefault((one.system, one.ranks), []).append(one)
        self._gate = traits.custom_all_reduce
        self._of = {key: _of_version(several, traits.version) for key, several in found.items()}

    def reading(self, group: GroupFacts) -> Reading | None:
        """What was measured of a group like this one; ``None`` where nothing is like it."""
        joined_alike = group.nvlink_everywhere and group.nodes == 1 and (group.switched or group.ranks == 2)
        if not joined_alike:
            return None
        generation = [one for one in self._of.values() if one.compute_capability[0] == group.compute_capability[0]]
        same = [one for one in generation if math.isclose(one.nvlink_bandwidth, group.pair_peak, rel_tol=0.01)]
        if same:
            return self._alike(group, same)
        exact = [one for one in generation if one.ranks == group.ranks]
        inside = [self._kernel_part(one) for one in exact]
        if exact and all(inside) and group.pair_peak > 0:
            return Reading(
                _table(_scaled_mean(exact, inside, group.pair_peak)), "nvlink", _source("scaled from", exact), whole=False
            )
        return None

    def _kernel_part(self, one: Anchor) -> Points:
        """The points that the engine's own kernel took."""
        limit = self._gate.limit(one.compute_capability, one.ranks)
        return tuple((size, time) for size, time in one.points if size < limit)

    def _alike(self, group: GroupFacts, same: Sequence[Anchor]) -> Reading | None:
        of_gpu = [one for one in same if group.hardware == (one.gpu,)]
        exact = [one for one in of_gpu if one.ranks == group.ranks]
        if exact:
            return Reading(_mean_points(exact), "same", _source("measured on", exact), whole=True)
        exact = [one for one in same if one.ranks == group.ranks]
        if exact:
            return Reading(_mean_points(exact), "alike", _source("measured on", exact), whole=True)
        below = [one for one in same if one.ranks < group.ranks]
        above = [one for one in same if one.ranks > group.ranks]
        if below and above:
            return Reading(
                _table(_between(below, above, group.ranks)), "alike", _source("between measurements on", same), whole=True
            )
        return self._by_another_machine(group, same)

    def _by_another_machine(self, group: GroupFacts, same: Sequence[Anchor]) -> Reading | None:
        """Measured with another number of ranks only: scaled as a machine that was measured with both scales."""
        near = min({one.ranks for one in same}, key=lambda ranks: abs(math.log(ranks / group.ranks)))
        here = [one for one in same if one.ranks == near]
        steps = []
        for one in self._of.values():
            other = self._of.get((one.system, near))
            if one.ranks == group.ranks and other is not None:
                steps.append((one, other))
        if not steps:
            return None
        start = _mean(here)

        def time(size: Bytes) -> Seconds:
            ratios = []
            for many, few in steps:
                alike = Bytes(size * few.nvlink_bandwidth / group.pair_peak)
                ratios.append(interpolate(many.points, alike) / interpolate(few.points, alike))
            return Seconds(start(size) * _geometric_mean(ratios))

        return Reading(
            _table(time), "alike", f"{_source('measured on', here)}, {near} GPUs; scaled to {group.ranks}", whole=False
        )


def _of_version(several: Sequence[Anchor], version: str) -> Anchor:
    """The newest measurement that is no newer than ``version``; the oldest where all are, the newest where none is named."""
    known = sorted((version_key(name), place) for place, one in enumerate(several) for name in one.versions)
    before = [place for key, place in known if not version or key <= version_key(version)]
    return several[before[-1] if before else known[0][1]]


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(fmean(math.log(value) for value in values))


def _table(time: Callable[[Bytes], float]) -> Points:
    """``time`` at powers of two, made to rise with size."""
    times = accumulate((time(size) for size in _SIZES), max)
    return tuple((size, Seconds(taken)) for size, taken in zip(_SIZES, times, strict=True))


def _mean_points(anchors: Sequence[Anchor]) -> Points:
    return anchors[0].points if len(anchors) == 1 else _table(_mean(anchors))


def _mean(anchors: Sequence[Anchor]) -> Callable[[Bytes], Seconds]:
    """The geometric mean of several machines' measurements."""
    return lambda size: Seconds(_geometric_mean([interpolate(one.points, size) for one in anchors]))


def _scaled_mean(anchors: Sequence[Anchor], points: Sequence[Points], bandwidth: BytesPerSecond) -> Callable[[Bytes], Seconds]:
    """On NVLinks of another ``bandwidth``: the measured time of the message that is as long on the wire."""

    def time(size: Bytes) -> Seconds:
        alike = [
            interpolate(part, Bytes(size * one.nvlink_bandwidth / bandwidth)) for one, part in zip(anchors, points, strict=True)
        ]
        return Seconds(_geometric_mean(alike))

    return time


def _between(below: Sequence[Anchor], above: Sequence[Anchor], ranks: int) -> Callable[[Bytes], Seconds]:
    """Log-linear in the number of ranks between the nearest measured ones."""
    few = max(one.ranks for one in below)
    many = min(one.ranks for one in above)
    low = _mean([one for one in below if one.ranks == few])
    high = _mean([one for one in above if one.ranks == many])
    share = math.log(ranks / few) / math.log(many / few)
    return lambda size: Seconds(low(size) * (high(size) / low(size)) ** share)


def _source(how: str, anchors: Sequence[Anchor]) -> str:
    names = ", ".join(f"{one.gpu} ({one.stack} {one.version})" for one in anchors[:2])
    return f"{how} {names}" + (" and others" if len(anchors) > 2 else "")
