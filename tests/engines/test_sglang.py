"""What is emitted for SGLang, and what the planner knows of its memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner import api
from planner.core.engine import LaunchProcess, LaunchSpec
from planner.core.plan import EngineLimits, Parallelism, Placement, Plan
from planner.core.workload import Workload
from planner.engines.implementations import implementations
from planner.engines.sglang import TRAITS, default_partition, memory_fraction
from planner.units import Bytes

LIMITS = EngineLimits(256, 2048, 0.8, 8192)
GIB = 2**30


def launch(
    degrees: Parallelism,
    placement: Placement,
    partition: tuple[int, ...],
    *,
    topology: str = "8xH100-SXM5-80GB",
    model: str = "llama-3.1-8b",
    quant: str | None = None,
) -> LaunchSpec:
    plan = Plan(degrees, placement, partition, LIMITS)
    return api.emit(plan, api.load_model(model, quant=quant), api.load_topology(topology), "sglang")


def option(process: LaunchProcess, name: str) -> str | None:
    argv = process.argv
    return argv[argv.index(name) + 1] if name in argv else None


def test_one_process_with_everything_stated() -> None:
    (process,) = launch(Parallelism(2, 2), (((0, 2), (1, 3)),), (16, 16)).processes
    assert process.argv == (
        "python3", "-m", "sglang.launch_server", "--model-path", "meta-llama/Llama-3.1-8B-Instruct",
        "--tp-size", "2", "--pp-size", "2", "--context-length", "8192", "--max-running-requests", "256",
        "--chunked-prefill-size", "2048", "--cuda-graph-max-bs-decode", "128", "--mem-fraction-static", "0.8", "--port", "8000",
    )  # fmt: skip
    assert process.environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,2,1,3"}


def test_an_uneven_split_is_told() -> None:
    (uneven,) = launch(Parallelism(1, 3), (((0,), (1,), (2,)),), (11, 11, 10)).processes
    assert uneven.environment["SGLANG_PP_LAYER_PARTITION"] == "11,11,10"
    (even,) = launch(Parallelism(1, 2), (((0,), (1,)),), (16, 16)).processes
    assert "SGLANG_PP_LAYER_PARTITION" not in even.environment


def test_replicas_on_one_host_are_one_server() -> None:
    spec = launch(Parallelism(2, 1, 2), (((4, 5),), ((0, 2),)), (32,))
    (process,) = spec.processes
    assert option(process, "--dp-size") == "2"
    assert option(process, "--max-running-requests") == "256"  # of each replica
    assert process.environment["CUDA_VISIBLE_DEVICES"] == "4,5,0,2"


def test_replicas_on_several_hosts_are_servers_of_their_own() -> None:
    placement: Placement = (((0, 1),), ((8, 9),))
    spec = launch(Parallelism(2, 1, 2), placement, (32,), topology="2x8xH100-SXM5-80GB")
    assert [process.node for process in spec.processes] == ["node0", "node1"]
    assert [option(process, "--port") for process in spec.processes] == ["8000", "8001"]
    assert all(option(process, "--dp-size") is None and option(process, "--nnodes") is None for process in spec.processes)
    assert any("router" in note for note in spec.notes)


def test_attention_data_parallelism_counts_all_ranks_and_multiplies_what_sglang_divides() -> None:
    placement: Placement = (((0, 1),), ((2, 3),))
    spec = launch(Parallelism(2, 1, 2, 4), placement, (48,), model="qwen3-30b-a3b")
    (process,) = spec.processes
    found = [option(process, name) for name in ("--tp-size", "--attn-dp-size", "--ep-size", "--dp-size")]
    assert found == ["4", "2", "4", None]
    assert (option(process, "--max-running-requests"), option(process, "--chunked-prefill-size")) == ("512", "4096")
    assert any("0.5.22" in note for note in spec.notes)


def test_a_replica_over_two_hosts() -> None:
    placement: Placement = ((tuple(range(8)), tuple(range(8, 16))),)
    first, second = launch(Parallelism(8, 2), placement, (16, 16), topology="2x-dgx-h100").processes
    for rank, process in enumerate((first, second)):
        assert (option(process, "--nnodes"), option(process, "--node-rank")) == ("2", str(rank))
        assert option(process, "--dist-init-addr") == "node0:20000"
        assert process.environment["NCCL_IB_HCA"].startswith("=mlx5_0,")
    assert (option(first, "--port"), option(second, "--port")) == ("8000", None)


@pytest.mark.parametrize(("quant", "flag"), [("fp8", "fp8"), ("awq", None), ("bf16", None)])
def test_only_what_sglang_quantises_on_line_is_a_flag(quant: str, flag: str | None) -> None:
    spec = launch(Parallelism(), (((0,),),), (32,), quant=quant)
    assert option(spec.processes[0], "--quantization") == flag
    assert any("checkpoint" in note for note in spec.notes) == (quant == "awq")


def test_a_checkpoint_that_asks_for_an_8_bit_cache_gets_it(tmp_path: Path) -> None:
    from planner.documents.catalogue import find_model

    config = find_model("llama-3.1-8b").config | {
        "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = api.load_model(str(tmp_path))
    assert model.kv_element_bytes == 1
    plan = Plan(Parallelism(), (((0,),),), (32,), LIMITS)
    topology = api.load_topology("2x-l4")
    written = {engine: api.emit(plan, model, topology, engine).processes[0] for engine in ("sglang", "vllm")}
    assert option(written["sglang"], "--kv-cache-dtype") == "fp8_e4m3"
    assert option(written["vllm"], "--kv-cache-dtype") == "fp8"


@pytest.mark.parametrize(
    ("layers", "stages", "expected"), [(80, 3, (26, 27, 27)), (61, 4, (15, 15, 15, 16)), (33, 2, (16, 17)), (32, 4, (8, 8, 8, 8))]
)
def test_how_sglang_cuts_layers_by_itself(layers: int, stages: int, expected: tuple[int, ...]) -> None:
    assert default_partition(layers, stages) == expected


def test_weights_and_cache_fill_the_fraction_exactly() -> None:
    answer = api.estimate(
        api.load_model("llama-3.1-8b"), api.load_topology("dgx-h100"), Workload(), Parallelism(2), engine="sglang"
    )
    plan = answer.plans[0].ranked
    (stage,) = plan.estimate.memory
    free = stage.capacity - TRAITS.memory.buffers_nvlink
    assert stage.weights + stage.kv_cache == pytest.approx(plan.plan.limits.memory_fraction * free)
    assert stage.weights + stage.kv_cache + stage.activation + stage.overhead < stage.capacity


def test_more_is_kept_back_for_longer_chunks_and_never_less_than_ten_gib_of_a_large_gpu() -> None:
    assert memory_fraction(Bytes(48 * GIB), 8192, 160) < memory_fraction(Bytes(48 * GIB), 4096, 160)
    assert (1 - memory_fraction(Bytes(80 * GIB), 2048, 8)) * 80 == pytest.approx(10, abs=0.05)


def test_it_is_the_implementation_that_was_measured() -> None:
    one = implementations()["sglang"]
    assert (one.stack, one.written_as) == ("sglang", "sglang-custom")
    assert one.custom_all_reduce is TRAITS.custom_all_reduce
    assert one.custom_all_reduce.limit((9, 0), 8) == 8 * 2**20
    assert one.custom_all_reduce.two_over_pcie
