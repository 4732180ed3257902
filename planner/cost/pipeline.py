"""Pipelines: bubbles of a prompt, the closed loop of decoding, and where to cut the layers."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import partial

from planner.cost.formula import formula
from planner.units import Seconds

NO_TIME = Seconds(0.0)
BUBBLE_CONVENTION = "fraction of total time, (P-1)/(M+P-1), equal stages (GPipe)"


@formula(source="GPipe (Huang et al. 2019): fill and drain", valid="equal micro-batches")
def fill_drain_makespan(stage_times: Sequence[Seconds], micro_batches: int) -> Seconds:
    """Time until the last of ``micro_batches`` leaves the last stage.

    >>> fill_drain_makespan([Seconds(1)] * 4, 8), round(fill_drain_makespan([Seconds(t) for t in (1, 1, 1.3, 1)], 8), 9)
    (11, 13.4)
    """
    return Seconds(sum(stage_times) + (micro_batches - 1) * max(stage_times))


@formula(source="GPipe (Huang et al. 2019), idle time over total time", valid="equal stages and micro-batches")
def bubble_ratio(stages: int, micro_batches: int) -> float:
    """Share of the pipeline's time that is bubble.

    >>> round(bubble_ratio(4, 8), 4), round(bubble_ratio(8, 32), 4)
    (0.2727, 0.1795)
    """
    return (stages - 1) / (micro_batches + stages - 1)


@formula(source="Megatron-LM (Narayanan et al. 2021), idle over ideal time, k virtual stages a device", valid="equal stages")
def bubble_over_ideal(stages: int, micro_batches: int, virtual_stages: int = 1) -> float:
    """The other convention: bubble over useful time. total = ideal / (1 + ideal).

    >>> bubble_over_ideal(4, 8), bubble_over_ideal(4, 8, 2)
    (0.375, 0.1875)
    """
    return (stages - 1) / (virtual_stages * micro_batches)


@formula(source="closed queueing loop without think time: bottleneck or round trip, whichever is longer")
def decode_period(stage_times: Sequence[Seconds], micro_batches: int, hops: Seconds = NO_TIME) -> Seconds:
    """Time between two tokens of one request when ``micro_batches`` circulate; ``hops`` is the sends of one round.

    >>> [decode_period([Seconds(1)] * 4, m) for m in (1, 2, 4, 8)]
    [4.0, 4.0, 4.0, 8]
    >>> stages = [Seconds(t) for t in (1, 1, 1.3)]
    >>> round(decode_period(stages, 3), 9), round(decode_period(stages, 2), 9)
    (3.9, 3.3)
    """
    return Seconds(max(sum(stage_times) + hops, micro_batches * max(stage_times)))


@formula(source="utilisation of a closed loop: work over period, averaged over the stages")
def idle_ratio(stage_times: Sequence[Seconds], micro_batches: int, period: Seconds) -> float:
    """Share of the stages' time spent waiting while decoding.

    >>> [idle_ratio([Seconds(1)] * 4, m, decode_period([Seconds(1)] * 4, m)) for m in (1, 2, 4, 8)]
    [0.75, 0.5, 0.0, 0.0]
    """
    if period <= 0:
        return 0.0
    return max(0.0, 1 - micro_batches * sum(stage_times) / (len(stage_times) * period))


@formula(source="chunks of one prompt overlap in a pipeline only in part (vLLM issue 41682 sees none): between serial and ideal")
def prompt_makespan(serial: Seconds, ideal: Seconds, overlap: float) -> Seconds:
    """Time of one prompt's chunks through a pipeline; ``overlap`` 1 is ideal fill and drain, 0 one after the other.

    >>> prompt_makespan(Seconds(8), Seconds(5), 0.5)
    6.5
    """
    return Seconds(serial - overlap * (serial - ideal))


@formula(
    source="chains-on-chains partitioning by parametric search (Pinar and Aykanat 2004)",
    valid="layers alike; a stage's cost rises with its layers",
)
def best_partition(layers: int, stages: int, cost: Callable[[int, int], float]) -> tuple[int, ...]:
    """Layers per stage so that the most expensive stage is as cheap as can be.

    ``cost(stage, layers)`` is what a stage of that many layers costs. Among equally good partitions the most even one
    wins, of those the one with more layers late. Every stage has a layer at least.

    >>> best_partition(80, 3, lambda stage, layers: layers + 1.2279 * (stage == 2))
    (27, 27, 26)
    >>> best_partition(32, 4, lambda stage, layers: layers + 2.409 * (stage == 3))
    (8, 9, 9, 6)
    """
    most = layers - stages + 1

    def room(bottleneck: float) -> list[int]:
        """How many layers each stage takes without exceeding ``bottleneck``, one at least."""
        return [max(1, bisect_right(range(1, most + 1), bottleneck, key=partial(cost, stage))) for stage in range(stages)]

    # the answer lies between a perfect division and everything else on single layers
    even = -(-layers // stages)
    candidates = sorted({cost(stage, count) for stage in range(stages) for count in range(1, min(most, 2 * even + 1) + 1)})
    enough = bisect_left(candidates, layers, key=lambda bottleneck: sum(room(bottleneck)))
    caps = room(candidates[enough]) if enough < len(candidates) else [most] * stages
    counts = [1] * stages
    for _ in range(layers - stages):
        counts[
            min((stage for stage in range(stages) if counts[stage] < caps[stage]), key=lambda stage: (counts[stage], -stage))
        ] += 1
    return tuple(counts)


@formula(source="micro-batch of a decode step: requests shared out over the batches in flight")
def micro_batch(requests: int, micro_batches: int) -> int:
    """Requests in the largest micro-batch.

    >>> micro_batch(10, 4)
    3
    """
    return math.ceil(requests / micro_batches)
