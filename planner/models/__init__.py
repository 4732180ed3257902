"""``config.json`` → ModelSpec, one module a family.

A family is a module with a ``FAMILY``; :func:`families` finds them all, so adding one touches one file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from planner.core.model import ModelSpec
from planner.errors import BadInput, nearest
from planner.models.family import Config, Family


@cache
def families() -> dict[str, Family]:
    """All families by the architecture names of their ``config.json``."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__):
        family = getattr(importlib.import_module(f"{__name__}.{module.name}"), "FAMILY", None)
        if isinstance(family, Family):
            for architecture in family.architectures:
                found[architecture] = family
    return found


def read_config(config: Mapping[str, Any], name: str, source: str) -> ModelSpec:
    """The model of a parsed ``config.json``.

    ``name`` is what an engine is told to load; ``source`` is what messages call the file. Raises ``BadInput`` for an
    unknown architecture (with the nearest known) and for a missing or impossible field, with its path.
    """
    fields = Config(config, source)
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not all(isinstance(one, str) for one in architectures) or not architectures:
        raise BadInput(
            "names no architecture; not a model's config.json?",
            path=f"{source}: $.architectures",
            hint="pass the config.json that lies beside the weights",
        )
    known = families()
    for architecture in architectures:
        if architecture in known:
            return known[architecture].read(fields, name)
    near = nearest(architectures[0], known)
    raise BadInput(
        f"the architecture {architectures[0]!r} is not supported",
        path=f"{source}: $.architectures[0]",
        hint=f"the nearest supported: {', '.join(near) or 'none'}; supported: {', '.join(sorted(known))}",
    )
