"""Choosing a layout and its load at a target, on curves made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from planner.cost.accuracy import Figure, LoadChoice, RowAnswer
from planner.validation.choosing import ALL, Curve, Outcome, Point, Run, cautious, discrete, interpolated, load_choices, rate_at

STEADY: Curve = (
    Run(Point(10, 100), Point(10, 100), 15),
    Run(Point(20, 400), Point(20, 400), 30),
)
BOASTED: Curve = (
    Run(Point(15, 110), Point(8, 120), 12),
    Run(Point(40, 300), Point(18, 500), 24),
)
"""Believed better than :data:`STEADY` at every target."""


def test_a_rate_is_interpolated_on_logarithms() -> None:
    curve = [Point(10, 100), Point(40, 1600)]
    assert rate_at(curve, 20) == pytest.approx(400)
    assert (rate_at(curve, 10), rate_at(curve, 40), rate_at(curve, 1000)) == (100, 1600, 1600)
    assert rate_at(curve, 9.99) == 0
    assert rate_at([], 10) == 0


def test_the_last_load_that_meets_the_target_counts_where_times_go_up_and_down() -> None:
    assert rate_at([Point(10, 100), Point(30, 150), Point(20, 400)], 20) == 400


def test_interpolated_the_layout_alone_is_graded() -> None:
    found = interpolated([STEADY, BOASTED], 20)
    worth = 110 * (300 / 110) ** (math.log(20 / 15) / math.log(40 / 15))
    assert found is not None
    assert found.regret == pytest.approx(1 - worth / 400)
    assert not found.missed


def test_interpolated_a_layout_that_meets_the_target_at_no_load_loses_all() -> None:
    assert interpolated([STEADY, BOASTED], 12) == Outcome(1.0, missed=True)


def test_interpolated_the_right_choice_loses_nothing() -> None:
    assert interpolated([STEADY, STEADY], 15) == Outcome(0.0)


def test_discrete_the_load_is_graded_too() -> None:
    assert discrete([STEADY, BOASTED], 40) == Outcome(0.25)
    assert discrete([STEADY, BOASTED], 20) == Outcome(1.0, missed=True)  # 18 ms believed, 40 ms measured


def test_the_cautious_go_by_the_upper_end_of_the_bar() -> None:
    found = cautious([STEADY, BOASTED], 20)  # of 15, 30, 12 and 24 ms two are within, the second believed to serve more
    assert found == Outcome(1 - 110 / 400)
    assert cautious([STEADY, BOASTED], 30) == Outcome(1.0, missed=True)


def test_nothing_believed_to_meet_the_target_loses_all() -> None:
    for rule in (interpolated, discrete, cautious):
        slow = (Run(Point(10, 100), Point(20, 50), 30),)
        assert rule([slow, (Run(Point(10, 90)),)], 15) == Outcome(1.0, nothing=True)


def test_targets_that_nothing_measured_meets_are_not_asked() -> None:
    for rule in (interpolated, discrete, cautious):
        assert rule([STEADY, BOASTED], 5) is None


def test_what_is_not_predicted_is_never_chosen_but_may_have_been_the_best() -> None:
    unknown: Curve = (Run(Point(10, 800)),)
    for rule in (interpolated, discrete):
        assert rule([STEADY, unknown], 20) == Outcome(0.5)


def answer(tensor: int, load: int, tpot: float, predicted: float, **cells: str) -> RowAnswer:
    """A closed loop without a time to first token: ``load / tpot`` tokens a second; predicted likewise."""
    row = {"topology": f"{tensor}xL40S", "model": "m", "osl": "100", "load_kind": "concurrency"}
    row |= {"tp": str(tensor), "load": str(load), "tpot_ms": str(tpot)} | cells
    figures = {
        "tpot_ms": Figure(predicted, predicted / 2, 2 * predicted, tpot),
        "output_tokens_per_s": Figure(1e3 * load / predicted, 0, 1),
    }
    return RowAnswer(row, figures, {})


def kind(cells: object) -> str:
    assert isinstance(cells, dict)
    return "moe" if cells["model"] == "experts" else "dense"


ROWS = [answer(1, 8, 10, 10), answer(1, 16, 16, 16), answer(2, 32, 20, 12), answer(2, 16, 10, 10)]
"""A GPU alone serves 800 and 1000, two serve 800 for each, above 15 ms."""


def test_rows_become_curves_of_questions_and_targets_are_told_together_too() -> None:
    found = {(one.load, one.tpot_ms): one for one in load_choices(ROWS, (11, 18), kind)}
    assert found["discrete", 11] == LoadChoice(ALL, "discrete", 11, 1, 0.0, 0.0, 0, 0)
    assert found["discrete", 18] == LoadChoice(ALL, "discrete", 18, 1, 1.0, 1.0, 1, 0)
    assert found["discrete", None] == LoadChoice(ALL, "discrete", None, 2, 0.5, 0.5, 1, 0)
    assert found["cautious", None] == LoadChoice(ALL, "cautious", None, 2, 1.0, 1.0, 0, 2)
    assert found["interpolated", 11].mean == pytest.approx(1 - 800 / (800 * (1000 / 800) ** (math.log(1.1) / math.log(1.6))))
    assert {one.models for one in found.values()} == {ALL}


def test_kinds_of_models_are_told_apart_where_there_are_several() -> None:
    rows = [*ROWS, *(answer(tensor, 8, 10, 10, model="experts") for tensor in (1, 2, 4))]
    found = {(one.models, one.load, one.tpot_ms): one for one in load_choices(rows, (18,), kind)}
    assert [found[models, "discrete", 18].groups for models in (ALL, "dense", "moe")] == [2, 1, 1]
    assert [found[models, "discrete", 18].mean for models in (ALL, "dense", "moe")] == [0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    "cells",
    [{"model": "n"}, {"isl": "7"}, {"engine": "e"}, {"topology": "2xL4"}, {"system": "s"}, {"quant": "fp8"}, {"osl": "99"}],
)
def test_a_question_with_one_layout_is_not_asked(cells: dict[str, str]) -> None:
    assert load_choices([answer(1, 8, 10, 10), answer(2, 8, 10, 10, **cells)], (20,), kind) == ()
    assert load_choices([answer(1, 8, 10, 10), answer(1, 16, 12, 10)], (20,), kind) == ()
    assert load_choices([answer(1, 8, 10, 10), answer(2, 8, 10, 10)], (20,), kind) != ()


def test_a_question_of_which_nothing_is_predicted_is_not_asked() -> None:
    rows = [replace(answer(tensor, 8, 10, 10), figures={}) for tensor in (1, 2)]
    assert load_choices(rows, (20,), kind) == ()
    found = load_choices([rows[0], answer(2, 8, 10, 10)], (20,), kind)
    assert {one.mean for one in found if one.load == "discrete"} == {0.5}  # the other serves twice as much for each GPU


def test_repeated_runs_are_one_load() -> None:
    rows = [answer(1, 8, 10, 10), answer(1, 8, 30, 10), answer(2, 16, 10, 11)]
    assert [one.mean for one in load_choices(rows, (15,), kind) if one.load == "discrete"] == [1.0, 1.0]  # 20 ms in the mean


@pytest.mark.parametrize("name", ["load", "tpot_ms", "tp"])
@pytest.mark.parametrize("text", ["nan", "-1", "many", "inf", "0"])
def test_rows_without_load_or_times_are_passed_over(name: str, text: str) -> None:
    row = answer(2, 8, 10, 10)
    odd = replace(row, cells={**row.cells, name: text})
    assert load_choices([answer(1, 8, 10, 10), odd], (20,), kind) == ()
    assert load_choices([answer(1, 8, 10, 10), odd, row], (20,), kind) != ()
