"""Devices and the links between them. A link is a shared resource: two flows through it split it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal

from planner.core.facts import NO_GPU_FACTS, NO_HOST_FACTS, GpuFacts, HostFacts, PeerCapability, PeerStatus
from planner.core.finding import Finding
from planner.core.measured import MeasuredCurve
from planner.core.unknown import NOT_STATED, Unknown
from planner.errors import BadInput
from planner.units import Bytes, BytesPerSecond

PeerToPeer = Literal["enabled", "disabled", "unknown"]
Stated = Literal["enabled", "disabled", "unknown"]
Basis = Literal["peak", "achieved"]
OriginKind = Literal["probed", "capture", "written", "short-spec"]


class DeviceKind(StrEnum):
    """What a node of the graph is."""

    GPU = "gpu"
    NIC = "nic"
    PCIE_SWITCH = "pcie-switch"
    HOST_BRIDGE = "host-bridge"
    SOCKET = "socket"  # one NUMA node: nvidia-smi tells no finer
    NVSWITCH = "nvswitch"  # all switches of a domain as one node, as NCCL does
    NETWORK = "network"


class LinkKind(StrEnum):
    """What joins two devices."""

    NVLINK = "nvlink"
    XGMI = "xgmi"
    PCIE = "pcie"
    C2C = "c2c"  # NVLink-C2C between a Grace CPU and its GPU
    SOCKET = "socket-interconnect"
    NETWORK = "network"


MOST_NUMA_NODES = 65536
PEER_LINKS = frozenset({LinkKind.NVLINK, LinkKind.XGMI})
"""Between GPUs, on top of the tree."""
TREE_LINKS = frozenset({LinkKind.PCIE, LinkKind.C2C})
"""From a socket down to the GPUs and network cards."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, NIC, switch, host bridge or socket.

    ``id`` is unique in the topology. ``host`` is the host's name, empty for what hosts share (a network, an NVLink
    domain over several hosts). ``index`` is a GPU's index on its host, as ``nvidia-smi`` counts. ``hardware`` is a
    GPU's name in ``data/gpus``, ``None`` while nobody has said. ``memory`` overrides the data sheet. ``bus_id`` is the PCI
    bus id, ``rate`` what a network card's ports carry together in one direction, ``facts`` what a GPU said of itself.
    """

    id: str
    kind: DeviceKind
    host: str = ""
    index: int | None = None
    hardware: str | None = None
    memory: Bytes | None = None
    numa_node: int | None = None
    label: str = ""
    bus_id: str | None = None
    rate: BytesPerSecond | None = None
    facts: GpuFacts = NO_GPU_FACTS


@dataclass(frozen=True, slots=True)
class Link:
    """A cable or bus between two devices.

    ``bandwidth`` is one direction, in B/s; every link here is full duplex. ``basis`` says whether it is the line rate
    (``peak``) or what transfers reach (``achieved``). ``count`` is NVLink bricks that are up, or PCIe lanes in use;
    ``possible_count`` and ``possible_generation`` are what the ends could do. ``achieved`` is what the cost model uses,
    filled in once the hardware is known (:func:`planner.graph.equip.equip`): ``measured``, what transfers reached on this very
    link (``measured_by`` says which), where somebody measured.
    """

    a: str
    b: str
    kind: LinkKind
    bandwidth: BytesPerSecond | Unknown = NOT_STATED
    basis: Basis = "peak"
    count: int | None = None
    generation: int | None = None
    source: str = ""
    possible_count: int | None = None
    possible_generation: int | None = None
    achieved: BytesPerSecond | None = None
    measured: BytesPerSecond | None = None
    measured_by: str = ""

    @property
    def name(self) -> str:
        """The link as people say it: ``gpu0–switch1``."""
        return f"{self.a}–{self.b}"


@dataclass(frozen=True, slots=True)
class Host:
    """One machine.

    ``peer_to_peer`` is whether GPUs copy to each other over PCIe: ``disabled`` where the driver does not let them,
    ``enabled`` where somebody states that they do at any distance. ``peer_status`` is the driver's word by pair.
    ``gpudirect`` is whether network cards read and write the memory of GPUs (GPUDirect RDMA), ``pxn`` whether a GPU may send
    over the card of a GPU that it has NVLinks to; where nobody says, NCCL's rules decide by distance.
    """

    name: str
    peer_to_peer: PeerToPeer = "unknown"
    peer_status: tuple[PeerStatus, ...] = ()
    facts: HostFacts = NO_HOST_FACTS
    gpudirect: Stated = "unknown"
    pxn: Stated = "unknown"

    def status(self, capability: PeerCapability) -> tuple[tuple[str, ...], ...] | None:
        """The driver's word on one capability for all pairs of GPUs of the host, ``None`` where it was not asked."""
        return next((one.statuses for one in self.peer_status if one.capability == capability), None)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a topology came from: a topology read from a file knows that it is not this machine."""

    kind: OriginKind
    source: str
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Topology:
    """Devices, links and where they came from.

    ``observed`` holds link classes, by pair of device ids, that a capture states and the tree cannot express
    (an asymmetric matrix, say): the capture's word is kept. ``findings`` are what its reader noticed; what can be
    concluded from the graph itself is :func:`planner.graph.diagnosis.diagnose`'s. ``aliases`` are other names of a
    machine of the library, those of cloud instances say. ``measurements`` are collectives measured on this machine.
    """

    name: str
    hosts: tuple[Host, ...]
    devices: tuple[Device, ...]
    links: tuple[Link, ...]
    origin: Origin
    description: str = ""
    observed: tuple[tuple[str, str, str], ...] = ()
    findings: tuple[Finding, ...] = ()
    aliases: tuple[str, ...] = ()
    measurements: tuple[MeasuredCurve, ...] = ()

    @cached_property
    def gpus(self) -> tuple[Device, ...]:
        """The GPUs; a GPU's index in every plan is its place here (on one host: the host's own index)."""
        order = {host.name: place for place, host in enumerate(self.hosts)}
        found = (device for device in self.devices if device.kind is DeviceKind.GPU)
        return tuple(sorted(found, key=lambda gpu: (order.get(gpu.host, -1), gpu.index if gpu.index is not None else -1)))

    @cached_property
    def by_id(self) -> dict[str, Device]:
        """Devices by id."""
        return {device.id: device for device in self.devices}

    @cached_property
    def gpus_of_host(self) -> dict[str, tuple[int, ...]]:
        """For each host in order, the indices (in :attr:`gpus`) of its GPUs."""
        return {host.name: tuple(place for place, gpu in enumerate(self.gpus) if gpu.host == host.name) for host in self.hosts}

    @property
    def hardware(self) -> tuple[str, ...]:
        """The distinct GPU models, in order of appearance; those not named are left out."""
        return tuple(dict.fromkeys(gpu.hardware for gpu in self.gpus if gpu.hardware is not None))

    def host(self, name: str) -> Host:
        """The host of that name. Raises ``KeyError``."""
        return self._hosts[name]

    @cached_property
    def _hosts(self) -> dict[str, Host]:
        return {host.name: host for host in self.hosts}

    def nics(self, host: str) -> tuple[Device, ...]:
        """The network cards of a host."""
        return tuple(device for device in self.devices if device.kind is DeviceKind.NIC and device.host == host)

    def check(self) -> None:
        """Raise ``BadInput``, naming the place, if the graph breaks an invariant."""
        for problem in self._problems():
            raise BadInput(problem, path=self.name)

    def _problems(self) -> Iterator[str]:
        for identifier, count in Counter(device.id for device in self.devices).items():
            if count > 1:
                yield f"device {identifier!r} is there {count} times"
        hosts = {host.name for host in self.hosts}
        if len(hosts) != len(self.hosts):
            yield "two hosts have the same name"
        if not self.gpus:
            yield "no GPU in it"
        for device in self.devices:
            if device.host and device.host not in hosts:
                yield f"device {device.id!r} is on host {device.host!r}, which is not listed"
                return
            if device.numa_node is not None and not 0 <= device.numa_node < MOST_NUMA_NODES:
                yield f"device {device.id!r} is on NUMA node {device.numa_node}"
        for host, gpus in self.gpus_of_host.items():
            indices = [self.gpus[gpu].index for gpu in gpus]
            if None in indices or len(set(indices)) != len(indices):
                yield f"the GPUs of host {host!r} need an index each, all different; found {indices}"
            for one in self.host(host).peer_status:
                if len(one.statuses) != len(gpus) or any(len(row) != len(gpus) for row in one.statuses):
                    yield f"the peer status of host {host!r} ({one.capability}) is not {len(gpus)} by {len(gpus)}"
        for a, b, _ in self.observed:
            for identifier in (a, b):
                if identifier not in self.by_id:
                    yield f"a link class is stated for {identifier!r}, which is no device"
        for curve in self.measurements:
            for identifier in curve.gpus:
                if identifier not in self.by_id or self.by_id[identifier].kind is not DeviceKind.GPU:
                    yield f"a measurement names {identifier!r}, which is no GPU of it"
        for link in self.links:
            yield from self._link_problems(link)
        yield from self._tree_problems()
        yield from self._reach_problems()

    def _reach_problems(self) -> Iterator[str]:
        """Several hosts are one machine only where a network or a shared NVSwitch joins them."""
        parts = _Parts(self.by_id)
        for link in self.links:
            parts.join(link)
        found = {parts.find(gpu.id): gpu.host for gpu in self.gpus}
        if len(found) > 1 and len(set(found.values())) > 1:
            hosts = ", ".join(sorted(set(found.values()))[:4])
            yield f"nothing joins hosts {hosts}: cards on a network, or a shared NVSwitch, are missing"

    def _link_problems(self, link: Link) -> Iterator[str]:
        ends = [self.by_id.get(link.a), self.by_id.get(link.b)]
        for identifier, end in zip((link.a, link.b), ends, strict=True):
            if end is None:
                yield f"link {link.name} ends at {identifier!r}, which is no device"
        if link.a == link.b:
            yield f"link {link.name} joins a device to itself"
        if not isinstance(link.bandwidth, Unknown) and link.bandwidth <= 0:
            yield f"link {link.name} has no bandwidth"
        if link.measured is not None and link.measured <= 0:
            yield f"link {link.name} was measured without bandwidth"
        if link.count is not None and link.count < 1:
            yield f"link {link.name} has a count of {link.count}"
        if link.count is not None and link.possible_count is not None and link.possible_count < link.count:
            yield f"link {link.name} has a count of {link.count} of {link.possible_count} possible"
        allowed = _ENDS[link.kind]
        for end in ends:
            if end is not None and end.kind not in allowed:
                yield f"a {link.kind} link cannot end at {end.kind} {end.id!r}"

    def _tree_problems(self) -> Iterator[str]:
        """PCIe is a tree: every device hangs, by exactly one way, from one socket; a Grace GPU hangs by its C2C link."""
        parts = _Parts(self.by_id)
        for link in self.links:
            if link.kind in TREE_LINKS and not parts.join(link):
                yield f"{'PCIe' if link.kind is LinkKind.PCIE else 'C2C'} link {link.name} closes a loop; PCIe is a tree"
        find = parts.find
        sockets = Counter(find(device.id) for device in self.devices if device.kind is DeviceKind.SOCKET)
        for device in self.devices:
            if device.kind in {DeviceKind.GPU, DeviceKind.NIC} and sockets[find(device.id)] != 1:
                yield f"{device.kind} {device.id!r} hangs from {sockets[find(device.id)]} sockets; expected exactly one"


class _Parts:
    """Which devices hang together by the links joined so far."""

    def __init__(self, identifiers: Iterable[str]) -> None:
        self._root = {identifier: identifier for identifier in identifiers}

    def find(self, identifier: str) -> str:
        """The device that stands for the part ``identifier`` is in."""
        while self._root[identifier] != identifier:
            self._root[identifier] = self._root[self._root[identifier]]
            identifier = self._root[identifier]
        return identifier

    def join(self, link: Link) -> bool:
        """Join two parts; false where the ends hang together already."""
        a, b = self.find(link.a), self.find(link.b)
        self._root[a] = b
        return a != b


_ENDS: dict[LinkKind, frozenset[DeviceKind]] = {
    LinkKind.NVLINK: frozenset({DeviceKind.GPU, DeviceKind.NVSWITCH}),
    LinkKind.XGMI: frozenset({DeviceKind.GPU}),
    LinkKind.PCIE: frozenset({DeviceKind.GPU, DeviceKind.NIC, DeviceKind.PCIE_SWITCH, DeviceKind.HOST_BRIDGE, DeviceKind.SOCKET}),
    LinkKind.C2C: frozenset({DeviceKind.GPU, DeviceKind.SOCKET}),
    LinkKind.SOCKET: frozenset({DeviceKind.SOCKET}),
    LinkKind.NETWORK: frozenset({DeviceKind.NIC, DeviceKind.NETWORK}),
}
