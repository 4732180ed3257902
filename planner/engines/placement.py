"""What every engine's launch needs of a placement: which host, which of its devices, in which order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from planner.core.plan import Placement, Plan, Replica
from planner.core.topology import Topology


@dataclass(frozen=True, slots=True)
class Part:
    """The GPUs of one process of an engine, in rank order, and their host."""

    host: str
    gpus: tuple[int, ...]


def ranks_of(replica: Replica) -> list[int]:
    """A replica's GPUs in rank order: stage by stage, tensor rank fastest."""
    return [gpu for group in replica for gpu in group]


def parts(topology: Topology, ranks: Sequence[int]) -> list[Part]:
    """Consecutive ranks on one host, cut so that all parts are equal: engines give every process as many ranks.

    Where hosts hold different numbers of ranks, or ranks come back to a host, a host has several parts.
    """
    runs = [(host, list(members)) for host, members in groupby(ranks, lambda gpu: topology.gpus[gpu].host)]
    size = math.gcd(*(len(members) for _, members in runs))
    return [Part(host, tuple(members[start : start + size])) for host, members in runs for start in range(0, len(members), size)]


def several_parts(plan: Plan, nodes: Sequence[Part]) -> str:
    """The note to a launch that starts several processes of one engine on a host."""
    note = (
        f"{len(nodes)} processes of {len(nodes[0].gpus)} GPUs on {len({node.host for node in nodes})} hosts: the engine gives every "
        "process as many ranks, and the plan has different numbers on the hosts (this layout was not tried on hardware)"
    )
    cut = len(nodes[0].gpus) % plan.parallelism.tensor
    return f"{note}; a tensor-parallel group lies in two processes" if cut else note


def replicas_by_host(topology: Topology, placement: Placement) -> dict[str, list[Replica]] | None:
    """The replicas of each host, hosts in order of appearance; ``None`` where one lies on several hosts."""
    found: dict[str, list[Replica]] = {}
    for replica in placement:
        hosts = {topology.gpus[gpu].host for gpu in ranks_of(replica)}
        if len(hosts) > 1:
            return None
        found.setdefault(hosts.pop(), []).append(replica)
    return found


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
