"""When the search ranks plans whose tensor ranks share out the KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from planner import api
from planner.answering import prepare
from planner.core.engine import EngineTraits
from planner.core.plan import Parallelism
from planner.core.workload import Objective, Workload
from planner.engines import find_engine
from planner.render import json as documents
from planner.search import rank, reasons
from planner.search.rank import UNMEASURED, Ranked, Search
from planner.search.space import shared_caches
from planner.units import Seconds

LONG = Workload(30_000, 1000, load="full")
TIGHT = Workload(150_000, 1000, concurrency=4)


def search(model: str, machine: str, workload: Workload, objective: Objective = "throughput", engine: str = "vllm") -> Search:
    return prepare(api.load_model(model), api.load_topology(machine), workload, engine, objective)[1]


def ranked(model: str, machine: str, workload: Workload, objective: Objective = "throughput") -> tuple[Ranked, ...]:
    return search(model, machine, workload, objective).everything().ranked


def shared(plans: Sequence[Ranked]) -> list[Ranked]:
    return [one for one in plans if one.plan.parallelism.decode_context > 1]


def plain(one: Ranked, plans: Sequence[Ranked]) -> Ranked | None:
    """The same degrees without sharing, where they are among the plans."""
    degrees = replace(one.plan.parallelism, decode_context=1)
    return next((other for other in plans if other.plan.parallelism == degrees), None)


def degrees(model: str, tensor: int, traits: EngineTraits) -> list[int]:
    return [one.decode_context for one in shared_caches(Parallelism(tensor), api.load_model(model), traits)]


def test_every_number_of_ranks_that_may_share_is_a_candidate() -> None:
    vllm, sglang, tgi = (find_engine(name).traits for name in ("vllm", "sglang", "tgi"))
    assert degrees("deepseek-v3", 8, vllm) == degrees("deepseek-v3", 8, sglang) == [2, 4, 8]
    assert degrees("qwen3-235b-a22b", 8, vllm) == [2]
    assert not degrees("qwen3-235b-a22b", 4, vllm)
    assert not degrees("llama-3.1-70b", 8, vllm)
    assert not degrees("gemma-3-27b", 8, vllm)
    assert not degrees("qwen3-235b-a22b", 8, sglang)
    assert not degrees("deepseek-v3", 8, tgi)


def test_long_prompts_of_a_latent_are_served_better_with_a_shared_cache() -> None:
    plans = ranked("deepseek-v3", "dgx-h200", LONG)
    twins = [(one, other) for one in shared(plans) if (other := plain(one, plans)) is not None]
    assert twins
    for one, other in twins:
        assert plans.index(one) < plans.index(other)
        assert one.estimate.max_concurrency > other.estimate.max_concurrency
    assert max(one.estimate.output_tokens_per_second / other.estimate.output_tokens_per_second for one, other in twins) > 1.2


@pytest.mark.parametrize("machine", ["dgx-h200", "2x-dgx-h100"])
@pytest.mark.parametrize(
    ("objective", "tokens"), [("throughput", 1024), ("throughput", 8192), ("latency", 1024), ("latency", 30000)]
)
def test_it_is_not_ranked_before_what_it_hardly_beats(machine: str, objective: Objective, tokens: int) -> None:
    workload = Workload(tokens, 256, load="full")
    plans = ranked("deepseek-v3", machine, workload, objective)
    for place, one in enumerate(plans):
        for behind in plans[place + 1 :]:
            if one.plan.parallelism.decode_context > 1 and behind.plan.parallelism.decode_context == 1:
                if objective == "throughput":
                    best = (1 + UNMEASURED) * behind.estimate.output_tokens_per_second
                    assert one.estimate.output_tokens_per_second >= best
                else:
                    assert (1 + UNMEASURED) * one.latency(workload) <= behind.latency(workload)


def test_a_plan_that_wins_by_less_than_is_held_against_it_stands_behind_and_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rank, reasons):
        monkeypatch.setattr(module, "UNMEASURED", 3.0)
    model, topology = api.load_model("deepseek-v2-lite"), api.load_topology("2xL4")
    answer = api.recommend(model, topology, TIGHT, top=9)
    plans = [plan.ranked for plan in answer.plans]
    behind = next(place for place, one in enumerate(plans) if one.plan.parallelism.decode_context > 1)
    assert behind > 0
    assert plans[behind].estimate.output_tokens_per_second > plans[0].estimate.output_tokens_per_second
    assert "within the 300 % held against an exchange that is not measured" in answer.plans[behind].reasons[0]


def test_those_that_cannot_win_are_left_out() -> None:
    few = ranked("deepseek-v3", "dgx-h200", Workload(1024, 256, concurrency=8))
    assert not shared(few)


def test_what_a_cache_cannot_hold_alone_it_may_hold_shared_out() -> None:
    answer = search("deepseek-v2-lite", "2xL4", TIGHT).everything()
    assert any(one.parallelism == Parallelism(2) and one.rule == "memory" for one in answer.infeasible)
    assert any(one.plan.parallelism == Parallelism(2, decode_context=2) for one in answer.ranked)
    assert not [one for one in answer.ranked if one.plan.parallelism == Parallelism(2)]


@pytest.mark.parametrize(
    "workload",
    [
        Workload(30000, 1000, load="full", tpot_target=Seconds(0.12)),
        Workload(30000, 1000, load="request-rate", request_rate=0.5),
        Workload(30000, 1000, load="request-rate", request_rate=0.1),
    ],
)
def test_leaving_out_loses_no_winner(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ranked("deepseek-v3", "dgx-h200", workload)
    monkeypatch.setattr(Search, "_may_win", lambda *_: True)
    assert [one.plan for one in quick] == [one.plan for one in ranked("deepseek-v3", "dgx-h200", workload)]


def test_an_answer_with_a_shared_cache_is_written_down() -> None:
    answer = api.recommend(api.load_model("deepseek-v2-lite"), api.load_topology("2xL4"), TIGHT, top=1)
    document = documents.recommendation(answer)
    ranks = answer.plans[0].ranked.plan.parallelism.decode_context
    assert document["plans"][0]["parallelism"]["decode_context_parallel_size"] == ranks > 1
    assert f"--decode-context-parallel-size {ranks}" in answer.plans[0].commands[0]
    assert "sharing out the cache takes" in answer.reasons[0]
