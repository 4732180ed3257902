"""A plan: degrees, which GPU is which rank, how layers are split, and the limits the engine is started with."""

from __future__ import annotations

from dataclasses import dataclass

from planner.core.speculation import Speculation

Group = tuple[int, ...]
"""Ordered GPU indices that talk in a collective: one tensor-parallel group; or those of a stage, one such group after the other, where
several split its prompts.
"""

Replica = tuple[Group, ...]
"""The pipeline stages of one replica, each a tensor-parallel group."""

Placement = tuple[Replica, ...]
"""Replica → stage → tensor-parallel rank → GPU index."""


@dataclass(frozen=True, slots=True, order=True)
class Parallelism:
    """Degrees. ``expert`` is 1 (experts sharded like any matrix), the ranks of one replica (experts spread over it) or
    of all (attention data parallel: replicas share the experts and step together). ``decode_context`` ranks of a
    tensor group share out the cache of every request by tokens (decode context parallelism); they take no GPUs of their own.
    ``prefill_context`` tensor groups make up a stage together, and split prompts by tokens (prefill context parallelism).
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: int = 1
    decode_context: int = 1
    prefill_context: int = 1

    @property
    def gpus(self) -> int:
        """How many GPUs it takes."""
        return self.gpus_per_replica * self.data

    @property
    def gpus_per_replica(self) -> int:
        """How many GPUs one replica takes."""
        return self.gpus_per_stage * self.pipeline

    @property
    def gpus_per_stage(self) -> int:
        """How many GPUs one pipeline stage of a replica takes."""
        return self.tensor * self.prefill_context

    @property
    def attention_data_parallel(self) -> bool:
        """Whether the replicas share their experts."""
        return self.data > 1 and self.expert > self.gpus_per_stage

    def __str__(self) -> str:
        expert = f" × EP {self.expert}" if self.expert > 1 else ""
        context = f" × DCP {self.decode_context}" if self.decode_context > 1 else ""
        prompts = f" × PCP {self.prefill_context}" if self.prefill_context > 1 else ""
        return f"TP {self.tensor} × PP {self.pipeline} × DP {self.data}{expert}{context}{prompts}"


def tensor_groups(gpus: Group, tensor: int) -> list[Group]:
    """The tensor-parallel groups of a stage, in rank order.

    >>> tensor_groups((4, 5, 6, 7), 2)
    [(4, 5), (6, 7)]
    """
    return [gpus[start : start + tensor] for start in range(0, len(gpus), tensor)]


def context_groups(gpus: Group, tensor: int) -> list[Group]:
    """The GPUs of a stage that split prompts among them: one of each tensor-parallel group.

    >>> context_groups((4, 5, 6, 7), 2)
    [(4, 6), (5, 7)]
    """
    return [gpus[rank::tensor] for rank in range(tensor)]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Limits the engine is told: sequences and tokens of one step, longest request, share of memory.

    ``max_sequences``, ``max_batched_tokens`` and ``max_model_tokens`` are of one replica.
    """

    max_sequences: int
    max_batched_tokens: int
    memory_fraction: float
    max_model_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything an engine needs to start what was priced."""

    parallelism: Parallelism
    placement: Placement
    layer_partition: tuple[int, ...]
    limits: EngineLimits
    speculation: Speculation | None = None


@dataclass(frozen=True, slots=True)
class Infeasible:
    """The answer no, with its proof: which rule, what there is, what is needed, and what would do."""

    parallelism: Parallelism
    rule: str
    have: float
    need: float
    message: str
    unit: str = ""
