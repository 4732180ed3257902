"""SGLang 0.5.2x.

Defaults and rules were read in SGLang 0.5.23 (srt/arg_groups/, srt/mem_cache/kv_cache_configurator.py, srt/distributed/); flags are
in :mod:`.sglang_flags`. Its own parser takes what is written here (``make test-engines``).
"""

from __future__ import annotations

from collections.abc import Sequence

from planner.core.engine import CustomAllReduce, Engine, EngineTraits, LaunchProcess, LaunchSpec, MemoryRules
from planner.core.hardware import GpuSpec
from planner.core.model import ModelSpec
from planner.core.plan import EngineLimits, Plan, Replica
from planner.core.speculation import METHODS, Speculation
from planner.core.topology import Topology
from planner.engines import vllm
from planner.engines.flags import Command
from planner.engines.placement import is_even, parts, ranks_of, several_parts
from planner.engines.sglang_flags import PARTITION, SGLANG
from planner.engines.wires import PCIE_PAIR, Wires, environment_of
from planner.units import Bytes

GIB = 2.0**30
MIB = 2.0**20
FIRST_PORT = 8000
LEADER_PORT = 20000
SHARING_KERNELS = "flashinfer"
"""The attention kernels that let ranks share out a cache of latents on every GPU. FlashAttention 3, what Hopper runs by itself, does
not; TensorRT-LLM's do on Blackwell alone; Triton's do for key and value heads too, at a price that is not known here.
"""
ASYNC_BATCH_DEPTH = 0
"""--pp-async-batch-depth as it is where nobody says."""

_ONLINE_QUANTISATION = frozenset({"fp8"})
# (GPUs with less memory than this, tokens of a chunk, requests at once): chunks as SGLang chooses them by memory, requests as many
# as it captures decode graphs for on four GPUs and more (srt/arg_groups/memory_hook.py)
_BY_MEMORY = ((20 * GIB, 2048, 64), (60 * GIB, 4096, 160), (160 * GIB, 8192, 256), (float("inf"), 16384, 512))
_RANKS = 8


def memory_fraction(memory: Bytes, chunk: int, requests: int) -> float:
    """The share of memory that SGLang gives to weights and cache where nobody says (memory_hook.py, KV sized before graphs).

    It keeps back 512 MiB, 1.5 MiB a token of a chunk, 2 MiB a sequence of the largest decode graph, 8 MiB a prefill graph (some 64)
    and 128 MiB a rank, for which a machine of eight is taken; 10 GiB at least where there are more than 60.

    >>> memory_fraction(Bytes(80 * 2**30), 8192, 256), memory_fraction(Bytes(24 * 2**30), 4096, 160)
    (0.819, 0.654)
    """
    reserve = (512 + 1.5 * chunk + 2 * requests + 8 * 64 + 128 * _RANKS) * MIB
    if memory > 60 * GIB:
        reserve = max(reserve, 10 * GIB)
    return round((memory - reserve) / memory, 3)


def _default_limits(gpu: GpuSpec, memory: Bytes) -> EngineLimits:
    del gpu
    chunk, requests = next((chunk, requests) for below, chunk, requests in _BY_MEMORY if memory < below)
    return EngineLimits(requests, chunk, memory_fraction(memory, chunk, requests))


_ALGORITHMS = {"mtp": "NEXTN", "eagle3": "EAGLE3", "ngram": "NGRAM"}


def default_partition(layers: int, stages: int) -> tuple[int, ...]:
    """How SGLang cuts the layers when nobody says: the remainder on the last stages (distributed/utils.py get_pp_indices).

    >>> default_partition(80, 3), default_partition(61, 4)
    ((26, 27, 27), (15, 15, 15, 16))
    """
    whole, extra = divmod(layers, stages)
    return tuple(whole + (stage >= stages - extra) for stage in range(stages))


