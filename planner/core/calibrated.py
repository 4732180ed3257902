"""What ``planner calibrate`` answers: what was assumed of links and what is measured, and how far predictions were off."""

from __future__ import annotations

from dataclasses import dataclass

from planner.core.finding import Finding
from planner.core.topology import Topology
from planner.units import BytesPerSecond

Range = tuple[BytesPerSecond, BytesPerSecond]


@dataclass(frozen=True, slots=True)
class LinkClass:
    """Links of one host that are alike: same kind, same kinds of ends, same nominal rate; hosts with the same answer together.

    ``links`` are their names. ``line`` is the line rate, ``None`` where nobody states it; ``before`` and ``after`` the lowest
    and highest rate that the cost model uses, one direction; ``assumed`` says that none of them was measured before. ``measured``
    counts those measured by these files, ``by`` says with what; ``alike`` counts those that took their rate over. ``note`` is what
    was concluded where nothing is written.
    """

    host: str
    name: str
    links: tuple[str, ...]
    line: BytesPerSecond | None
    before: Range
    after: Range
    assumed: bool
    measured: int
    alike: int
    by: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Off:
    """How far predictions are from a table: mean and worst error, shares of the measured value."""

    mean: float
    worst: float


@dataclass(frozen=True, slots=True)
class HeldAgainst:
    """One table and its predictions.

    ``what`` is the operation, or how copies were made; ``stack`` is empty for copies. ``rows`` counts sizes, or pairs. ``before``
    is with the topology as it was, ``links`` with the links alone as they are now, ``after`` with the measured curve too (for
    copies, which leave none: the links). ``None`` where there is no prediction.
    """

    what: str
    stack: str
    gpus: tuple[int, ...]
    rows: int
    before: Off | None
    links: Off | None
    after: Off | None
    source: str


@dataclass(frozen=True)
class CalibrationAnswer:
    """What became of the files. ``topology`` is the new one, ``target`` the machine as it was asked for.

    ``notes`` say how the files were read (rows left out, which GPUs were meant); ``curves`` counts those written, ``replaced``
    those of them that stand in for an older one.
    """

    target: str
    sources: tuple[str, ...]
    topology: Topology
    classes: tuple[LinkClass, ...]
    tables: tuple[HeldAgainst, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    curves: int
    replaced: int
