"""What is lost by choosing a layout and how much load to put on it at a target for TPOT, by predictions alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from planner.cost.accuracy import LoadChoice, RowAnswer
from planner.validation.questions import TPOT, Degrees, degrees_of, gpus_of, number, question_of, served_rate

_RATE = "output_tokens_per_s"
ALL = "all"
"""Models of any kind."""


@dataclass(frozen=True, slots=True)
class Point:
    """What a layout does under one load: TPOT (ms) and output tokens a second and GPU."""

    tpot: float
    rate: float


@dataclass(frozen=True, slots=True)
class Run:
    """A layout measured under one load: ``predicted`` is ``None`` where there is no prediction, ``slowest`` (ms) the upper end of
    the error bar of the predicted TPOT.
    """

    measured: Point
    predicted: Point | None = None
    slowest: float = math.inf


Curve = Sequence[Run]
"""The runs of one layout, in the order of their load."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One choice: the share that it loses of the best there was; all is lost where it ``missed`` the target, and where ``nothing``
    was believed to meet it.
    """

    regret: float
    missed: bool = False
    nothing: bool = False


Rule = Callable[[Sequence[Curve], float], Outcome | None]
"""The outcome of one way to choose, for the curves of a question and a target (ms); ``None`` where nothing measured meets it."""


def load_choices(
    answers: Iterable[RowAnswer], targets: Sequence[float], kind_of: Callable[[Mapping[str, str]], str]
) -> tuple[LoadChoice, ...]:
    """Choices at each target and at all together (``tpot_ms`` ``None``: a question counts once for each target), over all questions,
    then over those of each kind of model where there are several kinds; none that has no group.

    A question is a model, its weights, engine, kind of GPU, lengths and system: it leaves the load open, and is asked where at
    least two layouts of it were measured. ``kind_of`` tells the kind of model by the cells of a row, empty where it is not known.
    """
    questions = _questions(answers, kind_of)
    kinds = sorted({kind for kind, _ in questions} - {""})
    found: list[LoadChoice] = []
    for kind in (ALL, *(kinds if len(kinds) > 1 else ())):
        asked = [curves for one, curves in questions if kind in (ALL, one)]
        for name, rule in RULES.items():
            at = {target: [one for curves in asked if (one := rule(curves, target)) is not None] for target in targets}
            found += [_choice(kind, name, target, outcomes) for target, outcomes in at.items() if outcomes]
            together = [one for outcomes in at.values() for one in outcomes]
            found += [_choice(kind, name, None, together)] if together else []
    return tuple(found)


def rate_at(curve: Sequence[Point], target: float) -> float:
    """The rate of a layout at the load that just meets a target for TPOT, interpolated between the measured loads.

    On logarithms, straight from one load to the next. A layout that meets the target at no load is worth nothing, one that meets it
    at its highest load what it serves there.

    >>> curve = [Point(10, 100), Point(20, 400)]
    >>> round(rate_at(curve, 14.142), 1), rate_at(curve, 9), rate_at(curve, 30)
    (200.0, 0.0, 400)
    """
    last = max((index for index, one in enumerate(curve) if one.tpot <= target), default=None)
    if last is None:
        return 0.0
    here = curve[last]
    if last == len(curve) - 1:
        return here.rate
    beyond = curve[last + 1]
    way = math.log(target / here.tpot) / math.log(beyond.tpot / here.tpot)
    return here.rate * math.exp(way * math.log(beyond.rate / here.rate))


def interpolated(curves: Sequence[Curve], target: float) -> Outcome | None:
    """The layout is chosen by its predicted rate at the load where its predicted TPOT meets the target; it serves what it was
    measured to serve at the load where its measured TPOT does. What is missed by the load is not held against it.
    """
    worth = [rate_at([one.measured for one in curve], target) for curve in curves]
    if max(worth) == 0:
        return None
    promised = [rate_at([one.predicted for one in curve if one.predicted is not None], target) for curve in curves]
    if max(promised) == 0:
        return Outcome(1.0, nothing=True)
    kept = worth[promised.index(max(promised))]
    return Outcome(1 - kept / max(worth), missed=kept == 0)


def discrete(curves: Sequence[Curve], target: float) -> Outcome | None:
    """A layout and one of its measured loads are chosen by the predicted rate among those whose predicted TPOT meets the target."""
    return _of_runs(curves, target, lambda one: one.predicted.tpot if one.predicted else math.inf)


def cautious(curves: Sequence[Curve], target: float) -> Outcome | None:
    """As :func:`discrete`, among those that meet the target with the upper end of the error bar of their TPOT."""
    return _of_runs(curves, target, lambda one: one.slowest)


RULES: Mapping[str, Rule] = {"interpolated": interpolated, "discrete": discrete, "cautious": cautious}
"""How a load is chosen, by name."""


def _of_runs(curves: Sequence[Curve], target: float, believed: Callable[[Run], float]) -> Outcome | None:
    runs = [one for curve in curves for one in curve]
    best = max((one.measured.rate for one in runs if one.measured.tpot <= target), default=None)
    if best is None:
        return None
    promising = [(one.predicted.rate, one.measured) for one in runs if one.predicted is not None and believed(one) <= target]
    if not promising:
        return Outcome(1.0, nothing=True)
    _, chosen = max(promising, key=lambda pair: pair[0])
    return Outcome(1 - chosen.rate / best) if chosen.tpot <= target else Outcome(1.0, missed=True)


def _choice(kind: str, rule: str, target: float | None, outcomes: Sequence[Outcome]) -> LoadChoice:
    regrets = [one.regret for one in outcomes]
    return LoadChoice(
        models=kind,
        load=rule,
        tpot_ms=target,
        groups=len(outcomes),
        mean=fmean(regrets),
        median=median(regrets),
        missed=sum(one.missed for one in outcomes),
        nothing=sum(one.nothing for one in outcomes),
    )


def _questions(answers: Iterable[RowAnswer], kind_of: Callable[[Mapping[str, str]], str]) -> list[tuple[str, tuple[Curve, ...]]]:
    """The kind of model and the curves of every question that has at least two, and something is predicted of."""
    found: dict[tuple[str, ...], dict[Degrees, dict[float, list[RowAnswer]]]] = {}
    for one in answers:
        degrees, load = degrees_of(one.cells), number(one.cells, "load")
        if degrees is None or math.isnan(load + number(one.cells, TPOT) + served_rate(one.cells)):
            continue
        layouts = found.setdefault(question_of(one.cells, load=False), {})
        layouts.setdefault(degrees, {}).setdefault(load, []).append(one)
    questions: list[tuple[str, tuple[Curve, ...]]] = []
    for layouts in found.values():
        if len(layouts) > 1:
            kinds = Counter(kind_of(row.cells) for loads in layouts.values() for rows in loads.values() for row in rows)
            curves = tuple(
                tuple(_run(gpus_of(degrees), loads[load]) for load in sorted(loads)) for degrees, loads in sorted(layouts.items())
            )
            if any(one.predicted is not None for curve in curves for one in curve):
                questions.append((kinds.most_common(1)[0][0], curves))
    return questions


def _run(gpus: int, rows: Sequence[RowAnswer]) -> Run:
    """A layout under one load; of repeated rows the mean."""
    measured = Point(fmean(number(one.cells, TPOT) for one in rows), fmean(served_rate(one.cells) for one in rows) / gpus)
    figures = [one.figures for one in rows if TPOT in one.figures and _RATE in one.figures]
    if not figures:
        return Run(measured)
    said = Point(fmean(one[TPOT].predicted for one in figures), fmean(one[_RATE].predicted for one in figures) / gpus)
    return Run(measured, said, fmean(one[TPOT].high for one in figures))
