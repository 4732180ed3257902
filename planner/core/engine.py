"""What cost and search must know of a serving engine, as data; and what an engine makes of a plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from planner.core.hardware import GpuSpec
from planner.core.model import ModelSpec
from planner.core.plan import EngineLimits, Plan
from planner.core.topology import Topology
from planner.units import Bytes

BudgetRule = Literal["fraction-of-total", "fraction-of-free", "fraction-for-weights-and-cache"]
"""What an engine's memory fraction is a fraction of: all memory, for everything; what is free after loading, for the cache; or
what is free before loading, for weights and cache alone, beside which the rest must find room.
"""

ContextKind = Literal["grouped", "latent"]
"""Full attention with key and value heads, which ranks share out where they hold copies; or with a latent for all heads."""

Forward = Literal["by-layer", "by-hidden-size"]
"""What the activations of a forward pass grow with: the widest layer's part on one rank, or the hidden size alone."""


@dataclass(frozen=True, slots=True)
class CustomAllReduce:
    """Gates of an engine's own all-reduce kernel; outside them the engine calls NCCL.

    ``max_bytes`` is by compute capability major, then group size; a group size that is not there has no kernel. It takes groups
    whose GPUs are all joined by NVLink, and where ``two_over_pcie`` also two GPUs that copy to each other over PCIe.
    """

    max_bytes: Mapping[int, Mapping[int, int]]
    source: str
    two_over_pcie: bool = False

    def limit(self, compute_capability: tuple[int, int] | None, ranks: int) -> int:
        """Largest message in bytes the kernel takes for this group; 0 where it does not run."""
        major = compute_capability[0] if compute_capability else 0
        sizes = self.max_bytes.get(major, self.max_bytes.get(0, {}))
        return sizes.get(ranks, 0)


@dataclass(frozen=True, slots=True)
class MemoryRanges:
    """Between which shares of what is predicted start-up logs lie, lowest first, for the parts that only logs tell."""

    activation: tuple[float, float]
    buffers: tuple[float, float]
    cuda_graphs: tuple[float, float]
    source: str


