"""Hugging Face text-generation-inference 3.3: one node, tensor parallelism, one server a replica.

Flags and rules were read in its documentation and source, of 3.x files of mixed age; flags are in :mod:`.tgi_flags`. Neither its
parser nor the engine was run, and none of its speed was measured: constants of vLLM stand in.
"""

from __future__ import annotations

from dataclasses import replace

from planner.core.engine import CustomAllReduce, Engine, EngineTraits, LaunchProcess, LaunchSpec
from planner.core.hardware import GpuSpec
from planner.core.model import ModelSpec
from planner.core.plan import EngineLimits, Plan, Replica
from planner.core.topology import Topology
from planner.engines import vllm
from planner.engines.flags import Command
from planner.engines.placement import by_host, parts, ranks_of
from planner.engines.tgi_flags import CACHE_SHARE, TGI
from planner.engines.wires import Wires, environment_of
from planner.errors import BadInput
from planner.units import Bytes

FIRST_PORT = 8000
MASTER_PORT = 29500
WIGGLE_ROOM = 0.9
"""The share of the memory it may use that weights, prefill and cache get; decode graphs are captured in the rest. Read in the Gaudi
backend's copy of models/globals.py; CUDA's may have another default, so it is stated. Some releases take it of what is free after
loading: then the cache is larger than planned, not smaller."""
CHECKED = "the flags are as TGI's documentation and source have them: its own parser has not seen them"
MEASURED = "nothing of TGI was measured: memory beside weights and cache, overheads and error bars are vLLM's"
CHUNKS = "longer prompts go in chunks, which TGI does with flashinfer and flashdecoding attention alone"
BUDGET = (
    f"{CACHE_SHARE}: of the memory that --cuda-memory-fraction leaves, the share for weights, prefill and cache; warm-up sizes the cache, "
    "so --max-batch-total-tokens is left out (TGI passes over it with flash attention)"
)

_SEQUENCES, _CHUNK = 128, 4096
_ONLINE_QUANTISATION = {"fp8": "fp8", "bnb-4bit": "bitsandbytes-nf4"}
_DTYPES = {"half": "float16", "fp16": "float16", "bf16": "bfloat16"}
_NOT_CAPTURED = frozenset({"bnb-4bit"})
_MOST_CAPTURED = 256


def _default_limits(gpu: GpuSpec, memory: Bytes) -> EngineLimits:
    """128 requests (--max-concurrent-requests) and 4096 tokens of prefill, where TGI does not know the GPU's speed."""
    del gpu, memory
    return EngineLimits(_SEQUENCES, _CHUNK, WIGGLE_ROOM)


def _expert_degrees(tensor: int, data: int) -> tuple[int, ...]:
    """Experts are split like other weights, never spread."""
    del tensor, data
    return ()


TRAITS = EngineTraits(
    name="tgi",
    version="3.3",
    stack="nccl",
    budget_rule="fraction-of-total",
    block_tokens=1,
    memory=replace(
        vllm.TRAITS.memory,
        cuda_graphs={1: (Bytes(0.0), Bytes(0.0))},
        cuda_graphs_expert_layer=Bytes(0.0),
        source="as vLLM's, for want of measurements; decode graphs are captured outside the budget (flash_causal_lm.py warmup)",
    ),
    vocabulary_multiple=1,
    custom_all_reduce=CustomAllReduce(
        max_bytes={}, source="TGI server/text_generation_server/utils/dist.py: the NCCL process group"
    ),
    answer_reserved=1.0,
    batches_in_flight=lambda stages: stages,
    chunk_pipelining=0.0,
    pipeline_tensors=1,
    pipeline_sliced=False,
    default_limits=_default_limits,
    expert_degrees=_expert_degrees,
    default_partition=vllm.default_partition,
    speculation=frozenset({"ngram"}),
    sources=(TGI.read_from,),
    most_stages=1,
    spans_hosts=False,
    vendors=frozenset({"NVIDIA", "AMD"}),
)


def captured(sequences: int) -> str:
    """The batch sizes to capture decode graphs for: doubling up to the most requests at once, of which TGI takes the next larger.

    >>> captured(48)
    '1,2,4,8,16,32,48'
    """
    most = min(sequences, _MOST_CAPTURED)
    sizes = [2**power for power in range(most.bit_length()) if 2**power < most]
    return ",".join(str(size) for size in [*sizes, most])


