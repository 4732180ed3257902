"""How two devices reach each other.

The PCIe part of a host is a tree (socket → host bridge → switch → GPU); NVLinks lie on top of it. A path is a list of
*directed* links, because every link is full duplex. The order of kinds from good to bad, and the names, are NCCL's
(``src/graph/graph.h``) and ``nvidia-smi topo -m``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from planner.core.topology import PEER_LINKS, TREE_LINKS, DeviceKind, LinkKind, Topology

DirectedLink = tuple[int, bool]
"""Index into ``topology.links``, and whether it is taken from ``a`` to ``b``."""


def reverse(links: Sequence[DirectedLink]) -> tuple[DirectedLink, ...]:
    """The same links taken the other way."""
    return tuple((number, not forward) for number, forward in reversed(links))


class PathKind(IntEnum):
    """How two devices reach each other, from good to bad."""

    SELF = 0
    NVLINK = 1
    PIX = 2
    PXB = 3
    PHB = 4
    NODE = 5
    SYS = 6
    NETWORK = 7


@dataclass(frozen=True, slots=True)
class Path:
    """The directed links from one device to another; a link that the bytes cross twice is there twice.

    ``staged`` if they rest in host memory on the way.
    """

    kind: PathKind
    links: tuple[DirectedLink, ...]
    staged: bool = False


class Paths:
    """All paths of a topology; computed once, asked often."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._links_of: dict[str, list[int]] = {device.id: [] for device in topology.devices}
        for number, link in enumerate(topology.links):
            self._links_of[link.a].append(number)
            self._links_of[link.b].append(number)
        self._memo: dict[tuple[str, str], Path] = {}
        self._near_cards: dict[str, tuple[PathKind, tuple[str, ...]] | None] = {}
        self._routes: dict[tuple[str, str], tuple[DirectedLink, ...] | None] = {}

    @cached_property
    def _parents(self) -> dict[str, tuple[str, int]]:
        """For every device below a socket: the device above it and the link there."""
        topology = self.topology
        parents: dict[str, tuple[str, int]] = {}
        edge = [device.id for device in topology.devices if device.kind is DeviceKind.SOCKET]
        roots = set(edge)
        while edge:
            above = edge.pop()
            for number in self._links_of[above]:
                link = topology.links[number]
                below = link.b if link.a == above else link.a
                if link.kind in TREE_LINKS and below not in parents and below not in roots:
                    parents[below] = (above, number)
                    edge.append(below)
        return parents

    @cached_property
    def _sockets(self) -> dict[frozenset[str], int]:
        return {
            frozenset((link.a, link.b)): number for number, link in enumerate(self.topology.links) if link.kind is LinkKind.SOCKET
        }

    @cached_property
    def _peers(self) -> dict[str, dict[str, int]]:
        """For every device with NVLinks: its neighbour → link."""
        peers: dict[str, dict[str, int]] = {}
        for number, link in enumerate(self.topology.links):
            if link.kind in PEER_LINKS:
                peers.setdefault(link.a, {})[link.b] = number
                peers.setdefault(link.b, {})[link.a] = number
        return peers

    def directed(self, number: int, start: str) -> DirectedLink:
        """Link ``number`` as taken by traffic that leaves ``start``."""
        return number, self.topology.links[number].a == start

    def ancestors(self, device: str) -> list[str]:
        """The device, what it hangs from, and so on up to its socket."""
        chain = [device]
        while chain[-1] in self._parents:
            chain.append(self._parents[chain[-1]][0])
        return chain

    def up(self, device: str, top: str) -> list[DirectedLink]:
        """The directed links from ``device`` up the PCIe tree to its ancestor ``top``."""
        links = []
        while device != top:
            above, number = self._parents[device]
            links.append(self.directed(number, device))
            device = above
        return links

    def down(self, top: str, device: str) -> list[DirectedLink]:
        """The directed links from ``top`` down the PCIe tree to ``device``."""
        return list(reverse(self.up(device, top)))

    def nvlink(self, a: str, b: str) -> tuple[DirectedLink, ...] | None:
        """The directed NVLinks from ``a`` to ``b``: a direct bridge, or through an NVSwitch they share."""
        peers = self._peers.get(a, {})
        if b in peers:
            return (self.directed(peers[b], a),)
        for middle, number in peers.items():
            if self.topology.by_id[middle].kind is DeviceKind.NVSWITCH and middle in self._peers.get(b, {}):
                return self.directed(number, a), self.directed(self._peers[b][middle], middle)
        return None

    def pcie_kind(self, a: str, b: str) -> PathKind:
        """The class of the PCIe way between two devices, whatever NVLinks lie on top."""
        if a == b:
            return PathKind.SELF
        if self.topology.by_id[a].host != self.topology.by_id[b].host:
            return PathKind.NETWORK
        above_a, above_b = self.ancestors(a), self.ancestors(b)
        common = next((device for device in above_a if device in above_b), None)
        if common is None:
            return PathKind.SYS
        between = above_a[1 : above_a.index(common)] + above_b[1 : above_b.index(common)] + [common]
        kinds = [self.topology.by_id[device].kind for device in between]
        if DeviceKind.SOCKET in kinds:
            return PathKind.NODE
        if DeviceKind.HOST_BRIDGE in kinds:
            return PathKind.PHB
        return PathKind.PIX if kinds.count(DeviceKind.PCIE_SWITCH) <= 1 else PathKind.PXB

    def pcie(self, a: str, b: str) -> tuple[DirectedLink, ...]:
        """The directed links of the PCIe way between two devices of one host."""
        above_a, above_b = self.ancestors(a), self.ancestors(b)
        common = next((device for device in above_a if device in above_b), None)
        if common is not None:
            return tuple(self.up(a, common) + self.down(common, b))
        return tuple(self.up(a, above_a[-1]) + self._across(above_a[-1], above_b[-1]) + self.down(above_b[-1], b))

    def _across(self, socket_a: str, socket_b: str) -> list[DirectedLink]:
        number = self._sockets.get(frozenset((socket_a, socket_b)))
        return [] if number is None else [self.directed(number, socket_a)]

    def staged(self, a: str, b: str) -> tuple[DirectedLink, ...]:
        """The directed links of a copy that rests in host memory: up to ``a``'s socket, then out to ``b``.

        Every link is there twice. Measured copies without peer-to-peer reach half of what a link carries: 15.5 GB/s
        each way at once on PCIe 4, 5.7 on PCIe 3 (CUDA p2pBandwidthLatencyTest, public results).
        """
        socket_a, socket_b = self.ancestors(a)[-1], self.ancestors(b)[-1]
        across = self._across(socket_a, socket_b) if socket_a != socket_b else []
        return tuple(2 * (self.up(a, socket_a) + across + self.down(socket_b, b)))

    def direct(self, a: str, b: str) -> bool:
        """Whether GPUs ``a`` and ``b``, with no NVLink between them, copy to each other without host memory.

        NCCL's rule (v2.30.7 ``src/graph/paths.cc``): peer-to-peer up to PXB, and never where the driver says no, for this
        pair or for the host. A host that states that peer-to-peer is enabled is believed for every distance.
        """
        host = self.topology.host(self.topology.by_id[a].host)
        if host.peer_to_peer == "disabled" or self.refused(a, b):
            return False
        return host.peer_to_peer == "enabled" or self.pcie_kind(a, b) <= PathKind.PXB

    def refused(self, a: str, b: str) -> bool:
        """Whether the driver was asked about two GPUs of a host and said that they cannot read or write each other."""
        host = self.topology.host(self.topology.by_id[a].host)
        if not host.peer_status:
            return False
        place = self._place_on_host
        words = [
            statuses[place[left]][place[right]]
            for capability in ("read", "write")
            if (statuses := host.status(capability)) is not None
            for left, right in ((a, b), (b, a))
        ]
        return any(word not in {"OK", "U"} for word in words)

    @cached_property
    def _place_on_host(self) -> dict[str, int]:
        gpus = self.topology.gpus
        return {gpus[gpu].id: place for members in self.topology.gpus_of_host.values() for place, gpu in enumerate(members)}

    def between(self, a: str, b: str) -> Path:
        """The way bytes go from GPU ``a`` to GPU ``b``: NVLink, else PCIe, else through host memory, else the network."""
        found = self._memo.get((a, b))
        if found is None:
            found = self._memo[a, b] = self._between(a, b)
        return found

    def _between(self, a: str, b: str) -> Path:
        if a == b:
            return Path(PathKind.SELF, ())
        nvlink = self.nvlink(a, b)
        if nvlink is not None:
            return Path(PathKind.NVLINK, nvlink)
        kind = self.pcie_kind(a, b)
        if kind is PathKind.NETWORK:
            return Path(kind, self._network(a, b))
        if self.direct(a, b):
            return Path(kind, self.pcie(a, b))
        return Path(kind, self.staged(a, b), staged=True)

    def near_cards(self, gpu: str) -> tuple[PathKind, tuple[str, ...]] | None:
        """The joined network cards nearest to a GPU by PCIe class, and that class; ``None`` on a host without any."""
        if gpu not in self._near_cards:
            cards = [nic.id for nic in self.topology.nics(self.topology.by_id[gpu].host) if self.network_links(nic.id)]
            kinds = {card: self.pcie_kind(gpu, card) for card in cards}
            best = min(kinds.values(), default=None)
            near = tuple(card for card, kind in kinds.items() if kind is best)
            self._near_cards[gpu] = None if best is None else (best, near)
        return self._near_cards[gpu]

    def nearest_nic(self, gpu: str) -> tuple[PathKind, str] | None:
        """The network card nearest to a GPU by PCIe class; GPUs of a host take turns among equally near ones."""
        near = self.near_cards(gpu)
        return None if near is None else (near[0], near[1][(self.topology.by_id[gpu].index or 0) % len(near[1])])

    def gpudirect(self, gpu: str, card: str) -> bool:
        """Whether a network card reads and writes the memory of a GPU of its host.

        As the host states; else NCCL's rule (v2.30.7 ``src/graph/paths.cc``): up to PXB, or through the CPU on whose socket
        both are where the GPU is joined to it by NVLink-C2C.
        """
        stated = self.topology.host(self.topology.by_id[gpu].host).gpudirect
        if stated != "unknown":
            return stated == "enabled"
        if self.pcie_kind(gpu, card) <= PathKind.PXB:
            return True
        up = self._parents.get(gpu)
        by_c2c = up is not None and self.topology.links[up[1]].kind is LinkKind.C2C
        return by_c2c and self.ancestors(gpu)[-1] == self.ancestors(card)[-1]

    def to_card(self, gpu: str, card: str, *, gpudirect: bool) -> tuple[DirectedLink, ...]:
        """The directed links from a GPU to a network card of its host; without GPUDirect by way of the memory of its socket."""
        if gpudirect:
            return self.pcie(gpu, card)
        socket, other = self.ancestors(gpu)[-1], self.ancestors(card)[-1]
        across = self._across(socket, other) if socket != other else []
        return tuple(self.up(gpu, socket) + across + self.down(other, card))

    def _out(self, gpu: str) -> tuple[tuple[DirectedLink, ...], str] | None:
        """The way from a GPU to a network card and that card: its nearest, or where that is beyond the reach of GPUDirect
        and the host does not rule it out the nearest of a GPU that it has NVLinks to (NCCL's PXN).
        """
        own = self.nearest_nic(gpu)
        if own is None:
            return None
        device = self.topology.by_id[gpu]
        direct = self.gpudirect(gpu, own[1])
        if not direct and self.topology.host(device.host).pxn != "disabled":
            relays = [
                (nvlink, other.id, near[1])
                for other in (self.topology.gpus[place] for place in self.topology.gpus_of_host[device.host])
                if (nvlink := self.nvlink(gpu, other.id)) is not None
                and (near := self.nearest_nic(other.id)) is not None
                and self.gpudirect(other.id, near[1])
            ]
            if relays:
                nvlink, relay, card = relays[(device.index or 0) % len(relays)]
                return (*nvlink, *self.to_card(relay, card, gpudirect=True)), card
        return self.to_card(gpu, own[1], gpudirect=direct), own[1]

    def network_links(self, nic: str) -> list[int]:
        """The links, by number, that join a card to a network."""
        return [number for number in self._links_of[nic] if self.topology.links[number].kind is LinkKind.NETWORK]

    def _network(self, a: str, b: str) -> tuple[DirectedLink, ...]:
        """Out by a card of ``a``'s host, in by one of ``b``'s; no card on either side leaves the path without links."""
        out, into = self._out(a), self._out(b)
        if out is None or into is None:
            return ()
        route = self.network_route(out[1], into[1])
        return () if route is None else (*out[0], *route, *reverse(into[0]))

    def network_route(self, a: str, b: str) -> tuple[DirectedLink, ...] | None:
        """The directed links from card ``a`` to card ``b`` over the fewest switches; ``None`` if nothing joins them.

        Equal ways over several spines count as the first: a spine's links are one shared resource here.
        """
        key = a, b
        found = self._routes.get(key)
        if key not in self._routes:
            found = self._routes[key] = self._search_network(a, b)
        return found

    def _search_network(self, a: str, b: str) -> tuple[DirectedLink, ...] | None:
        topology = self.topology
        arrived: dict[str, DirectedLink | None] = {a: None}
        edge = [a]
        while edge and b not in arrived:
            ahead = []
            for device in edge:
                for number in self.network_links(device):
                    link = topology.links[number]
                    other = link.b if link.a == device else link.a
                    end = topology.by_id[other].kind is DeviceKind.NIC and other != b
                    if other not in arrived and not end:
                        arrived[other] = self.directed(number, device)
                        ahead.append(other)
            edge = ahead
        if b not in arrived:
            return None
        route: list[DirectedLink] = []
        device = b
        while (step := arrived[device]) is not None:
            route.append(step)
            link = topology.links[step[0]]
            device = link.a if step[1] else link.b
        return tuple(reversed(route))


def link_class(paths: Paths, a: str, b: str) -> str:
    """The cell of ``nvidia-smi topo -m`` for two devices: ``X``, ``NV12``, ``PIX`` … ``SYS``; ``NET`` between hosts."""
    if a == b:
        return "X"
    for left, right, word in paths.topology.observed:
        if (left, right) == (a, b):
            return word
    nvlink = paths.nvlink(a, b)
    if nvlink is not None:
        if paths.topology.links[nvlink[0][0]].kind is LinkKind.XGMI:
            return "XGMI"
        counts = [paths.topology.links[number].count for number, _ in nvlink]
        return f"NV{min(count for count in counts if count is not None)}" if None not in counts else "NV"
    kind = paths.pcie_kind(a, b)
    return "NET" if kind is PathKind.NETWORK else kind.name


def class_matrix(topology: Topology) -> list[list[str]]:
    """The link classes of all pairs of GPUs, ``X`` on the diagonal."""
    paths = Paths(topology)
    names = [gpu.id for gpu in topology.gpus]
    return [[link_class(paths, a, b) for b in names] for a in names]
