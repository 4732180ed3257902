"""``rocm-smi`` and ``amd-smi topology`` → Capture.

Of rocm-smi: ``--showtopo`` and its parts, ``--showproductname``, ``--showmeminfo vram``, ``--showbus``, and what it prints
without any option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.core.bus_id import normal_bus_id
from planner.core.capture import Capture, GpuSight, Matrix, PeerLinkSight
from planner.core.facts import GpuFacts
from planner.core.finding import Finding
from planner.core.topology import LinkKind
from planner.core.unknown import NOT_STATED
from planner.documents.pci_ids import gpu_by_pci_id
from planner.errors import BadInput
from planner.readers import Reader
from planner.readers.rocm_links import Pair, pairs_of
from planner.readers.rocm_names import marketed
from planner.readers.rocm_tables import HINT, MAX_GPUS, Table, tables
from planner.units import Bytes

_OURS = re.compile(
    r"ROCm System Management Interface"
    r"|(?:Weight|Hops|Link Type) between two GPUs"
    r"|\(Topology\) Numa Node:"
    r"|^[ \t>|]{0,8}(?:WEIGHT|LINK TYPE) TABLE:"
    r"|GPU\[[0-9]{1,3}\]\s{0,40}: (?:Card [Ss]eries|VRAM Total Memory)"
    r"|GPU models and configuration ?: [^\n]{0,80}\(gfx[0-9a-f]{3,4}\b",
    re.MULTILINE,
)
_FIELD = re.compile(r"GPU\[([0-9]{1,3})\]\s{0,40}:\s{0,8}([A-Za-z(][^:\n]{0,60}?)\s{0,8}:\s{0,40}(\S[^\n]{0,100})")
_REPORT = re.compile(r"GPU models and configuration ?: *([^\n(]{0,80}?) *\((gfx[0-9a-f]{3,4})\b")
_CONCISE = re.compile(
    r"\W{0,8}([0-9]{1,3})\s{1,20}(?:[0-9]{1,3}\s{1,20}0x([0-9a-fA-F]{4}),|[0-9.]{1,6}°?[cC]\s|N/A\s{1,20}[0-9.]{1,6}W)"
)
_ARCHITECTURE = re.compile(r"gfx[0-9a-f]{3,4}")
_ID = re.compile(r"0x([0-9a-fA-F]{4})")
_ONLY_FIRST = Finding(
    "gpu-count-unknown",
    "the report names the first GPU only, as PyTorch does for AMD GPUs; there may be more",
    "add the text of 'rocm-smi --showtopo'",
)
_NOTHING = frozenset({"", "n/a", "none", "unknown"})
AMD = 0x1002
MAX_LINES = 200_000


def recognises(text: str) -> bool:
    """Whether the text holds output of rocm-smi or amd-smi about topology, names or memory, or names an AMD GPU in a report."""
    return _OURS.search(text) is not None


def read(text: str, source: str) -> Capture:
    """The capture of the text. Raises ``BadInput`` with the line where a table is cut or nothing is told of any GPU."""
    if text.count("\n") > MAX_LINES:
        raise BadInput(f"has more than {MAX_LINES} lines", path=source, hint="pass the part that rocm-smi printed")
    lines = text.split("\n")
    found = tables(lines, source)
    cards = _cards(lines, source)
    names = _names(found, source)
    for index in names:
        cards.setdefault(index, _Card())
    for table in found.values():
        for index, bus in table.bus_ids.items():
            cards[index].bus_id = cards[index].bus_id or bus
    report = _REPORT.search(text)
    if not cards and report is None:
        number = next((number for number, line in enumerate(lines, 1) if _OURS.search(line)), 1)
        raise BadInput("is rocm-smi output that tells of no links, names or memory", path=f"{source}, line {number}", hint=HINT)
    assumptions, findings = [], []
    if report is not None:
        if not cards:
            findings.append(_ONLY_FIRST)
        cards = cards or {0: _Card()}
        for card in cards.values():
            card.take(report[1], report[2])
        if len(cards) > 1:
            assumptions.append("the report names one GPU: all are taken for the same")
    nodes = {index: card.numa_node for index, card in cards.items() if card.numa_node is not None}
    pairs = pairs_of({question: table.by_index() for question, table in found.items()})
    return Capture(
        source=source,
        format="rocm-smi topology" if found else "rocm-smi",
        gpus=tuple(card.sight(index) for index, card in sorted(cards.items())),
        matrix=_matrix(names, pairs.classes, nodes) if names else None,
        links=tuple(_link(pair) for pair in pairs.links),
        findings=(*findings, *pairs.findings),
        assumptions=(*assumptions, *pairs.assumptions),
    )


READER = Reader("rocm-smi", recognises, read)


@dataclass(slots=True)
class _Card:
    """What the lines of one GPU say."""

    fields: dict[str, str] = field(default_factory=dict)
    bus_id: str | None = None
    numa_node: int | None = None
    reported: str = ""
    architecture: str = ""

    def take(self, name: str, architecture: str) -> None:
        """What a report says of it."""
        self.reported, self.architecture = name.strip(), architecture

    def sight(self, index: int) -> GpuSight:
        """The card as a GPU."""
        total, used = self._bytes("vram total memory (b)"), self._bytes("vram total used memory (b)")
        architecture = self.architecture or self.fields.get("gfx version", "")
        return GpuSight(
            index=index,
            model=self._model(),
            memory=total,
            bus_id=self.bus_id,
            numa_node=self.numa_node,
            facts=GpuFacts(
                compute_capability=architecture if _ARCHITECTURE.fullmatch(architecture) else NOT_STATED,
                memory_used=NOT_STATED if used is None else used,
                memory_free=NOT_STATED if used is None or total is None else Bytes(max(total - used, 0)),
            ),
        )

    def _bytes(self, name: str) -> Bytes | None:
        text = self.fields.get(name, "")
        return Bytes(int(text)) if text.isascii() and text.isdigit() and 0 < len(text) < 16 else None

    def _model(self) -> str | None:
        """The name that is printed, else that of the PCI device id; old rocm-smi prints the subsystem id as the model."""
        for name in (self.fields.get("card series", ""), self.reported, self.fields.get("card model", "")):
            if name.lower() in _NOTHING or _ID.fullmatch(name):
                continue
            return marketed(name)
        for key in ("device id", "card model"):
            if match := _ID.fullmatch(self.fields.get(key, "")):
                return gpu_by_pci_id(AMD, int(match[1], 16))
        return None


def _cards(lines: list[str], source: str) -> dict[int, _Card]:
    """The GPUs that lines like ``GPU[0] : Card Series: …`` tell of, or those of the concise table."""
    cards: dict[int, _Card] = {}
    concise = False
    for number, line in enumerate(lines, 1):
        if "Concise Info" in line or "End of ROCm SMI Log" in line:
            concise = "Concise Info" in line
        if match := _CONCISE.match(line) if concise else None:
            index, name, value = int(match[1]), "device id", f"0x{match[2]}" if match[2] else ""
        elif match := _FIELD.search(line):
            index, name, value = int(match[1]), match[2].strip().lower(), match[3].strip()
        else:
            continue
        if index >= MAX_GPUS:
            raise BadInput(f"GPU {index} is more than {MAX_GPUS} GPUs", path=f"{source}, line {number}")
        card = cards.setdefault(index, _Card())
        if name == "(topology) numa node":
            card.numa_node = _node(value)
        elif name == "pci bus":
            card.bus_id = normal_bus_id(value)
        else:
            card.fields.setdefault(name, value)
    return cards


def _node(text: str) -> int | None:
    """A NUMA node. ``-1``, which an unsigned number shows as 4294967295, is unknown, not zero."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 5 else None


def _names(found: Mapping[str, Table], source: str) -> list[int]:
    """The GPUs of the tables, which must be the same in all."""
    names: list[int] = []
    for table in found.values():
        here = sorted({a for a, _ in table.by_index()})
        if names and here != names:
            raise BadInput(
                f"the table of {table.question} has {len(here)} GPUs, another {len(names)}",
                path=f"{source}, line {table.line}",
                hint=HINT,
            )
        names = here
    return names


def _matrix(indices: list[int], classes: Mapping[tuple[int, int], str], nodes: Mapping[int, int]) -> Matrix:
    cells = {(f"GPU{index}", f"GPU{index}"): "X" for index in indices}
    cells |= {(f"GPU{a}", f"GPU{b}"): word for (a, b), word in classes.items()}
    numa_nodes = {f"GPU{index}": nodes[index] for index in indices if index in nodes}
    return Matrix(tuple(f"GPU{index}" for index in indices), cells, numa_nodes=numa_nodes)


def _link(pair: Pair) -> PeerLinkSight:
    return PeerLinkSight(a=pair.a, b=pair.b, kind=LinkKind.XGMI, count=pair.count)