@dataclass(frozen=True, slots=True)
class MemoryRules:
    """What an engine keeps in memory beside weights and cache, in bytes.

    ``sampler_base`` and ``sampler_bytes_per_logit`` make the activation peak of the last stage; ``buffers_*`` are
    context and communication buffers with one rank, several on NVLink, several on PCIe; ``cuda_graphs`` is (base,
    per layer) by least tensor degree, ``cuda_graphs_expert_layer`` what a layer of experts adds, and ``graphs_in_budget``
    whether the engine keeps room for graphs before it sizes the cache. ``request_table`` is what a
    table of all requests takes for each sequence and each position of the longest.
    """

    sampler_base: Bytes
    sampler_bytes_per_logit: float
    buffers_single: Bytes
    buffers_nvlink: Bytes
    buffers_pcie: Bytes
    cuda_graphs: Mapping[int, tuple[Bytes, Bytes]]
    cuda_graphs_expert_layer: Bytes
    ranges: MemoryRanges
    source: str
    request_table: float = 0.0
    graphs_in_budget: bool = True
    forward: Forward = "by-layer"


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """An engine as the cost model and the search see it.

    ``batches_in_flight`` is the engine's limit by pipeline depth. ``chunk_pipelining`` is how much of the ideal
    overlap the chunks of one prompt reach in a pipeline (0 none, 1 all). ``pipeline_tensors`` is how many hidden-size
    tensors cross a stage boundary, each sliced over the tensor-parallel ranks where ``pipeline_sliced``.
    ``stack`` is the name under which its all-reduce was measured (``data/calibration``). ``expert_degrees(tensor,
    data)`` are the expert-parallel sizes it can run beside 1. ``default_partition(layers, stages)`` is how it cuts the
    layers when nobody says. ``cache_groups``: layers with and without a window are cached in groups of equal size, padded.
    ``answer_reserved`` is the share of an answer that a running request holds room for in the mean: all of it where the engine
    admits only what it can finish, half where the cache grows with the answer. ``most_stages`` is the deepest pipeline it runs (any
    where ``None``), ``spans_hosts`` whether a replica may lie on several hosts, ``speculation`` how it can guess tokens and
    ``pipelined_speculation`` how over several stages. ``decode_context`` are the kinds of attention whose cache its tensor ranks can
    share out by tokens, if an element takes ``decode_context_element`` bytes or more,
    ``prefill_context`` those whose prompts tensor groups can split. ``prompts_apart``: a chunk of a prompt is a step of its own,
    while decoding waits, where others put both into one step. ``static_in_turn``: a static batch is cut into as many parts as there
    are stages, which go through them one after another; elsewhere it goes through as one. ``releases`` are older ways with memory, oldest
    first (:meth:`at`), ``whole_prompts`` and ``answering`` as theirs. ``vendors`` are those whose GPUs it runs on (all where ``None``).
    ``fraction_kept(memory, chunk, sequences)`` is the share of memory it takes where that depends on its steps.
    """

    name: str
    version: str
    stack: str
    budget_rule: BudgetRule
    block_tokens: int
    memory: MemoryRules
    vocabulary_multiple: int
    custom_all_reduce: CustomAllReduce
    batches_in_flight: Callable[[int], int]
    chunk_pipelining: float
    pipeline_tensors: int
    pipeline_sliced: bool
    default_limits: Callable[[GpuSpec, Bytes], EngineLimits]
    expert_degrees: Callable[[int, int], tuple[int, ...]]
    default_partition: Callable[[int, int], tuple[int, ...]]
    sources: tuple[str, ...] = ()
    cache_groups: bool = False
    answer_reserved: float = 1.0
    most_stages: int | None = None
    spans_hosts: bool = True
    decode_context: frozenset[ContextKind] = frozenset()
    decode_context_element: float = 0.0
    prefill_context: frozenset[ContextKind] = frozenset()
    prompts_apart: bool = False
    static_in_turn: bool = False
    speculation: frozenset[str] = frozenset()
    pipelined_speculation: frozenset[str] = frozenset()
    whole_prompts: int = 0
    releases: tuple[Release, ...] = ()
    answering: str = ""
    vendors: frozenset[str] | None = None
    fraction_kept: Callable[[Bytes, int, int], float] | None = None

    def smaller(self, limits: EngineLimits, memory: Bytes, sequences: int, chunk: int) -> EngineLimits:
        """The limits with smaller steps, and more of the memory where the engine keeps less back for those."""
        found = replace(limits, max_sequences=sequences, max_batched_tokens=chunk)
        if self.fraction_kept is None:
            return found
        return replace(found, memory_fraction=max(limits.memory_fraction, self.fraction_kept(memory, chunk, sequences)))

    @property
    def first_token(self) -> str:
        """The name under which its time to first token was measured."""
        return self.answering or self.stack

    def given(self, share: float) -> EngineTraits:
        """The engine started with ``share`` of the memory, or with what it takes by itself where that is more."""
        usual = self.default_limits

        def limits(gpu: GpuSpec, memory: Bytes) -> EngineLimits:
            found = usual(gpu, memory)
            return replace(found, memory_fraction=max(share, found.memory_fraction))

        return replace(self, default_limits=limits)

    def at(self, version: str) -> EngineTraits:
        """The engine as a release of it kept memory; as it is now where ``version`` is empty or newer than every entry."""
        found = release_order(version)
        old = next((one for one in self.releases if found is not None and found < (release_order(one.until) or ())), None)
        if old is None:
            return self
        return replace(
            self,
            version=version,
            memory=old.memory,
            cache_groups=old.cache_groups,
            default_limits=old.default_limits,
            whole_prompts=old.whole_prompts,
            answering=old.answering,
        )


@dataclass(frozen=True, slots=True)
class Release:
    """How an engine kept memory ``until`` a release, the first that no longer does, and by which name its time to first token was
    measured. For reading logs: plans are for the version of the traits.

    ``whole_prompts`` is the length up to which a prompt was never cut, so that a step holds the longest request.
    """

    until: str
    memory: MemoryRules
    default_limits: Callable[[GpuSpec, Bytes], EngineLimits]
    cache_groups: bool
    whole_prompts: int = 0
    answering: str = ""


def release_order(version: str) -> tuple[int, ...] | None:
    """What puts versions in order, releases after their candidates; ``None`` where there is no number.

    >>> release_order("0.8.0rc3.dev5") < release_order("0.8") == release_order("0.8.x") < release_order("0.8.4")
    True
    """
    found = re.match(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(\.?(?:rc|dev|a|b)\d)?", version)
    if found is None:
        return None
    return (*(int(found[number] or 0) for number in (1, 2, 3)), found[4] is None)


@dataclass(frozen=True, slots=True)
class LaunchProcess:
    """One process to start: on which host, for which replica, its argument vector and its environment."""

    node: str
    replica: int
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything to start: argument vectors, never a shell string; files by name."""

    processes: tuple[LaunchProcess, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """What a module of ``planner.engines`` offers as ``ENGINE``."""

    traits: EngineTraits
    launch: Callable[[Plan, ModelSpec, Topology], LaunchSpec]
