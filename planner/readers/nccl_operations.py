"""Which operation a table of nccl-tests is of: it seldom says, its numbers do.

Bus over algorithm bandwidth is 2(n-1)/n for an all-reduce, (n-1)/n where every rank has a part of the buffer, and 1 else
(nccl-tests, ``doc/PERFORMANCE.md``). Beside it: what is reduced, the root, whether elements are counted by rank, and
that the programs without a form in place do not check one (``reportErrors`` in ``alltoall.cu``, ``sendrecv.cu``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from planner.core.operation import Operation
from planner.errors import BadInput
from planner.readers.figures import Figure

Share = Literal["reduced twice", "parts", "whole"]
_SLACKS = (1e-6, 1e-3)
"""What may come on top of rounding, as a share: the programs' own arithmetic; an edit that changes nothing."""
_MOST_RANKS = 1_000_000
_HINT = "paste what nccl-tests printed, unchanged and with all its devices"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table, as printed: ``time`` in µs, bandwidths in GB/s. ``redop`` and ``root`` are ``None`` where they are
    not printed. ``checked`` says whether results out of place and in place were compared with what they must be.
    """

    line: int
    size: int
    count: int
    kind: str
    redop: str | None
    root: int | None
    time: Figure
    algorithm: Figure
    bus: Figure
    checked: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class Program:
    """One of nccl-tests: the operation it measures (``None``: planner has no use for it), how many times the buffer crosses the bus,
    what it reduces (``None``: anything may be printed), whether it has a root, and whether it works in place.
    """

    name: str
    operation: Operation | None
    share: Share
    reduces: bool | None
    rooted: bool
    in_place: bool = True


PROGRAMS: dict[str, Program] = {
    program.name: program
    for program in (
        Program("all_reduce", "all_reduce", "reduced twice", True, False),
        Program("all_gather", "all_gather", "parts", False, False),
        Program("reduce_scatter", "reduce_scatter", "parts", True, False),
        Program("alltoall", "all_to_all", "parts", False, False, in_place=False),
        Program("broadcast", "broadcast", "whole", False, True),
        Program("sendrecv", "send_recv", "whole", None, False, in_place=False),
        Program("reduce", None, "whole", True, True),
        Program("gather", None, "parts", False, True),
        Program("scatter", None, "parts", False, True),
    )
}
NAMES = (*PROGRAMS, "hypercube", "alltoallv")
WORD_BYTES = {
    **dict.fromkeys(("int8", "char", "uint8", "f8e4m3", "f8e5m2", "fp8_e4m3", "fp8_e5m2"), 1),
    **dict.fromkeys(("half", "float16", "fp16", "bfloat16", "bf16"), 2),
    **dict.fromkeys(("int32", "int", "uint32", "float", "float32"), 4),
    **dict.fromkeys(("int64", "uint64", "double", "float64"), 8),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a table may be of: the programs, and the ranks where only one number is possible."""

    programs: tuple[Program, ...]
    ranks: int | None


@dataclass(frozen=True, slots=True)
class _Guess:
    """A program, run on ``fewest`` to ``most`` ranks."""

    program: Program
    fewest: int
    most: int


def ratio(program: Program, ranks: int) -> float:
    """Bus over algorithm bandwidth of a program.

    >>> ratio(PROGRAMS["all_reduce"], 4), ratio(PROGRAMS["alltoall"], 4), ratio(PROGRAMS["sendrecv"], 4)
    (1.5, 0.75, 1.0)
    """
    if program.share == "whole":
        return 1.0
    return (2.0 if program.share == "reduced twice" else 1.0) * (ranks - 1) / ranks


def refuse_impossible(row: Row, source: str) -> None:
    """Raise ``BadInput`` where the row's time is none, or its algorithm bandwidth is not its size over its time."""
    where = f"{source}, line {row.line}"
    if not row.time.value > 0 or not math.isfinite(row.time.value):
        raise BadInput(f"{row.size} bytes in {row.time.value:g} µs: a time must be above zero", path=where, hint=_HINT)
    if row.algorithm.value < 0 or row.bus.value < 0:
        raise BadInput(f"a bandwidth below zero for {row.size} bytes", path=where, hint=_HINT)
    if row.root is None and abs(row.algorithm.value - row.bus.value) <= row.algorithm.half + row.bus.half:
        # up to 2020, all_gather and reduce_scatter gave their bus bandwidth twice (nccl-tests issue 45)
        return
    low, high = _moved(row)
    if row.algorithm.high < low * (1 - _SLACKS[-1]) or row.algorithm.low > high * (1 + _SLACKS[-1]):
        problem = (
            f"{row.size} bytes in {row.time.value:g} µs are {row.size / row.time.value / 1e3:.2f} GB/s, "
            f"but the algorithm bandwidth is given as {row.algorithm.value:g} GB/s"
        )
        raise BadInput(problem, path=where, hint=_HINT)


def _moved(row: Row) -> tuple[float, float]:
    """Size over time in GB/s: the least and the most that the printed time allows."""
    return row.size / row.time.high / 1e3, (row.size / row.time.low / 1e3 if row.time.low > 0 else math.inf)


