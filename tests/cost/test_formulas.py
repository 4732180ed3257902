"""Every formula has a source, a doctest, and the dimension it says."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import pint
import pytest

import planner.cost
from planner.cost import attention, collectives, gemm, latency, memory, pipeline, point_to_point, serving
from planner.cost.calibration import TtftFit
from planner.cost.formula import REGISTRY, formula

for module in pkgutil.iter_modules(planner.cost.__path__):
    importlib.import_module(f"planner.cost.{module.name}")

# formulas whose examples need a graph or a model: they are tested with one in test_worked_examples.py
NEEDS_A_MODEL = {
    "attention_weights",
    "mlp_weights",
    "cuda_graphs",
    "kv_bytes",
    "gemm",
    "experts_time",
    "decode_attention",
    "prompt_attention",
}

UNITS: Any = pint.UnitRegistry()
SIZE, RATE, TIME, WORK = 3.0e6 * UNITS.byte, 2.0e10 * UNITS.byte / UNITS.second, 2.0e-6 * UNITS.second, 5.0e9 * UNITS.count
COMPUTE = 4.0e12 * UNITS.count / UNITS.second


def test_there_are_formulas() -> None:
    assert len(REGISTRY) >= 40


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_formula_says_where_it_comes_from_and_shows_an_example(name: str) -> None:
    entry = REGISTRY[name]
    assert len(entry.source) > 15
    assert entry.valid
    doc = inspect.getdoc(entry.function) or ""
    assert len(doc.splitlines()[0]) > 20
    assert ">>>" in doc or name in NEEDS_A_MODEL


@pytest.mark.parametrize(
    ("function", "arguments", "dimension"),
    [
        (point_to_point.send, (SIZE, RATE, TIME), "[time]"),
        (collectives.bus_bandwidth, (SIZE, TIME, 4), "[information] / [time]"),
        (collectives.custom_all_reduce, (SIZE, 4, RATE, True, TIME, TIME, 0.8), "[time]"),
        (gemm.roofline, (SIZE, WORK, RATE, COMPUTE, 0.8, 0.7, TIME), "[time]"),
        (pipeline.fill_drain_makespan, ([TIME, TIME], 4), "[time]"),
        (pipeline.decode_period, ([TIME, TIME], 4, TIME), "[time]"),
        (pipeline.prompt_makespan, (TIME, TIME, 0.5), "[time]"),
        (serving.time_per_output_token, (TIME, TIME, 0.1), "[time]"),
        (serving.time_to_first_token, (TIME, TIME, TtftFit(TIME, 1.3, 0.1, 1.0)), "[time]"),
        (serving.burst_wait, (TIME, 8, 256, TtftFit(TIME, 1.3, 0.1, 1.0)), "[time]"),
        (latency.burst_quantile, (TIME, 0.9), "[time]"),
        (latency.token_time_spread, (TIME, 8, 256), "[time]"),
        (serving.saturation_wait, (96, 64, TIME), "[time]"),
        (serving.throughput, (8, TIME, TIME, 256), "1 / [time]"),
        (serving.kv_transfer, (4096, SIZE, RATE, 4), "[time]"),
        (memory.kv_budget, (SIZE, 0.9, SIZE / 2, SIZE / 8, SIZE / 8, "fraction-of-total"), "[information]"),
        (attention.kv_bytes_per_token, (8, 128, 2 * UNITS.byte), "[information]"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fed_with_units_a_formula_answers_in_the_right_ones(
    function: Callable[..., Any], arguments: tuple[Any, ...], dimension: str
) -> None:
    answer = function(*arguments)
    if dimension == "[information]":
        assert answer.check(UNITS.byte)
    elif dimension == "[information] / [time]":
        assert answer.check(UNITS.byte / UNITS.second)
    else:
        assert answer.check(dimension)


def test_a_formula_of_the_wrong_dimension_would_be_noticed() -> None:
    with pytest.raises(pint.DimensionalityError):
        point_to_point.send(SIZE, RATE, SIZE)


def test_two_formulas_cannot_share_a_name() -> None:
    def send() -> None: ...

    with pytest.raises(ValueError, match="two formulas"):
        formula(source="somewhere else")(send)
