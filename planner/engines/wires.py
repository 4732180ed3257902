"""What a launch says about the wires it was planned for: network cards, copies between GPUs, NUMA nodes, custom kernels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from planner.core.engine import CustomAllReduce
from planner.core.plan import Group, Placement
from planner.core.topology import DeviceKind, Topology
from planner.engines.placement import Part, device_environment
from planner.graph.paths import Paths

# how Linux names RDMA devices (rdma link show) and network interfaces (systemd.net-naming-scheme)
_RDMA = re.compile(r"(?:mlx|bnxt_re|irdma|roce|rocep|ibp|ionic)[A-Za-z0-9_.-]{0,32}")
_INTERFACE = re.compile(r"(?:eth|en|bond|ib|wl|vlan)[A-Za-z0-9_.-]{0,32}")

PCIE_PAIR = (
    "two GPUs reduce over PCIe by the engine's own kernel: if it hangs (a translating IOMMU, PCIe ACS), add "
    "--disable-custom-all-reduce and NCCL_P2P_DISABLE=1, at a loss of bandwidth"
)


@dataclass
class Said:
    """Environment variables, and notes that say why, or what to do by hand."""

    environment: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Wires:
    """The wires of one topology under the GPUs of one placement."""

    def __init__(self, topology: Topology, placement: Placement) -> None:
        self._topology = topology
        self._paths = Paths(topology)
        self._placement = placement

    def network(self, host: str) -> Said:
        """The cards that the plan counted on, for one of several hosts that an engine spans."""
        said = Said()
        cards = [card for card in self._topology.nics(host) if self._paths.network_links(card.id)]
        rdma = [card.label for card in cards if _RDMA.fullmatch(card.label)]
        interfaces = [card.label for card in cards if _INTERFACE.fullmatch(card.label)]
        if rdma:
            said.environment["NCCL_IB_HCA"] = f"={','.join(rdma)}"
        if interfaces:
            said.environment["NCCL_SOCKET_IFNAME"] = f"={','.join(interfaces)}"
            said.environment["GLOO_SOCKET_IFNAME"] = interfaces[0]
        else:
            said.notes.append(
                "if the hosts do not find each other, set NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME on each to the interface "
                "that the others reach it by (ip route)"
            )
        if cards and len(rdma) + len(interfaces) < len(cards):
            said.notes.append("not every network card has a name in the topology: NCCL chooses by itself (NCCL_IB_HCA)")
        return said

    def copies(self, gpus: Iterable[int]) -> Said:
        """What must be said where GPUs of one host do not copy to each other."""
        said = Said()
        devices = [self._topology.gpus[gpu] for gpu in gpus]
        pairs = list(combinations([device.id for device in devices], 2))
        if not pairs or any(self._paths.nvlink(a, b) for a, b in pairs):
            return said
        host = self._topology.host(devices[0].host)
        if host.peer_to_peer == "disabled" or all(self._paths.refused(a, b) for a, b in pairs):
            said.environment["NCCL_P2P_DISABLE"] = "1"
            why = "do not copy to each other over PCIe: the plan was priced through host memory"
            said.notes.append(f"NCCL_P2P_DISABLE: the GPUs of {host.name} {why}")
        return said

    def no_custom_all_reduce(self, kernels: CustomAllReduce, groups: Iterable[Group]) -> str:
        """Why no tensor-parallel group can use the engine's own all-reduce, so that NCCL was priced; empty where one can."""
        reasons = [self._not_for(kernels, group) for group in groups if len(group) > 1]
        return reasons[0] if reasons and all(reasons) else ""

    def _not_for(self, kernels: CustomAllReduce, group: Group) -> str:
        devices = [self._topology.gpus[gpu] for gpu in group]
        named = f"{{{','.join(str(gpu) for gpu in group)}}}"
        sizes = {size for limits in kernels.max_bytes.values() for size in limits}
        if len(group) not in sizes:
            return f"no kernel for {len(group)} GPUs: NCCL was priced"
        if all(self._paths.nvlink(a.id, b.id) for a, b in combinations(devices, 2)):
            return ""
        if len({device.host for device in devices}) > 1:
            return f"GPUs {named} are on several hosts: NCCL was priced"
        if len(group) == 2 and kernels.two_over_pcie:
            direct = self._paths.direct(devices[0].id, devices[1].id)
            return "" if direct else f"GPUs {named} do not copy to each other directly: NCCL was priced"
        return f"GPUs {named} are not all joined by NVLink: NCCL was priced"

    def fragile(self, groups: Iterable[Group]) -> bool:
        """Whether two GPUs copy to each other over PCIe in an all-reduce: what hangs under a translating IOMMU or ACS."""
        for group in groups:
            ids = [self._topology.gpus[gpu].id for gpu in group]
            hosts = {self._topology.gpus[gpu].host for gpu in group}
            if len(ids) == 2 and len(hosts) == 1 and not self._paths.nvlink(*ids) and self._paths.direct(*ids):
                return True
        return False

    def numa_nodes(self, gpus: Sequence[int]) -> list[int] | None:
        """The NUMA node of each GPU; ``None`` where one is not known or the host has but one node."""
        hosts = {self._topology.gpus[gpu].host for gpu in gpus}
        nodes = {
            device.numa_node
            for device in self._topology.devices
            if device.kind is DeviceKind.SOCKET and device.host in hosts and device.numa_node is not None
        }
        found = [self._numa_node(gpu) for gpu in gpus]
        known = [node for node in found if node is not None]
        return known if len(nodes) > 1 and len(known) == len(found) else None

    def _numa_node(self, gpu: int) -> int | None:
        device = self._topology.gpus[gpu]
        socket = self._topology.by_id[self._paths.ancestors(device.id)[-1]]
        return device.numa_node if device.numa_node is not None else socket.numa_node

    @property
    def groups(self) -> list[Group]:
        """All tensor-parallel groups of the placement."""
        return [group for replica in self._placement for group in replica]


def environment_of(topology: Topology, wires: Wires, part: Part, *, several: bool) -> Said:
    """The environment of one process; ``several`` where its engine spans hosts."""
    said = Said(dict(device_environment(topology, part.gpus)))
    for one in (wires.copies(part.gpus), *([wires.network(part.host)] if several else ())):
        said.environment |= one.environment
        said.notes += one.notes
    return said
