"""Whether predictions put layouts in the order that measurements do: rows of one question that differ in parallelism alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from planner.cost.accuracy import Comparison, Ranking, RowAnswer, TargetRegret
from planner.validation.choosing import load_choices
from planner.validation.questions import TPOT, Degrees, degrees_of, gpus_of, number, question_of, rate_name
from planner.validation.tensor_pipeline import tensor_against_pipeline

TARGETS_MS = (20.0, 50.0, 100.0)
"""Targets for the time per output token."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One layout of a question: tokens a second and GPU, and TPOT (ms), measured and predicted; NaN where that is not known.

    ``predicted`` is ``None`` where there is no prediction, as for a layout that does not fit by the estimate: it is never chosen.
    """

    gpus: int
    measured: float
    predicted: float | None
    measured_tpot: float = math.nan
    predicted_tpot: float = math.nan


def ranking_of(answers: Sequence[RowAnswer], kind_of: Callable[[Mapping[str, str]], str]) -> Ranking | None:
    """The order of layouts by what they serve for each GPU, at one load; what choices of layout and load lose; tensor against
    pipeline parallelism. ``None`` where no two rows can be compared.

    Rows are of one question where model, weights, engine, GPUs, lengths and load are the same. What is served is the rate where all
    rows of a question have it measured, else what decoding makes of the time per output token. ``kind_of`` tells the kind of model
    by the cells of a row.
    """
    by_question: dict[tuple[str, ...], dict[Degrees, list[RowAnswer]]] = {}
    for one in answers:
        degrees = degrees_of(one.cells)
        if degrees is not None:
            by_question.setdefault(question_of(one.cells, load=True), {}).setdefault(degrees, []).append(one)
    questions = []
    for layouts in by_question.values():
        metric = rate_name([one for rows in layouts.values() for one in rows])
        if metric is not None and len(layouts) > 1:
            questions.append([_contender(degrees, rows, metric) for degrees, rows in sorted(layouts.items())])
    alike = [part for question in questions for part in _by_gpus(question)]
    choices = load_choices(answers, TARGETS_MS, kind_of)
    found = Ranking(compare(alike), compare(questions), choices, tensor_against_pipeline(answers))
    return found if found.per_gpu.groups or found.choices else None


def compare(questions: Sequence[Sequence[Contender]]) -> Comparison:
    """Regret and agreement over questions; those with one contender, or none that is predicted, do not count.

    >>> right, wrong = Contender(4, 30.0, 29.0), Contender(4, 40.0, 20.0)
    >>> compare([[right, wrong]]).regret, compare([[right, wrong]]).agreement
    (0.25, 0.0)
    """
    counted = [one for one in questions if len(one) > 1 and any(each.predicted is not None for each in one)]
    regrets, agreed = [], []
    for question in counted:
        predicted = [one for one in question if one.predicted is not None]
        chosen = max(predicted, key=_promise)
        regrets.append(1 - chosen.measured / max(one.measured for one in question))
        for one, other in combinations(predicted, 2):
            if one.measured != other.measured:
                agreed.append((one.measured > other.measured) == (_promise(one) > _promise(other)))
    return Comparison(
        groups=len(counted),
        pairs=len(agreed),
        regret=fmean(regrets) if regrets else None,
        agreement=sum(agreed) / len(agreed) if agreed else None,
        targets=tuple(_at_target(counted, target) for target in TARGETS_MS),
    )


def _at_target(questions: Sequence[Sequence[Contender]], target: float) -> TargetRegret:
    """Of the questions some of whose layouts meet a target: what is lost by the choice among those believed to meet it.

    A choice that does not meet it, or none, loses all.
    """
    regrets = []
    for question in questions:
        meeting = [one for one in question if one.measured_tpot <= target]
        if not meeting:
            continue
        believed = [one for one in question if one.predicted is not None and one.predicted_tpot <= target]
        chosen = max(believed, key=_promise, default=None)
        kept = chosen.measured if chosen is not None and chosen.measured_tpot <= target else 0.0
        regrets.append(1 - kept / max(one.measured for one in meeting))
    lost = sum(regret == 1 for regret in regrets)
    return TargetRegret(target, len(regrets), fmean(regrets) if regrets else None, lost)


def _promise(one: Contender) -> float:
    assert one.predicted is not None
    return one.predicted


def _by_gpus(question: Sequence[Contender]) -> list[list[Contender]]:
    """The contenders of a question, those on equally many GPUs together."""
    parts: dict[int, list[Contender]] = {}
    for one in question:
        parts.setdefault(one.gpus, []).append(one)
    return list(parts.values())


def _contender(degrees: Degrees, rows: Sequence[RowAnswer], metric: str) -> Contender:
    """A layout; of repeated rows the mean."""
    gpus = gpus_of(degrees)

    def served(value: float) -> float:
        return (1e3 / value if metric == TPOT else value) / gpus

    predicted = [served(one.figures[metric].predicted) for one in rows if metric in one.figures]
    tpot = [one.figures[TPOT].predicted for one in rows if TPOT in one.figures]
    timed = [time for one in rows if not math.isnan(time := number(one.cells, TPOT))]
    return Contender(
        gpus,
        fmean(served(number(one.cells, metric)) for one in rows),
        fmean(predicted) if predicted else None,
        fmean(timed) if timed else math.nan,
        fmean(tpot) if tpot else math.nan,
    )
