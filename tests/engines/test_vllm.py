"""What is emitted for vLLM: argument vectors, environment, one process a host."""

from __future__ import annotations

import pytest

from planner import api
from planner.core.engine import LaunchProcess, LaunchSpec
from planner.core.plan import EngineLimits, Parallelism, Placement, Plan
from planner.engines.vllm import default_partition

LIMITS = EngineLimits(256, 2048, 0.9, 8192)


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
    return api.emit(plan, api.load_model(model, quant=quant), api.load_topology(topology), "vllm")


def option(process: LaunchProcess, name: str) -> str | None:
    argv = process.argv
    return argv[argv.index(name) + 1] if name in argv else None


def test_one_process_with_everything_stated() -> None:
    (process,) = launch(Parallelism(2, 2), (((0, 2), (1, 3)),), (16, 16)).processes
    assert process.argv == (
        "vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct",
        "--tensor-parallel-size", "2", "--pipeline-parallel-size", "2",
        "--max-model-len", "8192", "--max-num-seqs", "256", "--max-num-batched-tokens", "2048",
        "--gpu-memory-utilization", "0.9", "--port", "8000",
    )  # fmt: skip
    assert process.environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,2,1,3"}


def test_devices_are_in_rank_order_not_sorted() -> None:
    (process,) = launch(Parallelism(4), (((5, 1, 7, 0),),), (32,)).processes
    assert process.environment["CUDA_VISIBLE_DEVICES"] == "5,1,7,0"


def test_an_uneven_split_is_told_and_an_even_one_is_not() -> None:
    (uneven,) = launch(Parallelism(1, 3), (((0,), (1,), (2,)),), (11, 11, 10)).processes
    assert uneven.environment["VLLM_PP_LAYER_PARTITION"] == "11,11,10"
    (even,) = launch(Parallelism(1, 2), (((0,), (1,)),), (16, 16)).processes
    assert "VLLM_PP_LAYER_PARTITION" not in even.environment


def test_replicas_get_a_port_each_and_a_word_about_the_router() -> None:
    spec = launch(Parallelism(1, 1, 3), (((4,),), ((0,),), ((2,),)), (32,))
    assert [option(process, "--port") for process in spec.processes] == ["8000", "8001", "8002"]
    assert [process.environment["CUDA_VISIBLE_DEVICES"] for process in spec.processes] == ["4", "0", "2"]
    assert [process.replica for process in spec.processes] == [0, 1, 2]
    assert "router" in spec.notes[0]
    assert not any("--data-parallel-size" in process.argv for process in spec.processes)


def test_a_replica_over_two_hosts_has_a_headless_second_process() -> None:
    placement: Placement = ((tuple(range(8)), tuple(range(8, 16))),)
    head, second = launch(Parallelism(8, 2), placement, (16, 16), topology="2x8xH100-SXM5-80GB").processes
    assert (head.node, second.node) == ("node0", "node1")
    for rank, process in enumerate((head, second)):
        assert option(process, "--nnodes") == "2"
        assert option(process, "--node-rank") == str(rank)
        assert option(process, "--master-addr") == "node0"
        assert process.environment["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"
    assert "--headless" not in head.argv
    assert "--headless" in second.argv
    assert option(second, "--port") is None


def test_experts_over_one_replica() -> None:
    (process,) = launch(Parallelism(4, 1, 1, 4), (((0, 1, 2, 3),),), (48,), model="qwen3-30b-a3b").processes
    assert "--enable-expert-parallel" in process.argv
    assert option(process, "--data-parallel-size") is None


def test_experts_over_all_replicas_are_one_engine() -> None:
    placement: Placement = (((0, 1),), ((2, 3),))
    (process,) = launch(Parallelism(2, 1, 2, 4), placement, (48,), model="qwen3-30b-a3b").processes
    assert option(process, "--data-parallel-size") == "2"
    assert option(process, "--tensor-parallel-size") == "2"
    assert process.environment["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"


def test_experts_over_two_hosts() -> None:
    placement: Placement = tuple((tuple(range(4 * number, 4 * number + 4)),) for number in range(4))
    head, second = launch(
        Parallelism(4, 1, 4, 16), placement, (48,), model="qwen3-30b-a3b", topology="2x8xH100-SXM5-80GB"
    ).processes
    assert option(head, "--data-parallel-size-local") == option(second, "--data-parallel-size-local") == "2"
    assert option(second, "--data-parallel-start-rank") == "2"
    assert option(second, "--data-parallel-address") == "node0"
    assert "--headless" in second.argv


@pytest.mark.parametrize(("quant", "flag"), [("fp8", "fp8"), ("awq", None), ("bf16", None), ("nvfp4", None)])
def test_only_what_vllm_quantises_on_line_is_a_flag(quant: str, flag: str | None) -> None:
    spec = launch(Parallelism(), (((0,),),), (32,), quant=quant)
    assert option(spec.processes[0], "--quantization") == flag
    needs_checkpoint = quant in {"awq", "nvfp4"}
    assert any("checkpoint" in note for note in spec.notes) == needs_checkpoint


def test_gpus_without_bf16_are_told_half() -> None:
    from planner.core.workload import Workload

    answer = api.recommend(api.load_model("qwen3-8b"), api.load_topology("8x-t4"), Workload(), top=1)
    assert option(answer.plans[0].launch.processes[0], "--dtype") == "half"
    assert any("no bf16" in warning for warning in answer.warnings)


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [(80, 3, (27, 27, 26)), (61, 4, (15, 15, 16, 15)), (33, 2, (17, 16)), (62, 4, (15, 16, 16, 15)), (32, 4, (8, 8, 8, 8))],
)
def test_how_vllm_cuts_layers_by_itself(layers: int, stages: int, expected: tuple[int, ...]) -> None:
    assert default_partition(layers, stages) == expected


@pytest.mark.parametrize("name", ["/models/my model", "./-x", "/m/$(reboot)", "/m/'; reboot; '"])
def test_a_name_never_becomes_two_words_of_a_shell(name: str) -> None:
    import shlex
    from dataclasses import replace

    from planner.deploy.shell import command_line

    model = replace(api.load_model("llama-3.1-8b"), name=name)
    plan = Plan(Parallelism(), (((0,),),), (32,), LIMITS)
    (process,) = api.emit(plan, model, api.load_topology("2x-l4")).processes
    words = shlex.split(command_line(process))
    assert words[2:5] == ["vllm", "serve", name]
    assert words[2:] == list(process.argv)