def _expert_degrees(tensor: int, data: int) -> tuple[int, ...]:
    """Divisors of a replica's ranks; under attention data parallelism all ranks of the engine."""
    degrees = {degree for degree in range(2, tensor + 1) if tensor % degree == 0}
    return tuple(sorted(degrees | ({tensor * data} if data > 1 else set())))


TRAITS = EngineTraits(
    name="sglang",
    version="0.5.23",
    stack="sglang",
    budget_rule="fraction-for-weights-and-cache",
    block_tokens=1,
    memory=MemoryRules(
        sampler_base=Bytes(0.0),
        sampler_bytes_per_logit=4.0,
        buffers_single=Bytes(0.5 * GIB),
        buffers_nvlink=Bytes(2.0 * GIB),
        buffers_pcie=Bytes(0.3 * GIB),
        cuda_graphs={1: (Bytes(1.0 * GIB), Bytes(0.05 * GIB)), 4: (Bytes(0.4 * GIB), Bytes(0.03 * GIB))},
        cuda_graphs_expert_layer=Bytes(0.025 * GIB),
        ranges=vllm.TRAITS.memory.ranges,
        source="few public start-up logs: 2.0 GiB after the start of NCCL on eight H200, graphs of 1.3 to 3.4 GiB; experts as vLLM's",
        request_table=4.0,
    ),
    vocabulary_multiple=64,
    custom_all_reduce=CustomAllReduce(
        max_bytes={0: {2: 8 * int(MIB), 4: 8 * int(MIB), 6: 8 * int(MIB), 8: 8 * int(MIB)}},
        source="SGLang 0.5.23 srt/distributed/device_communicators/custom_all_reduce.py: _MAX_CAR_SIZE",
        two_over_pcie=True,
    ),
    answer_reserved=0.5,
    prompts_apart=True,  # srt/managers/scheduler.py: prefill before decode, unless --enable-mixed-chunk
    batches_in_flight=lambda stages: stages + ASYNC_BATCH_DEPTH,
    chunk_pipelining=0.5,
    pipeline_tensors=2,
    pipeline_sliced=True,
    default_limits=_default_limits,
    fraction_kept=memory_fraction,
    expert_degrees=_expert_degrees,
    default_partition=default_partition,
    decode_context=frozenset({"latent"}),
    decode_context_element=2,
    speculation=frozenset(METHODS),
    pipelined_speculation=frozenset({"mtp"}),
    sources=(SGLANG.read_from,),
)


