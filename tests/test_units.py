from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import BadInput
from planner.units import Dimension, parse_bandwidth, parse_quantity, parse_size, parse_time, write_quantity


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("450 GB/s", "bandwidth", 450e9),
        ("450GB/s", "bandwidth", 450e9),
        ("400 Gb/s", "bandwidth", 50e9),
        ("80 GiB", "size", 80 * 2**30),
        ("80 GB", "size", 80e9),
        ("81559 MiB", "size", 81559 * 2**20),
        ("2 us", "time", 2e-6),
        ("2 µs", "time", 2e-6),
        ("989.4 TFLOP/s", "compute", 989.4e12),
        ("1978.9 TOP/s", "compute", 1978.9e12),
        ("1.98 GHz", "clock", 1.98e9),
        ("1410 MHz", "clock", 1.41e9),
        ("1e3 B", "size", 1000.0),
    ],
)
def test_a_quantity_is_read_in_si(text: str, dimension: Dimension, value: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "value", [450, 450.0, "450", "", "GB/s", "450 GB", "450 furlong/s", "-1 GB/s", "nan GB/s", "inf GB/s", True, None, [1]]
)
def test_anything_but_a_number_with_a_unit_of_bandwidth_is_refused_with_a_hint(value: object) -> None:
    with pytest.raises(BadInput) as refusal:
        parse_bandwidth(value, path="$.links[3].bandwidth")
    assert "450 GB/s" in refusal.value.hint
    assert str(refusal.value).startswith("$.links[3].bandwidth: ")


def test_a_bare_number_says_that_the_unit_is_missing() -> None:
    with pytest.raises(BadInput, match="no unit in 450"):
        parse_bandwidth(450)
    with pytest.raises(BadInput, match="no unit"):
        parse_time("2")


@given(st.integers(min_value=1, max_value=2**50))
def test_a_written_size_reads_back_the_same(size: int) -> None:
    assert int(parse_size(write_quantity(float(size), "size"))) == size


@given(st.floats(min_value=1, max_value=1e15, allow_nan=False))
def test_a_written_bandwidth_reads_back_the_same(rate: float) -> None:
    again = parse_bandwidth(write_quantity(rate, "bandwidth"))
    assert math.isclose(again, rate, rel_tol=0, abs_tol=0)
