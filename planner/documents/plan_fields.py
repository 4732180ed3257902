"""The shape of a saved plan's YAML: what every field may hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from planner.core.speculation import Method
from planner.core.workload import Load
from planner.documents.base import Document, Size, Time

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pair = Annotated[list[Time], Field(min_length=2, max_length=2)]
RatePair = Annotated[list[Rate], Field(min_length=2, max_length=2)]


class ModelDocument(Document):
    """The model: what an engine is told to load, how it was asked for, and the facts it was planned with."""

    name: str
    reference: str
    local: bool = False
    digest: str = ""
    facts: dict[str, Any]


class SpeculationDocument(Document):
    """How tokens are guessed, and how often they are right."""

    method: Method
    draft_tokens: Count
    acceptance_rate: Annotated[float, Field(ge=0, lt=1)]
    checkpoint: str = ""


class WorkloadDocument(Document):
    """The traffic and the targets."""

    input_tokens: Count
    output_tokens: Count
    concurrency: Count
    objective: Literal["throughput", "latency"]
    load: Load = "concurrency"
    request_rate: Annotated[float, Field(gt=0)] | None = None
    prefix_hit_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ttft_target: Time | None = None
    tpot_target: Time | None = None
    target_percentile: Literal[50, 90, 99] | None = None
    speculation: SpeculationDocument | None = None


class TopologyPart(Document):
    """The machine, by name and digest, or whole."""

    name: str
    digest: str = ""
    reference: str | None = None
    document: dict[str, Any] | None = None


class EngineDocument(Document):
    """What the limits and figures were planned for."""

    name: str
    version: str


class DegreesDocument(Document):
    """Degrees of parallelism."""

    tensor: Count
    pipeline: Count
    data: Count
    expert: Count
    decode_context: Count = 1
    prefill_context: Count = 1


class LimitsDocument(Document):
    """What the engine is told, of one replica."""

    max_model_tokens: Count
    max_sequences: Count
    max_batched_tokens: Count
    memory_fraction: Share


class RankDocument(Document):
    """Where a rank runs."""

    node: str
    gpu: Annotated[int, Field(ge=0)]
    host_index: Annotated[int, Field(ge=0)]
    bus_id: str | None = None
    replica: Annotated[int, Field(ge=0)]
    stage: Annotated[int, Field(ge=0)]
    tensor_rank: Annotated[int, Field(ge=0)]
    numa_node: int | None = None
    nic: str | None = None


class ExpectedDocument(Document):
    """The figures the plan was chosen by."""

    ttft: Time
    ttft_interval: Pair
    tpot: Time
    tpot_interval: Pair
    output_tokens_per_s: Rate
    output_tokens_per_s_interval: RatePair
    interval_basis: str
    memory: Annotated[list[Size], Field(min_length=1)]
    kv_cache_tokens: Annotated[int, Field(ge=0)]
    max_concurrency: Annotated[int, Field(ge=0)]


class PlanDocument(Document):
    """The whole file."""

    schema_version: int
    kind: Literal["plan"]
    planner_version: str = ""
    model: ModelDocument
    workload: WorkloadDocument
    topology: TopologyPart
    engine: EngineDocument
    parallelism: DegreesDocument
    placement: list[list[list[int]]]
    placement_proven_optimal: bool = False
    layer_partition: list[Count]
    limits: LimitsDocument
    ranks: list[RankDocument] = []
    expected: ExpectedDocument
    assumptions: list[str] = []
    warnings: list[str] = []
