"""What would fit where nothing does: fewer bytes a weight, more GPUs of the same kind, or shorter requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from planner.core.model import ModelSpec
from planner.core.plan import EngineLimits, Infeasible, Parallelism
from planner.core.quantization import BF16, FORMATS, WeightFormat
from planner.cost.pricer import Pricer
from planner.search.space import illegal

MAX_GPUS = 512
SHORT_CHUNK = 2048
GPUS_OF_A_HOST = 8
"""As many as an engine that stays on one host is offered where the hosts there are have fewer."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would fit: the smallest number of these GPUs, and the formats that fit on those there are, the most fitting first.

    Formats the GPUs multiply in come before those they only unpack, wider before narrower; each with its degrees. ``cache`` are
    those with a KV cache in 8 bits.
    """

    gpus: int | None
    gpus_parallelism: Parallelism | None
    formats: tuple[tuple[str, Parallelism], ...]
    cache: Parallelism | None


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
        found = _on_these(pricer, pricer.model.stored_as(one))
        if found is not None:
            formats.append((one.name, found))
    eight = pricer.model.cached_in("fp8")
    return Remedy(gpus, gpus_parallelism, tuple(formats), None if eight == pricer.model else _on_these(pricer, eight))


def _on_these(pricer: Pricer, model: ModelSpec) -> Parallelism | None:
    """Degrees that fit a model on the fewest of the GPUs there are."""
    fits = (_first_fit(pricer, model, count) for count in range(1, len(pricer.topology.gpus) + 1))
    return next((degrees for degrees in fits if degrees is not None), None)


def most_tokens(pricer: Pricer, asked: Iterable[Parallelism]) -> tuple[int, Parallelism] | None:
    """The longest request, in and out together, that the memory of these GPUs holds with any of the degrees that were ``asked`` for;
    ``None`` where they do not hold one at all.
    """
    everywhere, workload = range(len(pricer.topology.gpus)), pricer.workload
    best: tuple[int, Parallelism] | None = None
    for degrees in asked:
        partition = pricer.traits.default_partition(len(pricer.model.layers), degrees.pipeline)
        limits = _small(pricer)

        def fits(tokens: int) -> bool:
            shorter = replace(workload, input_tokens=tokens, output_tokens=1, concurrency=1, load="concurrency")
            told = pricer.under(shorter).strategy(degrees, partition, limits, everywhere)  # noqa: B023 - called at once
            return not isinstance(told, Infeasible)

        low, high = 0, workload.total_tokens
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        if low and (best is None or low > best[0]):
            best = low + 1, degrees
    return best


def _small(pricer: Pricer) -> EngineLimits:
    """Limits that leave the most memory: few sequences, and a short chunk."""
    spec, capacity = pricer.weakest_of(range(len(pricer.topology.gpus)))
    limits = pricer.traits.default_limits(spec, capacity)
    sequences = min(limits.max_sequences, pricer.workload.concurrency)
    return pricer.traits.smaller(limits, capacity, sequences, SHORT_CHUNK)


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
    small = _small(pricer)
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
