"""What every engine's launch needs of a placement: which host, which of its devices, in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from planner.core.plan import Replica
from planner.core.topology import Topology


def by_host(topology: Topology, replica: Replica) -> dict[str, list[int]]:
    """A replica's GPUs in rank order (stage by stage, tensor rank fastest), by host in order of appearance."""
    hosts: dict[str, list[int]] = {}
    for group in replica:
        for gpu in group:
            hosts.setdefault(topology.gpus[gpu].host, []).append(gpu)
    return hosts


def visible_devices(topology: Topology, gpus: Iterable[int]) -> str:
    """The hosts' own indices of GPUs, in rank order, for ``CUDA_VISIBLE_DEVICES``."""
    return ",".join(str(topology.gpus[gpu].index) for gpu in gpus)


def device_environment(topology: Topology, gpus: Iterable[int]) -> Mapping[str, str]:
    """The environment that makes visible device *k* the GPU of local rank *k*."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible_devices(topology, gpus)}


def is_even(partition: Iterable[int]) -> bool:
    """Whether all stages hold the same number of layers."""
    return len(set(partition)) == 1
