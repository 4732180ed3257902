"""Numbers as programs that measure print them, with the rounding that was done to them, and matrices of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from planner.errors import BadInput

MOST_CHARACTERS = 4000
"""Of a line that may be a row; longer ones are none."""
_FIGURE = re.compile(r"([+-]?[0-9]{1,20})(?:\.([0-9]{0,12}))?(?:[eE]([+-]?[0-9]{1,2}))?")
_NOTHING = frozenset({"N/A", "n/a", "-nan", "nan", "NaN", "inf", "-inf"})
_INDEX = re.compile(r"[0-9]{1,4}")
_WHOLE_COPY = "paste the whole output"


class Figure(NamedTuple):
    """A number and the half of a unit of its last digit: what it was before rounding is within ``value`` ± ``half``."""

    value: float
    half: float

    @property
    def low(self) -> float:
        """The least that is printed so."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """The most that is printed so."""
        return self.value + self.half


def figure(word: str) -> Figure | None:
    """A number; ``None`` where the word is none.

    >>> figure("15.1"), figure("2e+05"), figure("N/A")
    (Figure(value=15.1, half=0.05), Figure(value=200000.0, half=50000.0), None)
    """
    match = _FIGURE.fullmatch(word)
    if match is None:
        return None
    return Figure(float(word), 0.5 * 10.0 ** (int(match[3] or 0) - len(match[2] or "")))


def is_figure(word: str) -> bool:
    """Whether a program that prints numbers may print the word in the place of one."""
    return word in _NOTHING or _FIGURE.fullmatch(word) is not None


def words_of(line: str) -> list[str]:
    """The words of a line, cells of a Markdown table too; none of a line too long to be a row."""
    return line.replace("|", " ").split() if len(line) <= MOST_CHARACTERS else []


@dataclass(slots=True)
class Matrix:
    """A matrix of numbers between devices. ``labels`` are its columns; ``cells`` by (row, column), without those that are not
    numbers; ``missing`` is the first row that the text leaves out. ``line`` is that of its header, ``lines`` those of the rows.
    """

    labels: tuple[int, ...]
    line: int
    cells: dict[tuple[int, int], Figure] = field(default_factory=dict)
    lines: dict[int, int] = field(default_factory=dict)

    @property
    def missing(self) -> int | None:
        """The first row that is not there."""
        return next((label for label in self.labels if label not in self.lines), None)

    def pairs(self, source: str, what: str) -> dict[tuple[int, int], Figure]:
        """The cells between two different devices. Raises ``BadInput`` with the line where one is not above zero."""
        between = {(row, column): cell for (row, column), cell in self.cells.items() if row != column}
        for (row, column), cell in between.items():
            if not cell.value > 0 or not math.isfinite(cell.value):
                problem = f"{what} from {row} to {column} is {cell.value:g}; it must be above zero"
                raise BadInput(problem, path=f"{source}, line {self.lines[row]}")
        return between


def labels_of(line: str, corners: frozenset[str]) -> tuple[int, ...] | None:
    r"""The columns of a matrix's header: one of ``corners``, then 0, 1, … up to its end; ``None`` where the line is none.

    >>> labels_of(r"   D\D     0      1", frozenset({r"D\D"}))
    (0, 1)
    """
    words = words_of(line)
    first = len(words)
    while first and _INDEX.fullmatch(words[first - 1]):
        first -= 1
    if "" in corners:
        # a header of numbers alone: what stands before it on the line is a log's
        start = next((place for place in range(len(words) - 1, first - 1, -1) if words[place] == "0"), None)
        first = len(words) if start is None else start
    elif not first or words[first - 1] not in corners:
        return None
    labels = tuple(int(word) for word in words[first:])
    return labels if labels and labels == tuple(range(len(labels))) else None


def read_matrix(lines: Sequence[str], header: int, labels: tuple[int, ...], source: str) -> tuple[Matrix, int]:
    """The matrix whose header is ``lines[header]``, and the place of the first line that is not its.

    Lines that are no rows (of a log) between its rows are passed over. Raises ``BadInput`` with the line where a row has
    another number of cells than the header, or is not the next one.
    """
    matrix = Matrix(labels, header + 1)
    place, end = header + 1, header + 1
    while place < len(lines) and len(matrix.lines) < len(labels):
        words = words_of(lines[place])
        if words and _ends_matrix(words):
            break
        if _take(matrix, words, place + 1, source):
            end = place + 1
        place += 1
    after = words_of(lines[end]) if end < len(lines) else []
    if matrix.missing is None and len(after) == len(labels) + 1 and after[0] == str(len(labels)) and all(map(is_figure, after)):
        problem = f"row {after[0]} stands below a header of {len(labels)} columns"
        raise BadInput(problem, path=f"{source}, line {end + 1}", hint=_WHOLE_COPY)
    return matrix, end


def _ends_matrix(words: Sequence[str]) -> bool:
    return any(word in _ENDS for word in words) or words[-1] in {"(GB/s)", "(us)"}


_ENDS = frozenset({"D\\D", "GPU", "CPU", "SUM", "Running", "Matrix", "Device:", "[P2P"})


def _take(matrix: Matrix, words: Sequence[str], line: int, source: str) -> bool:
    """Put a row of words into the matrix; whether it is one."""
    if len(words) < 2 or not is_figure(words[-1]):
        return False
    start = len(words)
    while start and is_figure(words[start - 1]):
        start -= 1
    row, width = words[start:], len(matrix.labels)
    expected = matrix.labels[len(matrix.lines)]
    if len(row) > width and row[-width - 1] == str(expected):
        cells = row[-width:]
        matrix.lines[expected] = line
        for label, word in zip(matrix.labels, cells, strict=True):
            cell = figure(word)
            if cell is not None:
                matrix.cells[expected, label] = cell
            elif word not in {"N/A", "n/a"}:
                raise BadInput(f"row {expected} holds {word}, which is no number", path=f"{source}, line {line}")
        return True
    if start and not (start == 1 and not any(character.isalnum() for character in words[0])):
        return False
    if len(row) == width + 1 and _INDEX.fullmatch(row[0]):
        problem = f"row {expected} is missing: after row {len(matrix.lines) - 1} comes row {row[0]}"
        if not matrix.lines:
            problem = f"row {expected} is missing: the first row is {row[0]}"
    else:
        problem = f"row {row[0]} has {len(row) - 1} numbers below a header of {width}"
    raise BadInput(problem, path=f"{source}, line {line}", hint=_WHOLE_COPY)