def _command(plan: Plan, model: ModelSpec, wires: Wires, replicas: Sequence[Replica]) -> Command:
    """What is the same for every process of an engine over ``replicas``. Limits are stated: the plan leans on them.

    Under attention data parallelism SGLang counts all ranks as tensor ranks, and divides requests and chunk by the replicas.
    """
    degrees, limits = plan.parallelism, plan.limits
    together = len(replicas) if degrees.attention_data_parallel else 1
    command = Command(SGLANG, ["python3", "-m", "sglang.launch_server"])
    command.state("model", model.name)
    command.state("tensor", degrees.tensor * together)
    command.set("pipeline", degrees.pipeline)
    command.set("attention-data", together)
    command.set("data", len(replicas) if together == 1 else 1)
    command.set("expert", degrees.expert)
    if degrees.decode_context > 1:
        command.state("decode-context", degrees.decode_context)
        command.state("attention", SHARING_KERNELS, why="others do not share out the cache on every GPU")
    if model.weight_format != model.checkpoint_format and model.weight_format.name in _ONLINE_QUANTISATION:
        command.state("quantisation", model.weight_format.name)
    if model.dtype_override is not None:
        command.state("dtype", model.dtype_override)
    if model.cache_dtype == "fp8":
        command.state("cache-dtype", "fp8_e4m3")
    command.state("context", limits.max_model_tokens)
    command.state("sequences", limits.max_sequences * together)
    command.state("batched-tokens", limits.max_batched_tokens * together)
    command.state("graphs", max(1, limits.max_sequences // degrees.pipeline))
    command.state("memory", f"{limits.memory_fraction:g}")
    if plan.speculation is not None:
        _guess(command, plan.speculation)
    groups = [group for replica in replicas for group in replica]
    if reason := wires.no_custom_all_reduce(TRAITS.custom_all_reduce, groups):
        command.state("no-custom-all-reduce", why=reason)
    return command


def _guess(command: Command, speculation: Speculation) -> None:
    """How tokens are guessed: one after another, never a tree of them; SGLang counts what is verified, the sure token with it."""
    command.state("speculation", _ALGORITHMS[speculation.method])
    if speculation.method != "ngram":
        command.state("draft-steps", speculation.draft_tokens)
        command.state("draft-branches", 1)
    if speculation.checkpoint:
        command.state("draft-checkpoint", speculation.checkpoint)
    command.state("draft-tokens", speculation.verified)


def _engine(
    plan: Plan, model: ModelSpec, topology: Topology, wires: Wires, number: int, replicas: Sequence[Replica]
) -> tuple[list[LaunchProcess], list[str]]:
    """The processes of one engine over ``replicas``, which share their experts or are alike on one host."""
    nodes = parts(topology, [gpu for replica in replicas for gpu in ranks_of(replica)])
    hosts = {node.host for node in nodes}
    processes, notes = [], []
    for rank, node in enumerate(nodes):
        command = _command(plan, model, wires, replicas)
        if len(nodes) > 1:
            command.state("nodes", len(nodes))
            command.state("node", rank)
            command.state("leader", f"{nodes[0].host}:{LEADER_PORT + number}")
        if len(hosts) < len(nodes):
            command.notes.append(several_parts(plan, nodes))
        if not rank or number:  # the others answer health checks, each at a port of its own
            command.state("port", FIRST_PORT + number)
        said = environment_of(topology, wires, node, several=len(hosts) > 1)
        if not is_even(plan.layer_partition):
            said.environment[PARTITION] = ",".join(str(layers) for layers in plan.layer_partition)
        processes.append(LaunchProcess(node.host, number, tuple(command.argv), said.environment))
        notes += [*command.notes, *said.notes]
    return processes, notes


def _notes(plan: Plan, model: ModelSpec, wires: Wires, engines: int) -> list[str]:
    notes = []
    if engines > 1:
        last = FIRST_PORT + engines - 1
        notes.append(f"{engines} independent replicas on ports {FIRST_PORT} to {last}: put a router before them")
    elif plan.parallelism.data > 1 and not plan.parallelism.attention_data_parallel:
        notes.append(f"{plan.parallelism.data} replicas in one server, which hands requests out by itself")
    if model.weight_format.needs_own_checkpoint and model.weight_format != model.checkpoint_format:
        notes.append(
            f"the plan is for {model.weight_format.name} weights: give SGLang a checkpoint of {model.name} in that format"
        )
    if wires.fragile(wires.groups):
        notes.append(PCIE_PAIR)
    return notes


def _together(plan: Plan, topology: Topology) -> bool:
    """Whether one server holds all replicas: where they share experts, or all are on one host (--dp-size knows no other)."""
    hosts = {topology.gpus[gpu].host for replica in plan.placement for gpu in ranks_of(replica)}
    return plan.parallelism.attention_data_parallel or (len(hosts) == 1 and plan.parallelism.pipeline == 1)


def launch(plan: Plan, model: ModelSpec, topology: Topology) -> LaunchSpec:
    """The processes that start ``plan``; visible device *k* of a process is the GPU of its local rank *k*."""
    wires = Wires(topology, plan.placement)
    servers = [plan.placement] if _together(plan, topology) else [(replica,) for replica in plan.placement]
    engines = [_engine(plan, model, topology, wires, number, replicas) for number, replicas in enumerate(servers)]
    processes = [process for several, _ in engines for process in several]
    notes = [*_notes(plan, model, wires, len(engines)), *(note for _, several in engines for note in several)]
    return LaunchSpec(tuple(processes), notes=tuple(dict.fromkeys(notes)))


ENGINE = Engine(TRAITS, launch)
