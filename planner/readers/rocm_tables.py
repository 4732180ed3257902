"""Tables between GPUs in the text of ``rocm-smi --showtopo`` and ``amd-smi topology``, found by their headings.

Each program prints one table a question: weight, hops, link type, bandwidth. Rows and columns are ``GPU0`` in rocm-smi,
PCI bus ids in amd-smi.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from planner.core.bus_id import normal_bus_id
from planner.errors import BadInput

MAX_GPUS = 256
HINT = "paste the whole output of 'rocm-smi --showtopo'"

_HEADINGS = {
    "weight between two gpus": "weight",
    "hops between two gpus": "hops",
    "link type between two gpus": "type",
    "weight table:": "weight",
    "hops table:": "hops",
    "link type table:": "type",
    "numa bw table:": "bandwidth",
}
_OTHER_HEADING = re.compile(r"={3}|[A-Z][A-Z -]{2,40} TABLE:")
_BANDWIDTH = re.compile(r"(?<!=)={3,} ?Bandwidth ?={3}")
_NAME = re.compile(r"GPU[0-9]{1,3}|[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_CELL = re.compile(r"[0-9]{1,9}(?:-[0-9]{1,9})?|XGMI|PCIE|XXXX|N/A|SELF|X|-|[A-Z_]{2,24}")


@dataclass
class Table:
    """One table: its question, where it starts, its columns, and its cells by row and column."""

    question: str
    line: int
    names: tuple[str, ...] = ()
    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def by_index(self) -> dict[tuple[int, int], str]:
        """The cells by GPU index: the number in the name, else the place of the column."""
        place = {name: int(name[3:]) if name.startswith("GPU") else order for order, name in enumerate(self.names)}
        return {(place[a], place[b]): word for (a, b), word in self.cells.items()}

    @property
    def bus_ids(self) -> Mapping[int, str]:
        """Bus ids by index, where the columns are bus ids."""
        found = {order: normal_bus_id(name) for order, name in enumerate(self.names) if not name.startswith("GPU")}
        return {order: bus for order, bus in found.items() if bus is not None}


def heading(line: str) -> str:
    """The question of the table that a line is the heading of, else an empty string."""
    if _BANDWIDTH.search(line):
        return "bandwidth"
    words = line.strip(" =>|*#\t").lower()
    return next((question for text, question in _HEADINGS.items() if words.endswith(text)), "")


def tables(lines: Sequence[str], source: str) -> dict[str, Table]:
    """All tables of a text, by question. Raises ``BadInput`` with the line where one lacks rows or cells.

    A table that is there twice must say the same: two runs on one host do.
    """
    found: dict[str, Table] = {}
    for table in _read(lines, source):
        known = found.setdefault(table.question, table)
        if (known.names, known.cells) != (table.names, table.cells):
            raise BadInput(
                f"has two different tables of {table.question} (the other in line {known.line})",
                path=f"{source}, line {table.line}",
                hint="pass the output of one host",
            )
    return found


def _read(lines: Sequence[str], source: str) -> Iterator[Table]:
    table: Table | None = None
    row: list[str] = []
    owner = ""
    columns: frozenset[str] = frozenset()
    for number, line in enumerate(lines, 1):
        question = heading(line)
        if question or _OTHER_HEADING.search(line):
            if table is not None:
                yield _whole(table, owner, row, source)
            table = Table(question, number) if question else None
            owner, row = "", []
            continue
        if table is None:
            continue
        words = _behind_prefix(line.split(), bool(owner))
        if not words:
            continue
        if not table.names:
            if all(_NAME.fullmatch(word) for word in words):
                table.names = _columns(words, f"{source}, line {number}")
                columns = frozenset(words)
        elif words[0] in columns and (len(words) == 1 or not _NAME.fullmatch(words[1])):
            _close(table, owner, row, source)
            owner, row = words[0], words[1:]
            if owner in table.rows:
                raise BadInput(f"row {owner} is there twice", path=f"{source}, line {number}", hint=HINT)
            table.rows[owner] = number
        elif owner and len(row) < len(table.names) and all(_CELL.fullmatch(word) for word in words):
            row += words  # the terminal wrapped the row
    if table is not None:
        yield _whole(table, owner, row, source)


def _behind_prefix(words: list[str], in_row: bool) -> list[str]:
    """``words`` from the first GPU on, or in a wrapped row from the first cell: a log prefix or quote mark may stand before."""
    for pattern in (_NAME, _CELL) if in_row else (_NAME,):
        for place, word in enumerate(words):
            if pattern.fullmatch(word):
                return words[place:]
    return []


def _columns(words: Sequence[str], where: str) -> tuple[str, ...]:
    if len(words) > MAX_GPUS:
        raise BadInput(f"has more than {MAX_GPUS} GPUs", path=where)
    numbers = [int(word[3:]) for word in words if word.startswith("GPU")]
    if len(set(words)) < len(words) or (numbers and (len(numbers) < len(words) or max(numbers) >= MAX_GPUS)):
        raise BadInput("the header line does not name each GPU once", path=where, hint=HINT)
    return tuple(words)


def _close(table: Table, owner: str, row: Sequence[str], source: str) -> None:
    """Keep the row that has been read."""
    if not owner:
        return
    where = f"{source}, line {table.rows[owner]}"
    if len(row) != len(table.names):
        raise BadInput(f"row {owner} has {len(row)} of {len(table.names)} cells", path=where, hint=HINT)
    for column, word in zip(table.names, row, strict=True):
        if not _CELL.fullmatch(word):
            raise BadInput(f"row {owner} has {word[:20]!r}, which is no {table.question}", path=where, hint=HINT)
        table.cells[owner, column] = word


def _whole(table: Table, owner: str, row: Sequence[str], source: str) -> Table:
    """The table, once all its rows are there."""
    _close(table, owner, row, source)
    missing = [name for name in table.names if name not in table.rows]
    if missing or not table.names:
        what = f"the rows of {', '.join(missing[:8])} are missing" if missing else "the header line (GPU0 GPU1 …) is missing"
        last = max(table.rows.values(), default=table.line)
        raise BadInput(f"the table of {table.question} is cut: {what}", path=f"{source}, line {last}", hint=HINT)
    return table
