"""Collectives that somebody measured on this very machine, kept in its topology: they go before every model."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from planner.core.measured import EAGER, MeasuredCurve
from planner.core.operation import Operation
from planner.cost.interconnect import GroupFacts, Interconnect


class MeasuredHere:
    """The measurements of a topology by operation, GPUs and stack.

    The order of the GPUs matters for send/recv alone. A measurement over some GPUs also stands for others of the machine that the
    graph joins alike, as far as nothing was measured over those.
    """

    def __init__(self, wires: Interconnect) -> None:
        self._wires = wires
        place = {gpu.id: number for number, gpu in enumerate(wires.topology.gpus)}
        self._curves: dict[Hashable, MeasuredCurve] = {}
        self._alike: dict[Hashable, MeasuredCurve] = {}
        for curve in wires.topology.measurements:
            gpus = tuple(place[gpu] for gpu in curve.gpus)
            self._curves[curve.operation, curve.stack, _key(curve.operation, gpus)] = curve
            if curve.operation != "send_recv" and len(gpus) > 1:
                self._alike.setdefault((curve.operation, curve.stack, likeness(wires.group(gpus))), curve)

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
