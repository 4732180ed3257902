"""LaunchSpec → files, one module a target.

A target is a module with a ``TARGET``; :func:`targets` finds them all, so adding one touches one file.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from planner.deploy.target import Target
from planner.errors import unknown_name


@cache
def targets() -> dict[str, Target]:
    """All targets by name."""
    found: dict[str, Target] = {}
    for module in pkgutil.iter_modules(__path__):
        target = getattr(importlib.import_module(f"{__name__}.{module.name}"), "TARGET", None)
        if isinstance(target, Target):
            found[target.name] = target
    return found


def find_target(name: str) -> Target:
    """The target called ``name``. Raises ``BadInput`` with the known ones."""
    found = targets().get(name.lower())
    if found is None:
        raise unknown_name("target", name, targets(), hint=f"known: {', '.join(sorted(targets()))}")
    return found
