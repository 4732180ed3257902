"""Whether predictions put layouts in the order that measurements do: rows of one question that differ in parallelism alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from planner.cost.accuracy import Comparison, Ranking, RowAnswer, TargetRegret

TARGETS_MS = (20.0, 50.0, 100.0)
"""Targets for the time per output token."""
_QUESTION = ("model", "quant", "engine", "isl", "osl", "load_kind", "load", "system")
_RATES = ("output_tokens_per_s", "total_tokens_per_s")
_TPOT = "tpot_ms"


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


def ranking_of(answers: Sequence[RowAnswer]) -> Ranking | None:
    """The order of layouts by what they serve for each GPU, at one load; ``None`` where no two rows can be compared.

    Rows are of one question where model, weights, engine, GPUs, lengths and load are the same. What is served is the rate where all
    rows of a question have it measured, else what decoding makes of the time per output token.
    """
    by_question: dict[tuple[str, ...], dict[tuple[int, ...], list[RowAnswer]]] = {}
    for one in answers:
        key = (_gpu_kind(one.cells.get("topology", "")), *(one.cells.get(name, "").strip() for name in _QUESTION))
        degrees = _degrees(one.cells)
        if degrees is not None:
            by_question.setdefault(key, {}).setdefault(degrees, []).append(one)
    questions = []
    for layouts in by_question.values():
        metric = next((name for name in (*_RATES, _TPOT) if _all_measured(layouts, name)), None)
        if metric is not None and len(layouts) > 1:
            questions.append([_contender(degrees, rows, metric) for degrees, rows in sorted(layouts.items())])
    alike = [part for question in questions for part in _by_gpus(question)]
    found = Ranking(compare(alike), compare(questions))
    return found if found.per_gpu.groups else None


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


def _gpu_kind(topology: str) -> str:
    """A topology without the count it begins with: ``8xL40S`` and ``4xL40S`` are of one kind.

    >>> _gpu_kind("4xA100-SXM4-40GB:nvlink-mesh"), _gpu_kind("dgx-h100")
    ('A100-SXM4-40GB:nvlink-mesh', 'dgx-h100')
    """
    count, by, kind = topology.partition("x")
    return kind if by and count.isdecimal() else topology


def _degrees(cells: Mapping[str, str]) -> tuple[int, ...] | None:
    """tp, pp, dp, ep; those that are empty are 1. ``None`` for a row that is not answered and says no numbers."""
    found = [_number(cells, name, 1.0) for name in ("tp", "pp", "dp", "ep")]
    return tuple(int(one) for one in found) if all(one >= 1 for one in found) else None


def _number(cells: Mapping[str, str], name: str, default: float = math.nan) -> float:
    """A number above 0, ``default`` for an empty cell, NaN for anything else: rows without an answer were not looked at."""
    text = cells.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        return math.nan
    return value if 0 < value < math.inf else math.nan


def _all_measured(layouts: Mapping[tuple[int, ...], Sequence[RowAnswer]], name: str) -> bool:
    return not any(math.isnan(_number(one.cells, name)) for rows in layouts.values() for one in rows)


def _contender(degrees: tuple[int, ...], rows: Sequence[RowAnswer], metric: str) -> Contender:
    """A layout; of repeated rows the mean."""
    gpus = degrees[0] * degrees[1] * degrees[2]

    def served(value: float) -> float:
        return (1e3 / value if metric == _TPOT else value) / gpus

    predicted = [served(one.figures[metric].predicted) for one in rows if metric in one.figures]
    tpot = [one.figures[_TPOT].predicted for one in rows if _TPOT in one.figures]
    timed = [time for one in rows if not math.isnan(time := _number(one.cells, _TPOT))]
    return Contender(
        gpus,
        fmean(served(_number(one.cells, metric)) for one in rows),
        fmean(predicted) if predicted else None,
        fmean(timed) if timed else math.nan,
        fmean(tpot) if tpot else math.nan,
    )
