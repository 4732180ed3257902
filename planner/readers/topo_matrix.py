"""``nvidia-smi topo -m`` and ``topo -mp``: a matrix of link classes.

Cells are scanned by grammar, longest token first, never by white space alone: terminals fuse them (``SYSSYS``). What
cannot be told apart in the affinity columns stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from planner.core.capture import Capture, GpuSight, Matrix
from planner.core.facts import GpuFacts
from planner.core.finding import Finding
from planner.core.unknown import NOT_STATED
from planner.errors import BadInput
from planner.readers import HOW_TO_CAPTURE as _HINT
from planner.readers import Reader
from planner.readers.model_lines import models_beside

MAX_DEVICES = 256
MAX_HEADERS = 16
LEAST_TERMINAL = 40

_CELL = re.compile(r"NV\d{1,2}(?=[\sA-Z]|$)|NV(?:1[0-8]|[1-9])|NODE|PIX|PXB|PHB|SYS|SOC|X")
_NAMED_DEVICE = re.compile(r"[A-Za-z_]+[0-9][A-Za-z0-9_]*")
_KNOWN_DEVICE = re.compile(r"GPU\d{1,4}|NIC\d{1,4}|mlx\d+_(?:bond_?)?\d+")
_DEVICE = re.compile(rf"(?:{_KNOWN_DEVICE.pattern})|(?!CPU\b|NUMA\b|GPU)[A-Za-z][A-Za-z0-9_]*(?=\s|$)")
_A_STRANGER = re.compile(r".{0,99}?(?<![\w.])(GPU\d{1,4})\s+(?:NV\d+|PIX|PXB|PHB|NODE|SYS|SOC)\b")
_A_ROW = re.compile(r"(?<![\w.])GPU\d+\s+(?:X|NV\d+|PIX|PXB|PHB|NODE|SYS|SOC)\b")
_PEER_STATUS = re.compile(r"\b(?:OK|CNS|GNS|TNS|NS|DR)\b|(?<=\s)U(?!\S)")
_FIRST_GPU = re.compile(r"(?<![\w.])GPU\d{1,4}(?!\d)")
_NODE = re.compile(r"[0-9]{1,4}")
_LEGEND = re.compile(r"^\W*(NIC\d+)\s*:\s*(\S+)\s*$")


@dataclass
class Table:
    """The cells by (row, column) name; affinities and models where the text tells them."""

    names: list[str]
    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    numa_nodes: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    models: dict[int, str] = field(default_factory=dict)
    cpus: dict[str, str] = field(default_factory=dict)
    grace: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    @property
    def gpus(self) -> list[str]:
        """``GPU0``, ``GPU1`` … in the order of the header."""
        return [name for name in self.names if name.startswith("GPU")]


def recognises(text: str) -> bool:
    """Whether a line is a row of a matrix of link classes, or its header."""
    if "GPU" not in text:
        return False
    if any(names in text for names in ("CPU Affinity", "CPU Aff")) and re.search(r"GPU0\b", text):
        return True
    return any(_A_ROW.search(line) and not _PEER_STATUS.search(line) for line in text.split("\n"))


def read(text: str, source: str) -> Capture:
    """The first matrix of the text. Raises ``BadInput`` with the line where it is not whole."""
    try:
        table = parse_table(text, source)
    except BadInput as problem:
        table = _unwrapped_table(text, source, problem)
    indices = {name: int(name.removeprefix("GPU")) for name in table.gpus}
    sights = [
        GpuSight(
            index=index,
            model=table.models.get(index),
            numa_node=table.numa_nodes.get(name),
            c2c=name in table.grace,
            facts=GpuFacts(cpu_affinity=table.cpus.get(name, NOT_STATED)),
        )
        for name, index in indices.items()
    ]
    return Capture(
        source=source,
        format="nvidia-smi topo -m",
        gpus=tuple(sights),
        matrix=Matrix(tuple(table.names), table.cells, table.labels, table.numa_nodes),
        findings=tuple(table.findings),
    )


def _unwrapped_table(text: str, source: str, problem: BadInput) -> Table:
    """The table of a text that a terminal broke at its width, put together again; else the ``problem`` as it was."""
    lines = text.split("\n")
    width = max(map(len, lines))
    if width < LEAST_TERMINAL or sum(len(line) == width for line in lines) < 2:
        raise problem
    whole = "".join(line if len(line) == width else f"{line}\n" for line in lines)
    try:
        table = parse_table(whole, source)
    except BadInput:
        raise problem from None
    hint = "compare the matrix with the original"
    table.findings.append(Finding("wrapped", f"lines broken at {width} columns were joined", hint, severity="notice"))
    return table


READER = Reader("nvidia-smi topo -m", recognises, read)


def parse_table(text: str, source: str) -> Table:
    """The first matrix in ``text``.

    Raises ``BadInput`` with the line where there is none, where a row is cut, or where rows are missing whose cells no
    other row holds.
    """
    lines = [line.replace("|", " ").rstrip() for line in text.split("\n")]
    headers = [(number, names) for number, line in enumerate(lines) if (names := _device_names(line)) is not None]
    if not headers:
        raise _no_header(lines, source)
    ends = [number for number, _ in headers[1:]] + [len(lines)]
    blocks = list(zip(headers, ends, strict=True))[:MAX_HEADERS]
    tables = (_read_rows(lines, number, end, names, source) for (number, names), end in blocks)
    table = next((table for table in tables if table.lines), None) or Table(headers[0][1])
    start, after = next(((start, end) for (start, names), end in blocks if names is table.names), (0, len(lines)))
    for number in (*range(after, len(lines)), *range(start)):
        if _A_ROW.search(lines[number]) and not _PEER_STATUS.search(lines[number]):
            table.findings.append(_several(number, before=number < start))
            break
    for line in lines:
        if legend := _LEGEND.match(line):
            table.labels[legend[1]] = legend[2]
    table.models = models_beside("\n".join(lines), source)
    _fill_missing_rows(table, source)
    return table


def _several(number: int, *, before: bool = False) -> Finding:
    what = "rows without a header stand above the matrix, one" if before else "a second matrix follows, with a row"
    hint = "they were left out" if before else "only the first was read"
    return Finding("several-matrices", f"{what} in line {number + 1}", hint)


def _read_rows(lines: list[str], start: int, end: int, names: list[str], source: str) -> Table:
    """The rows between the header in line ``start`` and the line ``end``."""
    where = f"{source}, line {start + 1}"
    if len(names) != len(set(names)):
        raise BadInput("the header names a device twice", path=where, hint=_HINT)
    if len(names) > MAX_DEVICES:
        raise BadInput(f"more than {MAX_DEVICES} devices in the header", path=where, hint=_HINT)
    table = Table(names)
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    row = re.compile(rf"(?<![\w.])(?P<name>{alternatives})\s*(?={_CELL.pattern})")
    for number, line in enumerate(lines[start + 1 : end], start + 1):
        match = row.search(line)
        if match is None or _PEER_STATUS.search(line):
            _refuse_stranger(table, line, number, source)
            continue
        if match["name"] in table.lines:
            table.findings.append(_several(number))
            break
        _read_row(table, match["name"], lines, number, match.end(), source)
    return table


def _refuse_stranger(table: Table, line: str, number: int, source: str) -> None:
    """Raise where a row is of a GPU that the header does not have: names are cut off or damaged."""
    stranger = _A_STRANGER.match(line) if table.lines and not _PEER_STATUS.search(line) else None
    if stranger is not None and stranger[1] not in table.names:
        where = f"{source}, line {number + 1}"
        raise BadInput(f"row {stranger[1]} has no column in the header", path=where, hint="paste the whole matrix, lines and all")


def _no_header(lines: list[str], source: str) -> BadInput:
    for number, line in enumerate(lines, 1):
        if _FIRST_GPU.search(line):
            return BadInput("the header line (GPU0 GPU1 …) of the matrix is missing", path=f"{source}, line {number}", hint=_HINT)
    return BadInput("holds no link matrix: no line starts with GPU0", path=f"{source}, line 1", hint=_HINT)


def _device_names(line: str) -> list[str] | None:
    """The devices of a header line, from its first GPU on; ``None`` if the line is no header.

    >>> _device_names("INFO GPU0 GPU1 NIC10NIC11 mlx5_0 CPU Affinity NUMA Affinity")
    ['GPU0', 'GPU1', 'NIC10', 'NIC11', 'mlx5_0']
    """
    first = _FIRST_GPU.search(line)
    if first is None:
        return None
    names: list[str] = []
    position = first.start()
    while True:
        while position < len(line) and line[position].isspace():
            position += 1
        if line.startswith("CPU Aff", position):
            return names
        if position == len(line):
            return names if all(_NAMED_DEVICE.fullmatch(name) for name in names) else None  # words of prose have no number
        match = _DEVICE.match(line, position)
        if match is None or _CELL.fullmatch(match[0]):
            return None
        names.append(match[0])
        position = match.end()


def _cells(lines: list[str], number: int, position: int, count: int) -> tuple[list[str], str]:
    """``count`` cells from a place on, over wrapped lines; and what follows them."""
    cells: list[str] = []
    line = lines[number]
    while len(cells) < count:
        while position < len(line) and line[position].isspace():
            position += 1
        match = _CELL.match(line, position)
        if match:
            cells.append("SYS" if match[0] == "SOC" else match[0])
            position = match.end()
            continue
        number += 1
        wrapped = position == len(line) and number < len(lines) and _CELL.match(lines[number].lstrip())
        if not wrapped:
            return cells, line[position:]
        line, position = lines[number].lstrip(), 0
    return cells, line[position:]


def _read_row(table: Table, name: str, lines: list[str], number: int, position: int, source: str) -> None:
    cells, tail = _cells(lines, number, position, len(table.names))
    if len(cells) < len(table.names):
        where = f"{source}, line {number + 1}"
        if name.startswith("GPU") and len(cells) < len(table.gpus):
            raise BadInput(
                f"row {name} has {len(cells)} of {len(table.names)} cells"
                + (f", then {tail.split()[0]!r}" if tail.split() else ""),
                path=where,
                hint="paste the whole matrix",
            )
        table.findings.append(Finding("row-cut", f"row {name} (line {number + 1}) lacks {len(table.names) - len(cells)} cells"))
    if cells[table.names.index(name) : table.names.index(name) + 1] not in ([], ["X"]):
        raise BadInput(
            f"row {name} does not have X in its own column", path=f"{source}, line {number + 1}", hint="paste the whole matrix"
        )
    if _CELL.match(tail.lstrip()):
        raise BadInput(
            f"row {name} has more cells than the header has columns ({len(table.names)})",
            path=f"{source}, line {number + 1}",
            hint="paste the whole matrix",
        )
    table.lines[name] = number + 1
    for column, cell in zip(table.names, cells, strict=False):
        table.cells[name, column] = cell
    if name.startswith("GPU"):
        cpus, node, memory_node = _affinity(tail)
        if node is not None:
            table.numa_nodes[name] = node
        if cpus is not None:
            table.cpus[name] = cpus
        if memory_node is not None:
            table.grace.add(name)


def _affinity(tail: str) -> tuple[str | None, int | None, int | None]:
    r"""CPU list, NUMA node and the GPU's own NUMA node (Grace) in what follows a GPU's cells; ``None`` where it is not plain.

    >>> _affinity("  0-23,48-71   1   N/A"), _affinity(" 0-71  0  4")
    (('0-23,48-71', 1, None), ('0-71', 0, 4))
    >>> _affinity(" \t0-71\t0\t\tN/A"), _affinity("\t\t\t\tN/A")
    (('0-71', 0, None), (None, None, None))
    >>> _affinity(" 0-55,112-167    0N/A"), _affinity(" 0-47,96-1430N/A")
    (('0-55,112-167', 0, None), (None, None, None))
    """
    if "\t" in tail:
        parts = [part.strip() for part in tail.lstrip(" ").removeprefix("\t").split("\t")]
        filled = [*parts[:2], *(part for part in parts[2:] if part)]
    else:
        filled = tail.split()
        fused = re.fullmatch(r"(\d{1,4})N/A", filled[1]) if len(filled) == 2 else None
        if fused:
            filled = [filled[0], fused[1], "N/A"]
    if len(filled) > 3 or len(filled) < 2:
        return None, None, None
    cpus = filled[0] if re.fullmatch(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*", filled[0]) else None
    if len(filled) == 2 and cpus is None:
        return None, None, None
    memory_node = int(filled[2]) if len(filled) == 3 and _NODE.fullmatch(filled[2]) else None
    return cpus, int(filled[1]) if _NODE.fullmatch(filled[1]) else None, memory_node


def _fill_missing_rows(table: Table, source: str) -> None:
    missing = [name for name in table.gpus if name not in table.lines]
    if not missing:
        return
    last = max(table.lines.values(), default=1)
    if len(missing) > 1 or len(table.gpus) == 1:
        raise BadInput(
            f"the header names {len(table.gpus)} GPUs, the rows of {', '.join(missing)} are missing",
            path=f"{source}, line {last}",
            hint="paste the whole matrix",
        )
    name = missing[0]
    for other in table.names:
        if (other, name) in table.cells:
            table.cells[name, other] = table.cells[other, name]
    table.cells[name, name] = "X"
    table.findings.append(
        Finding(
            "row-missing", f"the row of {name} is missing; its links were taken from the other rows", "paste the whole matrix"
        )
    )


def pairs(names: list[str]) -> Iterator[tuple[str, str]]:
    """All unordered pairs, in order."""
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            yield name, other
