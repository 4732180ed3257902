"""TensorRT-LLM 1.x, PyTorch backend.

Keys and rules were read in files of mixed age (argument classes of the main line of November 2026, ``serve.py`` of about
1.2) and could not be run without a GPU: what is emitted is checked against this table of keys, not by the engine.
"""

from __future__ import annotations

from typing import Any

from planner.core.engine import CustomAllReduce, Engine, EngineTraits, LaunchProcess, LaunchSpec, MemoryRules, Release
from planner.core.hardware import GpuSpec
from planner.core.model import ModelSpec
from planner.core.plan import EngineLimits, Plan
from planner.core.speculation import LOOKED_UP, METHODS, Speculation
from planner.core.topology import Topology
from planner.documents import yaml_out
from planner.engines import vllm
from planner.engines.placement import by_host, device_environment
from planner.units import Bytes

GIB = 2.0**30
MIB = 2**20
FIRST_PORT = 8000
CONFIG_FILE = "tensorrt-llm.yaml"
CHECKED = "schema-checked, not engine-validated"

# the keys of TorchLlmArgs that this module may write; unknown keys make the server refuse to start (extra="forbid")
KEYS = frozenset(
    {
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "moe_expert_parallel_size",
        "moe_tensor_parallel_size",
        "enable_attention_dp",
        "speculative_config",
        "pp_partition",
        "max_batch_size",
        "max_num_tokens",
        "max_seq_len",
        "enable_chunked_prefill",
        "kv_cache_config",
        "cuda_graph_config",
    }
)


def _default_limits(gpu: GpuSpec, memory: Bytes) -> EngineLimits:
    del gpu, memory
    return EngineLimits(2048, 8192, 0.9)


def _expert_degrees(tensor: int, data: int) -> tuple[int, ...]:
    """Divisors of the world: within a replica, or over all ranks under attention DP (which leaves attention unsharded)."""
    world = tensor if data == 1 or tensor > 1 else data
    return tuple(degree for degree in range(2, world + 1) if world % degree == 0)


def _first_ranks(layers: int, stages: int) -> tuple[int, ...]:
    """How TensorRT-LLM cuts the layers when nobody says: the remainder on the first ranks (mapping.pp_layers)."""
    whole, extra = divmod(layers, stages)
    return tuple(whole + (stage < extra) for stage in range(stages))


_MEMORY = MemoryRules(
    sampler_base=Bytes(0.0),
    sampler_bytes_per_logit=4.0,
    buffers_single=Bytes(0.25 * GIB),
    buffers_nvlink=Bytes(2.1 * GIB),
    buffers_pcie=Bytes(0.3 * GIB),
    cuda_graphs={1: (Bytes(0.56 * GIB), Bytes(0.0105 * GIB)), 2: (Bytes(0.19 * GIB), Bytes(0.019 * GIB))},
    cuda_graphs_expert_layer=Bytes(0.025 * GIB),
    ranges=vllm.TRAITS.memory.ranges,
    source="assumption: as vLLM measures them; few TensorRT-LLM start-up logs are public",
    forward="by-hidden-size",
)

TRAITS = EngineTraits(
    name="tensorrt-llm",
    version="1.x",
    stack="tensorrt-llm",
    budget_rule="fraction-of-free",
    block_tokens=32,
    memory=_MEMORY,
    vocabulary_multiple=64,
    custom_all_reduce=CustomAllReduce(
        max_bytes={0: {2: 16 * MIB, 4: 8 * MIB, 6: 8 * MIB, 8: 8 * MIB}},
        source="TensorRT-LLM cpp/tensorrt_llm/common/customAllReduceUtils.h: workspace sizes",
    ),
    batches_in_flight=lambda stages: stages,
    chunk_pipelining=0.5,
    pipeline_tensors=2,
    pipeline_sliced=False,
    static_in_turn=True,  # NVIDIA/TensorRT-LLM issue 1144: "split the full batch"; LLM-Inference-Bench 2024: no two at once
    default_limits=_default_limits,
    expert_degrees=_expert_degrees,
    default_partition=_first_ranks,
    speculation=frozenset(METHODS),
    pipelined_speculation=frozenset(METHODS),
    releases=(Release("1.1", _MEMORY, _default_limits, cache_groups=False, answering="tensorrt-llm-1.0"),),
    vendors=frozenset({"NVIDIA"}),
    sources=("TensorRT-LLM main, November 2026 (read, not run)",),
)


def _world(plan: Plan) -> tuple[int, int]:
    """Tensor degree of the engine, and how many replicas share it: attention DP counts its ranks as tensor ranks."""
    degrees = plan.parallelism
    together = degrees.data if degrees.attention_data_parallel else 1
    return degrees.tensor * together, together


