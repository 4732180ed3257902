"""NCCL's own model of an all-reduce: the algorithm and protocol it picks, and how long it thinks they take.

Constants and formulas are those of ``src/graph/tuning.cc`` and ``src/graph/search.cc`` of NCCL v2.30.7 (commit
5067397c2676). Bandwidths here are in B/s and times in s; the tables keep NCCL's GB/s and µs, with the conversion beside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.cost.formula import formula
from planner.units import Bytes, BytesPerSecond, Seconds

_SOURCE = "NCCL v2.30.7 src/graph/tuning.cc"
GIGA = 1e9
MICRO = 1e-6

# base latency, µs: protocol LL, LL128, Simple
_BASE = {"tree": (6.8, 14.0, 8.4), "ring": (6.6, 14.0, 8.4)}
# per-hop latency, µs, by kind of link
_HOP = {
    "nvlink": {"tree": (0.6, 1.25, 4.0), "ring": (0.6, 1.9, 3.4)},
    "pcie": {"tree": (1.0, 1.9, 4.0), "ring": (1.0, 2.5, 5.7)},
    "network": {"tree": (5.0, 8.5, 14.0), "ring": (2.7, 4.0, 14.0)},
}
NVLS_LATENCY = 25.0
_NVLS_TREE_HOP = 20.9
NOTHING = BytesPerSecond(0.0)
_PROTOCOLS = ("LL", "LL128", "Simple")

# caps, GB/s, by generation: Volta, Ampere, Hopper, Blackwell; then by 1 node, 2 nodes, 3 nodes and more
_LL_MAX = ((39.0, 39.0, 20.4), (87.7, 22.5, 19.0), (141.0, 45.0, 35.0), (282.0, 90.0, 70.0))
_RING_LL128 = (20.0, 20.0, 36.7, 40.0)
_TREE_LL128 = ((20.0, 20.0, 20.0), (20.0, 20.0, 20.0), (36.7, 36.7, 29.0), (55.6, 31.67, 20.0))
_TREE = ((26.5, 18.5, 10.0), (24.0, 23.6, 17.8), (38.7, 41.4, 36.0), (70.0, 42.8, 24.0))
_NVLS_TREE = ((26.5, 18.5, 10.0), (24.0, 23.6, 17.8), (0.0, 57.7, 45.5), (0.0, 96.0, 80.0))
_NVLS_EFFICIENCY = (0.0, 0.0, 0.85, 0.74)

# bandwidth correction of the tree by log2(bytes / 64)
_TREE_CORRECTION = {
    "LL": (1, 1, 1, 1, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1, 1),
    "LL128": (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9, 1, 1, 1),
    "Simple": (0.9,) * 7 + (0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9, 0.9),
}

MOST_CHANNELS = 32
"""Before NCCL duplicates them (MAXCHANNELS / 2)."""
# speeds a channel may have, GB/s (src/graph/search.cc)
_SPEEDS = (
    (40.0, 30.0, 20.0, 18.0, 15.0, 12.0, 10.0, 9.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.4, 1.2, 0.24, 0.12),
    (60.0, 50.0, 40.0, 30.0, 24.0, 20.0, 15.0, 12.0, 11.0, 6.0, 3.0, 2.4, 1.2, 0.24, 0.12),
    (90.0, 80.0, 70.0, 60.0, 50.0, 45.0, 40.0, 30.0, 24.0, 20.0, 19.0, 18.0, 12.0, 6.0, 3.0, 2.4, 1.2, 0.24, 0.12),
)


@dataclass(frozen=True, slots=True)
class Fabric:
    """What NCCL found for a group: ``channels`` rings of ``channel_bandwidth`` each over ``ranks`` on ``nodes``.

    ``link`` is ``nvlink`` if every hop inside a node is NVLink, else ``pcie``. ``heads`` and ``head_bandwidth``
    describe in-switch reduction (NVLS); 0 heads where there is none. ``amd`` is the CPU vendor, for the network's
    overhead between nodes.
    """

    ranks: int
    nodes: int
    channels: int
    channel_bandwidth: BytesPerSecond
    compute_capability: tuple[int, int]
    link: str
    heads: int = 0
    head_bandwidth: BytesPerSecond = NOTHING
    amd: bool = False

    @property
    def generation(self) -> int:
        """Row of NCCL's tables: 0 Volta and before, 1 Ampere, 2 Hopper, 3 Blackwell."""
        return sum(self.compute_capability >= least for least in ((8, 0), (9, 0), (10, 0)))

    @property
    def bus(self) -> float:
        """Bandwidth of all channels, GB/s."""
        return self.channels * self.channel_bandwidth / GIGA

    @property
    def _node_column(self) -> int:
        return min(self.nodes, 3) - 1

    @property
    def ll_max(self) -> float:
        """Cap of the LL protocol, GB/s; over several nodes it goes by the CPU."""
        row = self.generation if self.nodes == 1 else int(self.amd)
        return _LL_MAX[row][self._node_column]


