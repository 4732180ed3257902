"""The worked examples of the formulas, with the numbers they were published with."""

from __future__ import annotations

from itertools import combinations

import pytest

from planner import api
from planner.core.hardware import GpuSpec
from planner.core.model import Layer, ModelSpec, MoeMlp, kinds
from planner.core.plan import Parallelism
from planner.core.quantization import BF16, FORMATS
from planner.core.topology import Device, DeviceKind, Host, Link, LinkKind, Origin, PeerToPeer, Topology
from planner.cost import memory, nccl
from planner.cost.attention import causal_attention_work, kv_bytes_per_token, latent_kv_bytes_per_token
from planner.cost.calibration import KernelFit
from planner.cost.collectives import bus_bandwidth
from planner.cost.exchanges import (
    combine_bytes,
    context_exchange,
    dispatch_bytes,
    ring_attention_chunk,
    tensor_sequence_bytes,
    ulysses_bytes,
)
from planner.cost.gemm import gemm, gemm_work
from planner.cost.moe import distinct_experts, expert_imbalance
from planner.cost.pipeline import best_partition, bubble_over_ideal, bubble_ratio, decode_period, fill_drain_makespan, idle_ratio
from planner.cost.rings import RingPacking, pack_rings
from planner.cost.serving import (
    kv_transfer,
    prefill_queue,
    prefill_queue_pipeline,
    prefill_queue_tensor,
    time_per_output_token,
    tokens_per_iteration,
)
from planner.cost.shapes import Shapes
from planner.engines.vllm import default_partition
from planner.graph.paths import Paths
from planner.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds

GIB = 2.0**30
MICRO = 1e-6
H100_RINGS = nccl.Fabric(8, 1, 12, BytesPerSecond(30e9), (9, 0), "nvlink", 8, BytesPerSecond(40e9))
A100_RINGS = nccl.Fabric(8, 1, 12, BytesPerSecond(20e9), (8, 0), "nvlink")


@pytest.fixture(scope="module")
def llama_70b() -> ModelSpec:
    return api.load_model("llama-3-70b")


@pytest.mark.parametrize(
    ("fabric", "size", "expected", "algorithm"),
    [
        (H100_RINGS, 16 * 2**10, 15.20, "ring LL"),
        (H100_RINGS, 2**20, 28.01, "ring LL"),
        (H100_RINGS, 64 * 2**20, 271.72, "NVLS"),
        (A100_RINGS, 16 * 2**10, 15.33, "ring LL"),
        (A100_RINGS, 2**20, 35.92, "ring LL"),
        (A100_RINGS, 64 * 2**20, 545.34, "ring Simple"),
    ],
)
def test_e1_e2_nccl_on_one_node(fabric: nccl.Fabric, size: int, expected: float, algorithm: str) -> None:
    time, chosen = nccl.all_reduce(Bytes(size), fabric)
    assert time / MICRO == pytest.approx(expected, abs=0.02)
    assert chosen == algorithm


def test_e1_the_losing_algorithms() -> None:
    assert nccl.nvls_all_reduce(Bytes(2**20), H100_RINGS) / MICRO == pytest.approx(28.86, abs=0.01)
    assert nccl.ring_all_reduce(Bytes(64 * 2**20), H100_RINGS, "Simple") / MICRO == pytest.approx(382.22, abs=0.02)


def test_e3_nccl_on_two_nodes_takes_the_tree() -> None:
    fabric = nccl.Fabric(16, 2, 8, BytesPerSecond(48e9), (9, 0), "nvlink")
    time, algorithm = nccl.all_reduce(Bytes(16384), fabric)
    assert (round(time / MICRO, 2), algorithm) == (26.40, "tree LL")
    assert nccl.ring_all_reduce(Bytes(16384), fabric, "LL") / MICRO == pytest.approx(40.79, abs=0.01)


