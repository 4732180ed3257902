"""The registry of formulas: every one has a name, a source, and the range it holds for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Formula:
    """One entry: the function and where it comes from."""

    name: str
    source: str
    valid: str
    function: Callable[..., Any]


REGISTRY: dict[str, Formula] = {}


def formula(*, source: str, valid: str = "everywhere", name: str = "") -> Callable[[Function], Function]:
    """Record a function as a formula with its ``source`` and the range it is ``valid`` for; by its own ``name`` if none is given."""

    def record(function: Function) -> Function:
        called = name or function.__name__
        if called in REGISTRY and REGISTRY[called].function.__module__ != function.__module__:
            raise ValueError(f"two formulas are called {called}")
        REGISTRY[called] = Formula(called, source, valid, function)
        return function

    return record


def every_formula() -> list[Formula]:
    """The whole registry, by module and then by name: all modules of this package are imported for it."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return sorted(REGISTRY.values(), key=lambda one: (one.function.__module__, one.name))
