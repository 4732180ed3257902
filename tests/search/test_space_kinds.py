"""Which tensor degrees are legal for latent and linear attention, shared experts, and formats that engines pad."""

from __future__ import annotations

import pytest

from planner import api
from planner.core.plan import Parallelism
from planner.core.workload import Workload
from planner.engines import engines
from planner.search.space import illegal

WORKLOAD = Workload(512, 128)


def rule(model: str, degrees: Parallelism) -> str | None:
    traits = engines()["vllm"].traits
    found = illegal(degrees, api.load_model(model), WORKLOAD, api.load_gpu("B200-SXM-180GB"), 64, traits)
    return None if found is None else found.rule


@pytest.mark.parametrize(
    ("model", "degrees", "broken"),
    [
        ("deepseek-v3", Parallelism(16), None),  # 128 query heads on one latent: no rule of KV heads
        ("deepseek-v3", Parallelism(3), "attention-heads"),
        ("kimi-k2", Parallelism(64), "quantisation-block"),  # 18,432 / 64 = 288
        ("qwen3.5-27b", Parallelism(4), None),
        ("qwen3.5-27b", Parallelism(5), "attention-heads"),  # 48 value heads
        ("qwen3.5-27b", Parallelism(24), "kv-heads"),  # 16 key heads of the delta nets
        ("nemotron-h-56b", Parallelism(64), None),  # 8 groups are replicated
        ("nemotron-super-49b", Parallelism(8), None),
        ("gpt-oss-120b", Parallelism(8), None),  # 2,880 / 8 = 360 is padded
        ("gpt-oss-120b", Parallelism(7), "attention-heads"),
        ("glm-4.5-air-fp8", Parallelism(8), None),
        ("gemma-3-27b", Parallelism(32), None),
        ("minimax-m2.5", Parallelism(8), "quantisation-block"),  # 1,536 / 8 = 192
        ("minimax-m2.5", Parallelism(8, expert=8), None),
    ],
    ids=str,
)
def test_rules(model: str, degrees: Parallelism, broken: str | None) -> None:
    assert rule(model, degrees) == broken


def test_a_shared_expert_is_split_by_its_own_size() -> None:
    """Qwen1.5-MoE: experts of 1,408 spread over 16 ranks, heads 16, the shared block of 5,632 over them."""
    assert rule("qwen1.5-moe-a2.7b", Parallelism(4, expert=4)) is None
    assert rule("qwen1.5-moe-a2.7b", Parallelism(16)) is None
