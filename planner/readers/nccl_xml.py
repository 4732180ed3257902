"""NCCL topology files (``NCCL_TOPO_FILE``, ``NCCL_TOPO_DUMP_FILE``) of NVIDIA's NCCL and AMD's RCCL → Capture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from planner.core.capture import Capture, GpuSight, NicSight
from planner.core.facts import NO_HOST_FACTS, GpuFacts, HostFacts
from planner.core.finding import Finding
from planner.core.unknown import NOT_STATED, Unknown
from planner.documents.pci_ids import gpu_by_pci_id
from planner.errors import BadInput
from planner.readers import Reader
from planner.readers.nccl_pcie import AMD, Place, places
from planner.readers.nccl_peers import links_of
from planner.readers.nccl_tree import HOW_TO_DUMP, Element, parse_tree
from planner.units import BytesPerSecond

MAX_GPUS = 256
MAX_CARDS = 1024
MAX_CARD_MEGABITS = 10_000_000
"""Ten terabits a second: a card that says more is misread by the library that asked it (Slingshot was, by 1000)."""

_OURS = re.compile(r"<(?:system\s[^<>]*version|cpu\s[^<>]*numaid|pci\s[^<>]*busid)\s*=")
_CPUS = {"arm64": "ARM", "aarch64": "ARM", "ppc64": "POWER", "ppc64le": "POWER"}
_VENDOR = re.compile(r"[A-Za-z][A-Za-z ]{0,30}")
_LABEL = re.compile(r"[\w.:+@-]{1,64}")
_ARCHITECTURE = re.compile(r"(?:gfx)?([0-9]{1,2}[0-9a-f]{2})(?::.*)?")
_GCN = {"906": "gfx906", "908": "gfx908", "910": "gfx90a", "90a": "gfx90a", "950": "gfx950"} | dict.fromkeys(
    ("940", "941", "942"), "gfx942"
)
"""What RCCL calls an architecture: up to ROCm 5 a decimal number (``910``), later the compiler's name. 940 and 941 are early
steppings of gfx942."""


def recognises(text: str) -> bool:
    """Whether the text holds a topology file of NCCL's, whole or cut."""
    return _OURS.search(text) is not None


def read(text: str, source: str) -> Capture:
    """The capture of a topology file. Raises ``BadInput`` with the line where it is damaged, of several hosts or without GPUs."""
    system = parse_tree(text, source)
    cpus = list(system.all("cpu"))
    _one_host(cpus, source)
    file = _File(source)
    for position, cpu in enumerate(cpus):
        node = cpu.number("numaid")
        known = node if node is not None and node >= 0 else None
        root = f"cpu{position}" if known is None else f"numa{known}"
        for place in places(cpu):
            file.place(place, known, root)
        for card in _cards(cpu):
            file.card(card, None, known, root)
    if not file.found:
        raise BadInput(
            "is an NCCL topology skeleton without a <gpu> element: NCCL fills it in when a job starts",
            path=f"{source}, line {system.line}",
            hint=HOW_TO_DUMP,
        )
    return file.capture(_host(cpus))


READER = Reader("NCCL topology XML", recognises, read)


def _one_host(cpus: Iterable[Element], source: str) -> None:
    """NCCL merges the hosts of one NVLink domain into one file, each CPU with the hash of its host."""
    first = ""
    for cpu in cpus:
        here = cpu.text("host_hash")
        if first and here and here != first:
            raise BadInput(
                "holds the CPUs of more than one host",
                path=f"{source}, line {cpu.line}",
                hint="dump one host's ranks (NCCL_MNNVL_ENABLE=0), pass the files one by one and merge the topologies",
            )
        first = first or here


def _cards(parent: Element) -> list[Element]:
    """The ``<net>`` of a CPU or PCI function; RCCL and NCCL put them in ``<nic>``."""
    return [net for nic in parent.all("nic") for net in nic.all("net")]


@dataclass(slots=True)
class Found:
    """One ``<gpu>``: where it is, and the first of several ranks on it."""

    place: Place
    gpu: Element
    numa_node: int | None
    root: str


