"""The answer to one question, ready to be shown."""

from __future__ import annotations

from dataclasses import dataclass

from planner.core.engine import EngineTraits, LaunchSpec
from planner.core.estimate import Estimate
from planner.core.model import ModelSpec
from planner.core.plan import Infeasible
from planner.core.topology import Topology
from planner.core.workload import Objective, Workload
from planner.search.rank import Ranked


@dataclass(frozen=True, slots=True)
class Recommended:
    """One plan with its launch, its commands as shell lines, why it stands where it does, and what was assumed for it.

    ``maximum`` is what it does with as many requests in flight as fit or meet the targets, where fewer were asked for.
    """

    rank: int
    ranked: Ranked
    launch: LaunchSpec
    commands: tuple[str, ...]
    reasons: tuple[str, ...]
    assumptions: tuple[str, ...]
    maximum: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Plans best first, refusals, and why. ``considered`` counts all feasible plans, shown or not."""

    topology: Topology
    model: ModelSpec
    workload: Workload
    objective: Objective
    engine: EngineTraits
    plans: tuple[Recommended, ...]
    infeasible: tuple[Infeasible, ...]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    considered: int
