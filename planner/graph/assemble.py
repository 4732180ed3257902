"""A capture → the graph of its host: PCIe tree, NVLinks on top, and what could not be told, as findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from planner.core.capture import Capture, GpuSight, PcieHop
from planner.core.facts import PeerStatus
from planner.core.finding import Finding
from planner.core.hardware import GpuSpec
from planner.core.topology import Device, DeviceKind, Host, Link, LinkKind, Origin, OriginKind, Topology
from planner.core.unknown import Unknown
from planner.graph.build import HostBuilder
from planner.graph.distances import Hidden, Leaf, distances_of, leaves_of
from planner.graph.network import identifier
from planner.graph.paths import PathKind, Paths, link_class
from planner.graph.peer_links import peers_of
from planner.graph.ultrametric import Cluster, cluster

LookUp = Callable[[str], GpuSpec | None]
"""A GPU's data sheet by name, ``None`` where there is none."""


def assemble(capture: Capture, name: str, kind: OriginKind, look_up: LookUp) -> Topology:
    """The topology of the host that ``capture`` tells of.

    ``look_up`` gives data sheets: whether NVLinks end at a switch is not always told. What nobody tells is assumed, and
    said; nothing is assumed to be nearer than it may be.
    """
    leaves = leaves_of(capture)
    findings = list(capture.findings)
    assumptions = list(capture.assumptions)
    distances, hidden = distances_of(capture, leaves, findings)
    host = identifier(capture.hostname or "localhost")
    devices = _devices(leaves, host)
    grace = {place for place, leaf in enumerate(leaves) if isinstance(leaf.sight, GpuSight) and leaf.sight.c2c}
    builder = HostBuilder(devices, host)
    clusters = cluster(distances, range(len(leaves)))
    builder.tree(clusters, [_numa_node(leaves, node) for node in clusters], grace)
    links = _annotated(builder, leaves, devices)
    peers = peers_of(capture, leaves, look_up)
    inner = [*builder.devices, *(Device(switch, DeviceKind.NVSWITCH, host) for switch in peers.switches)]
    findings += peers.findings
    assumptions += peers.assumptions
    if hidden:
        findings.append(_hidden(hidden, capture))
    topology = Topology(
        name=name,
        hosts=(Host(host, "unknown", _peer_status(capture, leaves), capture.host),),
        devices=tuple(inner),
        links=(*links, *peers.links),
        origin=Origin(kind, _origin(capture), tuple(dict.fromkeys(assumptions))),
        findings=tuple(dict.fromkeys(findings)),
    )
    return _with_observed(topology, capture)


def _origin(capture: Capture) -> str:
    return f"{capture.format}, from {capture.source}" if capture.source not in capture.format else capture.format


def _devices(leaves: Sequence[Leaf], host: str) -> list[Device]:
    devices, cards = [], 0
    for leaf in leaves:
        sight = leaf.sight
        if isinstance(sight, GpuSight):
            devices.append(
                Device(
                    f"gpu{sight.index}",
                    DeviceKind.GPU,
                    host,
                    sight.index,
                    sight.model,
                    sight.memory,
                    leaf.numa_node,
                    bus_id=sight.bus_id,
                    facts=sight.facts,
                )
            )
        else:
            label = "" if sight.label == f"nic{cards}" else sight.label
            devices.append(
                Device(
                    f"nic{cards}",
                    DeviceKind.NIC,
                    host,
                    numa_node=leaf.numa_node,
                    label=label,
                    bus_id=sight.bus_id,
                    rate=sight.rate,
                )
            )
            cards += 1
    return devices


def _numa_node(leaves: Sequence[Leaf], node: Cluster) -> int | None:
    nodes = {leaves[member].numa_node for member in node.members} - {None}
    return nodes.pop() if len(nodes) == 1 else None


def _annotated(builder: HostBuilder, leaves: Sequence[Leaf], devices: Sequence[Device]) -> list[Link]:
    """The tree's links with the generation and width that were seen, from every leaf as far up as its hops go."""
    above = {link.b: number for number, link in enumerate(builder.links) if link.kind is not LinkKind.SOCKET}
    links = list(builder.links)
    bridges = {device.id for device in builder.inner if device.kind is DeviceKind.HOST_BRIDGE}
    for leaf, device in zip(leaves, devices, strict=True):
        below = device.id
        hops = list(reversed(_hops(leaf)))
        while hops:
            number = above.get(below)
            if number is None or links[number].kind is not LinkKind.PCIE:
                break
            # a switch with nothing else below it is no device of the tree: its uplink counts where it is the narrower one
            last = links[number].a in bridges
            hop = min(hops, key=_carries) if last else hops.pop(0)
            links[number] = _seen(links[number], hop)
            if last:
                break
            below = links[number].a
        if isinstance(leaf.sight, GpuSight) and leaf.sight.c2c_bandwidth is not None:
            number = above[device.id]
            if links[number].kind is LinkKind.C2C:
                links[number] = replace(links[number], bandwidth=leaf.sight.c2c_bandwidth)
    return links


def _carries(hop: PcieHop) -> float:
    """What a hop carries beside others, by lanes and generation (each doubles a lane); a hop that says nothing is no limit."""
    if hop.generation is None or hop.width is None:
        return float("inf")
    return float(hop.width * 2**hop.generation)


