"""vLLM 0.33.

Defaults and rules were read in vLLM 0.33.0 (engine/arg_utils.py, config/, distributed/); flags are in :mod:`.vllm_flags`. Its own
parser takes what is written here (``make test-engines``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from planner.core.engine import CustomAllReduce, Engine, EngineTraits, LaunchProcess, LaunchSpec, MemoryRanges, MemoryRules
from planner.core.hardware import GpuSpec
from planner.core.model import ModelSpec
from planner.core.plan import EngineLimits, Group, Plan, Replica, tensor_groups
from planner.core.speculation import LOOKED_UP, METHODS, Speculation
from planner.core.topology import Topology
from planner.engines.flags import Command
from planner.engines.placement import Part, is_even, parts, ranks_of, replicas_by_host, several_parts
from planner.engines.vllm_flags import PARTITION, VLLM
from planner.engines.vllm_releases import SMALL_BATCHES, releases
from planner.engines.wires import PCIE_PAIR, Wires, environment_of
from planner.units import Bytes

GIB = 2.0**30
MIB = 2**20
FIRST_PORT = 8000
MASTER_PORT = 29501
RPC_PORT = 29550

_ONLINE_QUANTISATION = frozenset({"fp8"})


def _default_limits(gpu: GpuSpec, memory: Bytes) -> EngineLimits:
    large = memory >= 70 * GIB and gpu.name not in SMALL_BATCHES
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


_MEMORY = MemoryRules(
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
    cuda_graphs_expert_layer=Bytes(0.025 * GIB),
    ranges=MemoryRanges(
        activation=(0.5, 2.0),
        buffers=(0.25, 2.0),
        cuda_graphs=(0.5, 2.0),
        source="start-up logs of vLLM 0.6 to 0.19, SGLang and TensorRT-LLM, by release and machine",
    ),
    source="start-up logs of vLLM 0.19 on H100 (several hundred), V0 logs for PCIe machines",
)

TRAITS = EngineTraits(
    name="vllm",
    version="0.33",
    stack="vllm",
    budget_rule="fraction-of-total",
    block_tokens=16,
    memory=_MEMORY,
    releases=releases(_MEMORY, _default_limits),
    vocabulary_multiple=64,
    custom_all_reduce=CustomAllReduce(
        max_bytes={
            0: {2: 8 * MIB, 4: 8 * MIB, 6: 8 * MIB, 8: 8 * MIB},
            10: {2: 2 * MIB, 4: 8 * MIB, 6: 8 * MIB, 8: 8 * MIB},
        },
        source="vLLM 0.33 distributed/device_communicators/custom_all_reduce.py, all_reduce_utils.py",
        two_over_pcie=True,
    ),
    answer_reserved=0.5,
    batches_in_flight=lambda stages: stages + 1,
    chunk_pipelining=0.5,
    pipeline_tensors=2,
    pipeline_sliced=True,
    default_limits=_default_limits,
    expert_degrees=_expert_degrees,
    default_partition=default_partition,
    cache_groups=True,
    decode_context=frozenset({"grouped", "latent"}),
    prefill_context=frozenset({"latent"}),
    speculation=frozenset(METHODS),
    pipelined_speculation=frozenset(METHODS),
    sources=(VLLM.read_from,),
)


def _command(plan: Plan, model: ModelSpec, wires: Wires, groups: Iterable[Group]) -> Command:
    """What is the same for every process of an engine. Limits are stated: the plan leans on them, and defaults move."""
    degrees, limits = plan.parallelism, plan.limits
    command = Command(VLLM, ["vllm", "serve", model.name])
    command.state("tensor", degrees.tensor)
    command.set("pipeline", degrees.pipeline)
    command.set("decode-context", degrees.decode_context)
    command.set("prefill-context", degrees.prefill_context)
    if degrees.expert > 1:
        command.state("expert")
    if model.weight_format != model.checkpoint_format and model.weight_format.name in _ONLINE_QUANTISATION:
        command.state("quantisation", model.weight_format.name)
    if model.dtype_override is not None:
        command.state("dtype", model.dtype_override)
    if model.cache_dtype == "fp8":
        command.state("cache-dtype", "fp8")
    command.state("context", limits.max_model_tokens)
    command.state("sequences", limits.max_sequences)
    command.state("batched-tokens", limits.max_batched_tokens)
    command.state("memory", f"{limits.memory_fraction:g}")
    if plan.speculation is not None:
        command.state("speculation", json.dumps(_guesses(plan.speculation)))
    reducing = [one for group in groups for one in tensor_groups(group, degrees.tensor)]
    if reason := wires.no_custom_all_reduce(TRAITS.custom_all_reduce, reducing):
        command.state("no-custom-all-reduce", why=reason)
    return command


def _guesses(speculation: Speculation) -> dict[str, Any]:
    """The document that says how tokens are guessed."""
    said: dict[str, Any] = {"method": speculation.method, "num_speculative_tokens": speculation.draft_tokens}
    if speculation.method == "eagle3":
        said["model"] = speculation.checkpoint
    if speculation.method == "ngram":
        said["prompt_lookup_max"] = LOOKED_UP
    return said


def _numa(command: Command, wires: Wires, gpus: Sequence[int]) -> None:
    nodes = wires.numa_nodes(gpus)
    if nodes is not None:
        command.state(
            "numa",
            why="workers next to their GPUs; needs numactl where vLLM runs (in a container SYS_NICE too), without it leave both flags out",
        )
        command.state("numa-nodes", *nodes)


def _multi_node(command: Command, plan: Plan, number: int, nodes: Sequence[Part], rank: int) -> None:
    """One engine over several processes: every one has as many ranks, the first serves."""
    if len(nodes) > 1:
        command.state("executor", "mp")
        command.state("nodes", len(nodes))
        command.state("node", rank)
        command.state("leader", nodes[0].host)
        command.state("leader-port", MASTER_PORT + number)
    if len({node.host for node in nodes}) < len(nodes):
        command.notes.append(several_parts(plan, nodes))
    if rank:
        command.state("headless")
    else:
        command.state("port", FIRST_PORT + number)


def _engine(
    plan: Plan, model: ModelSpec, topology: Topology, wires: Wires, number: int, replicas: Sequence[Replica]
) -> tuple[list[LaunchProcess], list[str]]:
    """The processes of one engine over ``replicas``, of which several share their experts: one process a host."""
    nodes = parts(topology, [gpu for replica in replicas for gpu in ranks_of(replica)])
    several = len({node.host for node in nodes}) > 1
    groups = [group for replica in replicas for group in replica]
    processes, notes = [], []
    for rank, node in enumerate(nodes):
        command = _command(plan, model, wires, groups)
        if len(replicas) > 1:
            command.state("data", len(replicas))
        _numa(command, wires, node.gpus)
        _multi_node(command, plan, number, nodes, rank)
        said = environment_of(topology, wires, node, several=several)
        if not is_even(plan.layer_partition):
            said.environment[PARTITION] = ",".join(str(layers) for layers in plan.layer_partition)
        processes.append(LaunchProcess(node.host, number, tuple(command.argv), said.environment))
        notes += [*command.notes, *said.notes]
    return processes, notes


def _experts_shared(
    plan: Plan, model: ModelSpec, topology: Topology, wires: Wires, hosts: dict[str, list[Replica]]
) -> tuple[list[LaunchProcess], list[str]]:
    """Replicas that share their experts, each on one host: one engine over all, one process a host, any number on each."""
    first = next(iter(hosts))
    processes, notes, start = [], [], 0
    for host, replicas in hosts.items():
        gpus = tuple(gpu for replica in replicas for gpu in ranks_of(replica))
        command = _command(plan, model, wires, wires.groups)
        command.state("data", plan.parallelism.data)
        command.state("data-local", len(replicas))
        command.state("data-address", first)
        command.state("data-port", RPC_PORT)
        _numa(command, wires, gpus)
        if host == first:
            command.state("port", FIRST_PORT)
        else:
            command.state("data-start", start)
            command.state("headless")
        said = environment_of(topology, wires, Part(host, gpus), several=True)
        processes.append(LaunchProcess(host, start, tuple(command.argv), said.environment))
        notes += [*command.notes, *said.notes]
        start += len(replicas)
    return processes, notes


def _notes(plan: Plan, model: ModelSpec, wires: Wires) -> list[str]:
    notes = []
    if plan.parallelism.data > 1 and not plan.parallelism.attention_data_parallel:
        last = FIRST_PORT + plan.parallelism.data - 1
        notes.append(f"{plan.parallelism.data} independent replicas on ports {FIRST_PORT} to {last}: put a router before them")
    if model.weight_format.needs_own_checkpoint and model.weight_format != model.checkpoint_format:
        notes.append(f"the plan is for {model.weight_format.name} weights: give vLLM a checkpoint of {model.name} in that format")
    if wires.fragile(wires.groups):
        notes.append(PCIE_PAIR)
    return notes


def launch(plan: Plan, model: ModelSpec, topology: Topology) -> LaunchSpec:
    """The processes that start ``plan``; visible device *k* of a process is the GPU of its local rank *k*."""
    wires = Wires(topology, plan.placement)
    hosts = replicas_by_host(topology, plan.placement)
    if not plan.parallelism.attention_data_parallel:
        engines = [_engine(plan, model, topology, wires, number, [one]) for number, one in enumerate(plan.placement)]
    elif hosts is not None and len(hosts) > 1:
        engines = [_experts_shared(plan, model, topology, wires, hosts)]
    else:
        engines = [_engine(plan, model, topology, wires, 0, plan.placement)]
    processes = [process for several, _ in engines for process in several]
    notes = [*_notes(plan, model, wires), *(note for _, several in engines for note in several)]
    return LaunchSpec(tuple(processes), notes=tuple(dict.fromkeys(notes)))


ENGINE = Engine(TRAITS, launch)
