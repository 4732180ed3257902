"""What an all-reduce takes on a group, as the asked engine would do it.

The order of belief: a measurement of that engine's stack on GPUs joined the same way; else the engine's own kernel by
its wire time, inside its gates; else NCCL's model with the ring bandwidth of this very group, corrected by how far the
model is off on machines of that generation.
"""

from __future__ import annotations

import math
from functools import partial

from planner.core.engine import CustomAllReduce, EngineTraits
from planner.core.estimate import Basis, CollectiveTime, Confidence
from planner.core.implementation import Implementation
from planner.core.operation import Operation
from planner.cost import nccl
from planner.cost.anchors import Anchors, interpolate
from planner.cost.calibration import Calibration, generation_of
from planner.cost.formula import formula
from planner.cost.interconnect import GroupFacts
from planner.cost.measured_here import MeasuredHere, Model, at_size
from planner.graph.paths import PathKind
from planner.units import Bytes, BytesPerSecond, Seconds

NCCL = "nccl"
_PLAIN = Implementation(NCCL, NCCL, CustomAllReduce(max_bytes={}, source=""), NCCL)
_NVLINK = (PathKind.NVLINK, PathKind.SELF)
_FACTOR_SIZES = (2.0**18, 2.0**22, 2.0**26)


@formula(source="nccl-tests doc/PERFORMANCE.md", valid="all-reduce")
def bus_bandwidth(size: Bytes, time: Seconds, ranks: int) -> BytesPerSecond:
    """Bus bandwidth of an all-reduce: what each link carries, whatever the number of ranks.

    >>> round(bus_bandwidth(Bytes(512 * 2**20), Seconds(2111e-6), 8) / 1e9, 2)
    445.06
    """
    return BytesPerSecond(size / time * 2 * (ranks - 1) / ranks)


@formula(
    source="vLLM csrc/custom_all_reduce.cuh: one-shot reads every peer's buffer, two-shot reduces and gathers a share each",
    valid="one node, every pair joined by NVLink, or two GPUs that copy to each other over PCIe",
)
def custom_all_reduce(
    size: Bytes, ranks: int, rate: BytesPerSecond, switched: bool, floor: Seconds, second_barrier: Seconds, efficiency: float
) -> Seconds:
    """An engine's own kernel. ``rate`` is a GPU's port into the NVSwitch if ``switched``, else one direct link, B/s.

    >>> rate = BytesPerSecond(48e9)
    >>> round(custom_all_reduce(Bytes(480_000), 2, rate, False, Seconds(5e-6), Seconds(3e-6), 0.85) * 1e6, 2)
    16.76
    """
    ports = ranks - 1 if switched else 1
    one_shot = ports * size / (efficiency * rate)
    two_shot = second_barrier + 2 / ranks * ports * size / (efficiency * rate)
    return Seconds(floor + min(one_shot, two_shot))


@formula(source="this project: measured over modelled time (data/calibration/collectives.yaml), log-linear between sizes")
def nccl_factor(size: Bytes, factors: tuple[float, float, float]) -> float:
    """How much longer than NCCL's model an all-reduce takes; ``factors`` hold up to 256 KiB, at 4 MiB, from 64 MiB.

    >>> nccl_factor(Bytes(1024), (1.5, 1.3, 1.2)), round(nccl_factor(Bytes(2**20), (1.5, 1.3, 1.2)), 3)
    (1.5, 1.396)
    """
    if size <= _FACTOR_SIZES[0]:
        return factors[0]
    for place in (1, 2):
        if size <= _FACTOR_SIZES[place]:
            low, high = _FACTOR_SIZES[place - 1], _FACTOR_SIZES[place]
            share = math.log(size / low) / math.log(high / low)
            return float(factors[place - 1] * (factors[place] / factors[place - 1]) ** share)
    return factors[2]


