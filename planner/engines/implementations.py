"""The implementations of collectives that are known by name: plain NCCL, and the own kernels of engines that have some before it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache

from planner.core.engine import CustomAllReduce
from planner.core.implementation import Implementation
from planner.engines import engines
from planner.errors import BadInput, unknown_name

AUTO = "auto"
TORCH = "torch.distributed"
"""Launches one operation after the other, without CUDA graphs."""

_NONE = CustomAllReduce(max_bytes={}, source="NCCL is what is left where an engine has no kernel of its own")

_WRITTEN = {"tensorrt-llm": "trtllm-custom"}


@cache
def implementations() -> dict[str, Implementation]:
    """All implementations by name."""
    found = [Implementation("nccl", "nccl", _NONE, "nccl")]
    for name, engine in engines().items():
        traits = engine.traits
        if not traits.custom_all_reduce.max_bytes:
            continue
        found.append(Implementation(name, traits.stack, traits.custom_all_reduce, _WRITTEN.get(name, f"{name}-custom")))
    return {one.name: one for one in found}


def find_implementations(name: str, vendors: Collection[str] = ()) -> tuple[Implementation, ...]:
    """The implementation called ``name``; for ``auto`` all that run on GPUs of all ``vendors``. Raises ``BadInput`` with those."""
    known = implementations()
    running = {one.name: one for one in known.values() if not _lacking(one.name, vendors)}
    asked = name.lower()
    if asked == AUTO:
        return tuple(running.values())
    if asked in running:
        return (running[asked],)
    if asked in known:
        raise BadInput(f"{asked} does not run on {_lacking(asked, vendors)} GPUs", hint=f"take {AUTO}, {', '.join(running)}")
    versioned = next((one for one in running if asked.startswith(f"{one}-")), None)
    if versioned is not None:
        raise BadInput(f"unknown implementation {name!r}", hint=f"versions cannot be chosen; take {versioned}")
    raise unknown_name("implementation", name, running, hint=f"known: {AUTO}, {', '.join(running)}")


def _lacking(name: str, vendors: Collection[str]) -> str:
    """The first of ``vendors`` on whose GPUs an implementation does not run; empty where it runs on all."""
    engine = engines().get(name)
    there = engine.traits.vendors if engine else None
    return "" if there is None else next((vendor for vendor in sorted(vendors) if vendor not in there), "")


def written_implementation(text: str) -> tuple[Implementation, bool]:
    """The implementation that a table of measurements names, and whether its kernels were launched one by one (eager).

    Raises ``BadInput`` for one that is not known.

    >>> implementation, eager = written_implementation("trtllm-custom-eager-1.3.0rc20")
    >>> implementation.name, implementation.version, eager
    ('tensorrt-llm', '1.3.0rc20', True)
    """
    parts = text.lower().split("-")
    for one in implementations().values():
        start = one.written_as.split("-")
        if parts[: len(start)] == start:
            rest = parts[len(start) :]
            version = next((part for part in rest if part[:1].isdigit()), "")
            return replace(one, version=version), "eager" in rest or TORCH in text.lower()
    known = ", ".join(f"{one.written_as}-…" for one in implementations().values())
    raise BadInput(f"unknown implementation {text!r}", hint=f"known: {known}")
