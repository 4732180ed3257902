"""What would fit where nothing does: fewer bytes a weight, or more GPUs of the same kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from planner.core.model import ModelSpec
from planner.core.plan import Infeasible, Parallelism
from planner.core.quantization import FORMATS
from planner.cost.pricer import Pricer
from planner.search.space import illegal

MAX_GPUS = 512


@dataclass(frozen=True, slots=True)
class Remedy:
    """The smallest number of these GPUs that would hold the model, and the widest format that would on those there are."""

    gpus: int | None
    gpus_parallelism: Parallelism | None
    weight_format: str | None
    format_parallelism: Parallelism | None


def remedy(pricer: Pricer) -> Remedy:
    """What would fit, by memory and divisibility alone (no placement)."""
    there = len(pricer.topology.gpus)
    gpus, gpus_parallelism = None, None
    for count in _counts(there):
        found = _first_fit(pricer, pricer.model, count)
        if found is not None:
            gpus, gpus_parallelism = count, found
            break
    current = pricer.model.weight_format.bytes_per_weight
    smaller = sorted(
        (one for one in FORMATS.values() if one.bytes_per_weight < current and one.block is None),
        key=lambda one: (-one.bytes_per_weight, one.needs_own_checkpoint, list(FORMATS).index(one.name)),
    )
    for weight_format in smaller:
        model = replace(pricer.model, weight_format=weight_format)
        for count in range(1, there + 1):
            found = _first_fit(pricer, model, count)
            if found is not None:
                return Remedy(gpus, gpus_parallelism, weight_format.name, found)
    return Remedy(gpus, gpus_parallelism, None, None)


def _counts(there: int) -> Iterator[int]:
    """Every count beyond those there are, coarser as it grows."""
    count = there + 1
    while count <= MAX_GPUS:
        yield count
        count += 1 if count < 64 else 8 - count % 8


def _first_fit(pricer: Pricer, model: ModelSpec, gpus: int) -> Parallelism | None:
    """Degrees that use exactly ``gpus`` GPUs for one replica and fit their memory, the largest tensor degree first."""
    everywhere = range(len(pricer.topology.gpus))
    spec, capacity = pricer.weakest_of(everywhere)
    limits = pricer.traits.default_limits(spec, capacity)
    small = replace(limits, max_sequences=min(limits.max_sequences, pricer.workload.concurrency), max_batched_tokens=2048)
    asking = replace(pricer, model=model)
    for tensor in range(min(gpus, 16), 0, -1):
        if gpus % tensor:
            continue
        degrees = Parallelism(tensor, gpus // tensor)
        if illegal(degrees, model, pricer.workload, spec, gpus, pricer.traits) is not None:
            continue
        partition = pricer.traits.default_partition(len(model.layers), degrees.pipeline)
        for tried in (limits, small):
            if not isinstance(asking.strategy(degrees, partition, tried, everywhere), Infeasible):
                return degrees
    return None
