"""What is emitted for TGI, and what the planner knows of its memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner import api
from planner.core.engine import LaunchProcess, LaunchSpec
from planner.core.plan import EngineLimits, Parallelism, Placement, Plan
from planner.core.workload import Workload
from planner.engines import find_engine
from planner.engines.implementations import implementations
from planner.engines.tgi import CHECKED, MEASURED, TRAITS, captured
from planner.engines.tgi_flags import TGI
from planner.errors import BadInput

LIMITS = EngineLimits(256, 2048, 0.81, 8192)


def launch(
    degrees: Parallelism,
    placement: Placement,
    *,
    topology: str = "8xH100-SXM5-80GB",
    model: str = "llama-3.1-8b",
    quant: str | None = None,
    partition: tuple[int, ...] = (32,),
) -> LaunchSpec:
    plan = Plan(degrees, placement, partition, LIMITS)
    return api.emit(plan, api.load_model(model, quant=quant), api.load_topology(topology), "tgi")


def option(process: LaunchProcess, name: str) -> str | None:
    argv = process.argv
    return argv[argv.index(name) + 1] if name in argv else None


def test_one_process_with_everything_stated() -> None:
    (process,) = launch(Parallelism(2), (((2, 0),),)).processes
    assert process.argv == (
        "text-generation-launcher", "--model-id", "meta-llama/Llama-3.1-8B-Instruct", "--num-shard", "2", "--sharded", "true",
        "--dtype", "bfloat16", "--max-input-tokens", "8191", "--max-total-tokens", "8192", "--max-concurrent-requests", "256",
        "--max-batch-prefill-tokens", "2048", "--cuda-graphs", "1,2,4,8,16,32,64,128,256", "--cuda-memory-fraction", "0.9",
        "--port", "8000",
    )  # fmt: skip
    assert process.environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "2,0", "TGI_WIGGLE_ROOM": "0.9"}


def test_one_gpu_is_not_sharded() -> None:
    (process,) = launch(Parallelism(), (((5,),),)).processes
    assert (option(process, "--num-shard"), option(process, "--sharded")) == (
        "1",
        "false",
    )  # it refuses one shard that is sharded


def test_replicas_are_servers_that_share_no_port_and_no_socket() -> None:
    spec = launch(Parallelism(2, 1, 3), (((4, 5),), ((0, 2),), ((6, 7),)))
    assert [process.environment["CUDA_VISIBLE_DEVICES"] for process in spec.processes] == ["4,5", "0,2", "6,7"]
    for name in ("--port", "--master-port", "--shard-uds-path"):
        assert len({option(process, name) for process in spec.processes}) == 3
    assert [option(process, "--port") for process in spec.processes] == ["8000", "8001", "8002"]
    assert any("router" in note for note in spec.notes)


def test_replicas_on_several_hosts() -> None:
    spec = launch(Parallelism(2, 1, 2), (((0, 1),), ((8, 9),)), topology="2x8xH100-SXM5-80GB")
    assert [process.node for process in spec.processes] == ["node0", "node1"]
    assert [process.environment["CUDA_VISIBLE_DEVICES"] for process in spec.processes] == ["0,1", "0,1"]


def test_it_says_that_nothing_of_it_was_checked_or_measured() -> None:
    spec = launch(Parallelism(), (((0,),),))
    assert {CHECKED, MEASURED} <= set(spec.notes)
    answer = api.estimate(api.load_model("llama-3.1-8b"), api.load_topology("dgx-h100"), Workload(), Parallelism(2), engine="tgi")
    assert "no run of tgi was measured" in answer.plans[0].ranked.estimate.uncertainty.basis
    known = api.estimate(api.load_model("llama-3.1-8b"), api.load_topology("dgx-h100"), Workload(), Parallelism(2))
    assert "was measured" not in known.plans[0].ranked.estimate.uncertainty.basis


@pytest.mark.parametrize(
    ("degrees", "placement", "partition", "words"),
    [
        (Parallelism(1, 2), (((0,), (1,)),), (16, 16), "PP 2"),
        (Parallelism(2), (((0, 8),),), (32,), "several hosts"),
        (Parallelism(2, expert=2), (((0, 1),),), (32,), "EP 2"),
    ],
    ids=str,
)
def test_a_plan_it_cannot_run_is_never_written(
    degrees: Parallelism, placement: Placement, partition: tuple[int, ...], words: str
) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        launch(degrees, placement, topology="2x8xH100-SXM5-80GB", partition=partition)
    assert "--engine tgi" in refused.value.hint


@pytest.mark.parametrize(
    ("quant", "flag", "dtype"),
    [("fp8", "fp8", None), ("bnb-4bit", "bitsandbytes-nf4", None), ("awq", None, None), ("bf16", None, "bfloat16")],
)
def test_only_what_tgi_quantises_on_line_is_a_flag(quant: str, flag: str | None, dtype: str | None) -> None:
    spec = launch(Parallelism(), (((0,),),), quant=quant)
    (process,) = spec.processes
    assert (option(process, "--quantize"), option(process, "--dtype")) == (flag, dtype)
    assert any("checkpoint" in note for note in spec.notes) == (quant == "awq")
    assert ("--cuda-graphs" in process.argv) == (quant != "bnb-4bit")  # bitsandbytes cannot be captured


def test_a_gpu_without_bf16_gets_float16() -> None:
    answer = api.estimate(api.load_model("llama-3.2-3b"), api.load_topology("8x-t4"), Workload(), Parallelism(2), engine="tgi")
    assert option(answer.plans[0].launch.processes[0], "--dtype") == "float16"


def test_a_checkpoint_that_asks_for_an_8_bit_cache_gets_it(tmp_path: Path) -> None:
    from planner.documents.catalogue import find_model

    config = find_model("llama-3.1-8b").config | {
        "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    plan = Plan(Parallelism(), (((0,),),), (32,), LIMITS)
    spec = api.emit(plan, api.load_model(str(tmp_path)), api.load_topology("2x-l4"), "tgi")
    assert option(spec.processes[0], "--kv-cache-dtype") == "fp8_e4m3fn"


def test_no_flag_is_written_that_is_not_in_the_table() -> None:
    known = {flag.name for flag in TGI.flags.values()}
    for quant in ("bf16", "fp8", "bnb-4bit"):
        for process in launch(Parallelism(2, 1, 2), (((0, 1),), ((2, 3),)), quant=quant).processes:
            assert {word for word in process.argv if word.startswith("--")} <= known
    assert find_engine("tgi").traits.version in TGI.versions


@pytest.mark.parametrize(("sequences", "last"), [(1, 1), (2, 2), (128, 128), (100, 100), (4096, 256)])
def test_graphs_are_captured_up_to_the_most_requests(sequences: int, last: int) -> None:
    sizes = [int(size) for size in captured(sequences).split(",")]
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (1, last)


def test_weights_prefill_and_cache_fill_the_fraction_exactly() -> None:
    answer = api.estimate(api.load_model("llama-3.1-8b"), api.load_topology("dgx-h100"), Workload(), Parallelism(2), engine="tgi")
    plan = answer.plans[0].ranked
    (stage,) = plan.estimate.memory
    assert plan.plan.limits.memory_fraction == 0.9
    assert stage.total == pytest.approx(0.9 * stage.capacity)


def test_it_reduces_by_nccl_alone() -> None:
    assert "tgi" not in implementations()
    assert all(TRAITS.custom_all_reduce.limit((9, 0), ranks) == 0 for ranks in (2, 4, 8))
    workload = Workload(concurrency=1)
    answer = api.estimate(api.load_model("llama-3.1-8b"), api.load_topology("dgx-h100"), workload, Parallelism(4), engine="tgi")
    own = api.estimate(api.load_model("llama-3.1-8b"), api.load_topology("dgx-h100"), workload, Parallelism(4), engine="vllm")
    mine, theirs = (one.plans[0].ranked.estimate.communication.all_reduce_decode for one in (answer, own))
    assert mine is not None
    assert theirs is not None
    assert mine.time > theirs.time


def test_what_would_fit_is_asked_of_one_host_only() -> None:
    answer = api.recommend(api.load_model("llama-3.1-405b"), api.load_topology("dgx-h100"), Workload(), engine="tgi")
    assert not answer.plans
    assert not any("would fit it, as TP 16" in reason for reason in answer.reasons)
    assert any("--quant fp8" in reason for reason in answer.reasons)
