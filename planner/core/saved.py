"""A plan as it is kept: what was asked, what was planned for it, and what was expected of it."""

from __future__ import annotations

from dataclasses import dataclass

from planner.core.model import ModelSpec
from planner.core.plan import Plan
from planner.core.topology import Topology
from planner.core.workload import Objective, Workload
from planner.units import Bytes, Seconds

Interval = tuple[float, float]
"""Between which values nine of ten measurements are expected to lie, lowest first."""


@dataclass(frozen=True, slots=True)
class RankPlace:
    """Where one rank runs: ``gpu`` counts over the topology, ``host_index`` is the host's own number (as ``nvidia-smi`` counts).

    ``nic`` is the network card nearest to it by PCIe, ``None`` on a host without one that a network joins.
    """

    node: str
    gpu: int
    host_index: int
    bus_id: str | None
    replica: int
    stage: int
    tensor_rank: int
    numa_node: int | None
    nic: str | None


@dataclass(frozen=True, slots=True)
class Expected:
    """The figures a plan was chosen by: times in seconds, with their intervals, and why those are that far apart.

    ``memory`` is what the engine takes of a GPU of each stage, ``kv_cache_tokens`` and ``max_concurrency`` are of one replica.
    """

    ttft: Seconds
    tpot: Seconds
    output_tokens_per_second: float
    ttft_interval: Interval
    tpot_interval: Interval
    output_interval: Interval
    basis: str
    memory: tuple[Bytes, ...]
    kv_cache_tokens: int
    max_concurrency: int


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan with everything that emitting it takes.

    ``model_reference`` is how the model was asked for, ``local_model`` whether its weights lie in a directory. ``topology`` is as
    it was stated; ``topology_reference`` names it in the library or as a short spec, ``None`` where the plan carries it.
    ``engine`` and ``engine_version`` are those the limits and figures were planned for.
    """

    model: ModelSpec
    model_reference: str
    local_model: bool
    topology: Topology
    topology_reference: str | None
    workload: Workload
    objective: Objective
    engine: str
    engine_version: str
    plan: Plan
    proven: bool
    expected: Expected
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
