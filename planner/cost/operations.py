"""What any operation of nccl-tests takes on any ordered GPUs of a machine, by NCCL or by an engine's own kernels.

All-reduces are those of :class:`planner.cost.collectives.Collectives`. The others are NCCL's: its own model with the ring
bandwidth of the group, or the busiest link of the graph where all send to each other at once, times how far measurements of
that generation were off the model (``data/calibration``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from planner.core.estimate import CollectiveTime
from planner.core.implementation import Implementation, Prediction
from planner.core.measured import EAGER
from planner.core.operation import Operation
from planner.cost import nccl_ops
from planner.cost.anchors import interpolate
from planner.cost.calibration import Calibration, OperationFit, generation_of
from planner.cost.collectives import (
    NCCL,
    Collectives,
    basis_of,
    confidence_of,
    fabric_of,
    factor_key,
)
from planner.cost.formula import formula
from planner.cost.interconnect import GroupFacts, Interconnect
from planner.cost.measured_here import MeasuredHere, at_size
from planner.cost.point_to_point import hop_time
from planner.errors import BadInput
from planner.graph.paths import DirectedLink, PathKind
from planner.units import Bytes, BytesPerSecond, Seconds

_CURVE = tuple(Bytes(2.0**power) for power in range(3, 41))
_CERTAIN = (1.0, 1.0)
_SENDS = "NCCL sends"
_BY_LINKS: tuple[Operation, ...] = ("send_recv",)
_PATTERNS: dict[Operation, str] = {"all_gather": "gather", "reduce_scatter": "gather", "broadcast": "broadcast"}


@formula(source="this project: measured over modelled time (data/calibration/collectives.yaml), log-linear in size and ranks")
def operation_factor(fit: OperationFit, size: Bytes, ranks: int) -> float:
    """How much longer than the model an operation takes; the nearest measured size and number of ranks beyond their range.

    >>> fit = OperationFit((Bytes(1024), Bytes(4096)), {2: (1.0, 4.0), 8: (1.0, 1.0)}, 0.1)
    >>> round(operation_factor(fit, Bytes(4096), 4), 3), operation_factor(fit, Bytes(1), 16)
    (2.0, 1.0)
    """
    known = sorted(fit.factors)
    below = max((one for one in known if one <= ranks), default=known[0])
    above = min((one for one in known if one >= ranks), default=known[-1])
    low, high = (_at(fit, fit.factors[one], size) for one in (below, above))
    if below == above:
        return low
    share = math.log(ranks / below) / math.log(above / below)
    return float(low * (high / low) ** share)


def _at(fit: OperationFit, factors: Sequence[float], size: Bytes) -> float:
    if size <= fit.sizes[0]:
        return factors[0]
    for (low, one), (high, other) in pairwise(zip(fit.sizes, factors, strict=True)):
        if size <= high:
            return float(one * (other / one) ** (math.log(size / low) / math.log(high / low)))
    return factors[-1]


class Operations:
    """The operations of one implementation on one machine, memoised by group."""

    def __init__(self, wires: Interconnect, calibration: Calibration, implementation: Implementation) -> None:
        self.wires = wires
        self.calibration = calibration
        self.implementation = implementation
        self._here = MeasuredHere(wires)
        self._all_reduces = Collectives(calibration, implementation, self._here)
        self._unmeasured = Collectives(calibration, implementation, self._here.besides(implementation.stack))
        self._busy: dict[tuple[Operation, tuple[int, ...]], tuple[DirectedLink, float]] = {}
        self._curves: dict[tuple[Operation, tuple[int, ...]], tuple[tuple[Bytes, Seconds], ...]] = {}

    def predict(self, operation: Operation, gpus: Sequence[int], size: Bytes, *, eager: bool = False) -> Prediction:
        """An operation of ``size`` bytes, counted as nccl-tests does, over ``gpus`` in that order.

        ``eager`` is without CUDA graphs: as measured so on this machine, else no operation is faster than its launch. Raises
        ``BadInput`` where no link joins them.
        """
        taken = self._taken(operation, tuple(gpus), size)
        if eager and taken.time > 0:
            taken = self._eager(operation, tuple(gpus), size, taken)
        algorithm = size / taken.time if taken.time > 0 else 0.0
        bus = algorithm * nccl_ops.bus_factor(operation, len(gpus))
        low, high = self._interval(taken)
        return Prediction(operation, size, self.implementation.name, taken, low, high, algorithm, bus)

    def model(self, operation: Operation, gpus: tuple[int, ...], size: Bytes) -> tuple[Seconds, str]:
        """What NCCL's model and the graph say of an operation other than an all-reduce, before any factor."""
        group = self.wires.group(gpus)
        pattern = _PATTERNS.get(operation)
        if pattern == "gather":
            return nccl_ops.gather(size, fabric_of(group))
        if pattern == "broadcast":
            fabric = fabric_of(group)
            if group.packing.staged and group.ranks == 2:  # nothing comes back, so host memory carries twice as much one way
                fabric = replace(fabric, channel_bandwidth=BytesPerSecond(2 * fabric.channel_bandwidth))
            return nccl_ops.broadcast(size, fabric)
        if operation == "send_recv":
            return self._sends(gpus, size), "sends"
        busiest = size / group.ranks * self._busiest(operation, group.gpus)[1]
        return nccl_ops.exchange(Seconds(busiest), _link(group)), "sends to all"

    def factor(self, operation: Operation, gpus: tuple[int, ...]) -> OperationFit | None:
        """The fit for an operation on a group: of its GPU generation on NVLink, of PCIe machines otherwise."""
        return self.calibration.operations.get(operation, {}).get(factor_key(self.wires.group(gpus)))

    def _taken(self, operation: Operation, gpus: tuple[int, ...], size: Bytes) -> CollectiveTime:
        if len(gpus) == 1 or size <= 0:
            return CollectiveTime(Seconds(0.0), "none", None, "high", "one rank", "none")
        group = self.wires.group(gpus)
        self._refuse_apart(group)
        if operation == "all_reduce":
            return self._all_reduces.all_reduce(group, size)
        here = self._here.curve(operation, gpus, NCCL)
        if here is not None:
            return at_size(here, size, self._limiting(operation, group, gpus), partial(self._modelled, operation, gpus))
        return self._modelled(operation, gpus, size)

    def _modelled(self, operation: Operation, gpus: tuple[int, ...], size: Bytes) -> CollectiveTime:
        """An operation other than an all-reduce as if nobody had measured it on this machine."""
        group = self.wires.group(gpus)
        key = operation, gpus if operation == "send_recv" else group.gpus
        curve = self._curves.get(key)
        if curve is None:
            curve = self._curves[key] = self._curve(operation, key[1])
        confidence, basis = confidence_of(group), basis_of(group)
        source = "NCCL's model on this graph, corrected by measurement"
        if self.factor(operation, gpus) is None and operation not in _BY_LINKS:
            source, confidence, basis = "the model alone: nothing was measured that is like it", "low", "unmeasured"
        algorithm = f"NCCL {self.model(operation, key[1], size)[1]}"
        limiting = self._limiting(operation, group, gpus)
        return CollectiveTime(interpolate(curve, size), algorithm, limiting, confidence, source, basis)

    def _eager(self, operation: Operation, gpus: tuple[int, ...], size: Bytes, taken: CollectiveTime) -> CollectiveTime:
        """The operation that takes ``taken`` in a CUDA graph, without one: as measured so on this machine, else no faster than a launch."""
        stack = self.implementation.stack if operation == "all_reduce" else NCCL
        launched = self._here.curve(operation, gpus, stack + EAGER)
        if launched is None:
            return self._launched(gpus, taken)

        def believed(one: Bytes) -> CollectiveTime:
            if operation == "all_reduce":
                return self._launched(gpus, self._unmeasured.all_reduce(self.wires.group(gpus), one))
            return self._launched(gpus, self._modelled(operation, gpus, one))

        return at_size(launched, size, taken.limiting_link, believed)

    def _launched(self, gpus: tuple[int, ...], taken: CollectiveTime) -> CollectiveTime:
        """What takes ``taken`` in a CUDA graph, by the launch alone where that takes longer."""
        floor = self._launch(gpus, taken)
        if taken.time >= floor:
            return taken
        return CollectiveTime(floor, "launch", None, taken.confidence, "launched one by one, without CUDA graphs", "launch")

    def _curve(self, operation: Operation, gpus: tuple[int, ...]) -> tuple[tuple[Bytes, Seconds], ...]:
        """Times at powers of two that never fall with size, whatever a protocol's switch or a factor does."""
        fit = self.factor(operation, gpus)
        points: list[tuple[Bytes, Seconds]] = []
        longest = 0.0
        for size in _CURVE:
            factor = operation_factor(fit, size, len(gpus)) if fit else 1.0
            longest = max(longest, self.model(operation, gpus, size)[0] * factor)
            points.append((size, Seconds(longest)))
        return tuple(points)

    def _loads(self, pairs: Sequence[tuple[int, int]]) -> Counter[DirectedLink]:
        """How many of the sends cross each directed link."""
        loads: Counter[DirectedLink] = Counter()
        for a, b in pairs:
            loads.update(self.wires.path(a, b).links)
        return loads

    def _capacity(self, link: DirectedLink) -> BytesPerSecond:
        """What a link carries. Raises ``BadInput`` where that is not known."""
        rate = self.wires.capacity[link]
        if rate <= 0:
            raise BadInput(f"the bandwidth of {self.wires.describe(link)} is not known", path=self.wires.topology.name)
        return BytesPerSecond(rate)

    def _sends(self, gpus: tuple[int, ...], size: Bytes) -> Seconds:
        """Every GPU sends ``size`` to the next at once; a send takes as much longer as its links carry others."""
        pairs = _ring(gpus)
        loads = self._loads(pairs)
        longest = 0.0
        for a, b in pairs:
            path = self.wires.path(a, b)
            by_line_rate = path.kind in {PathKind.NVLINK, PathKind.NETWORK}
            if (self.wires.peak(path) if by_line_rate else self.wires.rate(path)) <= 0:
                raise BadInput(f"the bandwidth from GPU {a} to GPU {b} is not known", path=self.wires.topology.name)
            own = Counter(path.links)
            others = max(loads[link] / times for link, times in own.items())
            fit = self.calibration.point_to_point
            longest = max(longest, hop_time(self.wires, fit, a, b, Bytes(size * others)))
        return Seconds(longest)

    def _limiting(self, operation: Operation, group: GroupFacts, gpus: tuple[int, ...]) -> str | None:
        if operation not in {"all_to_all", "send_recv"}:
            return group.limiting_link
        members = gpus if operation == "send_recv" else group.gpus
        return self.wires.describe(self._busiest(operation, members)[0])

    def _busiest(self, operation: Operation, gpus: tuple[int, ...]) -> tuple[DirectedLink, float]:
        """The link that the sends of an operation keep busy longest, and for how long by byte of a send, s."""
        found = self._busy.get((operation, gpus))
        if found is None:
            pairs = _ring(gpus) if operation == "send_recv" else [(a, b) for a in gpus for b in gpus if a != b]
            loads = self._loads(pairs)
            link = max(sorted(loads), key=lambda one: loads[one] / self._capacity(one))
            found = self._busy[operation, gpus] = link, loads[link] / self._capacity(link)
        return found

    def _refuse_apart(self, group: GroupFacts) -> None:
        apart = group.network <= 0 if group.nodes > 1 else group.packing.bandwidth <= 0
        if apart:
            names = ", ".join(str(gpu) for gpu in group.gpus)
            raise BadInput(f"no link that is known joins GPUs {names}", path=self.wires.topology.name)

    def _launch(self, gpus: Sequence[int], taken: CollectiveTime) -> Seconds:
        group = self.wires.group(gpus)
        key = generation_of(group.compute_capability) if _link(group) != "pcie" else "pcie"
        by_nccl = self.implementation.stack == NCCL or taken.algorithm.startswith("NCCL")
        who = "kernel" if not by_nccl else "send" if taken.algorithm == _SENDS else "nccl"
        return self.calibration.eager_floors[who][key]

    def _interval(self, taken: CollectiveTime) -> tuple[Seconds, Seconds]:
        low, high = self.calibration.intervals.get(taken.basis, _CERTAIN)
        return Seconds(taken.time * low), Seconds(taken.time * high)


def _ring(gpus: Sequence[int]) -> list[tuple[int, int]]:
    return [(gpu, gpus[(place + 1) % len(gpus)]) for place, gpu in enumerate(gpus)]


def _link(group: GroupFacts) -> str:
    """What the slowest sends of a group run over, as NCCL's latency tables call it."""
    if group.nodes > 1:
        return "network"
    return "nvlink" if group.packing.kind is PathKind.NVLINK else "pcie"


def fastest(predictions: Sequence[Prediction]) -> Prediction:
    """The one that takes least time; the first of equals."""
    return min(predictions, key=lambda one: one.taken.time)
