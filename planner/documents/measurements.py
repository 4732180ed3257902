"""Rows of tables of measured collectives.

The columns that must be there: ``topology`` (any reference: short spec, library name, file), ``impl`` (``nccl-2.27.3``,
``vllm-custom-graph-0.24.0``), ``op``, ``n_gpus`` (the first so many), ``message_bytes`` (as nccl-tests counts them) and
``time_us``; or the columns of a table gathered from nccl-tests (``bytes``, ``time_us_out_of_place``, no ``impl``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.documents.tables import Table, TableRow, parse_table
from planner.errors import BadInput

_ZERO = re.compile(r"0+(?:\.0*)?")
COLUMNS = ("topology", "impl", "op", "n_gpus", "message_bytes", "time_us")
NCCL_TESTS = {"message_bytes": "bytes", "time_us": "time_us_out_of_place"}
"""What the columns are called in a table gathered from nccl-tests, which has no ``impl``: it is NCCL."""


@dataclass(frozen=True, slots=True)
class MeasuredCollective:
    """One row; ``size`` in bytes, ``time`` in µs; ``problem`` if it cannot be predicted."""

    line: int
    topology: str
    implementation: str
    operation: str
    ranks: int
    size: int
    time: float
    flagged: bool
    problem: str = ""


def parse_collectives(text: str, path: str) -> tuple[tuple[str, ...], list[MeasuredCollective]]:
    """The columns and rows of a table of measured collectives; ``path`` is what messages call it.

    Raises ``BadInput`` with the line that cannot be read.
    """
    table = parse_table(text, path)
    return table.columns, collectives_of(table)


def collectives_of(table: Table) -> list[MeasuredCollective]:
    """The rows of a table of measured collectives."""
    called = columns_called(table.columns)
    missing = [name for name in called.values() if name not in table.columns]
    if missing:
        raise BadInput(
            f"no column {missing[0]}",
            path=f"{table.source}, line 1",
            hint=f"the first line names the columns: {','.join(COLUMNS)}",
        )
    if not table.rows:
        raise BadInput("holds no rows", path=table.source)
    return [_row(row, called) for row in table.rows]


def columns_called(columns: Sequence[str]) -> dict[str, str]:
    """What the wanted columns are called in a table with these ``columns``."""
    tests = all(name in columns for name in NCCL_TESTS.values())
    return {name: NCCL_TESTS.get(name, name) if tests else name for name in COLUMNS if not (tests and name == "impl")}


def _row(row: TableRow, called: Mapping[str, str]) -> MeasuredCollective:
    problem = ""
    ranks, size, time = 0, 0, math.nan
    try:
        time = row.number(called["time_us"])
        ranks = row.count("n_gpus")
        if _ZERO.fullmatch(row.word(called["message_bytes"])):
            problem = "no bytes are moved"  # nccl-tests prints such a line where the buffer is smaller than a share of it
        else:
            size = row.count(called["message_bytes"])
    except BadInput as error:
        if not row.flagged:
            raise
        problem = error.problem  # a flag may say just that: a fact is missing
    return MeasuredCollective(
        line=row.line,
        topology=row.word("topology"),
        implementation=row.word("impl") if "impl" in called else "nccl",
        operation=row.word("op"),
        ranks=ranks,
        size=size,
        time=time,
        flagged=row.flagged,
        problem=problem,
    )
