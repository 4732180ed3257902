"""Topology → the text of ``nvidia-smi topo -m`` or ``rocm-smi --showtopo``: the inverse of the readers of those texts."""

from __future__ import annotations

from planner.core.topology import Device, DeviceKind, LinkKind, Topology
from planner.core.unknown import Unknown
from planner.errors import BadInput
from planner.graph.paths import Paths, link_class

LEGEND = """
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks
"""
_NOT_TOLD = "N/A"
_NODES_PER_GPU = 8
"""NUMA nodes that Linux keeps for the memory of one Grace GPU: one for each of its MIG instances and one whole."""


def matrix_text(topology: Topology, host: str | None = None) -> str:
    """What ``nvidia-smi topo -m`` would print on ``host`` (the only one where it is not named): tabs, legends and all.

    A host with Infinity Fabric links, for which that program has no word, is written as ``rocm-smi --showtopo`` does.

    CPU affinities that are not known are ``N/A``. The NUMA node of a Grace GPU's memory, which no topology states, is
    numbered as Linux does. Raises ``BadInput`` where that program has no word for what is there.
    """
    name = topology.hosts[0].name if host is None else host
    if host is None and len(topology.hosts) > 1:
        raise BadInput("has several hosts; 'nvidia-smi topo -m' shows one", path=topology.name, hint="name the host")
    gpus = [topology.gpus[number] for number in topology.gpus_of_host[name]]
    nics = topology.nics(name)
    names = {gpu.id: f"GPU{gpu.index}" for gpu in gpus} | {nic.id: f"NIC{number}" for number, nic in enumerate(nics)}
    paths = Paths(topology)
    if any(link_class(paths, a.id, b.id) == "XGMI" for a in gpus for b in gpus):
        return _rocm_text(paths, gpus)
    grace = _grace_nodes(topology, gpus)
    lines = ["\t".join(["", *names.values(), "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"])]
    for device in (*gpus, *nics):
        cells = [_cell(paths, device.id, other) for other in names]
        # a card has no affinity; the row of a GPU has an empty column before the last
        tail = _affinity(paths, device, grace) if device.kind is DeviceKind.GPU else ["", "", "", ""]
        lines.append("\t".join([names[device.id], *cells, *tail]))
    labels = [f"  {names[nic.id]}: {label}" for nic in nics if (label := _one_word(nic.label))]
    legend = ["", "NIC Legend:", "", *labels] if labels else []
    return "\n".join(lines) + "\n" + LEGEND + "".join(f"{line}\n" for line in legend)


def _cell(paths: Paths, a: str, b: str) -> str:
    word = link_class(paths, a, b)
    if word == "X":
        return " X "
    if word == "NV":
        raise BadInput(f"does not say how many NVLinks join {a} and {b}", path=paths.topology.name, hint="add the count")
    return word


def _rocm_text(paths: Paths, gpus: list[Device]) -> str:
    """``rocm-smi --showtopo``. Weights and hops as the kernel counts them: 15 a step of Infinity Fabric, 40 through one CPU,
    72 through two.
    """

    def step(a: Device, b: Device) -> tuple[str, str, str]:
        if a is b:
            return "0", "0", "0"
        word = link_class(paths, a.id, b.id)
        return {"XGMI": ("15", "1", word), "SYS": ("72", "3", "PCIE")}.get(word, ("40", "2", "PCIE"))

    lines = [_headed("ROCm System Management Interface")]
    columns = [f"GPU{gpu.index}" for gpu in gpus]
    for place, title in enumerate(("Weight between two GPUs", "Hops between two GPUs", "Link Type between two GPUs")):
        lines += [_headed(title), " " * 7 + "".join(name.ljust(13) for name in columns)]
        lines += [
            name.ljust(7) + "".join(step(a, b)[place].ljust(13) for b in gpus) for name, a in zip(columns, gpus, strict=True)
        ]
        lines.append("")
    lines.append(_headed("Numa Nodes"))
    for gpu in gpus:
        socket = paths.topology.by_id[paths.ancestors(gpu.id)[-1]]
        node = socket.numa_node if gpu.numa_node is None else gpu.numa_node
        if node is not None:
            lines += [f"GPU[{gpu.index}]\t\t: (Topology) Numa {word}: {node}" for word in ("Node", "Affinity")]
    return "\n".join(line.rstrip() for line in [*lines, _headed("End of ROCm SMI Log")]) + "\n"


def _headed(title: str) -> str:
    return f" {title} ".center(90, "=")


def _affinity(paths: Paths, gpu: Device, grace: dict[str, int]) -> list[str]:
    cpus = gpu.facts.cpu_affinity
    socket = paths.topology.by_id[paths.ancestors(gpu.id)[-1]]
    node = socket.numa_node if gpu.numa_node is None else gpu.numa_node
    return [
        _NOT_TOLD if isinstance(cpus, Unknown) else cpus,
        _NOT_TOLD if node is None else str(node),
        "",
        str(grace[gpu.id]) if gpu.id in grace else _NOT_TOLD,
    ]


def _grace_nodes(topology: Topology, gpus: list[Device]) -> dict[str, int]:
    """NUMA nodes of the memory of GPUs that hang from their CPU by C2C: after those of the CPUs."""
    joined = {end for link in topology.links if link.kind is LinkKind.C2C for end in (link.a, link.b)}
    sockets = {device.id for device in topology.devices if device.kind is DeviceKind.SOCKET and device.host == gpus[0].host}
    first = len(sockets)
    return {gpu.id: first + _NODES_PER_GPU * place for place, gpu in enumerate(gpu for gpu in gpus if gpu.id in joined)}


def _one_word(label: str) -> str:
    return "_".join("".join(letter if letter.isprintable() else " " for letter in label).split())
