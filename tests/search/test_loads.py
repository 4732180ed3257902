"""How many requests are in flight: as many as fit, as targets allow, as a rate brings about, or one batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import api
from planner.core.estimate import Estimate
from planner.core.plan import Infeasible, Parallelism
from planner.core.workload import Workload
from planner.engines.sglang import memory_fraction
from planner.search.load import chances, fewest_in_flight, missed_targets
from planner.search.rank import Ranked
from planner.search.recommendation import Recommendation
from planner.units import Seconds

MODEL, MACHINE = api.load_model("llama-3.1-70b"), api.load_topology("dgx-h100")
FULL = Workload(load="full")
LAYOUTS = [Parallelism(8), Parallelism(4, 2), Parallelism(4, 1, 2), Parallelism(2, 4)]


def asked(workload: Workload, degrees: Parallelism) -> Recommendation:
    return api.estimate(MODEL, MACHINE, workload, degrees)


def priced(workload: Workload, degrees: Parallelism = LAYOUTS[0]) -> Estimate:
    (plan,) = asked(workload, degrees).plans
    return plan.ranked.estimate


def at_rate(rate: float, **more: object) -> Workload:
    return Workload(load="request-rate", request_rate=rate, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("degrees", LAYOUTS, ids=str)
def test_a_full_machine_has_in_flight_what_memory_and_engine_take(degrees: Parallelism) -> None:
    (plan,) = asked(FULL, degrees).plans
    estimate, limits = plan.ranked.estimate, plan.ranked.plan.limits
    each = min(estimate.max_concurrency, limits.max_sequences)
    assert estimate.serving.in_flight == pytest.approx(each * degrees.data)
    same = priced(Workload(concurrency=each * degrees.data), degrees)
    assert same.output_tokens_per_second == pytest.approx(estimate.output_tokens_per_second)
    assert estimate.output_tokens_per_second > 1.5 * priced(Workload(), degrees).output_tokens_per_second
    assert not plan.assumptions  # nobody waits


@pytest.mark.parametrize("percentile", [None, 90, 99])
@pytest.mark.parametrize("degrees", LAYOUTS[:3], ids=str)
def test_targets_are_met_by_as_many_as_can_be(degrees: Parallelism, percentile: int | None) -> None:
    wanted = replace(FULL, tpot_target=Seconds(0.04), ttft_target=Seconds(1.0), percentile=percentile)
    estimate = priced(wanted, degrees)
    assert missed_targets(estimate, wanted) == ()
    each = round(estimate.serving.in_flight / degrees.data)
    more = priced(replace(wanted, load="concurrency", concurrency=(each + 1) * degrees.data), degrees)
    assert missed_targets(more, wanted) != ()
    share = estimate.serving.within_targets
    assert share is not None
    assert share >= (percentile or 0) / 100  # of requests that meet both
    assert estimate.serving.goodput == pytest.approx(share * estimate.serving.requests_per_second)


def test_where_no_load_meets_the_targets_the_least_is_shown() -> None:
    wanted = replace(FULL, tpot_target=Seconds(1e-4))
    answer = asked(wanted, Parallelism(4, 1, 2))
    (plan,) = answer.plans
    assert plan.ranked.missed(wanted) == ("TPOT",)
    assert plan.ranked.estimate.serving.in_flight == pytest.approx(2)
    assert any("no plan meets the targets" in warning for warning in answer.warnings)


@pytest.mark.parametrize("degrees", LAYOUTS, ids=str)
def test_a_rate_is_served_or_refused_with_what_would_be(degrees: Parallelism) -> None:
    most = priced(FULL, degrees).serving.requests_per_second
    before = Seconds(0.0)
    for share in (0.1, 0.5, 0.9):
        estimate = priced(at_rate(share * most), degrees)
        assert estimate.serving.requests_per_second == pytest.approx(share * most)
        assert estimate.output_tokens_per_second == pytest.approx(share * most * 256)
        assert estimate.serving.in_flight == pytest.approx(share * most * estimate.latency(257), rel=0.01)
        assert estimate.ttft > before
        before = estimate.ttft
    answer = asked(at_rate(1.05 * most), degrees)
    (refused,) = answer.infeasible
    assert (refused.rule, refused.unit) == ("request-rate", "requests/s")
    assert refused.need == pytest.approx(1.05 * most)
    assert refused.have == pytest.approx(most)
    assert answer.plans == ()


def test_at_a_rate_the_fewest_gpus_that_keep_up_come_first_and_the_fastest_for_latency() -> None:
    slow = api.recommend(MODEL, MACHINE, at_rate(3.0), top=100)
    gpus = [one.ranked.plan.parallelism.gpus for one in slow.plans]
    assert gpus == sorted(gpus)
    fast = api.recommend(MODEL, MACHINE, at_rate(3.0), top=100, objective="latency")
    lasting = [one.ranked.latency(fast.workload) for one in fast.plans]
    assert lasting == sorted(lasting)
    assert fast.plans[0].ranked.plan.parallelism.gpus > gpus[0]


@given(st.floats(0.01, 20), st.floats(0, 0.2), st.floats(0, 1e-4), st.integers(1, 500), st.floats(0.001, 0.999))
def test_the_fewest_that_keep_up_are_those_that_counting_finds(
    alone: float, beside: float, crowded: float, most: int, share: float
) -> None:
    """In few questions, none of them twice; one among n takes ``alone`` + ``beside`` n + ``crowded`` n²."""
    questions: list[int] = []

    def answered(number: int) -> float:
        questions.append(number)
        return number / (alone + beside * number + crowded * number**2)

    most = max(range(1, most + 1), key=answered)
    by_most = answered(most)
    counted = next(number for number in range(1, most + 1) if answered(number) >= share * by_most)
    questions.clear()
    assert fewest_in_flight(answered, share * by_most, most, by_most) == counted
    assert len(questions) == len(set(questions)) <= 16


def test_what_no_plan_keeps_up_with_says_how_many_machines_would() -> None:
    answer = api.recommend(MODEL, MACHINE, at_rate(100.0))
    assert answer.plans == ()
    most = max(one.have for one in answer.infeasible if one.rule == "request-rate")
    words = " ".join(answer.reasons)
    assert f"{-(-100 // most):.0f} of these machines would keep up" in words


def test_what_is_fixed_is_priced_at_the_load_it_settles_at() -> None:
    """A plan that is kept is judged for its own load, not for that of another."""
    from planner.answering import prepare
    from planner.search.load import settled_estimate

    for workload in (FULL, at_rate(6.0), replace(FULL, tpot_target=Seconds(0.03))):
        found = api.estimate(MODEL, MACHINE, workload, Parallelism(4)).plans[0].ranked
        _, search, _, _ = prepare(MODEL, MACHINE, workload, "vllm", "throughput")
        again = settled_estimate(search.pricer, replace(found.plan, limits=replace(found.plan.limits, max_model_tokens=0)))
        assert isinstance(again, Estimate)
        assert again.tpot == pytest.approx(found.estimate.tpot)
        assert again.serving.in_flight == pytest.approx(found.estimate.serving.in_flight)


def test_a_batch_starts_and_ends_together() -> None:
    for degrees in LAYOUTS:
        estimate = priced(Workload(concurrency=64, load="batch"), degrees)
        assert estimate.output_tokens_per_second * estimate.latency(256) == pytest.approx(64 * 256)
        assert estimate.serving.ttft.p99 == estimate.serving.ttft.p50
        assert estimate.tpot == pytest.approx(estimate.decode.total)


def test_a_batch_keeps_one_stage_busy_at_a_time() -> None:
    """Four A100 joined by NVLink, 7B, 64 at once: measured were 6,845 tokens a second with TP 4, 3,255 with TP 2 x PP 2, 1,420 with
    PP 4 (LLM-Inference-Bench, TensorRT-LLM; in and out counted): by 2.10 and 2.29 from one to the next.
    """
    model, machine = api.load_model("llama-2-7b"), api.load_topology("4xA100-SXM4-40GB:nvlink-mesh")
    workload = Workload(1024, 1024, 64, load="batch")
    rates = []
    for degrees in (Parallelism(4), Parallelism(2, 2), Parallelism(1, 4)):
        (plan,) = api.estimate(model, machine, workload, degrees, engine="tensorrt-llm").plans
        rates.append(plan.ranked.estimate.output_tokens_per_second)
    assert rates[0] / rates[1] == pytest.approx(6845 / 3255, rel=0.25)
    assert rates[1] / rates[2] == pytest.approx(3255 / 1420, rel=0.25)


def test_a_batch_that_does_not_fit_goes_in_turns() -> None:
    room = priced(Workload(concurrency=5000, load="batch")).max_concurrency
    one, two = (priced(Workload(concurrency=count, load="batch")) for count in (room, 2 * room))
    assert two.output_tokens_per_second == pytest.approx(one.output_tokens_per_second, rel=0.01)
    assert two.ttft == pytest.approx(one.ttft + one.latency(256) / 2, rel=0.05)  # the mean of both turns
    count = room + room // 10
    more = priced(Workload(concurrency=count, load="batch"))
    together = count * 256 / more.output_tokens_per_second
    assert 1.1 * one.latency(256) < together < 1.9 * one.latency(256)  # a turn of a few, with shorter steps


@pytest.mark.parametrize(
    ("model", "machine"), [("llama-3.1-8b", "1xL4"), ("qwen2.5-7b", "1xRTX-4090"), ("llama-3.1-70b", "2xH100-SXM5-80GB")]
)
def test_requests_that_find_no_room_take_none(model: str, machine: str) -> None:
    """They wait outside of the GPUs: more of them serve no less, and make nothing unfit."""
    served = []
    for waiting in (128, 256, 1024, 2000, 8192):
        (plan,) = api.recommend(api.load_model(model), api.load_topology(machine), Workload(concurrency=waiting), top=1).plans
        estimate = plan.ranked.estimate
        served.append((estimate.max_concurrency, round(estimate.output_tokens_per_second, 6)))
        assert plan.ranked.plan.limits.max_sequences <= max(1024, estimate.max_concurrency)
    assert served == sorted(served)


@pytest.mark.parametrize("output", [1, 2, 4, 16])
@pytest.mark.parametrize("machine", ["1xH100-SXM5-80GB", "1xL40S"])
def test_no_more_prompts_are_answered_than_can_be_computed(machine: str, output: int) -> None:
    model, topology = api.load_model("llama-3.1-8b"), api.load_topology(machine)
    (gpu,) = (api.load_gpu(name) for name in topology.hardware)
    each = 2 * model.active_parameters * 1024 / gpu.half_precision
    for load in (
        Workload(1024, output, 4),
        Workload(1024, output, 32),
        Workload(1024, output, 512),
        Workload(1024, output, load="full"),
    ):
        (plan,) = api.estimate(model, topology, load, Parallelism(1)).plans
        assert plan.ranked.estimate.serving.requests_per_second < 0.9 / each
        assert (
            plan.maximum is None or plan.maximum.output_tokens_per_second >= 0.999 * plan.ranked.estimate.output_tokens_per_second
        )


@pytest.mark.parametrize("output", [1, 2, 4, 64, 256])
def test_who_keeps_up_with_a_rate_answers_as_many_as_come(output: int) -> None:
    model, topology = api.load_model("llama-3.1-8b"), api.load_topology("1xH100-SXM5-80GB")
    for rate in (5.0, 15.0, 19.0):
        (plan,) = api.estimate(model, topology, replace(at_rate(rate), output_tokens=output), Parallelism(1)).plans
        assert plan.ranked.estimate.serving.requests_per_second == pytest.approx(rate)
    refused = api.estimate(model, topology, replace(at_rate(500.0), output_tokens=output), Parallelism(1))
    assert not refused.plans


def test_one_token_has_no_time_between_tokens() -> None:
    (plan,) = api.estimate(MODEL, MACHINE, Workload(1024, 1, 64), Parallelism(8)).plans
    estimate = plan.ranked.estimate
    assert estimate.tpot == pytest.approx(estimate.decode.total)


@pytest.mark.parametrize("name", ["llama-3.1-70b", "gemma-3-27b", "deepseek-v3", "qwen3-30b-a3b"])
def test_what_the_prefix_cache_holds_is_not_computed(name: str) -> None:
    model, machine = api.load_model(name), api.load_topology("dgx-h200")
    found = []
    for share in (0.0, 0.5, 0.9):
        outcome = api.priced(model, machine, Workload(8192, 256, 8, cached_share=share), Parallelism(8), "vllm")
        assert isinstance(outcome, Ranked)
        found.append(outcome.estimate)
    none, half, most = found
    assert none.decode.total == pytest.approx(half.decode.total) == pytest.approx(most.decode.total)
    assert none.kv_cache_tokens == half.kv_cache_tokens == most.kv_cache_tokens
    assert most.prefill.total < half.prefill.total < none.prefill.total
    assert half.prefill.total > 0.4 * none.prefill.total  # attention still reads what is cached
    assert most.ttft < half.ttft < none.ttft
    assert most.tpot < half.tpot < none.tpot


@pytest.mark.parametrize("workload", [Workload(), FULL, at_rate(5.0), at_rate(12.0), Workload(concurrency=600)], ids=str)
@pytest.mark.parametrize("degrees", LAYOUTS[:3], ids=str)
def test_percentiles_are_in_order_and_around_the_mean(workload: Workload, degrees: Parallelism) -> None:
    estimate = priced(workload, degrees)
    serving = estimate.serving
    for times in (serving.ttft, serving.tpot, serving.itl):
        assert times.p50 <= times.p90 <= times.p99
    assert serving.ttft.p50 <= estimate.ttft * 1.001
    assert serving.ttft.p99 >= estimate.ttft
    assert serving.tpot.p50 == pytest.approx(estimate.tpot)
    assert serving.itl.p50 >= estimate.decode.total
    assert serving.itl.p99 > estimate.tpot
    assert serving.within_targets is None


def test_the_share_within_targets_rises_with_the_targets() -> None:
    shares = []
    for target in (0.05, 0.1, 0.15, 0.2, 0.5):
        share = priced(at_rate(8.0, ttft_target=Seconds(target), tpot_target=Seconds(0.02))).serving.within_targets
        assert share is not None
        shares.append(share)
    assert shares == sorted(shares)
    assert shares[0] < 0.7
    assert shares[-1] > 0.7


def test_two_that_cannot_be_compared_are_refused() -> None:
    refused = asked(at_rate(1.0), Parallelism(1)).infeasible
    assert [one.rule for one in refused] == ["memory"]
    assert all(isinstance(one, Infeasible) for one in refused)


def test_a_plan_that_is_kept_is_held_to_the_percentile_it_was_chosen_by() -> None:
    from planner.answering import prepare
    from planner.search.judgement import judge

    loose = Workload(concurrency=64, ttft_target=Seconds(1.0), tpot_target=Seconds(0.06), percentile=90)
    plan = asked(loose, Parallelism(8)).plans[0].ranked
    times = plan.estimate.serving
    for workload, words in (
        (loose, ""),
        (replace(loose, tpot_target=Seconds(0.9 * times.tpot.p90)), "p90 of TPOT is"),
        (
            replace(loose, ttft_target=times.ttft.p90, tpot_target=times.tpot.p90),
            "of the requests meet both targets, 90 % are asked",
        ),
    ):
        _, search, _, _ = prepare(MODEL, MACHINE, workload, "vllm", "throughput")
        problems = " ".join(judge(plan.plan, search).problems)
        assert words in problems
        assert bool(words) is ("target" in problems)


def test_targets_say_how_likely_they_are_met() -> None:
    wanted = replace(FULL, tpot_target=Seconds(0.04), ttft_target=Seconds(30.0))
    estimate = priced(wanted, LAYOUTS[0])
    sure = chances(estimate, wanted)
    assert set(sure) == {"TTFT", "TPOT"}
    assert sure["TTFT"] > 0.99
    assert 0.5 <= sure["TPOT"] <= 0.6  # as many in flight as the prediction allows
    assert chances(estimate, FULL) == {}
    fewer = priced(replace(wanted, load="concurrency", concurrency=8), LAYOUTS[0])
    assert chances(fewer, wanted)["TPOT"] > sure["TPOT"]
    low, high = estimate.uncertainty.tpot
    for target, share in ((low, 0.05), (high, 0.95)):
        assert chances(estimate, replace(FULL, tpot_target=Seconds(target)))["TPOT"] == pytest.approx(share)


def test_a_percentile_is_less_likely_to_be_met_than_a_mean() -> None:
    wanted = replace(FULL, load="concurrency", concurrency=64, tpot_target=Seconds(0.03), ttft_target=Seconds(1.0))
    estimate = priced(wanted, LAYOUTS[0])
    mean, tail = chances(estimate, wanted), chances(estimate, replace(wanted, percentile=99))
    assert all(tail[name] < mean[name] for name in mean)


def test_plans_that_find_their_own_loads_are_told_apart_by_them() -> None:
    wanted = replace(FULL, tpot_target=Seconds(0.04), ttft_target=Seconds(0.8))
    said = api.recommend(api.load_model("llama-3.1-70b"), api.load_topology("dgx-h100"), wanted, top=3)
    reasons = [reason for plan in said.plans for reason in plan.reasons]
    assert any("in flight instead of" in reason for reason in reasons)
    assert not any("takes 0" in reason for reason in reasons)


@pytest.mark.parametrize("machine", ["1xL4", "1xRTX-4090", "1xA10"])
def test_sglang_keeps_less_back_for_smaller_steps(machine: str) -> None:
    """Its own rule (srt/arg_groups/memory_hook.py): what a card of 24 GB cannot hold beside usual steps, it holds beside small ones."""
    (plan,) = api.recommend(
        api.load_model("llama-3.1-8b"), api.load_topology(machine), Workload(concurrency=8), engine="sglang", top=1
    ).plans
    assert plan.ranked.estimate.max_concurrency >= 8
    limits, memory = plan.ranked.plan.limits, api.load_gpu(machine[2:]).memory
    assert limits.memory_fraction == memory_fraction(memory, limits.max_batched_tokens, limits.max_sequences)


@pytest.mark.parametrize("waiting", [128, 200, 1023, 1024, 5000])
def test_small_steps_are_tried_however_many_wait(waiting: int) -> None:
    model, machine = api.load_model("qwen2.5-72b"), api.load_topology("2xH100-SXM5-80GB")
    (plan,) = api.estimate(model, machine, Workload(8000, 64, waiting), Parallelism(2)).plans
    assert plan.ranked.estimate.max_concurrency >= 1


def test_what_is_done_at_most_does_not_depend_on_what_is_asked() -> None:
    model, machine = api.load_model("llama-3.1-8b"), api.load_topology("1xL4")
    most = set()
    for asked in (1, 8, 64, 1000):
        (plan,) = api.estimate(model, machine, Workload(128, 2, asked), Parallelism(1)).plans
        assert plan.maximum is not None
        most.add(round(plan.maximum.output_tokens_per_second))
    assert max(most) - min(most) <= 0.02 * max(most)


@pytest.mark.parametrize(
    ("model", "machine", "degrees"),
    [("llama-3.1-8b", "1xL4", Parallelism(1)), ("llama-3.1-70b", "2xH100-SXM5-80GB", Parallelism(2))],
)
def test_a_rate_is_refused_for_what_is_kept_up_with(model: str, machine: str, degrees: Parallelism) -> None:
    """Long prompts, few places: queues for a place grow before prompts take all of the time."""
    spec, topology = api.load_model(model), api.load_topology(machine)
    seen = {True: 0, False: 0}
    for rate in (0.1, 0.3, 0.4, 0.45, 0.49, 0.51, 0.6, 2.0):
        asked = replace(at_rate(rate), input_tokens=8192, output_tokens=64)
        answer = api.estimate(spec, topology, asked, degrees)
        seen[bool(answer.plans)] += 1
        for one in answer.infeasible:
            assert 0 < one.have < one.need == rate
            lower = replace(asked, request_rate=0.9 * one.have)
            assert api.estimate(spec, topology, lower, degrees).plans
    assert seen[True]
    assert seen[False]
