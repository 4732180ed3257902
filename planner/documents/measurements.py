"""Tables of measured collectives (CSV), and the same table with predictions beside the measurements.

The columns that must be there: ``topology`` (any reference: short spec, library name, file), ``impl`` (``nccl-2.27.3``,
``vllm-custom-graph-0.24.0``), ``op``, ``n_gpus`` (the first so many), ``message_bytes`` (as nccl-tests counts them) and
``time_us``. A row with something in ``flag`` is doubted by whoever measured it. Other columns are kept.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.cost.accuracy import Grade
from planner.documents.files import read_text
from planner.errors import BadInput

_ZERO = re.compile(r"0+(?:\.0*)?")
COLUMNS = ("topology", "impl", "op", "n_gpus", "message_bytes", "time_us")
PREDICTED = "predicted_time_us"


@dataclass(frozen=True, slots=True)
class MeasuredCollective:
    """One row; ``size`` in bytes, ``time`` in µs, ``cells`` as they stand in the file; ``problem`` if it cannot be predicted."""

    line: int
    topology: str
    implementation: str
    operation: str
    ranks: int
    size: int
    time: float
    flagged: bool
    cells: Mapping[str, str]
    problem: str = ""


@dataclass(frozen=True)
class Validation:
    """A table of measurements held against predictions. ``reasons`` counts the rows that have no prediction."""

    source: str
    columns: tuple[str, ...]
    overall: Grade
    groups: tuple[Grade, ...]
    left_out: int
    reasons: Mapping[str, int]
    predictions: tuple[tuple[MeasuredCollective, float | None], ...]


def read_collectives(path: Path) -> tuple[tuple[str, ...], list[MeasuredCollective]]:
    """The columns and rows of a table of measured collectives. Raises ``BadInput`` with the line that cannot be read."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = tuple(reader.fieldnames or ())
        missing = [name for name in COLUMNS if name not in columns]
        if missing:
            raise BadInput(
                f"no column {missing[0]}", path=f"{path}, line 1", hint=f"the first line names the columns: {','.join(COLUMNS)}"
            )
        if len(set(columns)) < len(columns):
            raise BadInput("a column is there twice", path=f"{path}, line 1")
        rows = [_row(cells, f"{path}, line {reader.line_num}", reader.line_num) for cells in reader]
    except csv.Error as error:
        raise BadInput(f"is not CSV: {error}", path=f"{path}, line {reader.line_num}") from None
    if not rows:
        raise BadInput("holds no rows", path=str(path))
    return columns, rows


def _row(cells: dict[str, str], where: str, line: int) -> MeasuredCollective:
    # DictReader puts what is too much under None, and None where a cell is missing
    if None in cells or None in cells.values():
        raise BadInput("has another number of cells than the first line has columns", path=where)
    flagged = bool((cells.get("flag") or "").strip())
    problem = ""
    ranks, size, time = 0, 0, math.nan
    try:
        time = _number(cells["time_us"], "time_us", where)
        ranks = _count(cells["n_gpus"], "n_gpus", where)
        if _ZERO.fullmatch(cells["message_bytes"].strip()):
            problem = "no bytes are moved"  # nccl-tests prints such a line where the buffer is smaller than a share of it
        else:
            size = _count(cells["message_bytes"], "message_bytes", where)
    except BadInput as error:
        if not flagged:
            raise
        problem = error.problem  # a flag may say just that: a fact is missing
    return MeasuredCollective(
        line=line,
        topology=cells["topology"].strip(),
        implementation=cells["impl"].strip(),
        operation=cells["op"].strip(),
        ranks=ranks,
        size=size,
        time=time,
        flagged=flagged,
        cells=cells,
        problem=problem,
    )


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{column} is {text!r}; expected a number", path=where) from None
    if not math.isfinite(value) or value <= 0:
        raise BadInput(f"{column} is {text!r}; expected a number above 0", path=where)
    return value


def _count(text: str, column: str, where: str) -> int:
    value = _number(text, column, where)
    if value != int(value):
        raise BadInput(f"{column} is {text!r}; expected a whole number", path=where)
    return int(value)


def write_predictions(columns: Sequence[str], rows: Sequence[tuple[MeasuredCollective, float | None]]) -> str:
    """The rows as CSV with a column ``predicted_time_us``, empty where there is no prediction."""
    stream = io.StringIO()
    names = [*(name for name in columns if name != PREDICTED), PREDICTED]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for row, predicted in rows:
        writer.writerow({**row.cells, PREDICTED: "" if predicted is None else f"{predicted:.3f}"})
    return stream.getvalue()
