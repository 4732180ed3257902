"""What would fit where nothing does: fewer bytes a weight, or more GPUs of the same kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from planner.core.model import ModelSpec
from planner.core.plan import Infeasible, Parallelism
from planner.core.quantization import BF16, FORMATS, WeightFormat
from planner.cost.pricer import Pricer
from planner.search.space import illegal

MAX_GPUS = 512
GPUS_OF_A_HOST = 8
"""As many as an engine that stays on one host is offered where the hosts there are have fewer."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would fit: the smallest number of these GPUs, and the formats that fit on those there are, the most fitting first.

    Formats the GPUs multiply in come before those they only unpack, wider before narrower; each with its degrees.
    """

    gpus: int | None
    gpus_parallelism: Parallelism | None
    formats: tuple[tuple[str, Parallelism], ...]


def remedy(pricer: Pricer, fewest: int) -> Remedy:
    """What would fit, by memory and divisibility alone (no placement), on ``fewest`` GPUs or more."""
    gpus, gpus_parallelism = None, None
    for count in _counts(fewest, _most(pricer)):
        found = _first_fit(pricer, pricer.model, count)
        if found is not None:
            gpus, gpus_parallelism = count, found
            break
    current = pricer.model.weight_format.bytes_per_weight
    spec, _ = pricer.weakest_of(range(len(pricer.topology.gpus)))

    def order(one: WeightFormat) -> tuple[bool, float, bool]:
        return one.math not in spec.compute and one.math != BF16.math, -one.bytes_per_weight, one.needs_own_checkpoint

    formats = []
    plain = [one for one in FORMATS.values() if one.block is None and one.like is None]
    for one in sorted((one for one in plain if one.bytes_per_weight < current), key=order):
        model = pricer.model.stored_as(one)
        fits = (_first_fit(pricer, model, count) for count in range(1, len(pricer.topology.gpus) + 1))
        found = next((degrees for degrees in fits if degrees is not None), None)
        if found is not None:
            formats.append((one.name, found))
    return Remedy(gpus, gpus_parallelism, tuple(formats))


def _most(pricer: Pricer) -> int:
    hosts = (len(gpus) for gpus in pricer.topology.gpus_of_host.values())
    return MAX_GPUS if pricer.traits.spans_hosts else max(GPUS_OF_A_HOST, *hosts)


def _counts(fewest: int, most: int) -> Iterator[int]:
    """Every count from ``fewest`` to ``most``, coarser as it grows."""
    count = fewest
    while count <= most:
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
