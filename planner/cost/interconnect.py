"""The wires of one machine as the cost model asks them: what a group of GPUs shares, and what a message takes on it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from planner.core.hardware import GpuSpec
from planner.core.topology import DeviceKind, Link, LinkKind, Topology
from planner.core.unknown import Unknown
from planner.cost.rails import NO_OFFER, Offer, Rails
from planner.cost.rings import NO_RING, RingPacking, Rings
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
    achieves where every node's members hang from one (0 otherwise), ``network`` what the cards of one node give the group
    together, and ``network_cards`` how many those are.
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
        self._groups: dict[frozenset[int], GroupFacts] = {}

    @cached_property
    def rings(self) -> Rings:
        """The rings of groups of one host."""
        return Rings(self.paths, self.capacity)

    @cached_property
    def _rails(self) -> Rails:
        return Rails(self.paths, self.capacity, Uplinks(self.topology))

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

    def measured(self, path: Path) -> BytesPerSecond:
        """What a path carries by the links of it that were measured, B/s; infinite where none was."""
        crossings = Counter(path.links)
        known = [(self.topology.links[link[0]].measured, times) for link, times in crossings.items()]
        return BytesPerSecond(min((rate / times for rate, times in known if rate is not None), default=math.inf))

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
        nvlink = all(self.paths.nvlink(a.id, b.id) is not None for a, b in combinations(devices, 2))
        hosts = list(dict.fromkeys(device.host for device in devices))
        nodes = 1 if nvlink else len(hosts)
        together = [gpus] if nvlink else self._by_host(gpus, hosts).values()
        paths = [self.path(a, b) for members in together for a, b in combinations(members, 2)]
        switched = bool(paths) and all(self._through_switch(path) for path in paths)
        if nodes == 1:
            packing = self.rings.of([device.id for device in devices])
        else:
            members = [[device.id for device in devices if device.host == host] for host in hosts]
            packings = [self.rings.of(part) for part in members if len(part) > 1]
            packing = min(packings, key=lambda one: one.bandwidth, default=NO_RING)
        offer, poorest = self._network(gpus, hosts) if nodes > 1 else (NO_OFFER, "")
        weakest = BytesPerSecond(min((self.rate(path) for path in paths), default=0.0))
        return GroupFacts(
            gpus=gpus,
            nodes=nodes,
            packing=packing,
            nvlink_everywhere=nvlink and len(gpus) > 1,
            switched=switched and nodes == 1,
            pair_peak=BytesPerSecond(min((self.peak(path) for path in paths), default=0.0)) if nvlink else BytesPerSecond(0.0),
            pair_achieved=weakest if nvlink else BytesPerSecond(0.0),
            node_ports=weakest if nodes > 1 and switched else BytesPerSecond(0.0),
            network=BytesPerSecond(offer.rate),
            network_cards=offer.cards,
            compute_capability=min(self.spec(gpu).compute_capability or NO_CAPABILITY for gpu in gpus),
            hardware=tuple(dict.fromkeys(self.spec(gpu).name for gpu in gpus)),
            limiting_link=self._limiting(packing, offer, poorest, hosts),
        )

    def _by_host(self, gpus: Sequence[int], hosts: Sequence[str]) -> dict[str, list[int]]:
        members: dict[str, list[int]] = {host: [] for host in hosts}
        for gpu in gpus:
            members[self.topology.gpus[gpu].host].append(gpu)
        return members

    def _through_switch(self, path: Path) -> bool:
        ends = (end for number, _ in path.links for end in (self.topology.links[number].a, self.topology.links[number].b))
        return path.kind is PathKind.NVLINK and any(self.topology.by_id[end].kind is DeviceKind.NVSWITCH for end in ends)

    def _network(self, gpus: Sequence[int], hosts: Sequence[str]) -> tuple[Offer, str]:
        """What the cards of the group's poorest node give it, and that node."""
        offers = []
        for host, members in self._by_host(gpus, hosts).items():
            names = [self.topology.gpus[gpu].id for gpu in members]
            offers.append((self._rails.offer(names, hosts, reads=self._cards_read(members)), host))
        return min(offers, key=lambda one: (one[0].rate, one[0].cards))

    def exits(self, members: Sequence[int]) -> list[tuple[str, Mapping[DirectedLink, int]]]:
        """The ways out of the host of ``members`` and back for a ring over several hosts: see :meth:`Rails.exits`."""
        return self._rails.exits([self.topology.gpus[gpu].id for gpu in members], reads=self._cards_read(members))

    def _cards_read(self, members: Sequence[int]) -> bool:
        """Whether NCCL lets network cards read the memory of GPUs: before Ampere only where they have NVLinks or are alone."""
        if len(members) == 1 or all((self.spec(gpu).compute_capability or NO_CAPABILITY) >= NO_CAPABILITY for gpu in members):
            return True
        return any(self.path(a, b).kind is PathKind.NVLINK for a in members for b in members if a != b)

    def _limiting(self, packing: RingPacking, offer: Offer, poorest: str, hosts: Sequence[str]) -> str | None:
        if poorest and offer.rate and (packing.bandwidth <= 0 or offer.rate < packing.bandwidth):
            rate = f"{offer.rate / 1e9:.3g} GB/s a node"
            if offer.limiting is not None:
                through = "" if offer.gpudirect else ", through host memory"
                return f"{self.describe(offer.limiting)} on the way to the network{through} ({rate})"
            return f"network between {', '.join(hosts[:3])}{' …' if len(hosts) > 3 else ''} ({rate})"
        if packing.limiting is None:
            return None
        staged = ", through host memory" if packing.staged else ""
        return self.describe(packing.limiting) + staged


KIND_WORDS = {
    LinkKind.NVLINK: "NVLink",
    LinkKind.XGMI: "Infinity Fabric",
    LinkKind.PCIE: "PCIe",
    LinkKind.C2C: "NVLink-C2C",
    LinkKind.SOCKET: "socket interconnect",
    LinkKind.NETWORK: "network",
}
"""What kinds of links are called."""


def describe_link(link: Link) -> str:
    """A link as a person reads it, with what it achieves in one direction."""
    rate = f" ({link.achieved / 1e9:.3g} GB/s)" if link.achieved else ""
    return f"{KIND_WORDS[link.kind]} {link.name}{rate}"
