"""vLLM 0.33.

Flags, defaults and rules were read in vLLM 0.33.0 (engine/arg_utils.py, config/, distributed/) and its parser was run.
"""

from __future__ import annotations

from planner.core.engine import CustomAllReduce, Engine, EngineTraits, LaunchProcess, LaunchSpec, MemoryRules
from planner.core.hardware import GpuSpec
from planner.core.model import ModelSpec
from planner.core.plan import EngineLimits, Plan
from planner.core.topology import Topology
from planner.engines.placement import by_host, device_environment, is_even
from planner.units import Bytes

GIB = 2.0**30
MIB = 2**20
FIRST_PORT = 8000
MASTER_PORT = 29501
RPC_PORT = 29550

# GPUs of 70 GiB and more whose defaults vLLM keeps small all the same (engine/arg_utils.py get_batch_defaults)
_SMALL_BATCHES = frozenset({"A100-SXM4-80GB", "A100-PCIe-80GB"})
_ONLINE_QUANTISATION = frozenset({"fp8"})


def _default_limits(gpu: GpuSpec, memory: Bytes) -> EngineLimits:
    large = memory >= 70 * GIB and gpu.name not in _SMALL_BATCHES
    if memory >= 160 * GIB:
        return EngineLimits(1024, 16384, 0.92)
    return EngineLimits(1024, 8192, 0.92) if large else EngineLimits(256, 2048, 0.92)


