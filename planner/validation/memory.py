"""Rows of a table of memory as engines report it when they start: one metric a row, in the column ``value``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.core.plan import EngineLimits
from planner.core.topology import PEER_LINKS
from planner.cost import memory
from planner.cost.accuracy import Figure
from planner.cost.anchors import version_key
from planner.cost.strategy import stage_memory, stages_of
from planner.documents.tables import TableRow
from planner.engines import engines
from planner.machines import load_gpu
from planner.units import Bytes
from planner.validation.answering import Library, degrees_of, engine_of

COLUMNS = ("topology", "engine", "model", "metric", "value")
GIB = 2**30
RANGES = {
    "weights_gib_per_gpu": (0.97, 1.03),
    "kv_available_gib_per_gpu": (0.90, 1.10),
    "kv_tokens_total": (0.90, 1.10),
    "gpu_blocks": (0.90, 1.10),
    "block_size": (0.90, 1.10),
    "activation_peak_gib": (0.4, 2.0),
    "non_torch_gib": (0.3, 1.5),
    "cuda_graph_gib": (0.4, 2.0),
}
"""Measured over predicted, from and to, by metric: the project's targets for what is counted, ranges of start-up logs for the rest."""


_CACHE_BYTES = {"fp8": 1, "bf16": 2, "fp16": 2, "fp32": 4}
_OLD_FRACTION = 0.90
"""What vLLM took of the memory until 0.20 where nobody said."""


def _usual_fraction(engine: str, version: str, now: float) -> float:
    old = engine == "vllm" and version_key(version)[:2] < (0, 20)
    return _OLD_FRACTION if old else now


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
        if metric not in RANGES:
            return f"{metric} is not predicted"
        if engine is None or engine not in engines():
            return f"engine {row.word('engine')!r} is not planned for"
        model = self._library.model(row.word("model"), row.word("quant"))
        if isinstance(model, str):
            return model
        topology = self._library.machine(row.word("topology"))
        if isinstance(topology, str):
            return topology
        if row.word("kv_dtype") in _CACHE_BYTES:
            model = replace(model, kv_element_bytes=_CACHE_BYTES[row.word("kv_dtype")])
        degrees, traits = degrees_of(row), engines()[engine].traits
        gpu = load_gpu(topology.hardware[0])
        if degrees.pipeline > len(model.layers):
            return f"{degrees.pipeline} stages for {len(model.layers)} layers"
        usual = traits.default_limits(gpu, gpu.memory)
        limits = EngineLimits(
            row.count("max_num_seqs", usual.max_sequences),
            row.count("max_num_batched_tokens", usual.max_batched_tokens),
            float(row.word("util_fraction") or _usual_fraction(engine, row.word("engine_version"), usual.memory_fraction)),
        )
        capacity = Bytes(float(row.word("gpu_memory_gib") or 0) * GIB) or gpu.memory
        partition = traits.default_partition(len(model.layers), degrees.pipeline)
        nvlink = any(link.kind in PEER_LINKS for link in topology.links)
        stages = stage_memory(model, degrees, partition, limits, capacity, traits, nvlink=nvlink)
        tokens = min(
            stage.kv_cache
            // memory.kv_bytes_of_token(layers, degrees.tensor, model.kv_element_bytes, grouped=traits.cache_groups)
            for stage, layers in zip(stages, stages_of(model, partition), strict=True)
        )
        said = {
            "weights_gib_per_gpu": max(stage.weights for stage in stages) / GIB,
            "kv_available_gib_per_gpu": min(stage.kv_cache for stage in stages) / GIB,
            "kv_tokens_total": float(tokens),
            "block_size": float(traits.block_tokens),
            "gpu_blocks": float(tokens // traits.block_tokens),
            "activation_peak_gib": max(stage.activation for stage in stages) / GIB,
            "non_torch_gib": memory.buffers(traits.memory, degrees.tensor, nvlink=nvlink) / GIB,
            "cuda_graph_gib": memory.cuda_graphs(max(partition), degrees.tensor, traits.memory.cuda_graphs) / GIB,
        }[metric]
        if said <= 0:
            return "no room for a KV cache by this estimate"
        low, high = RANGES[metric]
        return {"value": Figure(said, said * low, said * high, row.number("value"))}
