"""Collectives that somebody measured on this very machine, kept in its topology: they go before every model."""

from __future__ import annotations

from planner.core.measured import EAGER, MeasuredCurve
from planner.core.operation import Operation
from planner.core.topology import Topology


class MeasuredHere:
    """The measurements of a topology by operation, GPUs and stack. The order of the GPUs matters for send/recv alone."""

    def __init__(self, topology: Topology) -> None:
        place = {gpu.id: number for number, gpu in enumerate(topology.gpus)}
        self._curves = {
            (curve.operation, curve.stack, _key(curve.operation, tuple(place[gpu] for gpu in curve.gpus))): curve
            for curve in topology.measurements
        }

    def curve(self, operation: Operation, gpus: tuple[int, ...], stack: str) -> MeasuredCurve | None:
        """The measurement of an operation over exactly these GPUs by ``stack``, ``None`` where there is none.

        Where it was measured without CUDA graphs alone, that stands for both.
        """
        if not self._curves:
            return None
        key = _key(operation, gpus)
        found = self._curves.get((operation, stack, key))
        return found or self._curves.get((operation, stack + EAGER, key))


def _key(operation: Operation, gpus: tuple[int, ...]) -> tuple[int, ...]:
    return gpus if operation == "send_recv" else tuple(sorted(gpus))
