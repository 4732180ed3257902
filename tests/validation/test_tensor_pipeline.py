"""Tensor against pipeline parallelism, on rows made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from planner.cost.accuracy import Figure, RowAnswer, SideCalls
from planner.validation.tensor_pipeline import tensor_against_pipeline


def served(
    tp: int, pp: int, measured: float, predicted: float | None, metric: str = "output_tokens_per_s", **cells: Any
) -> RowAnswer:
    row = {"topology": "4xL40S", "model": "m", "load": "8", "tp": str(tp), "pp": str(pp), metric: str(measured), **cells}
    return RowAnswer(row, {} if predicted is None else {metric: Figure(predicted, 0, 1, measured)}, {})


def side(found: SideCalls, cells: int, error: float, right: int) -> None:
    assert (found.cells, found.right) == (cells, right)
    assert found.error == pytest.approx(error)


def test_sides_are_told_apart_and_always_tp_does_not_pass() -> None:
    rows = [served(4, 1, 400, 500), served(2, 2, 200, 200), served(1, 4, 300, 100)]
    found = tensor_against_pipeline(rows)
    assert found is not None
    # TP 4 over TP 2: 2 measured, 2.5 predicted; over PP 4: 4/3, 5
    side(found.tensor_wins, 2, (0.25 + 2.75) / 2, 2)
    # TP 2 over PP 4: 2/3 measured, 2 predicted
    side(found.pipeline_wins, 1, 2.0, 0)


def test_less_time_per_token_is_more_served() -> None:
    found = tensor_against_pipeline([served(2, 1, 10, 12, "tpot_ms"), served(1, 2, 20, 18, "tpot_ms")])
    assert found is not None
    side(found.tensor_wins, 1, 0.25, 1)
    assert found.pipeline_wins == SideCalls(0, None, 0)


def test_a_call_of_equal_is_not_right() -> None:
    found = tensor_against_pipeline([served(2, 1, 10, 10), served(1, 2, 20, 10)])
    assert found is not None
    side(found.pipeline_wins, 1, 1.0, 0)


@pytest.mark.parametrize(
    "cells", [{"load": "9"}, {"model": "n"}, {"dp": "2"}, {"ep": "2"}, {"topology": "4xL4"}, {"load_kind": "batch"}]
)
def test_rows_that_differ_in_more_are_not_compared(cells: dict[str, str]) -> None:
    assert tensor_against_pipeline([served(2, 1, 10, 10), served(1, 2, 20, 10, **cells)]) is None


def test_nor_are_other_numbers_of_gpus_rows_without_prediction_and_ties() -> None:
    assert tensor_against_pipeline([served(4, 1, 10, 10), served(1, 2, 20, 10)]) is None
    assert tensor_against_pipeline([served(2, 1, 10, 10), served(1, 2, 20, None)]) is None
    assert tensor_against_pipeline([served(2, 1, 10, 10), served(1, 2, 10, 20)]) is None
    assert tensor_against_pipeline([served(2, 1, 10, 10), served(1, 2, 20, 10, "ttft_ms")]) is None


def test_repeated_rows_count_by_their_mean() -> None:
    found = tensor_against_pipeline([served(2, 1, 10, 30), served(2, 1, 30, 30), served(1, 2, 10, 10)])
    assert found is not None
    side(found.tensor_wins, 1, 0.5, 1)