@formula(source="NCCL v2.30.7 src/graph/search.cc: speed arrays, channel duplication", valid="one node")
def channels(
    fastest_ring: BytesPerSecond, bandwidth: BytesPerSecond, compute_capability: tuple[int, int]
) -> tuple[int, BytesPerSecond]:
    """How many channels of which speed NCCL makes where one ring reaches ``fastest_ring`` and all ``bandwidth`` (B/s).

    It keeps the speed of its ladder at which channels times speed are most, of equals the faster one.

    >>> nvswitch, bridge = BytesPerSecond(370.8e9), BytesPerSecond(24e9)
    >>> channels(nvswitch, nvswitch, (9, 0)), channels(bridge, BytesPerSecond(48e9), (8, 6))
    ((12, 30000000000.0), (4, 12000000000.0))
    """
    fastest = fastest_ring / GIGA
    if fastest <= 0:
        return 0, BytesPerSecond(0.0)

    def fitting(step: float) -> int:
        return min(MOST_CHANNELS, math.floor(bandwidth / GIGA / step * (1 + 1e-9)))

    ladder = _SPEEDS[sum(compute_capability >= least for least in ((9, 0), (10, 0)))]
    speeds = [step for step in ladder if step <= fastest * (1 + 1e-9)] or [fastest]
    speed = max(speeds, key=lambda step: (fitting(step) * step, step))
    count = fitting(speed)
    if speed >= 25 and not (compute_capability >= (9, 0) and speed < 50 and count > 4):
        count, speed = 2 * count, speed / 2
    return count, BytesPerSecond(speed * GIGA)


@formula(source="NCCL v2.30.7 src/graph/search.cc: one NVLS head a GPU, (ranks + 1) times its speed within the GPU's NVLinks")
def nvls_head(gpu_bandwidth: BytesPerSecond, ranks: int, compute_capability: tuple[int, int]) -> BytesPerSecond:
    """Speed of one head of in-switch reduction, given the NVLink bandwidth a GPU achieves (B/s); 0 before Hopper.

    >>> nvls_head(BytesPerSecond(370.8e9), 8, (9, 0))
    40000000000.0
    """
    if compute_capability < (9, 0):
        return BytesPerSecond(0.0)
    speeds = _SPEEDS[1 + (compute_capability >= (10, 0))]
    fits = (speed for speed in speeds if speed * (ranks + 1) <= gpu_bandwidth / GIGA * (1 + 1e-9))
    return BytesPerSecond(next(fits, 0.0) * GIGA)


@formula(source=_SOURCE, valid="ring; two ranks or more")
def ring_all_reduce(size: Bytes, fabric: Fabric, protocol: str) -> Seconds:
    """NCCL's ring all-reduce of ``size`` bytes with protocol ``LL``, ``LL128`` or ``Simple``.

    >>> hopper = Fabric(8, 1, 12, BytesPerSecond(30e9), (9, 0), "nvlink")
    >>> round(ring_all_reduce(Bytes(16384), hopper, "LL") * 1e6, 2)
    15.2
    """
    n = fabric.ranks
    latency = ring_latency(fabric, protocol, 2)
    if fabric.nodes > 1 and protocol == "Simple" and size / (fabric.channels * n) >= 64:
        latency = Seconds(latency * (1.4 if fabric.compute_capability >= (8, 0) else 1.9))
    return Seconds(latency + size * 2 * (n - 1) / (n * ring_bus(fabric, protocol)))


@formula(source=_SOURCE, valid="ring; two ranks or more")
def ring_latency(fabric: Fabric, protocol: str, rounds: int) -> Seconds:
    """What a ring waits for beside its bytes: ``rounds`` times around, two for an all-reduce, one for a gather.

    >>> round(ring_latency(Fabric(8, 1, 12, BytesPerSecond(30e9), (9, 0), "nvlink"), "LL", 2) * 1e6, 2)
    15.0
    """
    n, nodes = fabric.ranks, fabric.nodes
    row = _PROTOCOLS.index(protocol)
    steps, between = rounds * (n - 1), rounds * (nodes - 1)
    overhead = 0.0 if nodes == 1 else (2.0 if fabric.amd else 1.0) * (3 if protocol == "Simple" else 1)
    inside = max(_HOP[fabric.link]["ring"][row], overhead)
    outside = _HOP["network"]["tree" if n == nodes else "ring"][row]
    return Seconds((_BASE["ring"][row] + (steps - between) * inside + between * outside) * MICRO)


@formula(source=_SOURCE, valid="ring; two ranks or more")
def ring_bus(fabric: Fabric, protocol: str) -> BytesPerSecond:
    """Bus bandwidth of a ring, B/s: a protocol's share of all channels, within its caps.

    >>> ring_bus(Fabric(8, 1, 12, BytesPerSecond(30e9), (9, 0), "nvlink"), "LL")
    141000000000.0
    """
    share = {
        "LL": min(fabric.ll_max, 0.5 * fabric.bus),
        "LL128": min(0.92 * fabric.bus, fabric.channels * _RING_LL128[fabric.generation]),
        "Simple": fabric.bus,
    }
    return BytesPerSecond(share[protocol] * GIGA)


