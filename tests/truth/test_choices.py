"""Choices by predictions alone, held against published runs, at the project's own targets. Skipped where the measurements are not beside
the project.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from planner import api
from planner.cost.accuracy import LoadChoice, Ranking, Validation

PLANNED = {"vllm", "trtllm", "tensorrt", "sglang"}


@pytest.fixture(scope="module")
def validation(shared: Path) -> Validation:
    return api.validate(shared / "data" / "serving.csv")


@pytest.fixture(scope="module")
def ranking(validation: Validation) -> Ranking:
    assert validation.overall.ranking is not None
    return validation.overall.ranking


def chosen(ranking: Ranking, models: str, load: str) -> LoadChoice:
    """At all targets together."""
    (one,) = [one for one in ranking.choices if (one.models, one.load, one.tpot_ms) == (models, load, None)]
    return one


def test_runs_of_planned_engines_are_answered(validation: Validation) -> None:
    ours = [one for one in validation.answers if one.cells["engine"].split("-")[0] in PLANNED]
    assert len(ours) >= 2700
    assert sum(bool(one.figures) for one in ours) >= 0.99 * len(ours)


def test_a_layout_is_chosen_with_little_regret_where_the_load_is_interpolated(ranking: Ranking) -> None:
    found = chosen(ranking, "all", "interpolated")
    assert found.groups >= 200
    assert found.mean <= 0.03
    assert found.median <= 0.03
    assert chosen(ranking, "dense", "interpolated").mean <= 0.03


def test_a_layout_and_a_measured_load_are_chosen_with_some(ranking: Ranking) -> None:
    found = chosen(ranking, "all", "discrete")
    assert found.groups >= 200
    assert found.median <= 0.05


def test_nearly_every_cell_that_tensor_parallelism_wins_is_called_right(ranking: Ranking) -> None:
    assert ranking.tensor_pipeline is not None
    side = ranking.tensor_pipeline.tensor_wins
    assert side.cells >= 30
    assert side.right >= 0.9 * side.cells