def default_partition(layers: int, stages: int) -> tuple[int, ...]:
    """How vLLM cuts the layers when nobody says: the remainder from the second-to-last stage backwards
    (distributed/utils.py get_pp_indices).

    >>> default_partition(80, 3), default_partition(61, 4)
    ((27, 27, 26), (15, 15, 16, 15))
    """
    counts = [layers // stages] * stages
    for extra in range(layers % stages):
        counts[-(extra + 2)] += 1
    return tuple(counts)


def _expert_degrees(tensor: int, data: int) -> tuple[int, ...]:
    """With --enable-expert-parallel experts spread over all ranks of the engine: one replica's, or all of them."""
    return tuple(sorted({degree for degree in (tensor, tensor * data) if degree > 1}))


TRAITS = EngineTraits(
    name="vllm",
    version="0.33",
    stack="vllm",
    budget_rule="fraction-of-total",
    block_tokens=16,
    memory=MemoryRules(
        sampler_base=Bytes(0.144 * GIB),
        sampler_bytes_per_logit=14.3,
        buffers_single=Bytes(0.25 * GIB),
        buffers_nvlink=Bytes(2.1 * GIB),
        buffers_pcie=Bytes(0.3 * GIB),
        cuda_graphs={
            1: (Bytes(0.56 * GIB), Bytes(0.0105 * GIB)),
            2: (Bytes(0.19 * GIB), Bytes(0.019 * GIB)),
            4: (Bytes(0.09 * GIB), Bytes(0.019 * GIB)),
        },
        moe_workspace=Bytes(0.45 * GIB),
        source="start-up logs of vLLM 0.19 on H100 (several hundred), V0 logs for PCIe machines",
    ),
    vocabulary_multiple=64,
    custom_all_reduce=CustomAllReduce(
        max_bytes={
            0: {2: 8 * MIB, 4: 8 * MIB, 6: 8 * MIB, 8: 8 * MIB},
            9: {2: 8 * MIB, 4: 8 * MIB, 6: MIB // 2, 8: MIB // 4},
            10: {2: 2 * MIB, 4: 2 * MIB, 6: MIB, 8: MIB},
        },
        source="vLLM 0.33 distributed/device_communicators/custom_all_reduce.py, all_reduce_utils.py",
    ),
    batches_in_flight=lambda stages: stages + 1,
    chunk_pipelining=0.5,
    pipeline_tensors=2,
    pipeline_sliced=True,
    default_limits=_default_limits,
    expert_degrees=_expert_degrees,
    default_partition=default_partition,
    sources=("vLLM 0.33.0",),
)


def _arguments(plan: Plan, model: ModelSpec) -> list[str]:
    """What is the same for every process of the plan. Limits are stated: the plan leans on them, and defaults move."""
    degrees, limits = plan.parallelism, plan.limits
    arguments = ["vllm", "serve", model.name, "--tensor-parallel-size", str(degrees.tensor)]
    if degrees.pipeline > 1:
        arguments += ["--pipeline-parallel-size", str(degrees.pipeline)]
    if degrees.expert > 1:
        arguments += ["--enable-expert-parallel"]
    if model.weight_format != model.checkpoint_format and model.weight_format.name in _ONLINE_QUANTISATION:
        arguments += ["--quantization", model.weight_format.name]
    if model.dtype_override is not None:
        arguments += ["--dtype", model.dtype_override]
    return [
        *arguments,
        "--max-model-len",
        str(limits.max_model_tokens),
        "--max-num-seqs",
        str(limits.max_sequences),
        "--max-num-batched-tokens",
        str(limits.max_batched_tokens),
        "--gpu-memory-utilization",
        f"{limits.memory_fraction:g}",
    ]


def _partition(plan: Plan) -> dict[str, str]:
    if is_even(plan.layer_partition):
        return {}
    return {"VLLM_PP_LAYER_PARTITION": ",".join(str(layers) for layers in plan.layer_partition)}


def _notes(plan: Plan, model: ModelSpec) -> tuple[str, ...]:
    notes = []
    if plan.parallelism.data > 1 and not plan.parallelism.attention_data_parallel:
        last = FIRST_PORT + plan.parallelism.data - 1
        notes.append(f"{plan.parallelism.data} independent replicas on ports {FIRST_PORT} to {last}: put a router before them")
    if model.weight_format.needs_own_checkpoint and model.weight_format != model.checkpoint_format:
        notes.append(f"the plan is for {model.weight_format.name} weights: give vLLM a checkpoint of {model.name} in that format")
    return tuple(notes)


def _replica(plan: Plan, model: ModelSpec, topology: Topology, number: int) -> list[LaunchProcess]:
    """The processes of one independent replica: one a host."""
    hosts = by_host(topology, plan.placement[number])
    first = next(iter(hosts))
    processes = []
    for rank, (host, gpus) in enumerate(hosts.items()):
        arguments = _arguments(plan, model)
        if len(hosts) > 1:
            arguments += ["--nnodes", str(len(hosts)), "--node-rank", str(rank)]
            arguments += ["--master-addr", first, "--master-port", str(MASTER_PORT + number)]
        arguments += ["--headless"] if rank else ["--port", str(FIRST_PORT + number)]
        environment = {**device_environment(topology, gpus), **_partition(plan)}
        processes.append(LaunchProcess(host, number, tuple(arguments), environment))
    return processes


def _attention_data_parallel(plan: Plan, model: ModelSpec, topology: Topology) -> list[LaunchProcess]:
    """Replicas that share their experts: one engine over all, one process a host."""
    hosts: dict[str, list[int]] = {}
    starts: dict[str, int] = {}
    for number, replica in enumerate(plan.placement):
        for host, gpus in by_host(topology, replica).items():
            starts.setdefault(host, number)
            hosts.setdefault(host, []).extend(gpus)
    first = next(iter(hosts))
    processes = []
    for host, gpus in hosts.items():
        arguments = [*_arguments(plan, model), "--data-parallel-size", str(plan.parallelism.data)]
        if len(hosts) > 1:
            local = len(gpus) // plan.parallelism.tensor
            arguments += ["--data-parallel-size-local", str(local), "--data-parallel-address", first]
            arguments += ["--data-parallel-rpc-port", str(RPC_PORT)]
            if host != first:
                arguments += ["--data-parallel-start-rank", str(starts[host]), "--headless"]
        if host == first:
            arguments += ["--port", str(FIRST_PORT)]
        processes.append(LaunchProcess(host, starts[host], tuple(arguments), device_environment(topology, gpus)))
    return processes


def launch(plan: Plan, model: ModelSpec, topology: Topology) -> LaunchSpec:
    """The processes that start ``plan``; visible device *k* of a process is the GPU of its local rank *k*."""
    if plan.parallelism.attention_data_parallel:
        processes = _attention_data_parallel(plan, model, topology)
    else:
        processes = [one for number in range(len(plan.placement)) for one in _replica(plan, model, topology, number)]
    return LaunchSpec(tuple(processes), notes=_notes(plan, model))


ENGINE = Engine(TRAITS, launch)
