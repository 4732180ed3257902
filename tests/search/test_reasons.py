"""Why a plan ranks first, in words that hold for its layout."""

from __future__ import annotations

from planner import api
from planner.core.plan import Parallelism
from planner.core.workload import Workload


def why(model: str, machine: str, degrees: Parallelism) -> str:
    answer = api.estimate(api.load_model(model), api.load_topology(machine), Workload(), degrees)
    return answer.reasons[0]


def test_stages_of_one_gpu_do_no_all_reduces() -> None:
    assert "no all-reduces; stages send over NVLink" in why("llama-3.1-8b", "dgx-h100", Parallelism(1, 2))
    assert "all-reduces take" in why("llama-3.1-8b", "dgx-h100", Parallelism(2, 2))


def test_replicas_that_share_experts_wait_for_each_other() -> None:
    found = why("deepseek-v3", "dgx-h200", Parallelism(1, 1, 8, 8))
    assert "sending tokens to their experts and back takes" in found
    assert "no GPU waits" in why("llama-3.1-8b", "dgx-h100", Parallelism(1, 1, 8))
