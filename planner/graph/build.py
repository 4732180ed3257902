"""Building the graph of one host out of clusters of devices: what every reader of a matrix ends with."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from planner.core.topology import Device, DeviceKind, Link, LinkKind
from planner.graph.paths import PathKind
from planner.graph.ultrametric import Cluster


class HostBuilder:
    """Collects the devices and links of a host: sockets from NODE clusters, bridges, switches, then the leaves."""

    def __init__(self, leaves: Sequence[Device], host: str, prefix: str = "") -> None:
        self._leaves = leaves
        self._host = host
        self._prefix = prefix
        self._counts: dict[DeviceKind, int] = {}
        self.inner: list[Device] = []
        self.links: list[Link] = []

    @property
    def devices(self) -> list[Device]:
        """Sockets, bridges and switches, then GPUs and NICs."""
        return [*self.inner, *self._leaves]

    def add(self, kind: DeviceKind, numa_node: int | None = None) -> str:
        """A new inner device; its id is its kind and a running number."""
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        word = {DeviceKind.HOST_BRIDGE: "bridge", DeviceKind.PCIE_SWITCH: "switch"}.get(kind, str(kind))
        device = Device(f"{self._prefix}{word}{number}", kind, self._host, numa_node=numa_node)
        self.inner.append(device)
        return device.id

    def tree(self, clusters: Sequence[Cluster], numa_nodes: Sequence[int | None] = (), grace: Collection[int] = ()) -> None:
        """The PCIe tree of ``clusters`` (at NODE level), and all sockets joined pairwise.

        ``grace`` are the leaves that hang from their socket by NVLink-C2C; one that shares a switch stays on PCIe.
        """
        sockets = []
        for place, node in enumerate(clusters):
            sockets.append(self.add(DeviceKind.SOCKET, numa_nodes[place] if place < len(numa_nodes) else None))
            for bridge in node.parts:
                if len(bridge.members) == 1 and bridge.members[0] in grace:
                    self.link(sockets[-1], self._leaves[bridge.members[0]].id, LinkKind.C2C)
                    continue
                above = self.add(DeviceKind.HOST_BRIDGE)
                self.link(sockets[-1], above, LinkKind.PCIE)
                for part in bridge.parts:
                    self._switches(part, above)
        for place, socket in enumerate(sockets):
            for other in sockets[place + 1 :]:
                self.link(socket, other, LinkKind.SOCKET)

    def _switches(self, cluster: Cluster, above: str) -> None:
        """A PXB cluster: one switch, or a switch of switches, or a lone device straight at the bridge."""
        if len(cluster.members) == 1:
            self.link(above, self._leaves[cluster.members[0]].id, LinkKind.PCIE)
            return
        switch = self.add(DeviceKind.PCIE_SWITCH)
        self.link(above, switch, LinkKind.PCIE)
        if len(cluster.parts) == 1 and cluster.parts[0].level is PathKind.PIX:
            for member in cluster.members:
                self.link(switch, self._leaves[member].id, LinkKind.PCIE)
            return
        for part in cluster.parts:
            leaf_switch = self.add(DeviceKind.PCIE_SWITCH)
            self.link(switch, leaf_switch, LinkKind.PCIE)
            for member in part.members:
                self.link(leaf_switch, self._leaves[member].id, LinkKind.PCIE)

    def link(self, a: str, b: str, kind: LinkKind, count: int | None = None) -> None:
        """A link of the host."""
        self.links.append(Link(a, b, kind, count=count))
