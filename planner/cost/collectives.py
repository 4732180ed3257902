"""What an all-reduce takes on a group, as the asked engine would do it.

The order of belief: a measurement of that engine's stack on GPUs joined the same way; else the engine's own kernel by
its wire time, inside its gates; else NCCL's model with the ring bandwidth of this very group, corrected by how far the
model is off on machines of that generation.
"""

from __future__ import annotations

import math

from planner.core.engine import CustomAllReduce, EngineTraits
from planner.core.estimate import CollectiveTime, Confidence
from planner.core.implementation import Implementation
from planner.cost import nccl
from planner.cost.calibration import Anchor, Calibration
from planner.cost.formula import formula
from planner.cost.interconnect import GroupFacts
from planner.graph.paths import PathKind
from planner.units import Bytes, BytesPerSecond, Seconds

_FACTOR_SIZES = (2.0**18, 2.0**22, 2.0**26)


@formula(source="nccl-tests doc/PERFORMANCE.md", valid="all-reduce")
def bus_bandwidth(size: Bytes, time: Seconds, ranks: int) -> BytesPerSecond:
    """Bus bandwidth of an all-reduce: what each link carries, whatever the number of ranks.

    >>> round(bus_bandwidth(Bytes(512 * 2**20), Seconds(2111e-6), 8) / 1e9, 2)
    445.06
    """
    return BytesPerSecond(size / time * 2 * (ranks - 1) / ranks)


@formula(source="measured table; log-log between points, constant time below, constant bandwidth above")
def interpolate(points: tuple[tuple[Bytes, Seconds], ...], size: Bytes) -> Seconds:
    """The time of ``size`` bytes on measured (bytes, time) ``points``, ascending in both.

    >>> interpolate(((Bytes(1024), Seconds(1e-6)), (Bytes(4096), Seconds(4e-6))), Bytes(2048))
    2e-06
    """
    if size <= points[0][0]:
        return points[0][1]
    if size >= points[-1][0]:
        return Seconds(points[-1][1] * size / points[-1][0])
    high = next(place for place, (bytes_there, _) in enumerate(points) if bytes_there >= size)
    (low_size, low_time), (high_size, high_time) = points[high - 1], points[high]
    share = math.log(size / low_size) / math.log(high_size / low_size)
    return Seconds(low_time * (high_time / low_time) ** share)


@formula(
    source="vLLM csrc/custom_all_reduce.cuh: one-shot reads every peer's buffer, two-shot reduces and gathers a share each",
    valid="one node, every pair joined by NVLink",
)
def custom_all_reduce(
    size: Bytes, ranks: int, rate: BytesPerSecond, switched: bool, floor: Seconds, second_barrier: Seconds, efficiency: float
) -> Seconds:
    """An engine's own kernel. ``rate`` is a GPU's port into the NVSwitch if ``switched``, else one direct NVLink, B/s.

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
    """All-reduces and all-gathers of one engine, or one implementation, on one machine."""

    def __init__(self, calibration: Calibration, traits: EngineTraits | Implementation) -> None:
        self._calibration = calibration
        self._traits = traits
        self._memo: dict[tuple[tuple[int, ...], float], CollectiveTime] = {}

    def all_reduce(self, group: GroupFacts, size: Bytes) -> CollectiveTime:
        """The time of one all-reduce of ``size`` bytes over ``group``; zero for one rank or no bytes. Memoised."""
        key = group.gpus, size
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._all_reduce(group, size)
        return found

    def _all_reduce(self, group: GroupFacts, size: Bytes) -> CollectiveTime:
        if group.ranks == 1 or size <= 0:
            return CollectiveTime(Seconds(0.0), "none", None, "high", "one rank")
        anchor = self._anchor(group, self._traits.stack) or self._anchor(group, "nccl")
        if anchor:
            measured, confidence = anchor
            source = f"measured on {measured.gpu}, {measured.stack} {measured.version}"
            return CollectiveTime(interpolate(measured.points, size), "measured", group.limiting_link, confidence, source)
        time, algorithm = self._nccl(group, size)
        gate = self._traits.custom_all_reduce
        if group.nodes == 1 and group.nvlink_everywhere and size < _limit(gate, group):
            fit = self._calibration.custom_all_reduce
            own = custom_all_reduce(
                size, group.ranks, group.pair_achieved, group.switched, fit.floor, fit.second_barrier, fit.efficiency
            )
            if own < time:
                name = f"{self._traits.name} kernel"
                return CollectiveTime(own, name, group.limiting_link, "medium", "wire time of the engine's own kernel")
        confidence = confidence_of(group)
        return CollectiveTime(
            time, f"NCCL {algorithm}", group.limiting_link, confidence, "NCCL's model, ring packing of the group"
        )

    def all_gather(self, group: GroupFacts, size: Bytes) -> Seconds:
        """An all-gather of ``size`` bytes in total: the second half of a ring all-reduce."""
        if group.ranks == 1 or size <= 0:
            return Seconds(0.0)
        return Seconds(self._nccl(group, size)[0] / 2)

    def nccl_all_reduce(self, group: GroupFacts, size: Bytes) -> Seconds:
        """An all-reduce by NCCL whatever the engine's own kernels."""
        if group.ranks == 1 or size <= 0:
            return Seconds(0.0)
        anchor = self._anchor(group, "nccl")
        return interpolate(anchor[0].points, size) if anchor else self._nccl(group, size)[0]

    def _nccl(self, group: GroupFacts, size: Bytes) -> tuple[Seconds, str]:
        fabric = fabric_of(group)
        time, algorithm = nccl.all_reduce(size, fabric)
        pcie = fabric.link == "pcie" and group.nodes == 1 and not group.packing.staged and not _bridged(group)
        factors = self._calibration.nccl["pcie" if pcie else generation_of(group.compute_capability)].factors
        return Seconds(time * nccl_factor(size, factors)), algorithm

    def _anchor(self, group: GroupFacts, stack: str) -> tuple[Anchor, Confidence] | None:
        """The measurement that fits a group: same stack and ranks, GPUs joined by NVLinks of the same kind and number."""
        joined_alike = group.nvlink_everywhere and (group.switched or group.ranks == 2)
        if not joined_alike or group.nodes > 1:
            return None
        same_size = [one for one in self._calibration.anchors if one.stack == stack and one.ranks == group.ranks]
        alike = [one for one in same_size if math.isclose(one.nvlink_bandwidth, group.pair_peak, rel_tol=0.01)]
        for one in alike:
            if group.hardware == (one.gpu,):
                return one, "high"
        for one in alike:
            if one.compute_capability[0] == group.compute_capability[0]:
                return one, "medium"
        return None


def fabric_of(group: GroupFacts) -> nccl.Fabric:
    """What NCCL would find for a group: channels of the packed rings, capped by the network between nodes."""
    link = "nvlink" if group.packing.kind in (PathKind.NVLINK, PathKind.SELF) else "pcie"
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


def _limit(gate: CustomAllReduce, group: GroupFacts) -> int:
    return gate.limit(group.compute_capability, group.ranks)


def generation_of(compute_capability: tuple[int, int]) -> str:
    """The GPU generation whose measurements stand for this compute capability."""
    if compute_capability >= (10, 0):
        return "blackwell"
    return "hopper" if compute_capability >= (9, 0) else "ampere"


def confidence_of(group: GroupFacts) -> Confidence:
    """Low wherever PCIe or a network carries the ring: boxes of one class differ up to tenfold."""
    return "medium" if group.packing.kind is PathKind.NVLINK and group.nodes == 1 else "low"
