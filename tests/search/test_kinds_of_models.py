"""Models of every kind, planned from end to end."""

from __future__ import annotations

import pytest

from planner import api
from planner.core.plan import Parallelism
from planner.core.workload import Workload
from planner.engines import engines

KINDS = {
    "deepseek-v3.1-nvfp4": "8xB200-SXM-180GB",
    "glm-5-fp8": "8xB200-SXM-180GB",
    "qwen3.5-27b": "4xL40S",
    "nemotron-h-56b": "8xA100-SXM4-80GB",
    "nemotron-super-49b": "4xH100-SXM5-80GB",
    "gpt-oss-120b": "2xH100-SXM5-80GB",
    "gemma-3-27b": "2xRTX-6000-Ada",
    "llama-4-scout": "8xH100-SXM5-80GB",
    "kimi-k2.5": "8xB200-SXM-180GB",
    "command-r-35b": "2xH100-SXM5-80GB",
    "opt-6.7b": "1xRTX-3090",
}


@pytest.mark.parametrize("engine", sorted(engines()))
@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_is_planned(name: str, engine: str) -> None:
    answer = api.recommend(api.load_model(name), api.load_topology(KINDS[name]), Workload(512, 128, 16), engine=engine)
    assert answer.plans
    for plan in answer.plans:
        estimate = plan.ranked.estimate
        assert 0 < estimate.tpot < 1
        assert estimate.kv_cache_tokens >= 640
        assert estimate.max_concurrency >= 1
        assert estimate.decode.total > 0


def test_a_window_leaves_room_for_more_requests() -> None:
    """gpt-oss: half of the layers keep 128 tokens and a chunk, so long requests take little more than half."""
    topology, workload = api.load_topology("1xH100-SXM5-80GB"), Workload(60_000, 512, 4)
    model = api.load_model("gpt-oss-20b")
    estimate = api.estimate(model, topology, workload, Parallelism()).plans[0].ranked.estimate
    assert estimate.max_concurrency > 1.6 * estimate.kv_cache_tokens / workload.total_tokens


def test_stages_without_attention_do_not_limit_the_cache() -> None:
    """Nemotron-H: the first of 118 layers with attention is the eighth."""
    topology, workload = api.load_topology("8xA100-SXM4-80GB"), Workload(512, 128, 16)
    answer = api.estimate(api.load_model("nemotron-h-56b"), topology, workload, Parallelism(1, 8))
    assert answer.plans[0].ranked.estimate.kv_cache_tokens > 640


def test_a_state_is_what_limits_short_requests() -> None:
    topology, workload = api.load_topology("4xL40S"), Workload(16, 16, 4)
    estimate = api.estimate(api.load_model("qwen3.5-27b"), topology, workload, Parallelism(4)).plans[0].ranked.estimate
    assert estimate.max_concurrency < estimate.kv_cache_tokens / workload.total_tokens / 10
