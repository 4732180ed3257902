"""The wires of one machine as the cost model asks them: what a group of GPUs shares, and what a message takes on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from planner.core.hardware import GpuSpec
from planner.core.topology import DeviceKind, Link, LinkKind, Topology
from planner.core.unknown import Unknown
from planner.cost.rings import NO_RING, RingPacking, pack_rings
from planner.graph.paths import DirectedLink, Path, PathKind, Paths
from planner.graph.uplinks import Uplinks
from planner.units import BytesPerSecond

NO_CAPABILITY = (8, 0)
"""Stands in for the CUDA compute capability of other vendors' GPUs: no NVLS, no LL128 caps beyond Ampere's."""


@dataclass(frozen=True)
class GroupFacts:
    """What a collective over some GPUs can know of the wires.

    ``nodes`` counts a shared NVLink domain as one. ``nvlink_everywhere`` means every pair has NVLink; ``switched``
    that it runs through an NVSwitch. ``pair_peak`` and ``pair_achieved`` are the line rate and the achieved rate of
    the weakest NVLink path between two members. Over several nodes, ``node_ports`` is what the NVSwitch port of a GPU
    achieves where every node's members hang from one (0 otherwise), and ``network`` what the cards of one node give
    the group together.
    """

    gpus: tuple[int, ...]
    nodes: int
    packing: RingPacking
    nvlink_everywhere: bool
    switched: bool
    pair_peak: BytesPerSecond
    pair_achieved: BytesPerSecond
    node_ports: BytesPerSecond
    network: BytesPerSecond
    network_cards: int
    compute_capability: tuple[int, int]
    hardware: tuple[str, ...]
    limiting_link: str | None

    @property
    def ranks(self) -> int:
        """How many GPUs it has."""
        return len(self.gpus)


class Interconnect:
    """Groups and paths of an equipped topology, memoised."""

    def __init__(self, topology: Topology, specs: Mapping[str, GpuSpec]) -> None:
        self.topology = topology
        self.specs = specs
        self.paths = Paths(topology)
        self._uplinks = Uplinks(topology)
        self._groups: dict[frozenset[int], GroupFacts] = {}

    @cached_property
    def capacity(self) -> dict[DirectedLink, float]:
        """What each directed link achieves, B/s."""
        return {
            (number, forward): float(link.achieved or 0.0)
            for number, link in enumerate(self.topology.links)
            for forward in (True, False)
        }

    def spec(self, gpu: int) -> GpuSpec:
        """The data sheet of a GPU of the topology."""
        return self.specs[self.topology.gpus[gpu].hardware or ""]

    def path(self, a: int, b: int) -> Path:
        """The way from GPU ``a`` to GPU ``b``."""
        gpus = self.topology.gpus
        return self.paths.between(gpus[a].id, gpus[b].id)

    def rate(self, path: Path) -> BytesPerSecond:
        """What a path achieves on its own: its weakest link, shared by as often as it crosses it."""
        crossings = Counter(path.links)
        return BytesPerSecond(min((self.capacity[link] / times for link, times in crossings.items()), default=0.0))

    def peak(self, path: Path) -> BytesPerSecond:
        """The line rate of the weakest link of a path."""
        rates = [self.topology.links[number].bandwidth for number, _ in path.links]
        return BytesPerSecond(min((rate for rate in rates if not isinstance(rate, Unknown)), default=0.0))

    def describe(self, directed: DirectedLink) -> str:
        """A link as a person reads it: ``NVLink gpu0–gpu2 (48 GB/s)``."""
        return describe_link(self.topology.links[directed[0]])

    def group(self, gpus: Sequence[int]) -> GroupFacts:
        """The facts of a group; order does not matter."""
        key = frozenset(gpus)
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = self._facts(tuple(sorted(key)))
        return found

    def _facts(self, gpus: tuple[int, ...]) -> GroupFacts:
        devices = [self.topology.gpus[gpu] for gpu in gpus]
        pairs = [(a, b) for a in gpus for b in gpus if a < b]
        paths = [self.path(a, b) for a, b in pairs]
        nvlink = all(path.kind is PathKind.NVLINK for path in paths)
        hosts = list(dict.fromkeys(device.host for device in devices))
        nodes = 1 if nvlink else len(hosts)
        inside = [path for (a, b), path in zip(pairs, paths, strict=True) if self._host(a) == self._host(b)]
        switched = bool(paths) and all(self._through_switch(path) for path in (paths if nodes == 1 else inside))
        if nodes == 1:
            packing = pack_rings([device.id for device in devices], self.paths, self.capacity)
        else:
            members = [[device.id for device in devices if device.host == host] for host in hosts]
            packings = [pack_rings(part, self.paths, self.capacity) for part in members if len(part) > 1]
            packing = min(packings, key=lambda one: one.bandwidth, default=NO_RING)
        joined = bool(inside) and all(path.kind is PathKind.NVLINK for path in inside)
        network, cards = self._network(hosts, len(gpus), joined) if nodes > 1 else (0.0, 0)
        weakest = BytesPerSecond(min((self.rate(path) for path in (paths if nvlink else inside)), default=0.0))
        return GroupFacts(
            gpus=gpus,
            nodes=nodes,
            packing=packing,
            nvlink_everywhere=nvlink and len(gpus) > 1,
            switched=switched and nodes == 1,
            pair_peak=BytesPerSecond(min((self.peak(path) for path in paths), default=0.0)) if nvlink else BytesPerSecond(0.0),
            pair_achieved=weakest if nvlink else BytesPerSecond(0.0),
            node_ports=weakest if nodes > 1 and switched and inside else BytesPerSecond(0.0),
            network=BytesPerSecond(network),
            network_cards=cards,
            compute_capability=min(self.spec(gpu).compute_capability or NO_CAPABILITY for gpu in gpus),
            hardware=tuple(dict.fromkeys(self.spec(gpu).name for gpu in gpus)),
            limiting_link=self._limiting(packing, network, hosts),
        )

    def _host(self, gpu: int) -> str:
        return self.topology.gpus[gpu].host

    def _through_switch(self, path: Path) -> bool:
        ends = (end for number, _ in path.links for end in (self.topology.links[number].a, self.topology.links[number].b))
        return path.kind is PathKind.NVLINK and any(self.topology.by_id[end].kind is DeviceKind.NVSWITCH for end in ends)

    def _network(self, hosts: Sequence[str], ranks: int, joined: bool) -> tuple[float, int]:
        """The bandwidth and number of cards a group uses on its poorest node: one card a GPU; all of them where the
        members of a node are ``joined`` by NVLink, so that any of them reaches any card (NCCL's PXN). Where the group's
        nodes hang from different leaf switches, a leaf's uplinks are shared by those of its nodes that are in the group.
        """
        most = None if joined else max(1, ranks // len(hosts))
        offers = []
        for host in hosts:
            cards = self._uplinks.cards[host][:most]
            by_leaf: dict[str, float] = {}
            for rate, leaf in cards:
                by_leaf[leaf] = by_leaf.get(leaf, 0.0) + rate
            offers.append((sum(min(rate, self._uplinks.share(leaf, hosts)) for leaf, rate in by_leaf.items()), len(cards)))
        return min(offers)

    def _limiting(self, packing: RingPacking, network: float, hosts: Sequence[str]) -> str | None:
        if len(hosts) > 1 and network and (packing.bandwidth <= 0 or network < packing.bandwidth):
            return f"network between {', '.join(hosts[:3])}{' …' if len(hosts) > 3 else ''} ({network / 1e9:.3g} GB/s a node)"
        if packing.limiting is None:
            return None
        staged = ", through host memory" if packing.staged else ""
        return self.describe(packing.limiting) + staged


_KIND_WORDS = {
    LinkKind.NVLINK: "NVLink",
    LinkKind.XGMI: "Infinity Fabric",
    LinkKind.PCIE: "PCIe",
    LinkKind.C2C: "NVLink-C2C",
    LinkKind.SOCKET: "socket interconnect",
    LinkKind.NETWORK: "network",
}


def describe_link(link: Link) -> str:
    """A link as a person reads it, with what it achieves in one direction."""
    rate = f" ({link.achieved / 1e9:.3g} GB/s)" if link.achieved else ""
    return f"{_KIND_WORDS[link.kind]} {link.name}{rate}"