class Collectives:
    """All-reduces and all-gathers of one engine, or one implementation, on one machine.

    ``here`` are collectives measured on this very machine.
    """

    def __init__(self, calibration: Calibration, traits: EngineTraits | Implementation, here: MeasuredHere | None = None) -> None:
        self._calibration = calibration
        self._traits = traits
        self._here = here
        self._own = Anchors(calibration.anchors, traits)
        self._nccl = self._own if traits.stack == NCCL else Anchors(calibration.anchors, _PLAIN)
        self._memo: dict[tuple[GroupFacts, float], CollectiveTime] = {}

    def all_reduce(self, group: GroupFacts, size: Bytes) -> CollectiveTime:
        """The time of one all-reduce of ``size`` bytes over ``group``; zero for one rank or no bytes. Memoised."""
        key = group, size
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._all_reduce(group, size)
        return found

    def _all_reduce(self, group: GroupFacts, size: Bytes) -> CollectiveTime:
        if group.ranks == 1 or size <= 0:
            return CollectiveTime(Seconds(0.0), "none", None, "high", "one rank", "none")
        here = self._measured_here("all_reduce", group, size, self._traits.stack, partial(self._believed, group))
        return here if here is not None else self._believed(group, size)

    def _believed(self, group: GroupFacts, size: Bytes) -> CollectiveTime:
        """An all-reduce that was not measured on this machine with the engine's own stack."""
        limit = self._traits.custom_all_reduce.limit(group.compute_capability, group.ranks)
        has_kernel = limit > 0 and self._takes(group)
        own = self._own.reading(group) if has_kernel else None
        if own is not None and own.whole:
            time = interpolate(own.points, size)
            return CollectiveTime(time, "measured", group.limiting_link, own.confidence, own.source, own.basis)
        nccl_time = self._nccl_time(group, size)
        if not has_kernel or size >= limit:
            return nccl_time
        name = f"{self._traits.name} kernel"
        if own is not None:
            time = interpolate(own.points, size)
            kernel = CollectiveTime(time, name, group.limiting_link, own.confidence, own.source, own.basis)
        else:
            fit = self._calibration.custom_all_reduce[self._traits.stack]
            slow = self._calibration.nccl[generation_of(group.compute_capability)].factors[0]
            wire = custom_all_reduce(
                size,
                group.ranks,
                group.pair_achieved if group.nvlink_everywhere else group.packing.fastest,
                group.switched,
                Seconds(fit.floor * slow),
                Seconds(fit.second_barrier * slow),
                fit.efficiency,
            )
            source = "wire time of the engine's own kernel"
            kernel = CollectiveTime(wire, name, group.limiting_link, confidence_of(group), source, basis_of(group))
        return min(kernel, nccl_time, key=lambda one: one.time)

    def _takes(self, group: GroupFacts) -> bool:
        """Whether the engine's own kernel runs on a group's wires."""
        if group.nodes > 1:
            return False
        direct = group.packing.bandwidth > 0 and not group.packing.staged
        return group.nvlink_everywhere or (self._traits.custom_all_reduce.two_over_pcie and group.ranks == 2 and direct)

    def all_gather(self, group: GroupFacts, size: Bytes) -> Seconds:
        """An all-gather of ``size`` bytes in total: the second half of a ring all-reduce."""
        if group.ranks == 1 or size <= 0:
            return Seconds(0.0)
        here = self._measured_here("all_gather", group, size, NCCL, partial(self._gathered, group))
        return here.time if here is not None else self._gathered(group, size).time

    def _gathered(self, group: GroupFacts, size: Bytes) -> CollectiveTime:
        time, algorithm = self._model(group, size)
        source = "half of NCCL's all-reduce"
        return CollectiveTime(
            Seconds(time / 2), f"NCCL {algorithm}", group.limiting_link, confidence_of(group), source, basis_of(group)
        )

    def nccl_all_reduce(self, group: GroupFacts, size: Bytes) -> Seconds:
        """An all-reduce by NCCL whatever the engine's own kernels."""
        if group.ranks == 1 or size <= 0:
            return Seconds(0.0)
        return self._nccl_time(group, size).time

    def _nccl_time(self, group: GroupFacts, size: Bytes) -> CollectiveTime:
        """NCCL's all-reduce: as measured here, or on a machine alike; else its model, corrected by measurement."""
        here = self._measured_here("all_reduce", group, size, NCCL, partial(self._nccl_believed, group))
        return here if here is not None else self._nccl_believed(group, size)

    def _nccl_believed(self, group: GroupFacts, size: Bytes) -> CollectiveTime:
        reading = self._nccl.reading(group)
        # on other NVLinks of the generation the model knows the rings of this group, a measurement does not
        if reading is not None and (reading.whole or reading.basis == "alike"):
            time = interpolate(reading.points, size)
            return CollectiveTime(time, "measured", group.limiting_link, reading.confidence, reading.source, reading.basis)
        modelled, algorithm = self._model(group, size)
        source = "NCCL's model, ring packing of the group"
        return CollectiveTime(modelled, f"NCCL {algorithm}", group.limiting_link, confidence_of(group), source, basis_of(group))

    def _measured_here(
        self, operation: Operation, group: GroupFacts, size: Bytes, stack: str, model: Model
    ) -> CollectiveTime | None:
        curve = self._here.curve(operation, group.gpus, stack) if self._here else None
        return None if curve is None else at_size(curve, size, group.limiting_link, model)

    def _model(self, group: GroupFacts, size: Bytes) -> tuple[Seconds, str]:
        time, algorithm = nccl.all_reduce(size, fabric_of(group))
        return Seconds(time * nccl_factor(size, self._factors(group))), algorithm

    def _factors(self, group: GroupFacts) -> tuple[float, float, float]:
        """How far NCCL's model is off on a group; over a network, large messages are as it says."""
        small, middle, large = self._calibration.nccl[factor_key(group)].factors
        return small, middle, 1.0 if group.nodes > 1 else large


