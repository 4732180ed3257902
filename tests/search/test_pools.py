"""Pairs of pools: on GPUs of their own, over the real links, never worse for more of anything."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from planner import api
from planner.answering import prepare
from planner.core.estimate import Estimate
from planner.core.pools import PoolPair
from planner.core.topology import LinkKind
from planner.core.workload import Workload
from planner.cost.disaggregated import DECODE_SHARE, LINK_SHARE, PREFILL_SHARE
from planner.cost.pool_times import DecodeSide, PrefillSide
from planner.engines.pools import handover_rules
from planner.search.disaggregation import Disaggregation, reasons
from planner.search.load import missed_targets, settled_estimate
from planner.search.pools import PoolSearch
from planner.units import Seconds

FULL = Workload(load="full")


def answer(model: str, machine: str, workload: Workload = FULL, *, engine: str = "vllm", top: int = 3) -> Disaggregation:
    return api.disaggregate(api.load_model(model), api.load_topology(machine), workload, engine=engine, top=top)


def best(model: str, machine: str, workload: Workload = FULL, *, engine: str = "vllm") -> PoolPair:
    return answer(model, machine, workload, engine=engine, top=1).pairs[0].pair


def search(model: str, machine: str, workload: Workload, engine: str) -> PoolSearch:
    prepared = prepare(api.load_model(model), api.load_topology(machine), workload, engine, "throughput")
    return PoolSearch(prepared[1], handover_rules(engine))


MACHINES = [
    ("llama-3.1-8b", "dgx-h100"),
    ("llama-3.1-70b", "dgx-h100"),
    ("llama-3.1-8b", "8x-l40s"),
    ("qwen3-14b", "4x-rtx-3090-bridged"),
    ("qwen3-30b-a3b", "dgx-h100"),
    ("llama-3.1-70b", "2x-dgx-h100"),
    ("qwen3-235b-a22b-fp8", "2x-dgx-h100"),
]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
@pytest.mark.parametrize(("model", "machine"), MACHINES)
def test_pairs_are_whole(model: str, machine: str, engine: str) -> None:
    found = answer(model, machine, Workload(2048, 256, load="full"), engine=engine, top=20)
    hosts = [set(gpus) for gpus in found.topology.gpus_of_host.values()]
    assert found.pairs
    for one in found.pairs:
        pair = one.pair
        prefill, decode = set(pair.prefill.gpus), set(pair.decode.gpus)
        assert not prefill & decode
        assert len(prefill) == pair.prefill.plan.parallelism.gpus
        assert len(decode) == pair.decode.plan.parallelism.gpus
        if len(hosts) > 1:
            assert not any(host & prefill and host & decode for host in hosts)
        assert pair.requests_per_second == pytest.approx(min(pair.limits.values()))
        assert pair.limits[pair.limited_by] == min(pair.limits.values())
        assert pair.requests_per_second <= PREFILL_SHARE * pair.prefill.requests_per_second * (1 + 1e-9)
        assert pair.requests_per_second <= DECODE_SHARE * pair.decode.requests_per_second * (1 + 1e-9)
        assert pair.requests_per_second <= LINK_SHARE * pair.transfer.requests_per_second * (1 + 1e-9)
        assert pair.ttft == pytest.approx(sum(pair.first_token.parts.values()))
        assert pair.serving.in_flight >= pair.requests_per_second * pair.tpot
        assert 1 <= pair.decode.requests <= pair.decode.estimate.max_concurrency
        assert pair.transfer.by_layer <= pair.transfer.exposed <= pair.transfer.time * (1 + 1e-9)
        low, high = pair.uncertainty.ttft
        assert 0 < low < pair.ttft < high
    rates = [one.pair.requests_per_second for one in found.pairs]
    assert rates == sorted(rates, reverse=True)


def test_two_hosts_hand_over_by_their_rails() -> None:
    pair = best("llama-3.1-70b", "2x8xH100-SXM5-80GB@8x400", Workload(4096, 512, load="full"))
    assert set(pair.prefill.gpus) <= set(range(8))
    assert set(pair.decode.gpus) <= set(range(8, 16))
    assert pair.transfer.kinds == ("network",)
    assert "nic" in pair.transfer.link
    assert "(50 GB/s)" in pair.transfer.link


def test_bridged_pairs_are_pools() -> None:
    found = answer("qwen3-14b", "4x-rtx-3090-bridged", top=10)
    first = found.pairs[0].pair
    assert {first.prefill.plan.parallelism.tensor, first.decode.plan.parallelism.tensor} == {2}
    for one in found.pairs:
        for pool in (one.pair.prefill, one.pair.decode):
            for replica in pool.plan.placement:
                assert all(set(group) in ({0, 2}, {1, 3}) for group in replica if len(group) == 2)
    assert {first.prefill.gpus, first.decode.gpus} == {(0, 2), (1, 3)}
    assert first.transfer.kinds == ("PCIe through host memory",)  # no bridge joins the pairs


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize(("model", "machine"), [("qwen3-14b", "4x-rtx-3090-bridged"), ("llama-3.1-8b", "4x-h100-sxm-mesh")])
def test_nothing_better_is_found_on_any_two_sets_of_four_gpus(model: str, machine: str, engine: str) -> None:
    asked = search(model, machine, Workload(2048, 256, load="full"), engine)
    found = asked.best(1).ranked[0].requests_per_second
    tried = 0.0
    for size in range(1, 4):
        for mine in combinations(range(4), size):
            rest = tuple(gpu for gpu in range(4) if gpu not in mine)
            for prefill in asked.sides.fitting("prefill", mine):
                for decode in asked.sides.fitting("decode", rest):
                    assert isinstance(prefill, PrefillSide)
                    assert isinstance(decode, DecodeSide)
                    tried = max(tried, asked.price(prefill, decode))
    assert found == pytest.approx(tried, rel=1e-3)


def test_pools_that_the_links_hold_up_are_put_closer_together() -> None:
    """Pairs of bridged GPUs, and host memory between the pairs: what counts is how many prefill GPUs have a decode GPU beside them."""
    asked = search("qwen3-14b", "8x-h100-nvl-pairs", Workload(2048, 256, load="full"), "vllm")
    found = asked.best(1).ranked[0]
    layouts = found.prefill.plan.parallelism, found.decode.plan.parallelism
    tried = []
    for mine in combinations(range(8), layouts[0].gpus):
        both = asked.sides.both(*layouts, mine)
        if both is not None:
            tried.append(asked.price(*both))
    assert found.requests_per_second == pytest.approx(max(tried))
    assert min(tried) < 0.9 * max(tried)  # it matters


def test_more_gpus_never_serve_less() -> None:
    rates = [
        best("qwen3-8b", f"{count}xH100-SXM5-80GB", Workload(2048, 256, load="full")).requests_per_second for count in range(2, 9)
    ]
    assert rates == sorted(rates)


def test_a_faster_network_never_serves_less() -> None:
    """Long prompts of a model with whole heads, over cards that are slow enough to set the pace."""
    pairs = [
        best("llama-2-7b", f"2x8xH100-SXM5-80GB@1x{rate}", Workload(3900, 16, load="full")) for rate in (1, 10, 25, 100, 400)
    ]
    rates = [pair.requests_per_second for pair in pairs]
    assert rates == sorted(rates)
    assert pairs[0].limited_by == "link"
    assert rates[0] == pytest.approx(LINK_SHARE * pairs[0].transfer.requests_per_second)


def test_targets_are_met_where_they_can_be() -> None:
    free = best("llama-3.1-70b", "dgx-h100", Workload(4096, 512, load="full"))
    for percentile in (None, 90):
        asked = Workload(4096, 512, load="full", ttft_target=Seconds(1.2), tpot_target=Seconds(0.025), percentile=percentile)
        held = best("llama-3.1-70b", "dgx-h100", asked)
        assert held.missed == ()
        assert held.requests_per_second < free.requests_per_second
        assert held.tpot <= 0.025
        first = held.ttft if percentile is None else held.serving.ttft.p90
        assert first <= 1.2 * (1 + 1e-6)
        assert held.serving.within_targets is not None
        assert held.serving.within_targets >= (0.5 if percentile is None else 0.9)


def test_targets_out_of_reach_are_said_to_be_missed() -> None:
    found = answer("llama-3.1-70b", "dgx-h100", Workload(4096, 512, load="full", tpot_target=Seconds(1e-4)), top=1)
    assert found.pairs[0].pair.missed == ("TPOT",)
    assert any("misses TPOT" in warning for warning in found.warnings)


def test_at_a_rate_the_fewest_gpus_keep_up() -> None:
    found = answer("llama-3.1-8b", "8x-l40s", Workload(load="request-rate", request_rate=5.0), top=5)
    gpus = [one.pair.gpus for one in found.pairs]
    assert gpus == sorted(gpus)
    assert gpus[0] == 2
    assert all(one.pair.requests_per_second == 5.0 for one in found.pairs)
    busy = answer("llama-3.1-8b", "8x-l40s", Workload(load="request-rate", request_rate=15.0), top=1)
    assert busy.pairs[0].pair.gpus > 2


def test_a_rate_that_none_keeps_up_with() -> None:
    found = answer("llama-3.1-8b", "2x-l4", Workload(load="request-rate", request_rate=1000.0))
    assert found.pairs == ()
    assert found.gain is None
    assert found.reasons[0] == "no pair of pools keeps up with 1000 requests a second"
    assert "of these machines would keep up" in found.reasons[-1]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_engines_join_what_they_can(engine: str) -> None:
    for one in answer("llama-3.1-8b", "8x-l40s", engine=engine, top=200).pairs:
        prefill, decode = one.pair.prefill.plan.parallelism, one.pair.decode.plan.parallelism
        assert max(prefill.tensor, decode.tensor) % min(prefill.tensor, decode.tensor) == 0
        if engine == "vllm":
            assert prefill.pipeline == decode.pipeline == 1
        if engine == "sglang":
            assert decode.pipeline in {1, prefill.pipeline}


def test_recurrent_states_stay_in_their_ranks() -> None:
    found = answer("nemotron-3-nano-30b-a3b", "dgx-h100", top=50)
    assert found.pairs
    assert all(one.pair.prefill.plan.parallelism.tensor == one.pair.decode.plan.parallelism.tensor for one in found.pairs)


def test_a_model_too_large_for_two_pools_says_what_would_do() -> None:
    found = answer("llama-3.1-70b", "2xRTX-3090")
    assert found.pairs == ()
    assert found.reasons[-1] == "8× RTX-3090 would hold one pool, as TP 8 × PP 1 × DP 1: 16 both"  # vLLM joins no pipelines
    staged = answer("llama-3.1-70b", "2xRTX-3090", engine="tensorrt-llm")
    assert "would hold one pool" in staged.reasons[-1]
    assert "× PP 1 ×" not in staged.reasons[-1]
    halves = answer("deepseek-v3", "8x8xH100-SXM5-80GB@8x400", top=1)
    assert halves.pairs[0].pair.gpus <= 64
    # one pool fits, two do not
    tight = answer("llama-3.1-70b", "3xH100-SXM5-80GB")
    assert tight.pairs == ()
    assert tight.reasons[1:3] == ("a prefill pool takes 2 GPUs at least", "a decode pool takes 2 GPUs at least")
    assert tight.reasons[3] == "together 4: 1 more than there are"


def test_links_that_are_priced_twice_are_named() -> None:
    """All-reduces over PCIe and caches on the same links; behind an NVSwitch nobody meets."""
    told = [line for one in answer("qwen3-32b", "4x-rtx-pro-6000", top=50).pairs for line in one.pair.assumptions]
    assert told
    assert all(line.endswith("what they take from each other there is not in the figures") for line in told)
    assert not any(one.pair.assumptions for one in answer("llama-3.1-70b", "dgx-h100", top=20).pairs)


def test_hosts_that_nothing_joins_are_no_two_pools() -> None:
    topology = api.load_topology("2x8xH100-SXM5-80GB@8x400")
    apart = replace(topology, links=tuple(link for link in topology.links if link.kind is not LinkKind.NETWORK))
    finder, rules = prepare(api.load_model("llama-3.1-8b"), apart, FULL, "vllm", "throughput")[1], handover_rules("vllm")
    found = PoolSearch(finder, rules).best(1)
    assert found.ranked == ()
    assert found.considered
    assert reasons(finder, found, None, rules)[-1] == "no network joins the hosts: no KV cache gets from one to another"


def test_plans_without_pools_meet_the_same_requests() -> None:
    """With targets and no rate they are asked as pools are: by chance, for as many as they serve within the targets."""
    asked = Workload(4096, 512, load="full", ttft_target=Seconds(1.0), tpot_target=Seconds(0.03))
    found = answer("llama-3.1-70b", "2x-dgx-h100", asked, top=1).aggregated
    assert found is not None
    rate = found.estimate.serving.requests_per_second
    assert found.missed(asked) == ()
    kept = replace(asked, load="request-rate", request_rate=rate)
    _, finder, _, _ = prepare(api.load_model("llama-3.1-70b"), api.load_topology("2x-dgx-h100"), kept, "vllm", "throughput")
    same = settled_estimate(finder.pricer, found.plan)
    assert isinstance(same, Estimate)
    assert same.ttft == found.estimate.ttft
    more = replace(kept, request_rate=rate * 1.02)
    beyond = settled_estimate(finder.pricer.under(more), found.plan)
    assert not isinstance(beyond, Estimate) or missed_targets(beyond, more)


def test_it_is_held_against_the_best_plan_without_pools() -> None:
    found = answer("llama-3.1-70b", "dgx-h100", Workload(4096, 512, load="full"))
    alone = api.recommend(found.model, api.load_topology("dgx-h100"), Workload(4096, 512, load="full"), top=1).plans[0]
    assert found.aggregated is not None
    assert found.aggregated.plan == alone.ranked.plan
    assert found.gain == pytest.approx(
        found.pairs[0].pair.requests_per_second / alone.ranked.estimate.serving.requests_per_second - 1
    )


def test_more_of_a_prompt_in_the_cache_is_never_worse() -> None:
    rates = [
        best("llama-3.1-70b", "dgx-h100", Workload(4096, 64, load="full", cached_share=share)).requests_per_second
        for share in (0.0, 0.3, 0.6, 0.9)
    ]
    assert rates == sorted(rates)
    assert rates[-1] > rates[0]
