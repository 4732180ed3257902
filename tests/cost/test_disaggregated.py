"""The formulas of two pools, and who sends what to whom."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import api
from planner.answering import equip_with_rates
from planner.core.model import LinearAttention, ModelSpec, kinds
from planner.core.plan import EngineLimits, Parallelism, Placement, Plan
from planner.core.workload import Workload
from planner.cost import disaggregated, serving
from planner.cost.handover import Handovers, sources
from planner.cost.interconnect import Interconnect
from planner.cost.memory import kv_bytes
from planner.cost.strategy import stages_of
from planner.documents.calibration import load_calibration
from planner.engines.vllm import default_partition
from planner.units import Bytes, BytesPerSecond, Seconds

TIMES = st.floats(1e-6, 10)
LIMITS = EngineLimits(64, 8192, 0.9)


def plan(model: ModelSpec, tensor: int, pipeline: int, first: int, data: int = 1) -> Plan:
    """Replicas on consecutive GPUs from ``first``."""
    size = tensor * pipeline
    placement: Placement = tuple(
        tuple(tuple(first + one * size + stage * tensor + rank for rank in range(tensor)) for stage in range(pipeline))
        for one in range(data)
    )
    return Plan(Parallelism(tensor, pipeline, data), placement, default_partition(len(model.layers), pipeline), LIMITS)


def handovers(model: ModelSpec, machine: str, tokens: int) -> Handovers:
    equipped, specs = equip_with_rates(api.load_topology(machine))
    return Handovers(
        Interconnect(equipped, specs), load_calibration().point_to_point, model, Workload(input_tokens=tokens, load="full"), 16
    )


@given(duration=TIMES, load=st.floats(0.01, 0.98), speedup=st.floats(1.0, 8.0))
def test_the_queue_before_the_prefill_pool_is_that_of_distserve(duration: float, load: float, speedup: float) -> None:
    """Its equations 1 to 3 are one queue: what keeps others out is the prompt, half of it on two stages, 1/K of it on K-fold tensors."""
    whole, half, part = Seconds(duration), Seconds(duration / 2), Seconds(duration / speedup)
    assert whole + serving.prompt_wait(whole, load / whole) == pytest.approx(serving.prefill_queue(whole, load / whole))
    assert whole + serving.prompt_wait(half, load / half) == pytest.approx(serving.prefill_queue_pipeline(whole, load / half))
    assert part + serving.prompt_wait(part, load / part) == pytest.approx(
        serving.prefill_queue_tensor(whole, load / part, speedup)
    )


@given(transfer=TIMES, prompt=TIMES, parts=st.integers(1, 200), more=st.integers(0, 200), latency=st.floats(0, 1e-3))
def test_smaller_parts_never_show_more_of_a_transfer(
    transfer: float, prompt: float, parts: int, more: int, latency: float
) -> None:
    def shown(number: int, time: float = transfer) -> float:
        return disaggregated.exposed_transfer(Seconds(time), Seconds(prompt), number, Seconds(latency))

    assert shown(1) == pytest.approx(transfer + latency)
    assert shown(parts + more) <= shown(parts) * (1 + 1e-12)
    assert shown(parts) >= max(transfer / parts, transfer - prompt)
    assert shown(parts, transfer / 2) <= shown(parts)


@given(prefill=st.floats(0.01, 1e3), decode=st.floats(0.01, 1e3), link=st.floats(0.01, 1e3), more=st.floats(1, 10))
def test_a_better_part_never_makes_a_worse_pair(prefill: float, decode: float, link: float, more: float) -> None:
    rate = disaggregated.pair_rate(prefill, decode, link)
    assert rate < min(prefill, decode, link)
    for better in ((prefill * more, decode, link), (prefill, decode * more, link), (prefill, decode, link * more)):
        assert disaggregated.pair_rate(*better) >= rate


def test_pools_that_are_balanced_are_so_after_their_factors() -> None:
    """X_p r_p 0.9 = X_d r_d 0.92."""
    prefill = 10.0
    decode = prefill * disaggregated.PREFILL_SHARE / disaggregated.DECODE_SHARE
    assert disaggregated.pair_rate(prefill, decode, 1e9) == pytest.approx(0.9 * prefill) == pytest.approx(0.92 * decode)


def test_eight_rails_carry_a_cache_eight_times_as_fast_as_one() -> None:
    """Llama-3-70B, 8192 tokens: 2.684 GB, at 50 GB/s a rail 53.7 ms on one and 6.71 ms on eight, less what sends do not reach."""
    model = api.load_model("llama-3-70b")
    share = load_calibration().point_to_point.network_efficiency
    over = handovers(model, "2x8xH100-SXM5-80GB@8x400", 8192)
    crossing = over.crossing(*between(plan(model, 8, 1, 0), plan(model, 8, 1, 8)))
    assert crossing.size == pytest.approx(8192 * 327_680, abs=0)
    assert crossing.kinds == ("network",)
    for rails, found in ((8, crossing), (1, over.crossing(*between(plan(model, 1, 1, 0), plan(model, 1, 1, 8))))):
        wanted = serving.kv_transfer(8192, Bytes(327_680), BytesPerSecond(share * 50e9), rails)
        assert found.time == pytest.approx(wanted, rel=1e-9)


def between(prefill: Plan, decode: Plan) -> tuple[Plan, tuple[tuple[int, ...], ...], Plan, tuple[tuple[int, ...], ...]]:
    return prefill, prefill.placement[0], decode, decode.placement[0]


@pytest.mark.parametrize("name", ["llama-3.1-70b", "deepseek-v3", "gemma-3-27b", "qwen3-30b-a3b", "nemotron-3-nano-30b-a3b"])
@pytest.mark.parametrize("shape", [(8, 1, 8, 1), (2, 2, 4, 1), (4, 1, 1, 4), (4, 2, 2, 3), (1, 3, 2, 2)])
def test_every_decode_rank_gets_just_what_it_holds(name: str, shape: tuple[int, int, int, int]) -> None:
    """Layers and heads may be cut in any way on either side."""
    model = api.load_model(name)
    if shape[0] != shape[2] and any(isinstance(layer.attention, LinearAttention) for layer, _ in kinds(model.layers)):
        pytest.skip("recurrent states are not regrouped")
    prefill, decode = plan(model, shape[0], shape[1], 0), plan(model, shape[2], shape[3], 8)
    got: dict[int, float] = {}
    sends = handovers(model, "2x8xH100-SXM5-80GB@8x400", 3000).sends(*between(prefill, decode))
    for (sender, receiver), size in sends.items():
        assert sender in range(shape[0] * shape[1])
        got[receiver] = got.get(receiver, 0.0) + size
    tokens = 3008  # whole blocks of 16
    for layers, group in zip(stages_of(model, decode.layer_partition), decode.placement[0], strict=True):
        for gpu in group:
            assert got.get(gpu, 0.0) == pytest.approx(kv_bytes(layers, shape[2], tokens, 0, model.kv_element_bytes))


def test_copies_of_a_head_are_read_once() -> None:
    model = api.load_model("llama-3.1-8b")
    heads = model.layers[0].attention
    assert heads is not None
    read = [one for rank in range(2) for one in sources(rank, 2, 16, heads)]
    assert len(read) == 8  # KV heads
    assert all(a // 2 != b // 2 for a, b in pairwise(read))


def test_latents_and_windows_make_small_caches() -> None:
    def size(name: str, tokens: int = 8192) -> float:
        model = api.load_model(name)
        over = handovers(model, "2x8xH100-SXM5-80GB@8x400", tokens)
        return over.crossing(*between(plan(model, 1, 1, 0), plan(model, 1, 1, 8))).size

    assert size("deepseek-v3") < size("llama-2-7b") / 5  # 671B against 6.7B parameters
    assert size("gemma-3-27b", 32_768) < 2 * size("gemma-3-27b", 16_384)


def test_a_faster_network_is_never_slower() -> None:
    model = api.load_model("llama-3.1-70b")
    prefill, decode = plan(model, 4, 1, 0, 2), plan(model, 8, 1, 8)
    times, rates = [], []
    for rate in (25, 100, 200, 400, 800):
        over = handovers(model, f"2x8xH100-SXM5-80GB@8x{rate}", 4096)
        times.append(over.farthest(prefill, decode).time)
        rates.append(over.most(prefill, decode)[0])
    assert times == sorted(times, reverse=True)
    assert rates == sorted(rates)
    assert times[0] > 3 * times[3]


def test_ranks_that_share_a_socket_link_share_its_rate() -> None:
    """Four ranks of one socket send to four of the other, over one link."""
    model = api.load_model("llama-3.1-8b")
    over = handovers(model, "8x-l40s", 4096)
    alone = over.crossing(*between(plan(model, 1, 1, 0), plan(model, 1, 1, 4)))
    four = over.crossing(*between(plan(model, 4, 1, 0), plan(model, 4, 1, 4)))
    assert four.time >= alone.time * (1 - 1e-9)  # the same bytes over the same link
    assert "socket" in over.words(four.link)
    assert four.kinds == ("PCIe through host memory",)


def test_what_no_network_joins_takes_for_ever() -> None:
    model = api.load_model("llama-3.1-8b")
    topology = api.load_topology("2x8xH100-SXM5-80GB@8x400")
    links = tuple(link for link in topology.links if link.kind.value != "network")
    equipped, specs = equip_with_rates(replace(topology, links=links))
    over = Handovers(Interconnect(equipped, specs), load_calibration().point_to_point, model, Workload(load="full"), 16)
    assert over.farthest(plan(model, 1, 1, 0), plan(model, 1, 1, 8)).time == float("inf")