def _hops(leaf: Leaf) -> tuple[PcieHop, ...]:
    """The hops that were seen; else the GPU's own link as the driver words it."""
    sight = leaf.sight
    if sight.hops or not isinstance(sight, GpuSight):
        return sight.hops
    facts = sight.facts
    now, possible = _int(facts.pcie_generation), _int(facts.pcie_generation_possible)
    width = _int(facts.pcie_width)
    if now is None and width is None:
        return ()
    loaded = loaded_generation(now, possible, _int(facts.performance_state))
    return (
        PcieHop(
            bus_id=sight.bus_id or "",
            generation=loaded,
            width=width,
            possible_generation=_int(facts.pcie_generation_gpu) or possible,
            possible_width=_int(facts.pcie_width_possible),
        ),
    )


def loaded_generation(now: int | None, possible: int | None, performance_state: int | None) -> int | None:
    """The PCIe generation of a GPU's link under load, from what it is now.

    An idle GPU (any performance state but 0) lowers its link to save power and raises it at the first transfer, so what
    GPU and slot can do together counts. A busy one that runs lower than that is taken at its word. The width is never
    lowered to save power.

    >>> loaded_generation(1, 4, 8), loaded_generation(1, 4, 0), loaded_generation(3, None, None)
    (4, 1, 3)
    """
    if now is None or possible is None or performance_state == 0:
        return now if now is not None else possible
    return max(now, possible)


def _int(value: int | Unknown) -> int | None:
    return None if isinstance(value, Unknown) else value


def _seen(link: Link, hop: PcieHop) -> Link:
    """The link as the hop saw it; what was seen before stays."""
    count = link.count or hop.width
    possible = link.possible_count or hop.possible_width
    generation = link.generation or hop.generation
    possible_generation = link.possible_generation or hop.possible_generation
    return replace(
        link,
        count=count,
        possible_count=None if possible is None or possible < (count or 0) else possible,
        generation=generation,
        possible_generation=None
        if possible_generation is None or possible_generation < (generation or 0)
        else possible_generation,
    )


_TAKEN_AS = {
    PathKind.PIX: "one switch",
    PathKind.PXB: "different switches under one host bridge",
    PathKind.PHB: "one host bridge",
    PathKind.NODE: "different host bridges of one socket",
    PathKind.SYS: "different sockets",
}


def _hidden(hidden: Sequence[Hidden], capture: Capture) -> Finding:
    some = ", ".join(f"{a}-{b}" for a, b, _ in hidden[:3]) + (" …" if len(hidden) > 3 else "")
    devices = tuple(dict.fromkeys(f"gpu{name.removeprefix('GPU')}" for pair in hidden for name in pair[:2]))
    taken = " and ".join(dict.fromkeys(_TAKEN_AS[kind] for *_, kind in hidden))
    count = "one pair" if len(hidden) == 1 else f"{len(hidden)} pairs"
    if capture.matrix is None:
        return Finding(
            "pcie-unknown",
            f"nothing tells where on PCIe {count} of GPUs {'meets' if len(hidden) == 1 else 'meet'} ({some})",
            f"taken as {taken}; add the text of 'nvidia-smi topo -m'",
            devices=devices,
        )
    xgmi = any(link.kind is LinkKind.XGMI for link in capture.links)
    fabric, told = ("Infinity Fabric", "'lspci -tv'") if xgmi else ("NVLink", "'nvidia-smi topo -mp'")
    return Finding(
        "pcie-class-hidden",
        f"{fabric} hides the PCIe class of {count} ({some}); no NIC or affinity settles it",
        f"taken as {taken}, the farthest the rest allows; it matters only for traffic that leaves {fabric}; {told} tells it",
        severity="notice",
        devices=devices,
    )


def _peer_status(capture: Capture, leaves: Sequence[Leaf]) -> tuple[PeerStatus, ...]:
    indices = [leaf.sight.index for leaf in leaves if isinstance(leaf.sight, GpuSight)]
    found = []
    for capability, statuses in capture.peers.items():
        rows = tuple(tuple("X" if a == b else statuses.get((a, b), "U") for b in indices) for a in indices)
        found.append(PeerStatus(capability, rows))
    return tuple(found)


def _with_observed(topology: Topology, capture: Capture) -> Topology:
    """``topology`` with the capture's word for every pair of GPUs that the tree says otherwise."""
    if capture.matrix is None:
        return topology
    paths = Paths(topology)
    cells: Mapping[tuple[str, str], str] = capture.matrix.cells
    names = {gpu.id: f"GPU{gpu.index}" for gpu in topology.gpus}
    observed = []
    for a in topology.gpus:
        for b in topology.gpus:
            word = cells.get((names[a.id], names[b.id]), "")
            if word and word != link_class(paths, a.id, b.id):
                observed.append((a.id, b.id, word))
    if not observed:
        return topology
    first = observed[0]
    finding = Finding(
        "not-a-tree",
        f"{len(observed)} cells are not what a PCIe tree gives ({first[0]}-{first[1]} is {first[2]})",
        "the capture's word is kept and shown; times use the nearest tree",
        devices=tuple(dict.fromkeys(end for a, b, _ in observed for end in (a, b))),
    )
    return replace(topology, observed=tuple(observed), findings=(*topology.findings, finding))
