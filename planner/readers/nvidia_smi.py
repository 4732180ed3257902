"""``nvidia-smi topo -m``, saved or live → Topology."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

from planner.core.finding import Finding
from planner.core.topology import Device, DeviceKind, Host, Link, LinkKind, Origin, Topology
from planner.core.unknown import Unknown
from planner.errors import Unavailable
from planner.graph.build import HostBuilder
from planner.graph.paths import PathKind, Paths, link_class
from planner.graph.ultrametric import Cluster, Distance, cluster, complete
from planner.readers.nvml import read_gpus
from planner.readers.topo_matrix import Table, pairs, parse_models, parse_table

MAX_LINKS_PER_GPU = 18
"""NVLinks of the GPU that has most of them (Hopper and Blackwell): more towards its peers means a switch."""

COMMAND = ("nvidia-smi", "topo", "-m")
LIST_COMMAND = ("nvidia-smi", "-L")


def read_capture(text: str, source: str, *, name: str, hardware: str | None = None) -> Topology:
    """The topology of a capture.

    ``source`` is what messages call the text; ``hardware`` names the GPUs where the text does not. Raises ``BadInput``
    with the line where the text is not a whole matrix.
    """
    return _topology(parse_table(text, source), name, hardware, Origin("capture", f"nvidia-smi topo -m, from {source}"))


def probe(*, hardware: str | None = None) -> Topology:
    """The topology of this host: the matrix of ``nvidia-smi``, names and memory of NVML.

    Raises ``Unavailable`` where there is no ``nvidia-smi`` or it fails.
    """
    if shutil.which(COMMAND[0]) is None:
        raise Unavailable("no nvidia-smi on this host")
    table = parse_table(_ask(COMMAND), " ".join(COMMAND))
    facts = read_gpus()
    if isinstance(facts, Unknown):
        table.findings.append(Finding("nvml-unavailable", facts.reason, "names come from nvidia-smi, memory from data sheets"))
        table.models |= parse_models(_ask(LIST_COMMAND))
        memory = {}
    else:
        table.models |= {index: one.name for index, one in enumerate(facts) if not isinstance(one.name, Unknown)}
        memory = {index: one.memory for index, one in enumerate(facts) if not isinstance(one.memory, Unknown)}
    topology = _topology(table, "this-host", hardware, Origin("probed", "nvidia-smi topo -m and NVML on this host"))
    devices = (
        replace(device, memory=memory[device.index]) if device.kind is DeviceKind.GPU and device.index in memory else device
        for device in topology.devices
    )
    return replace(topology, devices=tuple(devices))


def _ask(command: tuple[str, ...]) -> str:
    """What a program of the driver prints."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - fixed argv
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"'{' '.join(command)}' did not answer: {error}") from None
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip().split("\n")[0]
        raise Unavailable(f"'{' '.join(command)}' failed: {said}")
    return result.stdout


def _topology(table: Table, name: str, hardware: str | None, origin: Origin) -> Topology:
    leaves = _leaves(table, hardware)
    findings = list(table.findings)
    distances, hidden = _distances(table, findings)
    clusters = cluster(distances, range(len(leaves)))
    builder = HostBuilder(leaves, "localhost")
    builder.tree(clusters, [_numa_node(table, node) for node in clusters])
    devices, links = builder.devices, builder.links
    _nvlinks(table, devices, links, findings)
    if hidden:
        findings.append(_hidden_finding(hidden))
    topology = Topology(name, (Host("localhost"),), tuple(devices), tuple(links), origin, findings=tuple(findings))
    return _with_observed(topology, table)


def _leaves(table: Table, hardware: str | None) -> list[Device]:
    leaves, nics = [], 0
    for name in table.gpus:
        index = int(name.removeprefix("GPU"))
        model = hardware or table.models.get(index)
        leaves.append(Device(f"gpu{index}", DeviceKind.GPU, "localhost", index, model, numa_node=table.numa_nodes.get(name)))
    for name in table.names:
        if not name.startswith("GPU"):
            label = table.labels.get(name, "" if name.startswith("NIC") else name)
            leaves.append(Device(f"nic{nics}", DeviceKind.NIC, "localhost", label=label))
            nics += 1
    return leaves


def _order(table: Table) -> list[str]:
    """Names in the order of the leaves: GPUs, then the rest."""
    return [*table.gpus, *(name for name in table.names if not name.startswith("GPU"))]