def fabric_of(group: GroupFacts) -> nccl.Fabric:
    """What NCCL would find for a group: channels of the packed rings, capped by the network between nodes."""
    link = "nvlink" if group.packing.kind in _NVLINK else "pcie"
    capability = group.compute_capability
    heads, head = 0, BytesPerSecond(0.0)
    if group.nodes == 1:
        count, speed = nccl.channels(group.packing.fastest, group.packing.bandwidth, capability)
        if group.switched and group.ranks > 2:
            head = nccl.nvls_head(group.pair_achieved, group.ranks, capability)
            heads = group.ranks if head > 0 else 0
    else:
        inside = float(group.packing.bandwidth) or math.inf
        count = max(1, group.network_cards)
        speed = BytesPerSecond(min(float(group.network), inside) / count)
        if group.node_ports > 0:
            head = nccl.nvls_head(group.node_ports, group.ranks // group.nodes, capability)
            heads = group.ranks // group.nodes if head > 0 else 0
    return nccl.Fabric(group.ranks, group.nodes, max(1, count), max(speed, BytesPerSecond(1.0)), capability, link, heads, head)


def _bridged(group: GroupFacts) -> bool:
    """Whether NVLinks between some members let several rings pass where the PCIe of one GPU lets one.

    There, and where copies go through host memory, NCCL's model is as far off as on NVLink; on plain PCIe it is nearly right.
    """
    return group.packing.bandwidth > group.packing.fastest * 1.01


def factor_key(group: GroupFacts) -> str:
    """Whose measurements say how far NCCL's model is off on a group: those of PCIe boxes, or of its GPUs' generation."""
    plain = group.nodes == 1 and group.packing.kind not in _NVLINK and not group.packing.staged and not _bridged(group)
    return "pcie" if plain else generation_of(group.compute_capability)


def basis_of(group: GroupFacts) -> Basis:
    """What a model of a group's collectives leans on."""
    if group.nodes > 1:
        return "network"
    if group.packing.kind in _NVLINK:
        return "nvlink"
    return "staged" if group.packing.staged else "pcie"


def confidence_of(group: GroupFacts) -> Confidence:
    """Low wherever PCIe or a network carries the ring: boxes of one class differ up to tenfold."""
    return "medium" if group.packing.kind is PathKind.NVLINK and group.nodes == 1 else "low"
