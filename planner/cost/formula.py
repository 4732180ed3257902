"""The registry of formulas: every one has a name, a source, and the range it holds for."""

from __future__ import annotations

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


def formula(*, source: str, valid: str = "everywhere") -> Callable[[Function], Function]:
    """Record a function as a formula with its ``source`` and the range it is ``valid`` for."""

    def record(function: Function) -> Function:
        name = function.__name__
        if name in REGISTRY and REGISTRY[name].function.__module__ != function.__module__:
            raise ValueError(f"two formulas are called {name}")
        REGISTRY[name] = Formula(name, source, valid, function)
        return function

    return record
