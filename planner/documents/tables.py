"""Tables of measurements (CSV): columns by name, rows that say where they are, and the same with predictions beside them.

A row with something in ``flag`` is doubted by whoever measured it. Columns that nobody asks for are kept.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.documents.files import read_text
from planner.errors import BadInput

LEAST, MOST = 1e-12, 1e15
"""Nothing that is measured lies beyond these, in any unit; shares and products of such numbers are numbers still."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: ``cells`` as they stand in the file, ``line`` its number there, ``where`` for messages."""

    cells: Mapping[str, str]
    line: int
    where: str

    @property
    def flagged(self) -> bool:
        """Whether whoever measured it doubts it."""
        return bool(self.cells.get("flag", "").strip())

    def word(self, column: str) -> str:
        """A cell without the blanks around it; empty where there is no such column."""
        return self.cells.get(column, "").strip()

    def number(self, column: str) -> float:
        """A number above 0. Raises ``BadInput`` with the line."""
        text = self.cells[column]
        try:
            value = float(text)
        except ValueError:
            raise BadInput(f"{column} is {text!r}; expected a number", path=self.where) from None
        if not math.isfinite(value) or value <= 0:
            raise BadInput(f"{column} is {text!r}; expected a number above 0", path=self.where)
        if not LEAST <= value <= MOST:
            raise BadInput(f"{column} is {text!r}; expected a number from {LEAST:g} to {MOST:g}", path=self.where)
        return value

    def count(self, column: str, default: int | None = None) -> int:
        """A whole number above 0; ``default`` where the cell is empty. Raises ``BadInput`` with the line."""
        if default is not None and not self.word(column):
            return default
        value = self.number(column)
        if value != int(value):
            raise BadInput(f"{column} is {self.cells[column]!r}; expected a whole number", path=self.where)
        return int(value)


@dataclass(frozen=True)
class Table:
    """A table that was read whole."""

    source: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def read_table(path: Path) -> Table:
    """A CSV file with a line of column names. Raises ``BadInput`` with the line that cannot be read."""
    return parse_table(read_text(path), str(path))


def parse_table(text: str, source: str) -> Table:
    """The same of a text; ``source`` is what messages call it."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        columns = tuple(reader.fieldnames or ())
        if len(set(columns)) < len(columns):
            raise BadInput("a column is there twice", path=f"{source}, line 1")
        for cells in reader:
            where = f"{source}, line {reader.line_num}"
            # DictReader puts what is too much under None, and None where a cell is missing
            if None in cells or None in cells.values():
                raise BadInput("has another number of cells than the first line has columns", path=where)
            rows.append(TableRow(cells, reader.line_num, where))
    except csv.Error as error:
        raise BadInput(f"is not CSV: {error}", path=f"{source}, line {reader.line_num}") from None
    return Table(source, columns, tuple(rows))


def write_table(columns: Sequence[str], rows: Sequence[Mapping[str, str]], added: Sequence[str]) -> str:
    """Rows as CSV: their columns, then ``added`` ones, empty where a row has none."""
    stream = io.StringIO()
    names = [*(name for name in columns if name not in added), *added]
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
