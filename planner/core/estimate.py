"""What a plan costs: breakdowns that sum to their totals, memory per stage, and the serving metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from planner.units import Bytes, Seconds

Confidence = Literal["high", "medium", "low"]
Basis = Literal["none", "here", "same", "alike", "nvlink", "pcie", "staged", "network", "launch", "unmeasured"]
"""What a predicted collective rests on: nothing to do; a measurement on this machine, on the same GPUs, on GPUs joined alike; the
model over NVLink, PCIe, host memory, a network; the launch alone; a model that nothing measured stands behind."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Named parts of a time, in seconds. The total is their sum and nothing else."""

    parts: Mapping[str, Seconds]

    @property
    def total(self) -> Seconds:
        """The sum of the parts."""
        return Seconds(sum(self.parts.values()))


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Memory of one GPU of a pipeline stage, in bytes. The KV cache is the pool the engine reserves.

    The ranges, lowest first, are where start-up logs lie: of the cache when all else takes most, and when it takes least.
    """

    weights: Bytes
    kv_cache: Bytes
    activation: Bytes
    overhead: Bytes
    capacity: Bytes
    kv_cache_range: tuple[Bytes, Bytes]
    activation_range: tuple[Bytes, Bytes]
    overhead_range: tuple[Bytes, Bytes]

    @property
    def total(self) -> Bytes:
        """All that the engine takes of the GPU."""
        return Bytes(self.weights + self.kv_cache + self.activation + self.overhead)


@dataclass(frozen=True, slots=True)
class CollectiveTime:
    """How long a collective takes on one group, how it is done, what it waits for, and how sure we are."""

    time: Seconds
    algorithm: str
    limiting_link: str | None
    confidence: Confidence
    source: str
    basis: Basis = "unmeasured"


@dataclass(frozen=True, slots=True)
class SharedLink:
    """The link on which groups and sends of a plan slow each other: what it is, what it carries of the plan, and how many
    times less bandwidth than alone the slowest of them gets there.
    """

    link: str
    carries: str
    slowdown: float

    def __str__(self) -> str:
        return f"{self.link} carries {self.carries}: {self.slowdown:.2g} times less bandwidth than alone, at the mean load of all"


@dataclass(frozen=True, slots=True)
class Communication:
    """What the wires cost, with the share of them that the rest of the plan leaves. Per layer: all the all-reduces of one
    layer, of the slowest group. Per boundary: the slowest hop from one pipeline stage to the next.
    """

    all_reduce_decode: CollectiveTime | None
    all_reduce_prefill: CollectiveTime | None
    all_reduces_per_layer: int
    point_to_point_decode: Seconds
    point_to_point_prefill: Seconds
    limiting_link: str | None
    shared_link: SharedLink | None
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class PipelineUse:
    """How busy the stages are. ``bubble_ratio`` is idle over total time, (P-1)/(M+P-1)."""

    prefill_micro_batches: int
    bubble_ratio: float
    decode_micro_batches: int
    batches_in_flight: int
    idle_ratio: float


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Between which values nine of ten measurements are expected to lie, lowest first, and why that far apart."""

    ttft: tuple[Seconds, Seconds]
    tpot: tuple[Seconds, Seconds]
    output_tokens_per_second: tuple[float, float]
    basis: str


@dataclass(frozen=True, slots=True)
class Percentiles:
    """What half, nine of ten and 99 of a hundred stay within."""

    p50: Seconds
    p90: Seconds
    p99: Seconds

    def at(self, percentile: int) -> Seconds:
        """One of them by its number: 50, 90, 99."""
        return {50: self.p50, 90: self.p90, 99: self.p99}[percentile]


@dataclass(frozen=True, slots=True)
class Serving:
    """How requests fare: ``in_flight`` of them over the whole deployment (those that wait for KV cache included), answered at
    ``requests_per_second``. Percentiles are over requests, of ``itl`` (inter-token latency) over tokens, of the slowest replica.
    ``within_targets`` is the share of requests that meets the targets, ``None`` where there are none.
    """

    in_flight: float
    requests_per_second: float
    ttft: Percentiles
    tpot: Percentiles
    itl: Percentiles
    within_targets: float | None

    @property
    def goodput(self) -> float | None:
        """Requests a second that meet the targets."""
        return None if self.within_targets is None else self.within_targets * self.requests_per_second


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one plan does for one workload. Times are those of the slowest replica, throughput of all together."""

    memory: tuple[StageMemory, ...]
    kv_cache_tokens: int
    max_concurrency: int
    communication: Communication
    pipeline: PipelineUse
    decode: Breakdown
    prefill: Breakdown
    ttft: Seconds
    tpot: Seconds
    output_tokens_per_second: float
    uncertainty: Uncertainty
    serving: Serving
    assumptions: tuple[str, ...] = ()

    def latency(self, output_tokens: int) -> Seconds:
        """From request to last token."""
        return Seconds(self.ttft + self.tpot * (output_tokens - 1))
