"""Tensor against pipeline parallelism: how much more one serves than the other, measured and predicted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median

from planner.cost.accuracy import RowAnswer, SideCalls, TensorAgainstPipeline
from planner.validation.questions import TPOT, Degrees, degrees_of, number, question_of, rate_name


@dataclass(frozen=True, slots=True)
class Cell:
    """Two layouts of one question and load, on equally many GPUs: what that with more tensor parallelism serves, over what that
    with more stages serves.
    """

    measured: float
    predicted: float


def tensor_against_pipeline(answers: Iterable[RowAnswer]) -> TensorAgainstPipeline | None:
    """Every pair of layouts of one question and load that differ in tensor times pipeline parallelism alone, both predicted;
    ``None`` where there is none.
    """
    alike: dict[tuple[object, ...], dict[Degrees, list[RowAnswer]]] = {}
    for one in answers:
        degrees = degrees_of(one.cells)
        if degrees is not None:
            tensor, stages, data, expert = degrees
            key = *question_of(one.cells, load=True), tensor * stages, data, expert
            alike.setdefault(key, {}).setdefault(degrees, []).append(one)
    cells = []
    for layouts in alike.values():
        for more, fewer in combinations(sorted(layouts, reverse=True), 2):
            cells += _cell(layouts[more], layouts[fewer])
    return judged(cells)


def judged(cells: Sequence[Cell]) -> TensorAgainstPipeline | None:
    """Cells apart by who wins when measured; those measured as equal are on nobody's side.

    >>> found = judged([Cell(2.0, 1.5), Cell(1.25, 0.75), Cell(0.5, 0.6)])
    >>> found.tensor_wins, found.pipeline_wins.error
    (SideCalls(cells=2, error=0.325, right=1), 0.19999999999999996)
    """
    sides = _side([one for one in cells if one.measured > 1]), _side([one for one in cells if one.measured < 1])
    return TensorAgainstPipeline(*sides) if any(side.cells for side in sides) else None


def _side(cells: Sequence[Cell]) -> SideCalls:
    errors = [abs(one.predicted / one.measured - 1) for one in cells]
    right = sum((one.predicted > 1) == (one.measured > 1) and one.predicted != 1 for one in cells)
    return SideCalls(len(cells), median(errors) if errors else None, right)


def _cell(tensor: list[RowAnswer], stages: list[RowAnswer]) -> list[Cell]:
    """The cell of two layouts; of repeated rows the mean. Empty where one is not predicted, or no figure is measured of both."""
    metric = rate_name([*tensor, *stages])
    if metric is None or any(metric not in one.figures for one in (*tensor, *stages)):
        return []
    measured = [fmean(number(one.cells, metric) for one in rows) for rows in (tensor, stages)]
    predicted = [fmean(one.figures[metric].predicted for one in rows) for rows in (tensor, stages)]
    if metric == TPOT:  # less of it is more served
        measured, predicted = measured[::-1], predicted[::-1]
    return [Cell(measured[0] / measured[1], predicted[0] / predicted[1])]
