"""What the readers of measurements share: what one of them is, and what it makes of a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.core.measured import MeasuredCopies, MeasuredTable
from planner.errors import BadInput

_MOST_TABLES = 2000


def refuse_many_tables(count: int, source: str) -> None:
    """Raise ``BadInput`` where a text holds more tables than anybody measures."""
    if count > _MOST_TABLES:
        raise BadInput(f"holds more than {_MOST_TABLES} tables", path=source, hint="pass the output of one run")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader found: what it measured, and by name and line what it recognised but the planner has no use for."""

    measured: tuple[MeasuredTable | MeasuredCopies, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MeasurementReader:
    """A program that measures: its name, how to tell what it prints (quick, never raises), and how to read it.

    ``read`` takes the lines of a clean text and what messages call it, and raises ``BadInput`` with the line.
    """

    name: str
    hints: re.Pattern[str]
    read: Callable[[Sequence[str], str], Reading]
