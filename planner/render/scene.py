"""What a picture of a topology shows, before anybody draws it: alike hosts once, the tree of each, its wires, its problems."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.core.finding import Finding
from planner.core.topology import PEER_LINKS, Device, DeviceKind, Host, Link, LinkKind, Topology
from planner.core.unknown import Unknown
from planner.graph.paths import Paths

LEAST_MESH = 4
"""GPUs from which on "each with each" is said once, not drawn link by link."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One link as a picture words it.

    ``word`` is its class (``gen5 x16``, ``NV18``). Bandwidths are B/s in one direction: the line rate, and what transfers
    reach, ``measured`` where somebody measured that on this link. ``assumed`` where the topology itself does not state the class.
    ``problem`` says what it lacks.
    """

    kind: LinkKind
    word: str
    bandwidth: float | None
    achieved: float | None
    count: int | None = None
    assumed: bool = False
    problem: str = ""
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A device with what hangs below it; ``name`` is its id without the host's, ``wire`` what joins it to what is above."""

    device: Device
    name: str
    wire: Wire | None
    problems: tuple[str, ...] = ()
    below: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """A wire between two devices of a host, by their names there; ``b`` may be a switch or network."""

    a: str
    b: str
    wire: Wire


@dataclass(frozen=True, slots=True)
class Shared:
    """Switches or networks over several hosts that are joined alike (``leaf0-3``), in a picture one device."""

    name: str
    kind: DeviceKind
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostScene:
    """A host, and the names of all that are like it; ``problems`` are those of all its GPUs alike.

    ``ports`` are the wires of its GPUs to NVSwitches and ``uplinks`` those of its cards to networks, by the name of the
    switch or network (``own_switches`` are those of this host alone); ``meshes`` the GPUs that are joined each with each, ``direct`` all other wires between two GPUs.
    """

    host: Host
    names: tuple[str, ...]
    sockets: tuple[Node, ...]
    hardware: tuple[str, ...]
    between_sockets: tuple[Joined, ...] = ()
    ports: Mapping[str, tuple[Joined, ...]] = field(default_factory=dict)
    direct: tuple[Joined, ...] = ()
    meshes: tuple[tuple[tuple[str, ...], Wire], ...] = ()
    uplinks: Mapping[str, tuple[Joined, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    own_switches: tuple[str, ...] = ()

    @property
    def gpus(self) -> tuple[Node, ...]:
        """The GPUs in the order of the tree."""
        return tuple(node for node in walk(self.sockets) if node.device.kind is DeviceKind.GPU)


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a picture shows. ``trunks`` are the wires among what hosts share."""

    title: str
    hosts: tuple[HostScene, ...]
    shared: tuple[Shared, ...]
    trunks: tuple[Joined, ...]
    problems: tuple[Finding, ...]
    assumptions: tuple[str, ...]

    def each(self, name: str) -> str:
        """`` each`` where that name stands for several switches or networks."""
        return " each" if any(one.name == name and len(one.members) > 1 for one in self.shared) else ""

    @property
    def kinds(self) -> tuple[LinkKind, ...]:
        """The kinds of wire in it."""
        found = {wire.kind for host in self.hosts for wire in _wires(host)} | {one.wire.kind for one in self.trunks}
        return tuple(kind for kind in LinkKind if kind in found)


def walk(nodes: Sequence[Node]) -> list[Node]:
    """The nodes and all below them, in order."""
    found = []
    for node in nodes:
        found += [node, *walk(node.below)]
    return found


def _wires(host: HostScene) -> list[Wire]:
    joined = [*host.between_sockets, *host.direct]
    for group in (*host.ports.values(), *host.uplinks.values()):
        joined += group
    tree = [node.wire for node in walk(host.sockets) if node.wire is not None]
    return [*tree, *(one.wire for one in joined), *(wire for _, wire in host.meshes)]


def scene_of(topology: Topology, filled: Topology | None = None, findings: Sequence[Finding] | None = None) -> Scene:
    """The scene of a topology; ``filled`` is the same with the bandwidths that its hardware implies.

    ``findings`` are marked at the devices they name; without them, those of the topology.
    """
    whole = filled or topology
    known = topology.findings if findings is None else tuple(findings)
    problems = tuple(finding for finding in known if finding.severity == "problem")
    links = [wire_of(stated, link) for stated, link in zip(topology.links, whole.links, strict=True)]
    shared = _shared(whole, links)
    names = {member: one.name for one in shared for member in one.members}
    trunks = (
        Joined(names[link.a], names[link.b], wire)
        for link, wire in zip(whole.links, links, strict=True)
        if link.a in names and link.b in names
    )
    return Scene(
        title=f"{topology.name}: {counted(topology)}",
        hosts=_Maker(whole, links, problems, names).hosts(),
        shared=shared,
        trunks=tuple(dict.fromkeys(trunks)),
        problems=problems,
        assumptions=whole.origin.assumptions,
    )


def _shared(topology: Topology, wires: Sequence[Wire]) -> tuple[Shared, ...]:
    """What hosts share, together where as many wires of the same make end there."""
    ends: dict[str, list[str]] = {device.id: [] for device in topology.devices if not device.host}
    for link, wire in zip(topology.links, wires, strict=True):
        for end, other in ((link.a, link.b), (link.b, link.a)):
            if end in ends:
                ends[end].append(repr((topology.by_id[other].kind, wire)))
    families: dict[tuple[DeviceKind, tuple[str, ...]], list[str]] = {}
    for identifier, found in ends.items():
        families.setdefault((topology.by_id[identifier].kind, tuple(sorted(found))), []).append(identifier)
    return tuple(Shared(ranges(members), kind, tuple(members)) for (kind, _), members in families.items())


def counted(topology: Topology) -> str:
    """``8× H100-SXM5-80GB``, model by model."""
    return counted_names([gpu.hardware for gpu in topology.gpus])


def counted_names(models: Sequence[str | None]) -> str:
    """How many GPUs of each model.

    >>> counted_names(["T4", "T4", None])
    '2× T4, 1 GPU, model not stated'
    """
    counts = Counter(models)
    unnamed = counts.pop(None, 0)
    names = [f"{count}× {name}" for name, count in counts.items()]
    return ", ".join([*names, *([f"{unnamed} GPU{'s' * (unnamed > 1)}, model not stated"] if unnamed else [])])


def wire_of(stated: Link, link: Link) -> Wire:
    """A link in words; ``stated`` is the same link before the hardware's defaults were filled in."""
    bandwidth = None if isinstance(link.bandwidth, Unknown) else float(link.bandwidth)
    if link.kind is LinkKind.PCIE:
        parts = (f"gen{link.generation}" if link.generation else "", f"x{link.count}" if link.count else "")
        word = " ".join(part for part in parts if part)
        assumed = stated.generation is None and stated.count is None and isinstance(stated.bandwidth, Unknown)
    else:
        names = {LinkKind.NVLINK: "NV", LinkKind.XGMI: "xGMI", LinkKind.C2C: "C2C"}
        word = names.get(link.kind, "") + (str(link.count) if link.kind is LinkKind.NVLINK and link.count else "")
        assumed = False
    return Wire(link.kind, word, bandwidth, link.achieved, link.count, assumed, lack(link), link.measured is not None)


def lack(link: Link) -> str:
    """What a link has less of than its ends could do; empty where nothing is missing or nobody said.

    >>> lack(Link("a", "b", LinkKind.PCIE, count=8, possible_count=16, generation=4, possible_generation=5))
    'gen4 of 5, x8 of x16'
    >>> lack(Link("a", "b", LinkKind.NVLINK, count=17, possible_count=18))
    '17 of 18 up'
    """
    parts = []
    if link.generation and link.possible_generation and link.generation < link.possible_generation:
        parts.append(f"gen{link.generation} of {link.possible_generation}")
    if link.count and link.possible_count and link.count < link.possible_count:
        lanes = link.kind is LinkKind.PCIE
        parts.append(f"x{link.count} of x{link.possible_count}" if lanes else f"{link.count} of {link.possible_count} up")
    return ", ".join(parts)


def ranges(names: Sequence[str]) -> str:
    """Names that differ in a running number, together.

    >>> ranges(["gpu0", "gpu1", "gpu2", "gpu4", "x"])
    'gpu0-2, gpu4, x'
    """
    runs: list[tuple[str, int, int]] = []
    for name in names:
        match = re.fullmatch(r"(.*?)(\d{1,9})", name)
        stem, number = (match[1], int(match[2])) if match and not re.match(r"0\d", match[2]) else (name, -1)
        if runs and number >= 0 and runs[-1][0] == stem and runs[-1][2] + 1 == number:
            runs[-1] = (stem, runs[-1][1], number)
        else:
            runs.append((stem, number, number))
    return ", ".join(
        stem if first < 0 else f"{stem}{first}" if first == last else f"{stem}{first}-{last}" for stem, first, last in runs
    )


def gathered(nodes: Sequence[Node]) -> list[tuple[Node, ...]]:
    """Nodes one by one; more than two network cards of one make in a row together."""
    items: list[tuple[Node, ...]] = []
    for node in nodes:
        before = items[-1][0] if items else None
        alike = (
            before is not None
            and node.device.kind is before.device.kind is DeviceKind.NIC
            and (node.wire, node.device.rate, node.problems) == (before.wire, before.device.rate, ())
        )
        if alike:
            items[-1] = (*items[-1], node)
        else:
            items.append((node,))
    return [part for item in items for part in ([item] if len(item) > 2 else [(node,) for node in item])]


class _Maker:
    def __init__(self, topology: Topology, wires: Sequence[Wire], problems: Sequence[Finding], shared: Mapping[str, str]) -> None:
        self._topology = topology
        self._shared = shared
        self._wires = wires
        self._codes: dict[str, tuple[str, ...]] = {}
        self._host_codes: dict[str, tuple[str, ...]] = {}
        for finding in problems:
            self._mark(finding)
        paths = Paths(topology)
        self._below: dict[str, list[tuple[str, int]]] = {}
        for device in topology.devices:
            chain = paths.ancestors(device.id)
            if len(chain) > 1:
                self._below.setdefault(chain[1], []).append((device.id, paths.up(device.id, chain[1])[0][0]))

    def _mark(self, finding: Finding) -> None:
        """Mark the devices a finding names; where it names all GPUs of a host, the host."""
        named = set(finding.devices)
        for host, places in self._topology.gpus_of_host.items():
            gpus = {self._topology.gpus[place].id for place in places}
            if len(gpus) > 1 and gpus <= named:
                named -= gpus
                self._host_codes[host] = (*self._host_codes.get(host, ()), finding.code)
        for device in named:
            self._codes[device] = (*self._codes.get(device, ()), finding.code)

    def hosts(self) -> tuple[HostScene, ...]:
        """One scene for all hosts that look the same, in order of the first."""
        found: dict[str, tuple[HostScene, list[str]]] = {}
        for host in self._topology.hosts:
            scene = self._host(host)
            look = repr((host.peer_to_peer, [_look(node) for node in scene.sockets], *_joins(scene)))
            found.setdefault(look, (scene, []))[1].append(host.name)
        return tuple(replace(scene, names=tuple(names)) for scene, names in found.values())

    def _host(self, host: Host) -> HostScene:
        topology = self._topology
        devices = [device for device in topology.devices if device.host == host.name]
        sockets = tuple(self._node(device.id, None) for device in devices if device.kind is DeviceKind.SOCKET)
        between: list[Joined] = []
        direct: list[Joined] = []
        ports: dict[str, tuple[Joined, ...]] = {}
        uplinks: dict[str, tuple[Joined, ...]] = {}
        for link, wire in zip(topology.links, self._wires, strict=True):
            ends = [topology.by_id[link.a], topology.by_id[link.b]]
            if host.name not in {end.host for end in ends}:
                continue
            if ends[0].kind in {DeviceKind.NVSWITCH, DeviceKind.NETWORK} or ends[0].host != host.name:
                ends.reverse()
            joined = Joined(self._short(ends[0]), self._short(ends[1]), wire)
            if link.kind is LinkKind.SOCKET:
                between.append(joined)
            elif link.kind is LinkKind.NETWORK:
                uplinks[joined.b] = (*uplinks.get(joined.b, ()), joined)
            elif link.kind in PEER_LINKS and ends[1].kind is DeviceKind.NVSWITCH:
                ports[joined.b] = (*ports.get(joined.b, ()), joined)
            elif link.kind in PEER_LINKS:
                direct.append(joined)
        rest, meshes = _meshes(direct)
        hardware = tuple(dict.fromkeys(device.hardware for device in devices if device.hardware))
        problems = self._host_codes.get(host.name, ())
        own = tuple(self._short(device) for device in devices if device.kind is DeviceKind.NVSWITCH)
        return HostScene(host, (host.name,), sockets, hardware, tuple(between), ports, rest, meshes, uplinks, problems, own)

    def _short(self, device: Device) -> str:
        return device.id.removeprefix(f"{device.host}/") if device.host else self._shared[device.id]

    def _node(self, identifier: str, number: int | None) -> Node:
        device = self._topology.by_id[identifier]
        wire = None if number is None else self._wires[number]
        problems = self._codes.get(identifier, ())
        if wire is not None and wire.problem:  # and not again by the finding that says the same: pcie-width
            problems = (wire.problem, *(code for code in problems if not code.startswith(f"{wire.kind}-")))
        below = tuple(self._node(*child) for child in self._below.get(identifier, []))
        return Node(device, self._short(device), wire, problems, below)


def _look(node: Node) -> object:
    device = node.device
    what = (node.name, device.kind, device.hardware, device.memory, device.label, device.rate, device.numa_node)
    return what, node.wire, node.problems, [_look(child) for child in node.below]


def _joins(scene: HostScene) -> tuple[object, ...]:
    return scene.between_sockets, scene.ports, scene.direct, scene.meshes, scene.uplinks, scene.problems


def _meshes(direct: Sequence[Joined]) -> tuple[tuple[Joined, ...], tuple[tuple[tuple[str, ...], Wire], ...]]:
    """Wires that join some GPUs each with each, all of one make, taken out of ``direct``."""
    makes: dict[Wire, list[Joined]] = {}
    for one in direct:
        makes.setdefault(one.wire, []).append(one)
    meshes = []
    rest = list(direct)
    for wire, members in makes.items():
        gpus = list(dict.fromkeys(name for one in members for name in (one.a, one.b)))
        pairs = {frozenset((one.a, one.b)) for one in members}
        if len(gpus) >= LEAST_MESH and len(pairs) == len(gpus) * (len(gpus) - 1) // 2 and not wire.problem:
            meshes.append((tuple(gpus), wire))
            rest = [one for one in rest if one.wire != wire]
    return tuple(rest), tuple(meshes)