@formula(source=_SOURCE, valid="tree; two ranks or more; the correction is interpolated between NCCL's steps")
def tree_all_reduce(size: Bytes, fabric: Fabric, protocol: str) -> Seconds:
    """NCCL's double binary tree all-reduce.

    >>> two_nodes = Fabric(16, 2, 8, BytesPerSecond(48e9), (9, 0), "nvlink")
    >>> round(tree_all_reduce(Bytes(16384), two_nodes, "LL") * 1e6, 2)
    26.4
    """
    n, nodes = fabric.ranks, fabric.nodes
    row = _PROTOCOLS.index(protocol)
    column = min(nodes, 3) - 1
    bus = {
        "LL": min(fabric.bus / 3.8, fabric.ll_max),
        "LL128": min(
            fabric.bus * (7 / 9 if nodes == 1 else 120 / 128),
            fabric.channels * _TREE_LL128[fabric.generation][column],
        ),
        "Simple": min(0.92 * fabric.bus, fabric.channels * _TREE[fabric.generation][column]),
    }[protocol]
    inside = _HOP[fabric.link]["tree"][row]
    between = _HOP["network"]["tree"][row]
    latency = _BASE["tree"][row] + 2 * ((n / nodes - 1) * inside + math.floor(math.log2(nodes)) * between)
    bandwidth = bus / 2 * _correction(size, protocol)
    return Seconds(latency * MICRO + size / (bandwidth * GIGA))


def _correction(size: Bytes, protocol: str) -> float:
    table = _TREE_CORRECTION[protocol]
    place = min(max(math.log2(max(size, 64) / 64), 0.0), len(table) - 1.0)
    low = math.floor(place)
    high = min(low + 1, len(table) - 1)
    return table[low] + (table[high] - table[low]) * (place - low)


@formula(source=_SOURCE, valid="NVSwitch with multicast, Hopper and later; one node, or several over trees")
def nvls_all_reduce(size: Bytes, fabric: Fabric) -> Seconds:
    """In-switch reduction (NVLS); between nodes along a tree (NVLSTree).

    >>> hopper = Fabric(8, 1, 12, BytesPerSecond(30e9), (9, 0), "nvlink", heads=8, head_bandwidth=BytesPerSecond(40e9))
    >>> round(nvls_all_reduce(Bytes(64 * 2**20), hopper) * 1e6, 2)
    271.72
    """
    n, nodes, heads = fabric.ranks, fabric.nodes, fabric.heads
    head = fabric.head_bandwidth / GIGA * _NVLS_EFFICIENCY[fabric.generation] * (heads - 1) / heads * 2
    if nodes == 1:
        latency = NVLS_LATENCY
        per_channel = head
    else:
        latency = NVLS_LATENCY + 2 * math.floor(math.log2(nodes)) * _NVLS_TREE_HOP
        between = fabric.bus / heads * (2 if nodes <= 2 else 1)
        per_channel = min(head, between, _NVLS_TREE[fabric.generation][min(nodes, 3) - 1])
    bandwidth = heads * per_channel * n / (2 * (n - 1))
    return Seconds(latency * MICRO + size / (bandwidth * GIGA))


@formula(source="NCCL v2.30.7 src/graph/tuning.cc: the fastest enabled algorithm and protocol")
def all_reduce(size: Bytes, fabric: Fabric) -> tuple[Seconds, str]:
    """The time NCCL expects of the algorithm it picks, and its name.

    >>> hopper = Fabric(8, 1, 12, BytesPerSecond(30e9), (9, 0), "nvlink", heads=8, head_bandwidth=BytesPerSecond(40e9))
    >>> time, name = all_reduce(Bytes(2**20), hopper)
    >>> round(time * 1e6, 2), name
    (28.01, 'ring LL')
    """
    enabled = protocols(fabric)
    candidates = [(ring_all_reduce(size, fabric, protocol), f"ring {protocol}") for protocol in enabled]
    candidates += [(tree_all_reduce(size, fabric, protocol), f"tree {protocol}") for protocol in enabled]
    if fabric.heads >= 2 and fabric.head_bandwidth > 0:
        candidates.append((nvls_all_reduce(size, fabric), "NVLS" if fabric.nodes == 1 else "NVLS tree"))
    return min(candidates)


def protocols(fabric: Fabric) -> list[str]:
    """The enabled protocols: LL128 needs NVLink inside the node, and Volta or later."""
    ll128 = fabric.link == "nvlink" and fabric.compute_capability >= (7, 0)
    return [protocol for protocol in _PROTOCOLS if protocol != "LL128" or ll128]


def ring_base(protocol: str) -> Seconds:
    """What a ring takes before its first hop, s."""
    return Seconds(_BASE["ring"][_PROTOCOLS.index(protocol)] * MICRO)


def hop(link: str, protocol: str) -> Seconds:
    """Latency of one hop of a ring over ``nvlink``, ``pcie`` or ``network``, s."""
    return Seconds(_HOP[link]["ring"][_PROTOCOLS.index(protocol)] * MICRO)


def nvls_efficiency(fabric: Fabric) -> float:
    """Share of a head's bandwidth that in-switch reduction reaches; 0 before Hopper."""
    return _NVLS_EFFICIENCY[fabric.generation]
