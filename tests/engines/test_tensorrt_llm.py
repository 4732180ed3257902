"""What is emitted for TensorRT-LLM: arguments, and an options file of known keys only."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from planner import api
from planner.core.engine import LaunchSpec
from planner.core.plan import EngineLimits, Parallelism, Placement, Plan
from planner.core.workload import Workload
from planner.engines.tensorrt_llm import CONFIG_FILE, KEYS

LIMITS = EngineLimits(512, 8192, 0.9, 8192)


def launch(
    degrees: Parallelism,
    placement: Placement,
    partition: tuple[int, ...],
    *,
    topology: str = "8xH100-SXM5-80GB",
    model: str = "llama-3.1-8b",
) -> tuple[LaunchSpec, dict[str, Any]]:
    plan = Plan(degrees, placement, partition, LIMITS)
    spec = api.emit(plan, api.load_model(model), api.load_topology(topology), "tensorrt-llm")
    return spec, yaml.safe_load(spec.files[CONFIG_FILE])


def test_arguments_and_options_agree() -> None:
    spec, options = launch(Parallelism(2, 2), (((0, 2), (1, 3)),), (16, 16))
    (process,) = spec.processes
    assert process.argv == (
        "trtllm-serve", "meta-llama/Llama-3.1-8B-Instruct", "--backend", "pytorch", "--tp_size", "2", "--pp_size", "2",
        "--extra_llm_api_options", CONFIG_FILE, "--port", "8000",
    )  # fmt: skip
    assert process.environment["CUDA_VISIBLE_DEVICES"] == "0,2,1,3"
    assert (options["tensor_parallel_size"], options["pipeline_parallel_size"]) == (2, 2)
    assert (options["max_batch_size"], options["max_num_tokens"], options["max_seq_len"]) == (512, 8192, 8192)
    assert options["kv_cache_config"] == {"free_gpu_memory_fraction": 0.9}
    assert "not engine-validated" in spec.files[CONFIG_FILE].splitlines()[0]


def test_an_uneven_split_is_told() -> None:
    _, uneven = launch(Parallelism(1, 3), (((0,), (1,), (2,)),), (11, 11, 10))
    assert uneven["pp_partition"] == [11, 11, 10]
    _, even = launch(Parallelism(1, 2), (((0,), (1,)),), (16, 16))
    assert "pp_partition" not in even


@pytest.mark.parametrize("expert", [2, 4])
def test_experts_spread_and_sharded_multiply_to_the_tensor_degree(expert: int) -> None:
    spec, options = launch(Parallelism(4, 1, 1, expert), (((0, 1, 2, 3),),), (48,), model="qwen3-30b-a3b")
    assert options["moe_expert_parallel_size"] * options["moe_tensor_parallel_size"] == options["tensor_parallel_size"] == 4
    assert "--ep_size" in spec.processes[0].argv


def test_attention_data_parallelism_counts_all_ranks_as_tensor_ranks() -> None:
    placement: Placement = (((0,),), ((1,),), ((2,),), ((3,),))
    spec, options = launch(Parallelism(1, 1, 4, 4), placement, (48,), model="qwen3-30b-a3b")
    assert len(spec.processes) == 1
    assert options["enable_attention_dp"] is True
    assert (options["tensor_parallel_size"], options["moe_expert_parallel_size"]) == (4, 4)


def test_two_hosts_are_one_world_of_ranks() -> None:
    placement: Placement = ((tuple(range(8)), tuple(range(8, 16))),)
    spec, _ = launch(Parallelism(8, 2), placement, (16, 16), topology="2x8xH100-SXM5-80GB")
    (process,) = spec.processes
    argv = process.argv
    assert argv[0] == "srun"
    nodes, tasks = argv[argv.index("--nodes") + 1], argv[argv.index("--ntasks-per-node") + 1]
    assert int(nodes) * int(tasks) == 16
    assert argv[argv.index("trtllm-llmapi-launch") + 1] == "trtllm-serve"


@pytest.mark.parametrize("model", ["llama-3.1-70b", "qwen3-235b-a22b-fp8", "mixtral-8x22b"])
@pytest.mark.parametrize("topology", ["dgx-h100", "2x-dgx-h100", "8x-l40s"])
def test_no_key_outside_the_table_whatever_is_planned(model: str, topology: str) -> None:
    answer = api.recommend(api.load_model(model), api.load_topology(topology), Workload(), engine="tensorrt-llm", top=50)
    for plan in answer.plans:
        options = yaml.safe_load(plan.launch.files[CONFIG_FILE])
        assert set(options) <= KEYS
        degrees = plan.ranked.plan.parallelism
        world = options["tensor_parallel_size"] * options["pipeline_parallel_size"]
        replicas = 1 if degrees.attention_data_parallel else degrees.data
        assert world * replicas == degrees.gpus