def _config(plan: Plan, model: ModelSpec) -> dict[str, Any]:
    """The options file: what the command line cannot say, and the limits the plan leans on."""
    degrees, limits = plan.parallelism, plan.limits
    tensor, together = _world(plan)
    cache: dict[str, Any] = {"free_gpu_memory_fraction": limits.memory_fraction}
    if model.cache_dtype != "auto":
        cache["dtype"] = model.cache_dtype
    config: dict[str, Any] = {
        "tensor_parallel_size": tensor,
        "pipeline_parallel_size": degrees.pipeline,
    }
    if degrees.expert > 1:
        config["moe_expert_parallel_size"] = degrees.expert
        config["moe_tensor_parallel_size"] = tensor // degrees.expert
    if together > 1:
        config["enable_attention_dp"] = True
    if degrees.pipeline > 1 and len(set(plan.layer_partition)) > 1:
        config["pp_partition"] = list(plan.layer_partition)
    config |= {
        "max_batch_size": limits.max_sequences,
        "max_num_tokens": limits.max_batched_tokens,
        "max_seq_len": limits.max_model_tokens,
        "enable_chunked_prefill": True,
        "kv_cache_config": cache,
        "cuda_graph_config": {"enable_padding": True, "max_batch_size": limits.max_sequences},
    }
    if plan.speculation is not None:
        config["speculative_config"] = _guesses(plan.speculation)
    unknown = set(config) - KEYS
    if unknown:
        raise AssertionError(f"keys outside the table: {sorted(unknown)}")
    return config


def _guesses(speculation: Speculation) -> dict[str, Any]:
    """How tokens are guessed."""
    count = speculation.draft_tokens
    if speculation.method == "mtp":
        return {"decoding_type": "MTP", "num_nextn_predict_layers": count}
    if speculation.method == "ngram":
        return {"decoding_type": "NGram", "max_draft_len": count, "max_matching_ngram_size": LOOKED_UP}
    return {"decoding_type": "Eagle", "max_draft_len": count, "speculative_model_dir": speculation.checkpoint}


def _serve(plan: Plan, model: ModelSpec, port: int) -> list[str]:
    tensor, _ = _world(plan)
    arguments = ["trtllm-serve", model.name, "--backend", "pytorch", "--tp_size", str(tensor)]
    arguments += ["--pp_size", str(plan.parallelism.pipeline)]
    if plan.parallelism.expert > 1:
        arguments += ["--ep_size", str(plan.parallelism.expert)]
    return [*arguments, "--extra_llm_api_options", CONFIG_FILE, "--port", str(port)]


def _process(plan: Plan, model: ModelSpec, topology: Topology, number: int, hosts: dict[str, list[int]]) -> LaunchProcess:
    first = next(iter(hosts))
    arguments = _serve(plan, model, FIRST_PORT + number)
    if len(hosts) > 1:
        share = len(hosts[first])
        prefix = ["srun", "--mpi=pmix", "--nodes", str(len(hosts)), "--nodelist", ",".join(hosts)]
        arguments = [*prefix, "--ntasks-per-node", str(share), "trtllm-llmapi-launch", *arguments]
    return LaunchProcess(first, number, tuple(arguments), device_environment(topology, hosts[first]))


def _notes(plan: Plan, model: ModelSpec, topology: Topology) -> tuple[str, ...]:
    notes = [f"{CONFIG_FILE} is {CHECKED}"]
    if model.weight_format != model.checkpoint_format and model.dtype_override is None:
        notes.append(
            f"the plan is for {model.weight_format.name} weights: give TensorRT-LLM a checkpoint of {model.name} in that format"
        )
    for replica in plan.placement:
        hosts = by_host(topology, replica)
        indices = {tuple(topology.gpus[gpu].index for gpu in gpus) for gpus in hosts.values()}
        if len(indices) > 1:
            notes.append("the hosts of a replica use different device indices: one environment cannot name them all")
            break
    if plan.parallelism.data > 1 and not plan.parallelism.attention_data_parallel:
        last = FIRST_PORT + plan.parallelism.data - 1
        notes.append(f"{plan.parallelism.data} independent replicas on ports {FIRST_PORT} to {last}: put a router before them")
    return tuple(notes)


def launch(plan: Plan, model: ModelSpec, topology: Topology) -> LaunchSpec:
    """The processes that start ``plan``, and their options file."""
    processes = []
    if plan.parallelism.attention_data_parallel:
        together: dict[str, list[int]] = {}
        for replica in plan.placement:
            for host, gpus in by_host(topology, replica).items():
                together.setdefault(host, []).extend(gpus)
        processes.append(_process(plan, model, topology, 0, together))
    else:
        for number, replica in enumerate(plan.placement):
            processes.append(_process(plan, model, topology, number, by_host(topology, replica)))
    header = f"# TensorRT-LLM {TRAITS.version} options, {CHECKED}\n"
    return LaunchSpec(
        tuple(processes), {CONFIG_FILE: header + yaml_out.write(_config(plan, model))}, _notes(plan, model, topology)
    )


ENGINE = Engine(TRAITS, launch)