@dataclass
class _File:
    source: str
    found: list[Found] = field(default_factory=list)
    nics: dict[str, NicSight] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    implausible: list[str] = field(default_factory=list)

    def place(self, place: Place, numa_node: int | None, root: str) -> None:
        """What hangs at one PCI function."""
        gpus = list(place.element.all("gpu"))
        if gpus:
            self.found.append(Found(place, gpus[0], numa_node, root))
            if len(self.found) > MAX_GPUS:
                raise BadInput(f"has more than {MAX_GPUS} GPUs", path=f"{self.source}, line {gpus[0].line}")
        if len(gpus) > 1:
            self.findings.append(
                Finding(
                    "gpu-shared",
                    f"the GPU of line {gpus[0].line} is listed {len(gpus)} times: several ranks, or MPS partitions, on it",
                    "counted as one GPU",
                    severity="notice",
                )
            )
        for card in _cards(place.element):
            self.card(card, place, numa_node, root)

    def card(self, net: Element, place: Place | None, numa_node: int | None, root: str) -> None:
        """One port of a network card. What NCCL fused into a virtual card (``net="0"``) is still a port."""
        label = net.text("name")
        label = label if _LABEL.fullmatch(label) else f"net{len(self.nics)}"
        if "+" in label and all(part in self.nics for part in label.split("+")):
            return  # a virtual card, made of ports that are there
        if label in self.nics:
            return
        if len(self.nics) >= MAX_CARDS:
            raise BadInput(f"has more than {MAX_CARDS} network cards", path=f"{self.source}, line {net.line}")
        self.nics[label] = NicSight(
            label=label,
            bus_id=None if place is None else place.bus_id,
            numa_node=numa_node,
            root=root,
            hops=() if place is None else place.hops,
            rate=self._rate(net, label),
        )

    def _rate(self, net: Element, label: str) -> BytesPerSecond | None:
        megabits = net.number("speed")
        if megabits is None or megabits <= 0:  # some cards say -1
            return None
        if megabits <= MAX_CARD_MEGABITS:
            return BytesPerSecond(megabits / 8 * 1e6)
        self.implausible.append(f'{label} (line {net.line}: speed="{megabits}")')
        return None

    def capture(self, host: HostFacts) -> Capture:
        """Everything that was found, as a capture."""
        indices = self._indices()
        buses = self._buses(indices)
        links, findings = links_of([(index, found.gpu) for index, found in indices.items()], buses)
        if self.implausible:
            self.findings.append(
                Finding(
                    "nic-rate-implausible",
                    f"{len(self.implausible)} network cards say that they carry more than any card does",
                    "left open; state their rate in the topology",
                    evidence=", ".join(self.implausible[:4]),
                )
            )
        amd = any(found.gpu.text("gcn") or found.place.element.identifier("vendor") == AMD for found in self.found)
        return Capture(
            source=self.source,
            format="RCCL topology XML" if amd else "NCCL topology XML",
            gpus=tuple(_sight(index, found) for index, found in sorted(indices.items())),
            nics=tuple(self.nics.values()),
            links=links,
            host=host,
            findings=(*self.findings, *findings),
            assumptions=(
                "NCCL's file does not tell the host bridges of a NUMA node apart: counted as one",
                "NCCL's file gives the PCIe speed that both ends of a link can do: taken as the speed under load",
            ),
        )

    def _indices(self) -> dict[int, Found]:
        """The GPUs by index: ``dev``, or their order on the PCI bus where that is missing or not theirs alone."""
        told = [found.gpu.number("dev") for found in self.found]
        devices = [index for index in told if index is not None and 0 <= index < MAX_GPUS]
        if len(set(devices)) == len(self.found):
            return dict(zip(devices, self.found, strict=True))
        self.findings.append(
            Finding(
                "gpu-index-unclear",
                "the GPUs are not numbered, or several have the same number (each rank saw its own GPU as the first)",
                "numbered in the order of their PCI bus ids, as nvidia-smi does",
                severity="notice",
                evidence=f"dev is {', '.join('missing' if index is None else str(index) for index in told[:8])}",
            )
        )
        return dict(enumerate(sorted(self.found, key=lambda found: found.place.bus_id or "~")))

    def _buses(self, indices: Mapping[int, Found]) -> dict[str, int]:
        buses: dict[str, int] = {}
        for index, found in indices.items():
            bus = found.place.bus_id
            if bus is not None and buses.setdefault(bus, index) != index:
                path = f"{self.source}, line {found.place.element.line}"
                raise BadInput(f"two GPUs have the PCI bus id {bus}", path=path, hint="is it a dump of one host?")
        return buses


def _sight(index: int, found: Found) -> GpuSight:
    pci, gpu = found.place.element, found.gpu
    vendor, device = pci.identifier("vendor"), pci.identifier("device")
    model = None if vendor is None or device is None else gpu_by_pci_id(vendor, device, gpu.number("sm"))
    to_cpu = [link for link in gpu.all("c2c") if (link.number("count") or 0) > 0]
    # NCCL writes what one link carries in one direction, in MB/s, and how many there are
    carried = sum((link.number("bw") or 0) * (link.number("count") or 0) * 1e6 for link in to_cpu)
    return GpuSight(
        index=index,
        model=model,
        bus_id=found.place.bus_id,
        numa_node=found.numa_node,
        root=found.root,
        hops=found.place.hops,
        c2c=bool(to_cpu),
        c2c_bandwidth=BytesPerSecond(carried) if carried > 0 else None,
        facts=GpuFacts(compute_capability=_capability(gpu, vendor)),
    )


def _capability(gpu: Element, vendor: int | None) -> str | Unknown:
    """``9.0`` of NVIDIA's ``sm="90"``, ``gfx942`` of AMD's ``gcn``; AMD's ``sm`` counts compute units."""
    architecture = gpu.text("gcn")
    if architecture:
        match = _ARCHITECTURE.fullmatch(architecture)
        word = match[1] if match else ""
        if word in _GCN:
            return _GCN[word]
        return f"gfx{word}" if len(word) == 4 else Unknown(f"RCCL calls its architecture {architecture[:16]!r}")
    number = gpu.number("sm")
    if number is None or vendor == AMD or not 10 <= number < 1000:
        return NOT_STATED
    return f"{number // 10}.{number % 10}"


def _host(cpus: Iterable[Element]) -> HostFacts:
    """The CPU of the first ``<cpu>`` that names one."""
    for cpu in cpus:
        vendor = cpu.text("vendor") or _CPUS.get(cpu.text("arch"), "")
        if not _VENDOR.fullmatch(vendor):
            continue
        family, model = cpu.number("familyid"), cpu.number("modelid")
        return HostFacts(
            cpu_vendor=vendor,
            cpu_family=NOT_STATED if family is None or family < 0 else _family(family),
            cpu_model=NOT_STATED if model is None or model < 0 else model,
        )
    return NO_HOST_FACTS


def _family(number: int) -> int:
    """The CPU's family as the vendor and ``/proc/cpuinfo`` count it.

    NCCL puts the extended family beside the family instead of adding it, as CPUID defines where the family is 15.

    >>> _family(6), _family(175), _family(143)
    (6, 25, 23)
    """
    base, extended = number & 0xF, number >> 4
    return base + extended if base == 0xF else number
