"""What is no workload is refused by the vocabulary itself, for those who do not come through the command line."""

from __future__ import annotations

import pytest

from planner.core.workload import Workload
from planner.errors import BadInput
from planner.units import Seconds


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1)])
def test_counts_are_one_or_more(counts: tuple[int, int, int]) -> None:
    with pytest.raises(BadInput, match="1 or more") as caught:
        Workload(*counts)
    assert caught.value.path == ("input_tokens", "output_tokens", "concurrency")[counts.index(min(counts))]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_targets_are_positive_times(value: float) -> None:
    with pytest.raises(BadInput, match="positive time"):
        Workload(ttft_target=Seconds(value))
    with pytest.raises(BadInput, match="positive time"):
        Workload(tpot_target=Seconds(value))


def test_what_a_request_holds() -> None:
    workload = Workload(1000, 200, 4)
    assert (workload.total_tokens, workload.mean_context) == (1200, 1100)