def _command(plan: Plan, model: ModelSpec, number: int) -> Command:
    """One replica's server. Limits are stated: the plan leans on them, and defaults move."""
    tensor, limits, stored = plan.parallelism.tensor, plan.limits, model.weight_format
    command = Command(TGI, ["text-generation-launcher"])
    command.state("model", model.name)
    command.state("shards", tensor)
    command.state("sharded", "true" if tensor > 1 else "false")
    if stored != model.checkpoint_format and stored.name in _ONLINE_QUANTISATION:
        command.state("quantisation", _ONLINE_QUANTISATION[stored.name])
    if stored.name in _DTYPES:  # TGI takes no dtype beside quantised weights
        command.state("dtype", _DTYPES[model.dtype_override or stored.name])
    if model.cache_dtype == "fp8":
        command.state("cache-dtype", "fp8_e4m3fn")
    command.state("input", limits.max_model_tokens - 1)
    command.state("context", limits.max_model_tokens)
    command.state("sequences", limits.max_sequences, why="requests beyond these are refused, not queued")
    command.state("batched-tokens", limits.max_batched_tokens, why=CHUNKS)
    if stored.name not in _NOT_CAPTURED:
        command.set(
            "graphs", captured(limits.max_sequences), why="left out, TGI captures 32 requests at most; all are priced as captured"
        )
    command.state("memory", f"{min(1.0, limits.memory_fraction / WIGGLE_ROOM):.6g}")
    if plan.speculation is not None:
        command.state("speculation", plan.speculation.draft_tokens, why="words of the prompt are looked up (n-grams)")
    if number:
        command.state("socket", f"/tmp/text-generation-replica-{number}")  # noqa: S108 - beside the default, which is there too
    command.set("leader-port", MASTER_PORT + number)
    command.state("port", FIRST_PORT + number)
    return command


def _replica(
    plan: Plan, model: ModelSpec, topology: Topology, wires: Wires, number: int, replica: Replica
) -> tuple[LaunchProcess, list[str]]:
    (node,) = parts(topology, ranks_of(replica))
    command = _command(plan, model, number)
    said = environment_of(topology, wires, node, several=False)
    environment = {**said.environment, CACHE_SHARE: f"{WIGGLE_ROOM:g}"}
    return LaunchProcess(node.host, number, tuple(command.argv), environment), [*command.notes, *said.notes]


def _notes(plan: Plan, model: ModelSpec) -> list[str]:
    notes = [CHECKED, MEASURED, BUDGET]
    if plan.parallelism.data > 1:
        last = FIRST_PORT + plan.parallelism.data - 1
        notes.append(f"{plan.parallelism.data} independent replicas on ports {FIRST_PORT} to {last}: put a router before them")
    stored = model.weight_format
    if stored.needs_own_checkpoint and stored != model.checkpoint_format and stored.name not in _ONLINE_QUANTISATION:
        notes.append(f"the plan is for {stored.name} weights: give TGI a checkpoint of {model.name} in that format")
    return notes


def _refuse(plan: Plan, topology: Topology) -> None:
    """Raise ``BadInput`` for a plan that TGI cannot run, whoever made it."""
    degrees = plan.parallelism
    several = any(len(by_host(topology, replica)) > 1 for replica in plan.placement)
    if degrees.pipeline > 1 or degrees.expert > 1 or several:
        what = "a replica over several hosts" if several else f"{degrees}"
        hint = "plan again with --engine tgi: tensor parallelism on one host, and replicas"
        raise BadInput(f"TGI cannot run {what}: it has neither pipelines nor expert parallelism nor several nodes", hint=hint)


def launch(plan: Plan, model: ModelSpec, topology: Topology) -> LaunchSpec:
    """The servers that start ``plan``; visible device *k* of one is the GPU of its rank *k*. Raises ``BadInput`` where it cannot."""
    _refuse(plan, topology)
    wires = Wires(topology, plan.placement)
    started = [_replica(plan, model, topology, wires, number, replica) for number, replica in enumerate(plan.placement)]
    notes = [*_notes(plan, model), *(note for _, several in started for note in several)]
    return LaunchSpec(tuple(process for process, _ in started), notes=tuple(dict.fromkeys(notes)))


ENGINE = Engine(TRAITS, launch)