def _ratios(row: Row, slack: float) -> tuple[float, float]:
    """Bus over algorithm bandwidth: the least and the most that the row allows."""
    low, high = _moved(row)
    return max(0.0, row.bus.low) / high * (1 - slack), row.bus.high / low * (1 + slack)


def identify(rows: Sequence[Row], named: str | None, stated: int | None, hinted: Iterable[int], source: str) -> Answer:
    """What a table of ``rows`` (none of them empty) is of.

    ``named`` is the program where the text names it, ``stated`` the ranks that the list of devices shows, ``hinted`` are numbers of ranks
    that command lines and logs suggest. Raises ``BadInput`` where no program can have printed these bandwidths.
    """
    asked = [PROGRAMS[named]] if named else list(PROGRAMS.values())
    ranks = (stated, stated) if stated else (1, _MOST_RANKS)
    anything = [_Guess(program, *ranks) for program in asked]
    guesses = _by_bandwidths(anything, rows, _SLACKS[0])
    if isinstance(guesses, Row):
        guesses = _by_bandwidths(anything, rows, _SLACKS[1])
    if isinstance(guesses, Row):
        raise _forbidden(guesses, rows[0], asked, stated, source)
    tests: tuple[Callable[[_Guess], _Guess | None], ...] = (
        lambda guess: _by_count(guess, rows),
        lambda guess: guess if (rows[0].root is not None and rows[0].root >= 0) == guess.program.rooted else None,
        lambda guess: guess if guess.program.reduces in {None, rows[0].redop not in {None, "none"}} else None,
        lambda guess: guess if not rows[0].checked[0] or rows[0].checked[1] == guess.program.in_place else None,
        *(lambda guess, ranks=ranks: _by_ranks(guess, ranks) for ranks in hinted),
    )
    for test in tests:
        kept = [narrowed for guess in guesses if (narrowed := test(guess)) is not None]
        guesses = kept or guesses
    possible = {(guess.fewest, guess.most) for guess in guesses}
    fewest, most = min(low for low, _ in possible), max(high for _, high in possible)
    return Answer(tuple(guess.program for guess in guesses), fewest if fewest == most else None)


def _by_bandwidths(guesses: list[_Guess], rows: Sequence[Row], slack: float) -> list[_Guess] | Row:
    """What all rows allow; the first row that leaves nothing."""
    for row in rows:
        left = [narrowed for guess in guesses if (narrowed := _by_bandwidth(guess, row, slack)) is not None]
        if not left:
            return row
        guesses = left
    return guesses


def _by_bandwidth(guess: _Guess, row: Row, slack: float) -> _Guess | None:
    low, high = _ratios(row, slack)
    if guess.program.share == "whole":
        return guess if low <= 1 <= high else None
    times = 2 if guess.program.share == "reduced twice" else 1
    # low ≤ times (n - 1) / n ≤ high
    fewest = math.ceil(times / (times - low)) if low < times else _MOST_RANKS + 1
    most = math.floor(times / (times - high)) if high < times else _MOST_RANKS
    fewest, most = max(guess.fewest, fewest), min(guess.most, most)
    return _Guess(guess.program, fewest, most) if fewest <= most else None


def _by_count(guess: _Guess, rows: Sequence[Row]) -> _Guess | None:
    """Programs in which every rank has a part count the elements of a part; sizes are of all parts together."""
    for row in rows:
        word = WORD_BYTES.get(row.kind)
        if word is None or row.count <= 0:
            continue
        parts, rest = divmod(row.size, row.count * word)
        if rest or (parts != 1 and guess.program.share != "parts"):
            return None
        if guess.program.share == "parts":
            narrowed = _by_ranks(guess, parts)
            if narrowed is None:
                return None
            guess = narrowed
    return guess


def _by_ranks(guess: _Guess, ranks: int) -> _Guess | None:
    return _Guess(guess.program, ranks, ranks) if guess.fewest <= ranks <= guess.most else None


def _forbidden(row: Row, first: Row, asked: Sequence[Program], stated: int | None, source: str) -> BadInput:
    """The refusal of a bus bandwidth that the ratio of no operation allows, with what was printed and what it had to be."""
    algorithm = row.size / row.time.value / 1e3
    problem = f"bus bandwidth of {row.bus.value:g} GB/s at {algorithm:.4g} GB/s of algorithm bandwidth ({row.size} bytes in {row.time.value:g} µs): "
    problem += f"the ratio is {row.bus.value / algorithm:.4g}"
    if stated is None and not any(_by_bandwidth(_Guess(program, 1, _MOST_RANKS), row, _SLACKS[1]) for program in asked):
        problem += f", which is none of {asked[0].name}" if len(asked) == 1 else ", which is none of any operation"
    elif stated is None:
        problem += f", which does not go with the rows before it (from line {first.line}): no number of ranks has both"
    elif len(asked) == 1:
        problem += f"; that of {asked[0].name} over {stated} GPUs is {ratio(asked[0], stated):.4g}"
    else:
        ratios = sorted({f"{ratio(program, stated):.4g}" for program in asked}, reverse=True)
        problem += f"; those of operations over {stated} GPUs are {', '.join(ratios)}"
    return BadInput(problem, path=f"{source}, line {row.line}", hint=_HINT)
