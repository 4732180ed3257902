"""Tables of single kernels against what is stated of them. Skipped where the measurements are not beside the project.

The constants were fitted on these rows; the errors that are held here are of machines that were left out (scripts/fit_kernels.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from planner import api
from planner.documents.calibration import load_calibration

OTHER_VENDORS = {"b60"}
"""Machines whose kernels are not CUDA's: nothing was fitted on them."""
QUANTISED = ("fp8@", "fp8-block", "nvfp4@")


@pytest.fixture(scope="module")
def fitting(root: Path) -> Iterator[Any]:
    """The script that fits kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "scripts"))
        yield importlib.import_module("fit_kernels")


def test_fitting_again_gives_the_constants_that_ship(
    shared: Path, root: Path, fitting: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = (root / "planner" / "data" / "calibration" / "kernels.yaml").read_text("utf-8")
    date = next(line for line in shipped.splitlines() if line.startswith("fitted:")).split('"')[1]
    fitting.write(fitting.sections(shared / "data"), date)
    assert capsys.readouterr().out == shipped


def test_products_on_a_machine_left_out() -> None:
    """The project's own targets: 12 % in 16 bit, 20 % in fewer, the mean over machines."""
    errors = {name: fit.error for name, fit in load_calibration().gemm.items()}
    assert errors["bf16"] is not None
    assert errors["bf16"] <= 0.12
    quantised = [error for name, error in errors.items() if name.startswith(QUANTISED)]
    assert len(quantised) == 7
    assert all(error is not None and error <= 0.20 for error in quantised)


@pytest.mark.parametrize(("phase", "most"), [("decode", 0.17), ("prefill", 0.15)])
def test_attention_on_a_machine_left_out(shared: Path, fitting: Any, phase: str, most: float) -> None:
    """Prompts at the project's own target of 15 %. Tokens miss theirs, 12 %, see the README: this guards against getting worse."""
    ((form, rows),) = [
        (form, rows)
        for title, forms in fitting.sections(shared / "data")
        if title == "attention"
        for name, form, rows in forms
        if name == phase
    ]
    each = fitting.errors(fitting.ratios_left_out(form, rows))
    assert len(each) == 5
    assert fmean(each.values()) <= most


def test_experts_on_a_machine_left_out() -> None:
    """Guards against getting worse."""
    experts = {name: fit.error or 1.0 for name, fit in load_calibration().moe.items()}
    assert max(experts[name] for name in ("bf16", "fp8", "nvfp4")) <= 0.25
    assert max(experts.values()) <= 0.37


@pytest.mark.parametrize("table", ["gemm.csv", "attention.csv", "moe.csv"])
def test_nine_of_ten_kernels_lie_in_their_bars(shared: Path, table: str) -> None:
    found = api.validate(shared / "data" / table)
    figures = [one.figures["time_us"] for one in found.answers if one.figures and one.cells["system"] not in OTHER_VENDORS]
    assert len(figures) > 11_000
    inside = sum(one.low <= one.measured <= one.high for one in figures if one.measured is not None)
    assert inside >= 0.88 * len(figures)