def box(
    tree: dict[str, list[str]], rates: dict[tuple[str, str], float], nvlinks: dict[tuple[str, str], float], p2p: PeerToPeer
) -> Topology:
    """A host out of parent → children; ``rates`` are GB/s achieved by link, 24 where not said."""
    kinds_by_prefix = {"gpu": DeviceKind.GPU, "sw": DeviceKind.PCIE_SWITCH, "br": DeviceKind.HOST_BRIDGE, "so": DeviceKind.SOCKET}
    names = list(dict.fromkeys([*tree, *(child for children in tree.values() for child in children)]))
    devices = [
        Device(name, kinds_by_prefix[name.rstrip("0123456789")], "h", int(name[3:]) if name.startswith("gpu") else None)
        for name in names
    ]
    links = [
        link(parent, child, LinkKind.PCIE, rates.get((parent, child), 24.0))
        for parent, children in tree.items()
        for child in children
    ]
    links += [link(a, b, LinkKind.NVLINK, rate) for (a, b), rate in nvlinks.items()]
    if ("so0", "so1") in rates:
        links.append(link("so0", "so1", LinkKind.SOCKET, rates["so0", "so1"]))
    topology = Topology("box", (Host("h", p2p),), tuple(devices), tuple(links), Origin("written", "worked example"))
    topology.check()
    return topology


def link(a: str, b: str, kind: LinkKind, rate: float) -> Link:
    return Link(a, b, kind, BytesPerSecond(rate * 1e9), "achieved", achieved=BytesPerSecond(rate * 1e9))


def rings(topology: Topology, gpus: list[int]) -> RingPacking:
    capacity = {(number, way): float(one.achieved or 0) for number, one in enumerate(topology.links) for way in (True, False)}
    return pack_rings([f"gpu{gpu}" for gpu in gpus], Paths(topology), capacity)


def bandwidth(topology: Topology, gpus: list[int]) -> float:
    return rings(topology, gpus).bandwidth / 1e9


def test_e4_nvlink_pairs_on_pcie() -> None:
    pairs = box(
        {"so0": ["br0"], "br0": [f"gpu{i}" for i in range(4)]}, {}, {("gpu0", "gpu1"): 48, ("gpu2", "gpu3"): 48}, "enabled"
    )
    packing = rings(pairs, [0, 1, 2, 3])
    assert packing.fastest == 24e9  # two rings of it
    assert bandwidth(pairs, [0, 1, 2, 3]) == pytest.approx(48)
    assert bandwidth(pairs, [0, 1]) == pytest.approx(48)
    assert bandwidth(pairs, [0, 2]) == pytest.approx(24)


def test_e4_eight_gpus_on_two_amd_sockets() -> None:
    tree = {"so0": ["br0"], "so1": ["br1"], "br0": [f"gpu{i}" for i in range(4)], "br1": [f"gpu{i}" for i in range(4, 8)]}
    sockets = box(tree, {("so0", "so1"): 16, ("so0", "br0"): 96, ("so1", "br1"): 96}, {}, "enabled")
    assert bandwidth(sockets, list(range(8))) == pytest.approx(16)
    assert bandwidth(sockets, [0, 1, 2, 3]) == pytest.approx(24)
    assert bandwidth(sockets, [0, 1, 4, 5]) == pytest.approx(16)


def test_e4_four_switches_on_two_sockets() -> None:
    tree = {"so0": ["br0"], "so1": ["br1"], "br0": ["sw0", "sw1"], "br1": ["sw2", "sw3"]}
    tree |= {f"sw{i}": [f"gpu{2 * i}", f"gpu{2 * i + 1}"] for i in range(4)}
    switches = box(tree, {("so0", "so1"): 22, ("so0", "br0"): 48, ("so1", "br1"): 48}, {}, "enabled")
    assert bandwidth(switches, [0, 1, 2, 3]) == pytest.approx(24)
    assert bandwidth(switches, [0, 2, 4, 6]) == pytest.approx(22)


def test_e4_one_narrow_slot_slows_the_whole_ring() -> None:
    narrow = box({"so0": ["br0"], "br0": [f"gpu{i}" for i in range(4)]}, {("br0", "gpu3"): 12}, {}, "enabled")
    assert bandwidth(narrow, [0, 1, 2, 3]) == pytest.approx(12)
    assert bandwidth(narrow, [0, 1]) == pytest.approx(24)


def test_e5_bus_bandwidth() -> None:
    assert pytest.approx(254.32, abs=0.01) == 512 * 2**20 / 2111e-6 / 1e9
    assert bus_bandwidth(Bytes(512 * 2**20), Seconds(2111e-6), 8) / 1e9 == pytest.approx(445.06, abs=0.01)


