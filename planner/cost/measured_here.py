"""Collectives that somebody measured on this very machine, kept in its topology: they go before every model."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import replace

from planner.core.estimate import CollectiveTime
from planner.core.measured import EAGER, MeasuredCurve
from planner.core.operation import Operation
from planner.cost.anchors import interpolate
from planner.cost.formula import formula
from planner.cost.interconnect import GroupFacts, Interconnect
from planner.units import Bytes, Seconds

FAR = 4.0
"""Sizes that are so many times below or above all measured ones are no more certain than the model is there."""
STEADY = 0.9
"""But small messages are, where the model's time of them is at least this share of that of the smallest that was measured."""
Model = Callable[[Bytes], CollectiveTime]
"""What is believed of an operation of so many bytes where this curve is not."""


@formula(source="this project: smaller messages as far off the model as the smallest that was measured")
def before_measured(first: Seconds, model_first: Seconds, model: Seconds) -> Seconds:
    """The time of a message smaller than all that were measured; ``model`` is its modelled time.

    ``first`` and ``model_first`` are the measured and the modelled time of the smallest that was measured.

    >>> round(before_measured(Seconds(40e-6), Seconds(20e-6), Seconds(10e-6)) * 1e6, 3)
    20.0
    """
    return Seconds(first * model / model_first)


@formula(
    source="this project: grows as the model does, as far off as that was at the largest measured, as far as bytes took its time"
)
def beyond_measured(last: Seconds, model_last: Seconds, model: Seconds, byte_share: float) -> Seconds:
    """The time of a message larger than all that were measured; ``model`` is its modelled time.

    ``last`` and ``model_last`` are the measured and the modelled time of the largest that was measured; ``byte_share`` is from 0
    (latency: says nothing of what more bytes take) to 1 (as many times the time as bytes).

    >>> last, model_last, model = Seconds(20e-6), Seconds(10e-6), Seconds(110e-6)
    >>> [round(beyond_measured(last, model_last, model, share) * 1e6, 3) for share in (0.0, 1.0)]
    [120.0, 220.0]
    """
    return Seconds(last + max(0.0, model - model_last) * (last / model_last) ** byte_share)


def at_size(curve: MeasuredCurve, size: Bytes, limiting: str | None, model: Model) -> CollectiveTime:
    """What a measurement on this very machine says of ``size`` bytes: interpolated among the measured sizes, outside them joined to
    ``model``, far outside as certain as that.
    """
    (smallest, first), (largest, last) = curve.points[0], curve.points[-1]
    source = f"measured on this machine: {curve.source}"
    if smallest <= size <= largest:
        return CollectiveTime(interpolate(curve.points, size), "measured", limiting, "high", source, "here")
    modelled = model(size)
    if size < smallest:
        model_first = model(smallest).time
        time = before_measured(first, model_first, modelled.time)
        near = size >= smallest / FAR or modelled.time >= STEADY * model_first
    else:
        time = beyond_measured(last, model(largest).time, modelled.time, _byte_share(largest, model))
        near = size <= largest * FAR
    if near:
        return CollectiveTime(time, "measured", limiting, "high", source, "here")
    source += f", from {smallest:.0f} to {largest:.0f} B; the rest extrapolated as the model goes"
    return CollectiveTime(time, "extrapolated", modelled.limiting_link, modelled.confidence, source, modelled.basis)


def _byte_share(size: Bytes, model: Model) -> float:
    """How the modelled time grows with bytes from half of ``size`` on: 0 not at all, 1 in proportion."""
    return min(1.0, max(0.0, math.log2(model(size).time / model(Bytes(size / 2)).time)))


class MeasuredHere:
    """The measurements of a topology by operation, GPUs and stack.

    The order of the GPUs matters for send/recv alone. A measurement over some GPUs also stands for others of the machine that the
    graph joins alike, as far as nothing was measured over those.
    """

    def __init__(self, wires: Interconnect, besides: str = "") -> None:
        """All of them, or all but those of the stack ``besides``."""
        self._wires = wires
        place = {gpu.id: number for number, gpu in enumerate(wires.topology.gpus)}
        self._curves: dict[Hashable, MeasuredCurve] = {}
        self._alike: dict[Hashable, MeasuredCurve] = {}
        for curve in wires.topology.measurements:
            if curve.stack.removesuffix(EAGER) == besides:
                continue
            gpus = tuple(place[gpu] for gpu in curve.gpus)
            self._curves[curve.operation, curve.stack, _key(curve.operation, gpus)] = curve
            if curve.operation != "send_recv" and len(gpus) > 1:
                self._alike.setdefault((curve.operation, curve.stack, likeness(wires.group(gpus))), curve)

    def besides(self, stack: str) -> MeasuredHere:
        """The measurements of all other stacks."""
        return MeasuredHere(self._wires, stack)

    def curve(self, operation: Operation, gpus: tuple[int, ...], stack: str) -> MeasuredCurve | None:
        """The measurement of an operation over these GPUs by ``stack``, else over GPUs joined alike; ``None`` where there is none.

        Where it was measured without CUDA graphs alone, that stands for both.
        """
        if not self._curves:
            return None
        key = _key(operation, gpus)
        for name in (stack, stack + EAGER):
            found = self._curves.get((operation, name, key))
            if found is not None:
                return found
        if operation == "send_recv" or len(gpus) < 2:
            return None
        alike = likeness(self._wires.group(gpus))
        return self._alike.get((operation, stack, alike)) or self._alike.get((operation, stack + EAGER, alike))


def likeness(group: GroupFacts) -> Hashable:
    """A group without its names: two with the same likeness are the same to every model here."""
    return replace(group, gpus=(), limiting_link=None, packing=replace(group.packing, limiting=None)), group.ranks


def _key(operation: Operation, gpus: tuple[int, ...]) -> tuple[int, ...]:
    return gpus if operation == "send_recv" else tuple(sorted(gpus))
