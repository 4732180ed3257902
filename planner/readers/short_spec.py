"""``[NODESx]COUNTxGPU[:FABRIC][@NICSxGBPS]`` → Topology: ``8xH100-SXM5-80GB``, ``2x8xA100-SXM4-80GB@8x200``.

COUNT GPUs a node; FABRIC overrides what a machine of these GPUs has by default; ``@NICSxGBPS`` is network cards a node
and Gb/s of each, by default one card of 400 Gb/s a GPU (200 where the GPU's PCIe is generation 4 or older).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from planner.core.hardware import GpuSpec, PeerLinks
from planner.core.topology import Device, DeviceKind, Host, Link, LinkKind, Origin, PeerToPeer, Topology
from planner.errors import BadInput, nearest
from planner.graph.build import HostBuilder
from planner.graph.paths import PathKind
from planner.graph.ultrametric import Cluster
from planner.units import BytesPerSecond

MAX_GPUS = 1024
GPUS_PER_SOCKET = 4

FABRICS = (
    "nvswitch",
    "nvlink-mesh",
    "nvlink-pairs",
    "nvlink-hybrid",
    "pcie-p2p",
    "pcie-host-staged",
    "xgmi-mesh",
)

_SPEC = re.compile(
    r"(?:(?P<nodes>-?\d+)x)?(?P<count>-?\d+)x(?P<gpu>\w[^:@]*)(?::(?P<fabric>[^@]*))?(?:@(?P<network>.*))?", re.IGNORECASE
)
_NETWORK = re.compile(r"(?P<nics>\d+)x(?P<rate>\d+(?:\.\d+)?)", re.IGNORECASE)

DGX1_GPUS = 8
DGX1_LINKS = {
    (0, 1): 1, (0, 2): 1, (0, 3): 2, (0, 4): 2, (1, 2): 2, (1, 3): 1, (1, 5): 2, (2, 3): 1, (2, 6): 2, (3, 7): 2,
    (4, 5): 1, (4, 6): 1, (4, 7): 2, (5, 6): 2, (5, 7): 1, (6, 7): 1,
}  # fmt: skip
"""NVLinks between the GPUs of a DGX-1 with V100: the hybrid cube mesh of NVIDIA's DGX-1 white paper (WP-08437), figure 4."""


def looks_like_spec(text: str) -> bool:
    """Whether ``text`` is meant as a short spec: it starts with a count, an ``x``, and something."""
    return _SPEC.fullmatch(text) is not None


def read_short_spec(text: str, load_gpu: Callable[[str], GpuSpec]) -> Topology:
    """The topology a short spec means; ``load_gpu`` finds a data sheet by name and raises ``BadInput`` for an unknown one."""
    match = _SPEC.fullmatch(text.strip())
    if match is None:
        raise BadInput(f"{text!r} is not a short topology spec", hint="write [NODESx]COUNTxGPU[:FABRIC][@NICSxGBPS]")
    nodes, count = int(match["nodes"] or 1), int(match["count"])
    for what, number in (("nodes", nodes), ("GPUs", count)):
        if number < 1:
            raise BadInput(f"{number} {what} in {text!r}", hint="a count is 1 or more")
    if nodes * count > MAX_GPUS:
        raise BadInput(f"{nodes * count} GPUs in {text!r}; this release plans up to {MAX_GPUS}")
    gpu = load_gpu(match["gpu"])
    fabric = _fabric(match["fabric"], gpu, count, text)
    if fabric == "nvlink-hybrid" and count > DGX1_GPUS:
        hint = f"write 2x8x{gpu.name} for two hosts, or {count}x{gpu.name}:nvswitch for a host with an NVSwitch (DGX-2)"
        raise BadInput(f"nvlink-hybrid joins up to {DGX1_GPUS} GPUs, {count} in {text!r}", hint=hint)
    nics, rate = _network(match["network"], gpu, count, text)
    return _Builder(text.strip(), gpu, count, fabric).topology(nodes, nics if nodes > 1 or match["network"] else 0, rate)


def _fabric(asked: str | None, gpu: GpuSpec, count: int, text: str) -> str:
    if asked is None:
        default = "pcie-p2p" if gpu.pcie_peer_to_peer else "pcie-host-staged"
        return default if gpu.fabric == "pcie" else str(gpu.fabric)
    fabric = asked.strip().lower()
    if fabric not in FABRICS:
        raise BadInput(
            f"unknown fabric {asked!r} in {text!r}",
            hint=f"known: {', '.join(FABRICS)}" + "".join(f"; did you mean {near}?" for near in nearest(asked, FABRICS, 1)),
        )
    if not fabric.startswith("pcie") and gpu.peer_links is None and count > 1:
        raise BadInput(f"{gpu.name} has no NVLink, so no {fabric} in {text!r}", hint="use pcie-p2p or pcie-host-staged")
    return fabric


def _network(asked: str | None, gpu: GpuSpec, count: int, text: str) -> tuple[int, float]:
    if asked is None:
        return count, 200.0 if gpu.pcie_generation <= 4 else 400.0
    match = _NETWORK.fullmatch(asked.strip())
    if match is None or int(match["nics"]) < 1 or float(match["rate"]) <= 0:
        raise BadInput(f"'@{asked}' in {text!r} is not a network", hint="write @NICSxGBPS, for example @8x400")
    if int(match["nics"]) > 128:
        raise BadInput(f"{match['nics']} network cards a node in {text!r}")
    return int(match["nics"]), float(match["rate"])


