"""Rows of a table of memory as engines report it when they start: one metric a row, in the column ``value``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.core.engine import EngineTraits, MemoryRanges
from planner.core.hardware import GpuSpec
from planner.core.plan import EngineLimits, Parallelism
from planner.core.quantization import WeightFormat
from planner.core.topology import PEER_LINKS
from planner.cost import memory
from planner.cost.accuracy import Figure
from planner.cost.stage_memory import stage_graphs
from planner.cost.strategy import stage_memory, stages_of
from planner.documents.tables import TableRow
from planner.engines import engines
from planner.machines import load_gpu
from planner.units import Bytes
from planner.validation.answering import Library, degrees_of, engine_of

COLUMNS = ("topology", "engine", "model", "metric", "value")
GIB = 2**30
COUNTED = {
    "weights_gib_per_gpu": 0.03,
    "kv_available_gib_per_gpu": 0.10,
    "kv_tokens_total": 0.10,
    "gpu_blocks": 0.10,
    "block_size": 0.10,
}
"""What is counted, not measured: by metric, how far off it may be, as a share of what is predicted."""
LOGGED = ("activation_peak_gib", "non_torch_gib", "cuda_graph_gib")
"""What only logs tell: the engine's memory rules state the range."""

_CACHE_BYTES = {"fp8": 1, "bf16": 2, "fp16": 2, "fp32": 4}
_WIDE = WeightFormat("fp32", 4.0, "fp32", "32 bits a weight, and all that is not a matrix: --dtype float32")
_FREE_AT_START = "free memory at load start"
"""What a note says of a row whose memory is not that of the GPU but what an engine found free before it loaded."""


class MemoryRows:
    """What engines say of their memory when they start."""

    kind = "memory"
    named_by = "metric"

    def __init__(self, library: Library) -> None:
        self._library = library
        self.figures: tuple[str, ...] = ("value",)

    def answer(self, row: TableRow) -> Mapping[str, Figure] | str:
        """The metric of a row, in its own unit, or why there is none."""
        metric, engine = row.word("metric"), engine_of(row.word("engine"))
        if metric not in COUNTED and metric not in LOGGED:
            return f"{metric} is not predicted"
        if engine is None or engine not in engines():
            return f"engine {row.word('engine')!r} is not planned for"
        wide = row.word("quant") == _WIDE.name
        model = self._library.model(row.word("model"), "" if wide else row.word("quant"))
        if isinstance(model, str):
            return model
        if wide:
            model = replace(model, weight_format=_WIDE)
        topology = self._library.machine(row.word("topology"))
        if isinstance(topology, str):
            return topology
        if row.word("kv_dtype") in _CACHE_BYTES:
            model = replace(model, kv_element_bytes=_CACHE_BYTES[row.word("kv_dtype")])
        degrees, traits = _degrees(row, engine), engines()[engine].traits.at(row.word("engine_version"))
        gpu = load_gpu(topology.hardware[0])
        if degrees.pipeline > len(model.layers):
            return f"{degrees.pipeline} stages for {len(model.layers)} layers"
        partition = traits.default_partition(len(model.layers), degrees.pipeline)
        nvlink = any(link.kind in PEER_LINKS for link in topology.links)
        context = memory.buffers(traits.memory, memory.expert_shards(degrees), nvlink=nvlink)
        capacity = Bytes(row.number("gpu_memory_gib") * GIB) if row.word("gpu_memory_gib") else gpu.memory
        if _FREE_AT_START in row.word("note"):
            capacity = Bytes(capacity + context)
        stages = stage_memory(model, degrees, partition, _limits(row, traits, gpu), capacity, traits, nvlink=nvlink)
        fullest, poorest = max(stages, key=lambda stage: stage.activation), min(stages, key=lambda stage: stage.kv_cache)
        graphs = max(stage_graphs(traits.memory, layers, degrees.tensor) for layers in stages_of(model, partition))
        tokens = min(
            stage.kv_cache
            // memory.kv_bytes_of_token(layers, degrees.tensor, model.kv_element_bytes, grouped=traits.cache_groups)
            for stage, layers in zip(stages, stages_of(model, partition), strict=True)
        )
        said = {
            "weights_gib_per_gpu": max(stage.weights for stage in stages) / GIB,
            "kv_available_gib_per_gpu": poorest.kv_cache / GIB,
            "kv_tokens_total": float(tokens),
            "block_size": float(traits.block_tokens),
            "gpu_blocks": float(tokens // traits.block_tokens),
            "activation_peak_gib": fullest.activation / GIB,
            "non_torch_gib": context / GIB,
            "cuda_graph_gib": graphs / GIB,
        }[metric]
        if said <= 0:
            return "no room for a KV cache by this estimate"
        low, high = _range(metric, traits.memory.ranges)
        return {"value": Figure(said, said * low, said * high, row.number("value"))}


def _degrees(row: TableRow, engine: str) -> Parallelism:
    """The parallelism of a row. SGLang counts replicas that share their experts among its tensor ranks."""
    degrees = degrees_of(row)
    tensor, data = degrees.tensor, degrees.data
    if engine == "sglang" and data > 1 and tensor % data == 0 and row.count("n_gpus", 0) == tensor * degrees.pipeline:
        return replace(degrees, tensor=tensor // data, expert=tensor)
    return degrees


def _limits(row: TableRow, traits: EngineTraits, gpu: GpuSpec) -> EngineLimits:
    """What the row says, else what the release took by itself."""
    usual = traits.default_limits(gpu, gpu.memory)
    longest = row.count("max_model_len", 0)
    whole = longest if longest <= traits.whole_prompts else 0
    return EngineLimits(
        row.count("max_num_seqs", usual.max_sequences),
        row.count("max_num_batched_tokens", max(usual.max_batched_tokens, whole)),
        row.number("util_fraction") if row.word("util_fraction") else usual.memory_fraction,
        longest,
    )


def _range(metric: str, ranges: MemoryRanges) -> tuple[float, float]:
    """From which share of the predicted value to which a measured one is expected."""
    if metric in COUNTED:
        return 1 - COUNTED[metric], 1 + COUNTED[metric]
    return {"activation_peak_gib": ranges.activation, "non_torch_gib": ranges.buffers, "cuda_graph_gib": ranges.cuda_graphs}[
        metric
    ]
