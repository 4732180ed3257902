"""Ranks that share out the KV cache of a request by tokens (decode context parallelism)."""

from __future__ import annotations

import pytest

from planner import api
from planner.core.estimate import Estimate
from planner.core.plan import Infeasible, Parallelism
from planner.core.workload import Workload
from planner.cost.context_times import chunks_behind
from planner.cost.exchanges import context_exchange, context_messages
from planner.cost.layer import cut
from planner.search.rank import Ranked

MACHINE = "8xH200-SXM5-141GB"


def priced(
    model: str, degrees: Parallelism, machine: str = MACHINE, engine: str = "vllm", workload: Workload | None = None
) -> Ranked | Infeasible:
    asked = workload or Workload(8192, 256, 64)
    return api.priced(api.load_model(model), api.load_topology(machine), asked, degrees, engine)


def estimate(model: str, ranks: int) -> Estimate:
    outcome = priced(model, Parallelism(8, expert=8, decode_context=ranks))
    assert isinstance(outcome, Ranked)
    return outcome.estimate


@pytest.mark.parametrize(("model", "most"), [("deepseek-v3", 8), ("qwen3-235b-a22b-fp8", 2)])
def test_the_cache_holds_as_many_times_the_tokens_as_ranks_share_it(model: str, most: int) -> None:
    alone, shared = estimate(model, 1), estimate(model, most)
    assert shared.memory == alone.memory
    assert shared.kv_cache_tokens == pytest.approx(most * alone.kv_cache_tokens, rel=1e-3)
    assert shared.max_concurrency == pytest.approx(most * alone.max_concurrency, rel=0.02)


def test_it_costs_an_exchange_in_every_layer_and_saves_reading() -> None:
    alone, shared = estimate("qwen3-235b-a22b-fp8", 1).decode.parts, estimate("qwen3-235b-a22b-fp8", 2).decode.parts
    assert "context_exchange" not in alone
    assert shared["context_exchange"] > 0
    assert shared["attention"] < alone["attention"]
    assert {part: shared[part] for part in ("linear", "experts", "head")} == {
        part: alone[part] for part in ("linear", "experts", "head")
    }


def test_prompts_of_one_chunk_are_not_touched_and_the_error_bar_is_wider() -> None:
    alone, shared = estimate("deepseek-v3", 1), estimate("deepseek-v3", 8)
    assert shared.prefill.parts == alone.prefill.parts
    assert shared.uncertainty.tpot[1] / shared.tpot > alone.uncertainty.tpot[1] / alone.tpot
    assert "decode context parallelism is not validated" in shared.uncertainty.basis


@pytest.mark.parametrize(("model", "ranks"), [("deepseek-v3", 8), ("qwen3-235b-a22b", 2)])
def test_chunks_that_follow_cached_tokens_are_exchanged_for(model: str, ranks: int) -> None:
    def prefill(workload: Workload) -> dict[str, float]:
        outcome = priced(model, Parallelism(8, decode_context=ranks), workload=workload)
        assert isinstance(outcome, Ranked)
        return dict(outcome.estimate.prefill.parts)

    several, cached = prefill(Workload(30000, 256, 16)), prefill(Workload(8192, 256, 16, cached_share=0.5))
    assert several["context_exchange"] > 0
    assert cached["context_exchange"] > 0
    assert "context_exchange" not in prefill(Workload(8192, 256, 16))


@pytest.mark.parametrize(
    ("tokens", "most", "prompts", "prefix"), [(9000, 2048, 1, 0), (9000, 2048, 1, 700), (1500, 2048, 256, 0), (5000, 512, 64, 0)]
)
def test_chunks_and_the_tokens_before_them_are_counted(tokens: int, most: int, prompts: int, prefix: int) -> None:
    chunks = cut(tokens, most, prompts, prefix)
    starts = [number * chunks.size % tokens + prefix for number in range(chunks.count)]
    number, mean = chunks_behind(chunks)
    assert number == pytest.approx(sum(start > 0 for start in starts), rel=0.05)
    assert number * mean == pytest.approx(sum(starts), rel=0.05)


def test_sglang_shares_out_latents_with_kernels_that_can() -> None:
    answer = api.estimate(
        api.load_model("deepseek-v3"), api.load_topology(MACHINE), Workload(), Parallelism(8, decode_context=8), engine="sglang"
    )
    words = answer.plans[0].commands[0]
    assert "--dcp-size 8 --attention-backend flashinfer" in words
    assert answer.plans[0].ranked.estimate.decode.parts["context_exchange"] > 0


def test_a_rank_sends_all_but_its_own_share_of_what_the_ranks_hold_together() -> None:
    held, sent = context_messages(32, 128, 576, 512, 2), context_exchange(32, 128, 576, 512, 2, 4)
    assert sent.queries == pytest.approx(held.queries * 3 / 4)
    assert sent.outputs == pytest.approx(held.outputs * 3 / 4)
    assert sent.sums == pytest.approx(held.sums * 3 / 4)


@pytest.mark.parametrize(
    ("model", "degrees", "engine", "said"),
    [
        ("deepseek-v3", Parallelism(8, decode_context=3), "vllm", "TP 8 is not divisible by DCP 3"),
        ("qwen3-235b-a22b-fp8", Parallelism(8, expert=8, decode_context=4), "vllm", "holds 4 KV heads 2 times"),
        ("llama-3.1-8b", Parallelism(8, decode_context=2), "vllm", "holds 8 KV heads 1 times"),
        ("gemma-3-27b", Parallelism(8, decode_context=2), "vllm", "no windows"),
        ("deepseek-v3.2", Parallelism(8, decode_context=2), "vllm", "no indexer"),
        ("qwen3-30b-a3b", Parallelism(8, expert=8, decode_context=2), "sglang", "for latent attention alone: take vllm"),
        ("deepseek-v3.1-nvfp4", Parallelism(8, decode_context=2), "sglang", "a cache of 16 bits a number, this one has 8"),
        ("deepseek-v3", Parallelism(8, decode_context=2), "tgi", "tgi is not planned with decode context parallelism"),
    ],
)
def test_what_cannot_be_shared_out_is_refused_by_rule(model: str, degrees: Parallelism, engine: str, said: str) -> None:
    outcome = priced(model, degrees, "dgx-b200", engine)
    assert isinstance(outcome, Infeasible)
    assert outcome.rule == "decode-context"
    assert said in outcome.message