def _distances(table: Table, findings: list[Finding]) -> tuple[list[list[Distance]], list[tuple[str, str]]]:
    """PCIe classes of all pairs, completed; and the pairs that stay hidden behind NVLink."""
    names = _order(table)
    distances: list[list[Distance]] = [[None] * len(names) for _ in names]
    place = {name: number for number, name in enumerate(names)}
    uneven = []
    for a, b in pairs(names):
        there, back = table.cells.get((a, b)), table.cells.get((b, a))
        if there and back and there != back:
            uneven.append(f"{a}-{b} {there}/{back}")
        words = [word for word in (there, back) if word and not word.startswith("NV")]
        kind = max((PathKind[word] for word in words), default=None)
        nodes = table.numa_nodes.get(a), table.numa_nodes.get(b)
        if kind is None and None not in nodes and nodes[0] != nodes[1]:
            kind = PathKind.SYS
        distances[place[a]][place[b]] = distances[place[b]][place[a]] = kind
    if uneven:
        findings.append(
            Finding("asymmetric", f"not the same both ways: {', '.join(uneven[:4])}", "the worse way was taken; MIG on?")
        )
    completed = complete(distances)
    hidden = []
    for a, b in pairs(table.gpus):
        if completed[place[a]][place[b]] is None:
            hidden.append((a, b))
            completed[place[a]][place[b]] = completed[place[b]][place[a]] = PathKind.NODE
    return completed, hidden


def _hidden_finding(hidden: list[tuple[str, str]]) -> Finding:
    some = ", ".join(f"{a}-{b}" for a, b in hidden[:3]) + (" …" if len(hidden) > 3 else "")
    return Finding(
        "pcie-class-hidden",
        f"NVLink hides the PCIe class of {len(hidden)} pairs ({some}); no NIC or affinity tells it",
        "taken as different host bridges of one socket; it matters only for traffic that leaves NVLink",
    )


def _numa_node(table: Table, node: Cluster) -> int | None:
    names = _order(table)
    nodes = {table.numa_nodes[names[member]] for member in node.members if names[member] in table.numa_nodes}
    return nodes.pop() if len(nodes) == 1 else None


def _nvlinks(table: Table, devices: list[Device], links: list[Link], findings: list[Finding]) -> None:
    counts: dict[str, dict[str, int]] = {}
    for a, b in pairs(table.gpus):
        words = [word for word in (table.cells.get((a, b)), table.cells.get((b, a))) if word and word.startswith("NV")]
        if words:
            counts.setdefault(a, {})[b] = counts.setdefault(b, {})[a] = min(int(word[2:]) for word in words)
    left = list(counts)
    while left:
        island = [left.pop(0)]
        for member in island:
            island += [peer for peer in counts[member] if peer not in island]
        left = [name for name in left if name not in island]
        switched = any(sum(counts[member].values()) > MAX_LINKS_PER_GPU for member in island)
        if switched:
            number = sum(device.kind is DeviceKind.NVSWITCH for device in devices)
            switch = Device(f"nvswitch{number}", DeviceKind.NVSWITCH, "localhost")
            devices.append(switch)
            ports = {member: max(counts[member].values()) for member in sorted(island, key=table.gpus.index)}
            links.extend(Link(_gpu(member), switch.id, LinkKind.NVLINK, count=count) for member, count in ports.items())
        else:
            direct = pairs(sorted(island, key=table.gpus.index))
            links.extend(Link(_gpu(a), _gpu(b), LinkKind.NVLINK, count=counts[a][b]) for a, b in direct if b in counts[a])
        most = max(max(counts[member].values()) for member in island)
        fewer = [member for member in island if switched and max(counts[member].values()) < most]
        if fewer:
            findings.append(
                Finding("nvlink-down", f"{', '.join(fewer)} has fewer NVLinks up than its neighbours", "run nvidia-smi nvlink -s")
            )


def _gpu(name: str) -> str:
    return f"gpu{name.removeprefix('GPU')}"


def _with_observed(topology: Topology, table: Table) -> Topology:
    """``topology`` with the capture's word for every pair of GPUs that the tree says otherwise."""
    paths = Paths(topology)
    observed = []
    for a in table.gpus:
        for b in table.gpus:
            word = table.cells.get((a, b), "")
            if word and word != link_class(paths, _gpu(a), _gpu(b)):
                observed.append((_gpu(a), _gpu(b), word))
    if not observed:
        return topology
    finding = Finding(
        "not-a-tree",
        f"{len(observed)} cells are not what a PCIe tree gives ({observed[0][0]}-{observed[0][1]} is {observed[0][2]})",
        "the capture's word is kept and shown; times use the nearest tree",
    )
    return replace(topology, observed=tuple(observed), findings=(*topology.findings, finding))
