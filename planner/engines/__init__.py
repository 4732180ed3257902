"""Plan → LaunchSpec, one module an engine; and what cost and search must know of each.

An engine is a module with an ``ENGINE``; :func:`engines` finds them all, so adding one touches one file.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from planner.core.context import not_shared, not_split
from planner.core.engine import Engine, LaunchSpec
from planner.core.model import ModelSpec
from planner.core.plan import Plan
from planner.core.topology import Topology
from planner.errors import BadInput, unknown_name


@cache
def engines() -> dict[str, Engine]:
    """All engines by name."""
    found: dict[str, Engine] = {}
    for module in pkgutil.iter_modules(__path__):
        engine = getattr(importlib.import_module(f"{__name__}.{module.name}"), "ENGINE", None)
        if isinstance(engine, Engine):
            found[engine.traits.name] = engine
    return found


def find_engine(name: str) -> Engine:
    """The engine called ``name``. Raises ``BadInput`` with the known ones."""
    found = engines().get(name.lower())
    if found is None:
        raise unknown_name("engine", name, engines(), hint=f"known: {', '.join(sorted(engines()))}")
    return found


def launch(engine: Engine, plan: Plan, model: ModelSpec, topology: Topology) -> LaunchSpec:
    """What starts ``plan`` with ``engine``. Raises ``BadInput`` where the engine is not known to run it, whoever made the plan."""
    if refused := not_shared(model, engine.traits) if plan.parallelism.decode_context > 1 else None:
        raise BadInput(
            refused, path=f"{plan.parallelism}", hint="emit it for vllm, or plan again without decode context parallelism"
        )
    if refused := not_split(model, engine.traits) if plan.parallelism.prefill_context > 1 else None:
        raise BadInput(refused, path=f"{plan.parallelism}", hint="plan again without prefill context parallelism")
    return engine.launch(plan, model, topology)
