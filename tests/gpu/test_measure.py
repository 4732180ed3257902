"""On a host with two NVIDIA GPUs or more, and something to measure with: what is measured can be."""

from __future__ import annotations

import pytest

from planner.core.measured import MeasuredCopies
from planner.readers import benchmarks, live

pytestmark = pytest.mark.gpu


def test_what_is_measured_on_this_host_is_read() -> None:
    gpus = len(live.capture().gpus)
    if gpus < 2:
        pytest.skip(f"{gpus} NVIDIA GPUs here: no link to measure")
    found = benchmarks.measure(gpus, 300)
    if not found.measured and [finding.code for finding in found.findings] == ["measure-unavailable"]:
        pytest.skip("nothing to measure with here")
    assert [finding.message for finding in found.findings if finding.code == "measure-failed"] == []
    for one in found.measured:
        if isinstance(one, MeasuredCopies):
            assert all(1e8 < rate < 4e12 for rate in one.bandwidth.values())
        else:
            assert one.ranks == gpus
            assert all(1e-6 < taken < 60 for _, taken in one.points)
