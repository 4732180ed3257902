"""How far predictions are from measurements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Errors as shares of the measured value: mean and median of their size, their mean with its sign, and what nine of
    ten stay within.
    """

    mape: float
    median_ape: float
    bias: float
    p90_ape: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A prediction and, where there is one, the measurement it is held against; nine of ten lay from ``low`` to ``high``."""

    predicted: float
    low: float
    high: float
    measured: float | None = None


@dataclass(frozen=True)
class RowAnswer:
    """A row of a table of measurements: figures by the column they stand for, or the ``reason`` why there are none.

    ``named`` says what a figure is called in the report where that is not its column's name.
    """

    cells: Mapping[str, str]
    figures: Mapping[str, Figure]
    named: Mapping[str, str]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Grade:
    """The accuracy over so many measurements of one figure, and the share of them inside the interval of their prediction."""

    measurements: int
    accuracy: Accuracy
    inside: float


@dataclass(frozen=True, slots=True)
class TargetRegret:
    """The mean share that is lost by choosing what is believed to meet a target for TPOT: over so many ``groups`` in which
    something meets it, in ``lost`` of which the choice does not, or there is none.
    """

    tpot_ms: float
    groups: int
    regret: float | None
    lost: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Layouts of so many ``groups``: the mean share of the best measured rate that is lost by choosing the best predicted one, and
    the share of the ``pairs`` that predictions put in the measured order. ``None`` where there are none.
    """

    groups: int
    pairs: int
    regret: float | None
    agreement: float | None
    targets: tuple[TargetRegret, ...]


@dataclass(frozen=True, slots=True)
class LoadChoice:
    """What is lost by choosing a layout and its ``load`` (by one of several rules) at a target for TPOT.

    ``mean`` and ``median`` are shares of the best measured rate for each GPU, over ``groups`` in which something meets the target.
    All is lost where the choice ``missed`` the target, and where ``nothing`` was believed to meet it. ``models`` is their kind;
    without ``tpot_ms``, all targets together.
    """

    models: str
    load: str
    tpot_ms: float | None
    groups: int
    mean: float
    median: float
    missed: int
    nothing: int


@dataclass(frozen=True, slots=True)
class SideCalls:
    """Of the ``cells`` that one side wins: the median ``error`` of the ratio of what both serve, and how many are called right."""

    cells: int
    error: float | None
    right: int


@dataclass(frozen=True, slots=True)
class TensorAgainstPipeline:
    """Pairs of layouts that differ in tensor times pipeline parallelism, apart by which one serves more when measured."""

    tensor_wins: SideCalls
    pipeline_wins: SideCalls


@dataclass(frozen=True, slots=True)
class Ranking:
    """Layouts compared at one load that take equally many GPUs, and all layouts by what they serve for each GPU; what is lost where
    the load is chosen too; tensor against pipeline parallelism, where both were measured.
    """

    same_gpus: Comparison
    per_gpu: Comparison
    choices: tuple[LoadChoice, ...] = ()
    tensor_pipeline: TensorAgainstPipeline | None = None


@dataclass(frozen=True)
class Graded:
    """A group of rows (its value of every column asked for), how many were answered, and the grade of every figure; ``ranking``
    where rows differ in their layout alone.
    """

    of: Mapping[str, str]
    rows: int
    answered: int
    grades: Mapping[str, Grade]
    ranking: Ranking | None = None


@dataclass(frozen=True)
class Validation:
    """A table of measurements held against predictions.

    ``kind`` is what was measured, ``columns`` those of the table, ``figures`` the columns that are predicted. ``reasons`` counts
    the rows that have no prediction, ``left_out`` the flagged ones.
    """

    kind: str
    source: str
    columns: tuple[str, ...]
    figures: tuple[str, ...]
    overall: Graded
    groups: tuple[Graded, ...]
    left_out: int
    reasons: Mapping[str, int]
    answers: tuple[RowAnswer, ...]


ENOUGH_ROWS = 20
"""Rows from which on the share of a group inside its bars says something."""


def poorest(groups: Iterable[Graded], name: str) -> tuple[Graded, Grade] | None:
    """The group with the smallest share of a figure inside its bars, of those with ``ENOUGH_ROWS``, and its grade; of equals the
    first. ``None`` where there is none.
    """
    told = [(one, one.grades[name]) for one in groups if name in one.grades and one.grades[name].measurements >= ENOUGH_ROWS]
    return min(told, key=lambda pair: pair[1].inside, default=None)


def graded(of: Mapping[str, str], answers: Sequence[RowAnswer]) -> Graded:
    """The grades of a group of rows."""
    found: dict[str, list[Figure]] = {}
    for answer in answers:
        for column, figure in answer.figures.items():
            if figure.measured is not None:
                found.setdefault(answer.named.get(column, column), []).append(figure)
    grades = {}
    for name, figures in sorted(found.items()):
        pairs = [(one.predicted, one.measured) for one in figures if one.measured is not None]
        inside = sum(one.low <= (one.measured or 0.0) <= one.high for one in figures) / len(figures)
        grades[name] = Grade(len(figures), accuracy(pairs), inside)
    return Graded(of, len(answers), sum(bool(answer.figures) for answer in answers), grades)


def accuracy(pairs: Iterable[tuple[float, float]]) -> Accuracy:
    """The accuracy of (predicted, measured) pairs, of which there is at least one; measured values are above 0.

    >>> accuracy([(15.0, 10.0), (5.0, 10.0), (10.0, 10.0)])
    Accuracy(mape=0.3333333333333333, median_ape=0.5, bias=0.0, p90_ape=0.5)
    """
    errors = [(predicted - measured) / measured for predicted, measured in pairs]
    sizes = sorted(abs(error) for error in errors)
    nine_of_ten = sizes[max(0, math.ceil(0.9 * len(sizes)) - 1)]
    return Accuracy(fmean(sizes), median(sizes), fmean(errors), nine_of_ten)