class _Builder:
    def __init__(self, name: str, gpu: GpuSpec, count: int, fabric: str) -> None:
        self.name = name
        self.gpu = gpu
        self.count = count
        self.fabric = fabric

    def topology(self, nodes: int, nics: int, gigabits: float) -> Topology:
        hosts, shared, devices = [], [], []
        links: list[Link] = []
        domain = self.gpu.peer_links.domain if self.gpu.peer_links else 1
        one_switch = self.fabric == "nvswitch" and nodes > 1 and nodes * self.count <= domain
        if one_switch:
            shared.append(Device("nvswitch", DeviceKind.NVSWITCH))
        if nics:
            shared.append(Device("network", DeviceKind.NETWORK))
        for node in range(nodes):
            host = f"node{node}"
            prefix = f"{host}/" if nodes > 1 else ""
            hosts.append(Host(host, self._peer_to_peer()))
            host_devices, host_links = self._host(host, prefix, nics, gigabits, "nvswitch" if one_switch else "")
            devices += host_devices
            links += host_links
        assumptions = [
            f"short spec: up to {GPUS_PER_SOCKET} GPUs on a socket, more split over two"
            + ("" if self._switched_pcie else "; the GPUs of a socket under one host bridge")
        ]
        return Topology(
            self.name,
            tuple(hosts),
            (*shared, *devices),
            tuple(links),
            Origin("short-spec", self.name, tuple(assumptions)),
        )

    @property
    def _switched_pcie(self) -> bool:
        """Whether each GPU sits behind a PCIe switch of its own, as on SXM boards."""
        return self.gpu.fabric != "pcie"

    def _peer_to_peer(self) -> PeerToPeer:
        if self.fabric == "pcie-p2p":
            return "enabled"
        if self.fabric == "pcie-host-staged" or not self.gpu.pcie_peer_to_peer:
            return "disabled"
        return "unknown"  # nobody says what PCIe does beside the NVLinks: NCCL's rule then, by distance

    def _host(self, host: str, prefix: str, nics: int, gigabits: float, domain: str) -> tuple[list[Device], list[Link]]:
        names = [f"{prefix}gpu{index}" for index in range(self.count)]
        leaves = [Device(name, DeviceKind.GPU, host, index, self.gpu.name) for index, name in enumerate(names)]
        leaves += [Device(f"{prefix}nic{number}", DeviceKind.NIC, host) for number in range(nics)]
        builder = HostBuilder(leaves, host, prefix)
        builder.tree(self._clusters(nics))
        self._peers(builder, names, domain)
        devices, links = builder.devices, builder.links
        rate = BytesPerSecond(gigabits * 1e9 / 8)
        links += [Link(f"{prefix}nic{number}", "network", LinkKind.NETWORK, rate) for number in range(nics)]
        return devices, links

    def _clusters(self, nics: int) -> list[Cluster]:
        """Sockets of up to four GPUs; a switch for each GPU and its cards, or one bridge for the socket's GPUs."""
        sockets = 1 if self.count <= GPUS_PER_SOCKET else 2
        per_socket = -(-self.count // sockets)
        clusters = []
        for socket in range(sockets):
            gpus = range(socket * per_socket, min(self.count, (socket + 1) * per_socket))
            islands = [[gpu, *(self.count + nic for nic in range(nics) if nic * self.count // nics == gpu)] for gpu in gpus]
            if self._switched_pcie:
                bridges = [_bridge([island]) for island in islands]
            else:
                cards = [[card] for island in islands for card in island[1:]]
                bridges = [_bridge([[island[0]] for island in islands]), *(_bridge([card]) for card in cards)]
            members = tuple(member for bridge in bridges for member in bridge.members)
            clusters.append(Cluster(PathKind.NODE, members, tuple(bridges)))
        return clusters

    def _peers(self, builder: HostBuilder, names: list[str], domain: str) -> None:
        """The NVLinks (or Infinity Fabric links) of one host."""
        links = self.gpu.peer_links
        if links is None or self.fabric.startswith("pcie"):
            return
        kind = LinkKind.XGMI if links.generation.startswith("xgmi") else LinkKind.NVLINK
        if self.fabric == "nvswitch":
            if len(names) > 1 or domain:
                switch = domain or builder.add(DeviceKind.NVSWITCH)
                for name in names:
                    builder.link(name, switch, kind, links.links)
        elif self.fabric == "nvlink-pairs":
            for left, right in zip(names[::2], names[1::2], strict=False):
                builder.link(left, right, kind, links.links)
        elif self.fabric == "nvlink-hybrid":
            for (left_index, right_index), count in DGX1_LINKS.items():
                if right_index < len(names):
                    builder.link(names[left_index], names[right_index], kind, count)
        else:
            self._mesh(builder, names, links, kind)

    @staticmethod
    def _mesh(builder: HostBuilder, names: list[str], links: PeerLinks, kind: LinkKind) -> None:
        """Every pair bridged, the GPU's links split evenly."""
        for place, left in enumerate(names):
            for right in names[place + 1 :]:
                share = links.links / (len(names) - 1)
                bandwidth = BytesPerSecond(share * links.bandwidth_per_link)
                builder.links.append(Link(left, right, kind, bandwidth, count=max(1, int(share))))


def _bridge(parts: list[list[int]]) -> Cluster:
    """A host bridge over clusters that each hang from a switch of their own (or, alone, straight from the bridge)."""
    clusters = [Cluster(PathKind.PXB, tuple(part), (Cluster(PathKind.PIX, tuple(part)),)) for part in parts]
    return Cluster(PathKind.PHB, tuple(member for part in parts for member in part), tuple(clusters))
