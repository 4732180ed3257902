"""How vLLM kept memory in older releases, as their start-up logs tell. Plans are for the newest: these are for reading logs.

What changed: V1 (0.8) captures more graphs, and 1024 requests at once go through its sampler, outside of H100 and the like 256 again
from 0.8.4 (vLLM pull requests 13594 and 16158); until 0.9.2 it counts all that lies on the device, context and communicators
too (19312); from 0.9.1 layers are grouped by their window, all counted as without one before (14097); 0.11 captures 67 sizes of
graphs, 0.19 captures 51; from 0.17 the sampler's peak is 14 bytes a logit for 38, as without a sort; 0.20 takes 0.92 of
the memory for 0.90; 0.21 keeps room for graphs. Where no log lies between two releases, the one at which a thing changed is assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from planner.core.engine import MemoryRules, Release
from planner.core.hardware import GpuSpec
from planner.core.plan import EngineLimits
from planner.units import Bytes

GIB = 2.0**30
_FRACTION = 0.90
_LARGE = 70 * GIB
# GPUs of 70 GiB and more whose defaults vLLM keeps small all the same (engine/arg_utils.py get_batch_defaults)
SMALL_BATCHES = frozenset({"A100-SXM4-80GB", "A100-PCIe-80GB"})
_UNCHUNKED = 32768
_CONTEXT = 0.51 * GIB
_CONTEXT_WITH_COMMUNICATORS = 1.55 * GIB
"""What lies on a GPU before an engine loads: one process alone, and after NCCL has started over NVLink (vLLM 0.19 on H100)."""
_SORTING_BYTES_PER_LOGIT = 38.0
"""Logits in 32 bits, sorted with their places, their sums and the sort's own room: 5.64 GiB for Qwen3-14B and 1024 requests."""


def limits(gpu: GpuSpec, memory: Bytes) -> EngineLimits:
    """Defaults of vLLM 0.8.4 to 0.19."""
    large = memory >= _LARGE and gpu.name not in SMALL_BATCHES
    return EngineLimits(1024, 8192, _FRACTION) if large else EngineLimits(256, 2048, _FRACTION)


def _limits_of_first_v1(gpu: GpuSpec, memory: Bytes) -> EngineLimits:
    return replace(limits(gpu, memory), max_sequences=1024)


def _limits_of_v0(gpu: GpuSpec, memory: Bytes) -> EngineLimits:
    del gpu, memory
    return EngineLimits(256, 2048, _FRACTION)


def releases(now: MemoryRules, limits_now: Callable[[GpuSpec, Bytes], EngineLimits]) -> tuple[Release, ...]:
    """Older rules, oldest first, out of those of the newest and its default limits."""
    beside = replace(now, graphs_in_budget=False)
    light = replace(beside, buffers_single=Bytes(0.13 * GIB))
    sorting = replace(light, sampler_bytes_per_logit=_SORTING_BYTES_PER_LOGIT)
    first = replace(
        sorting,
        cuda_graphs={degree: (base, Bytes(1.5 * layer)) for degree, (base, layer) in now.cuda_graphs.items()},
        source="start-up logs of vLLM 0.15 to 0.19; 67 graph sizes took 1.3 times and more what 51 take",
    )
    whole_device = replace(
        first,
        buffers_single=Bytes(first.buffers_single + _CONTEXT),
        buffers_nvlink=Bytes(first.buffers_nvlink + _CONTEXT_WITH_COMMUNICATORS),
        buffers_pcie=Bytes(first.buffers_pcie + _CONTEXT),
    )
    v0 = replace(
        sorting,
        buffers_nvlink=Bytes(0.5 * GIB),
        cuda_graphs={1: (Bytes(0.1 * GIB), Bytes(0.004 * GIB))},
        cuda_graphs_expert_layer=Bytes(0.0),
        source="start-up logs of vLLM 0.6 to 0.8: graphs of 0.03 to 0.76 GiB, 0.40 to 0.52 of buffers on four A100",
    )
    return (
        Release("0.8", v0, _limits_of_v0, cache_groups=False, whole_prompts=_UNCHUNKED),
        Release("0.8.4", whole_device, _limits_of_first_v1, cache_groups=False),
        Release("0.9.1", whole_device, limits, cache_groups=False),
        Release("0.9.2", whole_device, limits, cache_groups=True),
        Release("0.12", first, limits, cache_groups=True),
        Release("0.17", sorting, limits, cache_groups=True),
        Release("0.18", light, limits, cache_groups=True),
        Release("0.20", beside, limits, cache_groups=True),
        Release("0.21", beside, limits_now, cache_groups=True),
    )
