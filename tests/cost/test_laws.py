"""Laws that hold for any numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import api
from planner.core.estimate import Estimate
from planner.core.plan import EngineLimits, Infeasible, Parallelism, Placement
from planner.core.topology import Topology
from planner.core.workload import Workload
from planner.cost import nccl
from planner.cost.anchors import interpolate
from planner.cost.collectives import Collectives, nccl_factor
from planner.cost.interconnect import Interconnect
from planner.cost.layer import cut
from planner.cost.moe import distinct_experts, expert_imbalance
from planner.cost.pipeline import best_partition, bubble_ratio
from planner.cost.pricer import Pricer
from planner.documents.calibration import load_calibration
from planner.documents.hardware import load_link_rates
from planner.engines import engines
from planner.graph.equip import equip
from planner.units import Bytes, BytesPerSecond, Seconds

sizes = st.floats(min_value=1, max_value=1e10, allow_nan=False)
ENGINES = sorted(engines())
SPECS = [
    "8xH100-SXM5-80GB",
    "8xA100-SXM4-80GB",
    "8xL40S",
    "4xRTX-3090",
    "4xRTX-3090:nvlink-pairs",
    "8xV100-SXM2-32GB",
    "2x8xH100-SXM5-80GB",
    "4xA100-SXM4-40GB:nvlink-mesh",
]


def ready(reference: str) -> tuple[Topology, Interconnect]:
    topology = api.load_topology(reference)
    specs = {name: api.load_gpu(name) for name in topology.hardware}
    topology = equip(topology, specs, load_link_rates())
    return topology, Interconnect(topology, specs)


MACHINES = {reference: ready(reference) for reference in SPECS}


def collectives(engine: str) -> Collectives:
    return Collectives(load_calibration(), engines()[engine].traits)


@given(sizes, st.floats(1, 8), st.sampled_from(SPECS), st.sampled_from(ENGINES), st.data())
def test_more_bytes_are_never_faster(size: float, factor: float, spec: str, engine: str, data: st.DataObject) -> None:
    topology, wires = MACHINES[spec]
    group = data.draw(st.sets(st.integers(0, len(topology.gpus) - 1), min_size=2, max_size=8))
    facts, ask = wires.group(sorted(group)), collectives(engine)
    small, large = ask.all_reduce(facts, Bytes(size)).time, ask.all_reduce(facts, Bytes(size * factor)).time
    assert 0 < small <= large * (1 + 1e-9)
    assert math.isfinite(large)


@given(st.integers(0, 7), sizes, st.sampled_from(ENGINES))
def test_one_rank_costs_nothing(gpu: int, size: float, engine: str) -> None:
    _, wires = MACHINES["8xH100-SXM5-80GB"]
    assert collectives(engine).all_reduce(wires.group([gpu]), Bytes(size)).time <= 0


@given(sizes, st.sampled_from(["ring", "tree"]), st.sampled_from(["LL", "LL128", "Simple"]), st.floats(1, 4))
def test_more_bandwidth_is_never_slower(size: float, shape: str, protocol: str, factor: float) -> None:
    slow = nccl.Fabric(8, 1, 4, BytesPerSecond(10e9), (9, 0), "nvlink")
    fast = replace(slow, channel_bandwidth=BytesPerSecond(10e9 * factor))
    time = nccl.ring_all_reduce if shape == "ring" else nccl.tree_all_reduce
    assert time(Bytes(size), fast, protocol) <= time(Bytes(size), slow, protocol) * (1 + 1e-12)


@given(st.data())
def test_a_faster_link_anywhere_never_hurts(data: st.DataObject) -> None:
    topology, _ = MACHINES[data.draw(st.sampled_from(["4xRTX-3090:nvlink-pairs", "8xL40S", "8xV100-SXM2-32GB"]))]
    number = data.draw(st.integers(0, len(topology.links) - 1))
    links = list(topology.links)
    links[number] = replace(links[number], achieved=BytesPerSecond(2 * float(links[number].achieved or 0)))
    faster = replace(topology, links=tuple(links))
    specs = {name: api.load_gpu(name) for name in topology.hardware}
    group = sorted(data.draw(st.sets(st.integers(0, len(topology.gpus) - 1), min_size=2, max_size=4)))
    before, after = Interconnect(topology, specs).group(group), Interconnect(faster, specs).group(group)
    assert after.packing.bandwidth >= before.packing.bandwidth * (1 - 1e-9)


@settings(max_examples=15)  # each packs the rings of eight GPUs anew
@given(st.permutations(range(8)), st.sampled_from(["8xL40S", "8xV100-SXM2-32GB"]))
def test_a_group_is_the_same_in_any_order(order: list[int], spec: str) -> None:
    topology, _ = MACHINES[spec]
    specs = {name: api.load_gpu(name) for name in topology.hardware}
    plain, shuffled = Interconnect(topology, specs).group(range(8)), Interconnect(topology, specs).group(order)
    assert plain.packing.bandwidth == shuffled.packing.bandwidth


@given(st.integers(2, 32), st.integers(1, 10_000))
def test_bubbles_vanish_as_micro_batches_grow(stages: int, micro_batches: int) -> None:
    assert bubble_ratio(stages, micro_batches + 1) < bubble_ratio(stages, micro_batches) < 1
    assert bubble_ratio(stages, 10**9) < 1e-6


@given(st.integers(1, 512), st.integers(1, 16), st.floats(0, 4096))
def test_no_more_experts_are_touched_than_there_are(experts: int, per_token: int, tokens: float) -> None:
    per_token = min(experts, per_token)
    assert 0 <= distinct_experts(experts, per_token, tokens) <= experts
    assert distinct_experts(experts, per_token, tokens) <= per_token * tokens + 1e-9 or tokens < 1
    assert 1 <= expert_imbalance(experts, per_token, tokens, 8) <= 8


@given(st.lists(st.floats(1e-6, 1, allow_nan=False), min_size=2, max_size=8), sizes)
def test_interpolation_stays_between_its_points(times: list[float], size: float) -> None:
    points = tuple((Bytes(1024.0 * 4**place), Seconds(time)) for place, time in enumerate(sorted(times)))
    answer = interpolate(points, Bytes(size))
    assert points[0][1] <= answer * (1 + 1e-12)
    if size <= points[-1][0]:
        assert answer <= points[-1][1] * (1 + 1e-12)


@given(sizes)
def test_a_correction_lies_between_its_ends(size: float) -> None:
    for fit in load_calibration().nccl.values():
        assert min(fit.factors) - 1e-12 <= nccl_factor(Bytes(size), fit.factors) <= max(fit.factors) + 1e-12


@given(st.integers(1, 200_000), st.integers(1, 20_000))
def test_a_prompt_is_cut_without_loss(tokens: int, most: int) -> None:
    chunks = cut(tokens, most)
    assert sum(size * times for size, times in chunks.parts) == tokens
    assert chunks.count == -(-tokens // most)


@given(st.integers(1, 6), st.integers(0, 20), st.floats(0, 5), st.lists(st.floats(0.5, 3), min_size=6, max_size=6))
def test_the_partition_is_as_good_as_the_best_of_all(stages: int, more: int, head: float, speeds: list[float]) -> None:
    layers = stages + min(more, 8)

    def cost(stage: int, count: int) -> float:
        return (count + head * (stage == stages - 1)) / speeds[stage]

    def everything(left: int, stage: int) -> float:
        if stage == stages - 1:
            return cost(stage, left)
        return min(
            max(cost(stage, count), everything(left - count, stage + 1)) for count in range(1, left - (stages - stage - 1) + 1)
        )

    partition = best_partition(layers, stages, cost)
    assert sum(partition) == layers
    assert min(partition) >= 1
    assert max(cost(stage, count) for stage, count in enumerate(partition)) == pytest.approx(everything(layers, 0))


def pricer(spec: str, model: str, workload: Workload, engine: str = "vllm", memory: float = 0.0) -> Pricer:
    topology, _ = MACHINES[spec]
    if memory:
        topology = replace(
            topology, devices=tuple(replace(one, memory=Bytes(memory)) if one.kind == "gpu" else one for one in topology.devices)
        )
    specs = {name: api.load_gpu(name) for name in topology.hardware}
    return Pricer(topology, specs, api.load_model(model), workload, engines()[engine].traits, load_calibration())


def natural(degrees: Parallelism) -> Placement:
    gpus = iter(range(degrees.gpus))
    return tuple(
        tuple(tuple(next(gpus) for _ in range(degrees.tensor)) for _ in range(degrees.pipeline)) for _ in range(degrees.data)
    )


def price(one: Pricer, degrees: Parallelism) -> Estimate | Infeasible:
    layers = len(one.model.layers)
    limits = EngineLimits(256, 2048, 0.9)
    return one.estimate(degrees, one.traits.default_partition(layers, degrees.pipeline), limits, natural(degrees))


degrees_of_eight = st.sampled_from(
    [
        Parallelism(tensor, stages, data)
        for tensor in (1, 2, 4, 8)
        for stages in (1, 2, 4)
        for data in (1, 2, 4)
        if tensor * stages * data <= 8
    ]
)
workloads = st.builds(Workload, st.integers(1, 6000), st.integers(1, 2000), st.integers(1, 300))


@given(
    degrees_of_eight,
    workloads,
    st.sampled_from(["8xH100-SXM5-80GB", "8xL40S", "8xV100-SXM2-32GB"]),
    st.sampled_from(ENGINES),
    st.sampled_from(["llama-3.1-8b", "qwen3-30b-a3b"]),
)
def test_parts_sum_to_totals_and_everything_is_finite(
    degrees: Parallelism, workload: Workload, spec: str, engine: str, model: str
) -> None:
    estimate = price(pricer(spec, model, workload, engine), degrees)
    if isinstance(estimate, Infeasible):
        assert estimate.need > estimate.have
        return
    for stage in estimate.memory:
        assert stage.total == pytest.approx(stage.weights + stage.kv_cache + stage.activation + stage.overhead)
        assert stage.total <= stage.capacity
        assert min(stage.weights, stage.kv_cache, stage.activation, stage.overhead) >= 0
    for breakdown in (estimate.decode, estimate.prefill):
        assert breakdown.total == pytest.approx(sum(breakdown.parts.values()))
        assert breakdown.total > 0
    assert all(math.isfinite(value) and value > 0 for value in (estimate.ttft, estimate.tpot, estimate.output_tokens_per_second))
    assert estimate.tpot >= estimate.decode.total * (1 - 1e-9)
    assert 0 <= estimate.pipeline.bubble_ratio < 1
    assert 0 <= estimate.pipeline.idle_ratio < 1
    if degrees.pipeline == 1:
        assert estimate.pipeline.bubble_ratio == estimate.pipeline.idle_ratio == 0
        assert estimate.communication.point_to_point_decode <= 0
    if degrees.tensor == 1:
        assert estimate.communication.all_reduce_decode is None


@given(st.integers(1, 200), st.integers(0, 200))
def test_more_requests_never_get_an_answer_sooner(few: int, more: int) -> None:
    degrees = Parallelism(2, 1, 1)
    alone = price(pricer("8xH100-SXM5-80GB", "llama-3.1-8b", Workload(1024, 256, few)), degrees)
    crowded = price(pricer("8xH100-SXM5-80GB", "llama-3.1-8b", Workload(1024, 256, few + more)), degrees)
    assert isinstance(alone, Estimate)
    assert isinstance(crowded, Estimate)
    assert crowded.tpot >= alone.tpot * (1 - 1e-9)
    assert crowded.ttft >= alone.ttft * (1 - 1e-9)


@given(degrees_of_eight, st.floats(20e9, 200e9), st.floats(1, 3))
def test_more_memory_never_holds_fewer_tokens(degrees: Parallelism, memory: float, factor: float) -> None:
    less = price(pricer("8xH100-SXM5-80GB", "llama-3.1-8b", Workload(), memory=memory), degrees)
    more = price(pricer("8xH100-SXM5-80GB", "llama-3.1-8b", Workload(), memory=memory * factor), degrees)
    if isinstance(less, Estimate):
        assert isinstance(more, Estimate)
        assert more.kv_cache_tokens >= less.kv_cache_tokens
        assert more.max_concurrency >= less.max_concurrency


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]))
def test_sharding_conserves_weights_but_for_what_is_replicated(tensor: int, stages: int) -> None:
    from planner.cost.memory import stage_weights
    from planner.cost.strategy import stages_of

    model = api.load_model("llama-3.1-8b")
    whole = stage_weights(model, model.layers, Parallelism(), first=True, last=True, multiple=64)
    partition = engines()["vllm"].traits.default_partition(len(model.layers), stages)
    total = dict.fromkeys(whole, 0.0)
    for number, layers in enumerate(stages_of(model, partition)):
        parts = stage_weights(
            model, layers, Parallelism(tensor, stages), first=number == 0, last=number == stages - 1, multiple=64
        )
        for part, size in parts.items():
            total[part] += size * (1 if part in {"norms", "rope"} else tensor)
    for part in ("attention", "mlp", "embedding", "head", "norms"):
        assert total[part] == pytest.approx(whole[part])  # 8 KV heads divide over up to 8 ranks
