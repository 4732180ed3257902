"""NCCL's model of its other operations: all-gather, reduce-scatter, broadcast, and exchanges of many sends at once.

Constants as in :mod:`planner.cost.nccl`. Sizes are nccl-tests': of an all-gather, a reduce-scatter and an all-to-all the
whole buffer, all shares together.
"""

from __future__ import annotations

from planner.cost import nccl
from planner.cost.formula import formula
from planner.cost.nccl import MICRO, Fabric
from planner.units import Bytes, BytesPerSecond, Seconds

_SOURCE = "NCCL v2.30.7 src/graph/tuning.cc"


@formula(source=_SOURCE, valid="ring; two ranks or more")
def ring_gather(size: Bytes, fabric: Fabric, protocol: str) -> Seconds:
    """A ring all-gather or reduce-scatter of ``size`` bytes in total: once around.

    >>> hopper = Fabric(8, 1, 12, BytesPerSecond(30e9), (9, 0), "nvlink")
    >>> round(ring_gather(Bytes(16384), hopper, "LL") * 1e6, 2)
    10.9
    """
    n = fabric.ranks
    return Seconds(nccl.ring_latency(fabric, protocol, 1) + size * (n - 1) / (n * nccl.ring_bus(fabric, protocol)))


@formula(source=_SOURCE, valid="NVSwitch with multicast, Hopper and later; one node")
def nvls_gather(size: Bytes, fabric: Fabric) -> Seconds:
    """An all-gather or reduce-scatter in the switch: the bus bandwidth is the algorithm bandwidth.

    >>> hopper = Fabric(8, 1, 12, BytesPerSecond(30e9), (9, 0), "nvlink", heads=8, head_bandwidth=BytesPerSecond(40e9))
    >>> round(nvls_gather(Bytes(64 * 2**20), hopper) * 1e6, 2)
    347.25
    """
    n, heads = fabric.ranks, fabric.heads
    share = (heads - 1) / heads * (n - 1) / n
    bandwidth = BytesPerSecond(heads * fabric.head_bandwidth * nccl.nvls_efficiency(fabric) * share)
    return Seconds(nccl.NVLS_LATENCY * MICRO + size / bandwidth)


@formula(source=f"{_SOURCE}: the fastest enabled algorithm and protocol")
def gather(size: Bytes, fabric: Fabric) -> tuple[Seconds, str]:
    """The time NCCL expects of an all-gather or reduce-scatter, and what it picks for it.

    >>> hopper = Fabric(8, 1, 12, BytesPerSecond(30e9), (9, 0), "nvlink")
    >>> gather(Bytes(2**30), hopper)[1]
    'ring Simple'
    """
    candidates = [(ring_gather(size, fabric, protocol), f"ring {protocol}") for protocol in nccl.protocols(fabric)]
    if fabric.nodes == 1 and fabric.heads >= 2 and fabric.head_bandwidth > 0:
        candidates.append((nvls_gather(size, fabric), "NVLS"))
    return min(candidates)


@formula(source=_SOURCE, valid="ring; two ranks or more")
def broadcast(size: Bytes, fabric: Fabric) -> tuple[Seconds, str]:
    """A broadcast along the ring: every byte crosses every link once.

    >>> hopper = Fabric(8, 1, 12, BytesPerSecond(30e9), (9, 0), "nvlink")
    >>> time, name = broadcast(Bytes(360e6), hopper)
    >>> round(time * 1e6), name
    (1032, 'ring Simple')
    """
    n = fabric.ranks
    whole = Bytes(size * n / (n - 1))
    return min((ring_gather(whole, fabric, protocol), f"ring {protocol}") for protocol in nccl.protocols(fabric))


@formula(source="NCCL v2.30.7 src/graph/tuning.cc: latency of a Simple hop; sends to all peers at once")
def exchange(busiest: Seconds, link: str) -> Seconds:
    """Sends that run at once: one hop's latency, and ``busiest``, the longest that any link is busy with their bytes.

    ``link`` is ``nvlink``, ``pcie`` or ``network``.

    >>> round(exchange(Seconds(100e-6), "nvlink") * 1e6, 1)
    111.8
    """
    return Seconds(nccl.ring_base("Simple") + nccl.hop(link, "Simple") + busiest)


@formula(source="nccl-tests doc/PERFORMANCE.md")
def bus_factor(operation: str, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth.

    >>> bus_factor("all_reduce", 8), bus_factor("all_gather", 8), bus_factor("broadcast", 8)
    (1.75, 0.875, 1.0)
    """
    share = (ranks - 1) / ranks
    return {"all_reduce": 2 * share, "all_gather": share, "reduce_scatter": share, "all_to_all": share}.get(
        operation, 1.0 if ranks > 1 else 0.0
    )
