"""Curves of measured times: noise is evened out, what sticks out is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured_box import box
from planner.core.measured import EAGER, MeasuredCurve
from planner.cost.isotonic import STICKS_OUT, without_outliers
from planner.measuring.fitting import curves_of
from planner.measuring.placed import Placed
from planner.units import Bytes, Seconds

SIZES = tuple(Bytes(2.0**power) for power in range(6, 30, 2))
TIMES = {size: 12e-6 + size / 10e9 for size in SIZES}


def curve_of(times: dict[Bytes, float], stack: str = "nccl") -> MeasuredCurve:
    points = tuple((size, Seconds(time)) for size, time in times.items())
    table = Placed("all_reduce", (0, 1), stack, points, "pair.txt", "pair.txt, line 1", ("",) * len(points))
    (curve,), findings = curves_of([table], box())
    assert findings == []
    return curve


@pytest.mark.parametrize(("place", "factor"), [(0, 20.0), (1, 20.0), (4, 20.0), (9, 20.0), (4, 0.01), (9, 0.01), (10, 0.01)])
def test_one_time_that_sticks_out_leaves_its_neighbours_as_they_were_measured(place: int, factor: float) -> None:
    out = SIZES[place]
    curve = curve_of({**TIMES, out: factor * TIMES[out]})
    assert [size for size, _ in curve.points] == [size for size in SIZES if size != out]
    for size, time in curve.points:
        assert time == pytest.approx(TIMES[size], rel=1e-4)
    assert curve.source == f"pair.txt without {out:.0f} B"


def test_two_neighbours_that_stick_out_are_both_left_out() -> None:
    out = {SIZES[3]: 300e-6, SIZES[4]: 310e-6}
    assert [size for size, _ in curve_of({**TIMES, **out}).points] == [size for size in SIZES if size not in out]


def test_noise_is_evened_out_and_no_row_left_out() -> None:
    curve = curve_of({size: time * (1.15 if number % 2 else 1.0) for number, (size, time) in enumerate(TIMES.items())})
    times = [time for _, time in curve.points]
    assert len(times) == len(TIMES)
    assert times == sorted(times)
    assert curve.source == "pair.txt"


def test_launched_one_by_one_every_size_stays() -> None:
    curve = curve_of({**TIMES, SIZES[3]: 900e-6}, "nccl" + EAGER)
    assert tuple(size for size, _ in curve.points) == SIZES
    assert max(time for _, time in curve.points[:5]) < 100e-6


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30))
def test_some_rows_stay_and_all_of_those_that_rise(times: list[float]) -> None:
    rows = list(enumerate(times))
    kept = without_outliers(rows)
    assert kept
    assert set(kept) <= set(rows)
    if max(times) < STICKS_OUT * min(times):
        assert kept == rows
    rising = list(enumerate(sorted(times)))
    assert without_outliers(rising) == rising