def weights_without_table(model: ModelSpec, degrees: Parallelism, stage: int) -> float:
    size = len(model.layers) // degrees.pipeline
    parts = memory.stage_weights(
        model, model.layers[:size], degrees, first=stage == 0, last=stage == degrees.pipeline - 1, multiple=64
    )
    return sum(parts.values()) - parts["rope"]


def test_e6_llama_70b_on_four_gpus(llama_70b: ModelSpec) -> None:
    assert llama_70b.parameters == 70_553_706_496
    weights = weights_without_table(llama_70b, Parallelism(4), 0)
    assert weights == 35_278_831_616
    assert int(memory.kv_bytes(llama_70b.layers, 1, 1, 8192)) == 327_680
    assert int(memory.kv_bytes(llama_70b.layers, 4, 1, 8192)) == 81_920
    activation = memory.forward_activation(8192, 8192, 4) + 256 * 128256 * 4
    overhead = 0.6 * GIB + 411_041_792 + 0.6 * GIB
    budget = memory.kv_budget(Bytes(80 * GIB), 0.92, Bytes(weights), Bytes(activation), Bytes(overhead), "fraction-of-total")
    assert budget / GIB == pytest.approx(38.41, abs=0.005)
    tokens = int(budget // 81_920)
    assert tokens == 503_498
    assert (tokens // 16, tokens // 8192) == (31_468, 61)


def test_e7_two_stages_and_replicated_kv_heads(llama_70b: ModelSpec) -> None:
    degrees = Parallelism(4, 2)
    assert weights_without_table(llama_70b, degrees, 0) / GIB == pytest.approx(16.42798, abs=1e-5)
    assert weights_without_table(llama_70b, degrees, 1) / GIB == pytest.approx(16.42799, abs=1e-5)
    for tensor in (8, 16):
        assert int(memory.kv_bytes(llama_70b.layers, tensor, 1, 8192)) == 40_960


def test_e8_latent_attention_is_not_divided() -> None:
    assert 61 * latent_kv_bytes_per_token(512, 64) == 70_272
    assert 61 * (512 + 4 * 4 + 64 * 2) == 40_016  # vLLM fp8_ds_mla: fp8 latent, four fp32 scales, bf16 rotary key
    assert 61 * 128 * (192 + 128) * 2 == 4_997_120  # what plain multi-head attention would take
    assert int(kv_bytes_per_token(8, 128)) == 4096


def test_e9_distinct_experts() -> None:
    assert distinct_experts(8, 2, 1) == pytest.approx(2.0)
    assert distinct_experts(8, 2, 4) == pytest.approx(5.469, abs=0.001)
    assert distinct_experts(8, 2, 16) == pytest.approx(7.920, abs=0.001)
    assert distinct_experts(256, 8, 16) == pytest.approx(101.96, abs=0.01)
    assert distinct_experts(256, 8, 128) == pytest.approx(251.60, abs=0.01)
    assert distinct_experts(128, 8, 64) == pytest.approx(125.94, abs=0.01)


def test_expert_imbalance_follows_monte_carlo_within_three_percent() -> None:
    assert expert_imbalance(256, 8, 128, 8) == pytest.approx(1.126, rel=0.03)
    assert expert_imbalance(256, 8, 1024, 8) == pytest.approx(1.043, rel=0.03)
    assert expert_imbalance(256, 8, 128, 32) == pytest.approx(1.375, rel=0.03)


def test_e10_fill_and_drain() -> None:
    assert float(fill_drain_makespan([Seconds(1)] * 4, 8)) == 11.0
    assert bubble_ratio(4, 8) == pytest.approx(0.2727, abs=1e-4)
    assert bubble_over_ideal(4, 8) == 0.375
    assert bubble_over_ideal(4, 8, 2) == 0.1875
    assert bubble_over_ideal(4, 8, 2) / (1 + bubble_over_ideal(4, 8, 2)) == pytest.approx(0.1579, abs=1e-4)
    assert fill_drain_makespan([Seconds(time) for time in (1, 1, 1.3, 1)], 8) == pytest.approx(13.4)
    assert bubble_ratio(8, 32) == pytest.approx(0.1795, abs=1e-4)


def test_e11_the_closed_loop_of_decoding() -> None:
    stages = [Seconds(1)] * 4
    assert [float(decode_period(stages, batches)) for batches in (1, 2, 4, 8)] == [4.0, 4.0, 4.0, 8.0]
    assert [1 - idle_ratio(stages, batches, decode_period(stages, batches)) for batches in (1, 2, 4, 8)] == [0.25, 0.5, 1, 1]
    uneven = [Seconds(time) for time in (1, 1, 1.3)]
    assert decode_period(uneven, 3) == pytest.approx(3.9)
    assert decode_period(uneven, 2) == pytest.approx(3.3)


def test_e12_where_to_cut_the_layers() -> None:
    def with_head(stages: int, head: float, speeds: tuple[float, ...] | None = None) -> list[float]:
        def cost(stage: int, layers: int) -> float:
            return (layers + head * (stage == stages - 1)) / (speeds[stage] if speeds else 1.0)

        layers = 32 if head > 2 else 80
        partition = best_partition(layers, stages, cost)
        return [*partition, max(cost(stage, count) for stage, count in enumerate(partition))]

    assert with_head(3, 1.2279) == pytest.approx([27, 27, 26, 27.2279])
    assert default_partition(80, 3) == (27, 27, 26)
    assert with_head(4, 1.2279) == pytest.approx([20, 20, 21, 19, 21.0])
    assert with_head(4, 2.409) == pytest.approx([8, 9, 9, 6, 9.0])
    assert with_head(3, 0.0, (2, 1, 1)) == pytest.approx([40, 20, 20, 20.0])
    assert with_head(3, 1.2279, (2, 1, 1)) == pytest.approx([41, 20, 19, 20.5])


@pytest.fixture(scope="module")
def h100() -> GpuSpec:
    from dataclasses import replace

    return replace(api.load_gpu("H100-SXM5-80GB"), compute={"bf16": FlopPerSecond(989e12)})


@pytest.mark.parametrize(("tokens", "expected"), [(1, 50.09), (256, 53.21), (512, 86.85), (4096, 694.8)])
def test_e13_a_matrix_product(h100: GpuSpec, tokens: int, expected: float) -> None:
    fit = KernelFit(Seconds(0.0), 0.8, 0.8, None)
    assert gemm(tokens, 8192, 8192, BF16, h100, fit) / MICRO == pytest.approx(expected, rel=0.001)
    ridge = 989e12 / 3.35e12  # FLOP per byte
    assert ridge == pytest.approx(295, abs=0.5)


def test_e14_one_token_of_70b_on_four_gpus(llama_70b: ModelSpec) -> None:
    weights = weights_without_table(llama_70b, Parallelism(4), 0)
    assert weights / (3.35e12 * 0.8) * 1e3 == pytest.approx(13.16, abs=0.01)
    assert 2 * len(llama_70b.layers) * 4.8e-6 * 1e3 == pytest.approx(0.77, abs=0.005)


def linear_parameters(layer: Layer, hidden: int) -> int:
    return layer.parameters(hidden) - 2 * hidden


def test_e15_a_prompt_of_8192_tokens(llama_70b: ModelSpec) -> None:
    layer, count = kinds(llama_70b.layers)[0]
    linear = gemm_work(8192, linear_parameters(layer, 8192), 1)
    attention = causal_attention_work(64, 128, 8192)
    assert linear / 1e12 == pytest.approx(14.02, abs=0.005)
    assert attention / 1e12 == pytest.approx(1.10, abs=0.005)
    assert count * (linear + attention) == pytest.approx(1.2095e15, rel=1e-4)


def test_e16_handing_over_a_prompts_cache() -> None:
    per_token = Bytes(80 * kv_bytes_per_token(8, 128))
    assert 8192 * per_token / 1e9 == pytest.approx(2.684, abs=0.001)
    assert kv_transfer(8192, per_token, BytesPerSecond(50e9)) * 1e3 == pytest.approx(53.7, abs=0.05)
    assert kv_transfer(8192, per_token, BytesPerSecond(50e9), rails=8) * 1e3 == pytest.approx(6.71, abs=0.005)


def test_e17_queueing_of_prefills() -> None:
    assert prefill_queue(Seconds(0.1), 5) == pytest.approx(0.150)
    assert prefill_queue_pipeline(Seconds(0.1), 5) == pytest.approx(0.1083, abs=1e-4)
    assert prefill_queue_tensor(Seconds(0.1), 5, 1.6) == pytest.approx(0.0767, abs=1e-4)
    assert prefill_queue(Seconds(0.1), 10) == float("inf")


def test_e18_tokens_of_a_speculative_step() -> None:
    assert tokens_per_iteration(0.8, 3) == pytest.approx(2.952)


def test_e19_tensor_against_pipeline_on_bridged_pairs(llama_70b: ModelSpec) -> None:
    """70B in 4 bits on four A6000 in NVLink pairs: TP 4 decodes faster than TP 2 × PP 2."""
    a6000 = api.load_gpu("RTX-A6000")
    weights, hidden = 40.57e9, 8192
    read = weights / 4 / (a6000.memory_bandwidth * 0.8)
    # the example takes two channels of 20 GB/s; NCCL makes more of these wires, four of 12, as down its ladder they carry more
    assert nccl.channels(BytesPerSecond(24e9), BytesPerSecond(48e9), (8, 6)) == (4, 12e9)
    count, speed = 2, BytesPerSecond(20e9)
    four = nccl.Fabric(4, 1, count, speed, (8, 6), "pcie")
    pair = nccl.Fabric(2, 1, count, speed, (8, 6), "nvlink")

    # the example rounds its inputs (its two-rank all-reduce comes out 0.3 µs above ours), so it is met to 0.2 %
    reduce_four = nccl.all_reduce(Bytes(16 * hidden * 2), four)[0]
    assert reduce_four / MICRO == pytest.approx(32.3, rel=0.002)
    step = read + 160 * reduce_four
    assert step * 1e3 == pytest.approx(21.67, rel=0.002)
    assert 16 / step == pytest.approx(738, rel=0.002)

    stage = read + 80 * nccl.all_reduce(Bytes(8 * hidden * 2), pair)[0]
    period = decode_period([Seconds(stage)] * 2, 2)
    assert stage * 1e3 == pytest.approx(17.67, rel=0.002)
    assert period * 1e3 == pytest.approx(35.34, rel=0.002)
    assert 16 / period == pytest.approx(453, rel=0.002)

    wide = read + 160 * nccl.all_reduce(Bytes(32 * hidden * 2), four)[0]
    deep = decode_period([Seconds(read + 80 * nccl.all_reduce(Bytes(16 * hidden * 2), pair)[0])] * 2, 2)
    assert [wide * 1e3, 32 / wide] == pytest.approx([24.81, 1290], rel=0.002)
    assert [deep * 1e3, 32 / deep] == pytest.approx([36.41, 879], rel=0.002)


@pytest.mark.parametrize(("ranks", "rate", "expected"), [(2, 40.0, 34), (2, 10.0, 134), (4, 5.1, 395)])
def test_e20_what_a_prompt_waits_for_the_bridges(ranks: int, rate: float, expected: int) -> None:
    """27B in 4 bits on four RTX 3090: the 128 all-reduces of a prompt of 1,024 tokens over a bridge, over PCIe, through host memory."""
    message = Bytes(1024 * 5120 * 2)
    time = Seconds(2 * (ranks - 1) / ranks * message / (rate * 1e9))
    assert bus_bandwidth(message, time, ranks) == pytest.approx(rate * 1e9)
    assert 128 * time * 1e3 == pytest.approx(expected, abs=0.8)


def test_e20_four_ranks_lose_under_load_what_they_win_alone() -> None:
    """TP 4 reads half the weights of TP 2 on each GPU, 4.84 ms a token less; its slower prompts cost the others of four in flight more."""
    saved = 0.25 * 14.5e9 / (0.8 * api.load_gpu("RTX-3090").memory_bandwidth)
    assert saved * 1e3 == pytest.approx(4.84, rel=0.01)
    slower = Seconds(0.395 - 0.034)
    interference = time_per_output_token(Seconds(0.0), slower, 3 / 256)
    assert interference * 1e3 == pytest.approx(4.2, abs=0.05)
    latency = 128 * 11e-6
    assert interference + latency > saved > latency


def test_e21_splitting_a_sequence() -> None:
    tokens, heads, head = 32768, 64, 128
    assert ulysses_bytes(tokens, heads * head, heads * head, 2, 8) / 1e6 == pytest.approx(234.9, abs=0.05)
    assert ulysses_bytes(tokens, heads * head, 8 * head, 2, 8) / 1e6 == pytest.approx(132.1, abs=0.05)
    assert tensor_sequence_bytes(tokens, heads * head, 2, 8) / 1e6 == pytest.approx(1879, abs=0.5)
    # with as many KV heads as query heads, ulysses moves the P-th part of it
    assert tensor_sequence_bytes(tokens, 8192, 2, 8) == 8 * ulysses_bytes(tokens, 8192, 8192, 2, 8)


@pytest.mark.parametrize(("kv_heads", "rate", "expected"), [(8, 360e9, 206), (8, 45e9, 1648), (64, 45e9, 13187)])
def test_e21_the_shortest_chunk_of_ring_attention(kv_heads: int, rate: float, expected: int) -> None:
    assert round(ring_attention_chunk(64, kv_heads, 2, FlopPerSecond(593.4e12), BytesPerSecond(rate))) == expected


def test_e22_experts_elsewhere() -> None:
    sent = dispatch_bytes(128, 8, 7168, 1, scale_block=128)
    assert sent / 1e6 == pytest.approx(7.569, abs=0.0005)
    assert sent / 98e9 / MICRO == pytest.approx(77.2, abs=0.05)
    assert combine_bytes(128, 8, 7168) / 127e9 / MICRO == pytest.approx(115.6, abs=0.05)  # 114 published


def test_e23_a_cache_split_along_the_context() -> None:
    """The published 16 KB of sums are before the share (c-1)/c that stays out, the other two after it."""
    exchange = context_exchange(32, 128, 512 + 64, 512, 2, 8)
    assert exchange.queries / 1e6 == pytest.approx(4.13, abs=0.005)
    assert exchange.outputs / 1e6 == pytest.approx(3.67, abs=0.005)
    assert exchange.sums == 16 * 2**10 * 7 / 8


def test_e24_one_expert_more_on_every_layer() -> None:
    model = api.load_model("deepseek-v3")
    assert sum(count for layer, count in kinds(model.layers) if isinstance(layer.mlp, MoeMlp)) == 58
    one = memory.redundant_experts(model.layers, model.hidden_size, FORMATS["fp8"], 1)
    assert one / 1e9 == pytest.approx(2.554, abs=0.001)
    assert memory.redundant_experts(model.layers, model.hidden_size, FORMATS["fp8"], 32) / 16 == pytest.approx(2 * one)


def test_e25_groups_of_a_symmetric_tree() -> None:
    tree = {"so0": ["br0"], "so1": ["br1"], "br0": ["sw0", "sw1"], "br1": ["sw2", "sw3"]}
    tree |= {f"sw{i}": [f"gpu{2 * i}", f"gpu{2 * i + 1}"] for i in range(4)}
    host = box(tree, {("so0", "so1"): 22, ("so0", "br0"): 48, ("so1", "br1"): 48}, {}, "enabled")
    shapes = Shapes(
        Paths(host), {(number, way): float(one.achieved or 0) for number, one in enumerate(host.links) for way in (True, False)}
    )
    classes = {
        count: len({shapes.of(group).shape for group in combinations([gpu.id for gpu in host.gpus], count)})
        for count in range(1, 9)
    }
    assert (classes[2], classes[4]) == (3, 5)
    assert 1 + sum(classes.values()) == 21  # with the empty group; of 256


def test_weight_formats_take_the_bytes_that_were_measured() -> None:
    measured = {"bf16": 2.0, "fp8": 1.0, "awq": 0.52, "gptq": 0.52, "nvfp4": 0.5625, "mxfp4": 0.53125}
    for name, size in measured.items():
        assert FORMATS[name].bytes_per_weight == pytest.approx(size, rel=0.002)


def test_the_rope_table_explains_the_measured_weights() -> None:
    model = api.load_model("llama-3.1-8b")
    parts = memory.stage_weights(model, model.layers, Parallelism(), first=True, last=True, multiple=64)
    assert (sum(parts.values()) - parts["rope"]) / GIB == pytest.approx(14.9575, abs=0.0005)
    assert sum(parts.values()) / GIB == pytest.approx(14.9888, abs=0.0005)
