"""What the two halves of a pair take on their own GPUs: prompts on the one, answers on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from planner.core.estimate import Estimate
from planner.core.plan import Infeasible, Plan
from planner.core.workload import Workload
from planner.cost.disaggregated import prefill_rate
from planner.cost.pricer import Pricer
from planner.cost.replica import ReplicaMetrics, ReplicaTimes
from planner.cost.strategy import Strategy
from planner.units import Seconds

NEARLY_ALL = 1 - 1e-9
"""The share of a prompt that a decode pool finds in its cache: all but the last token."""


def prefill_workload(workload: Workload) -> Workload:
    """The traffic as a prefill replica sees it: one prompt at a time, one token of its answer."""
    return replace(
        workload, output_tokens=1, concurrency=1, load="concurrency", ttft_target=None, tpot_target=None, percentile=None
    )


def decode_workload(workload: Workload) -> Workload:
    """The traffic as a decode replica sees it: prompts come computed, as many as there is room for."""
    return replace(
        workload, cached_share=NEARLY_ALL, concurrency=1, load="full", ttft_target=None, tpot_target=None, percentile=None
    )


@dataclass(frozen=True)
class PrefillSide:
    """A prefill pool. ``way`` is a prompt's own through the slowest replica, ``service`` what it keeps others out for where so many
    ``prompts`` share a step, ``chunks`` in how many parts it goes; ``room`` prompts a replica's cache holds.
    """

    plan: Plan
    estimate: Estimate
    proven: bool
    way: Seconds
    service: Seconds
    prompts: int
    chunks: int
    room: int

    @property
    def rate(self) -> float:
        """Prompts a second that all replicas take together."""
        return self.plan.parallelism.data / self.service


@dataclass(frozen=True)
class DecodeSide:
    """A decode pool. ``most`` requests run at once on a replica, as many as there is ``room`` for or as the target for TPOT allows
    (``kept`` is whether it allows any).
    """

    plan: Plan
    estimate: Estimate
    proven: bool
    room: int
    most: int
    kept: bool
    pricer: Pricer
    steps: dict[int, Seconds] = field(default_factory=dict)

    def step(self, requests: int) -> Seconds:
        """A decode step of the slowest replica with so many requests on each."""
        found = self.steps.get(requests)
        if found is None:
            found = self.steps[requests] = step_of(self.pricer, self.plan, requests)
        return found

    @property
    def rate(self) -> float:
        """Requests a second that all replicas answer together, full as they may be."""
        tokens = self.pricer.workload.output_tokens
        return self.plan.parallelism.data * self.most / (self.step(self.most) * tokens)


def outcomes(pricer: Pricer, plan: Plan) -> tuple[Strategy, Sequence[ReplicaTimes], Sequence[ReplicaMetrics], Seconds]:
    """A placed plan under the workload of ``pricer``: times and metrics of every replica, and the exchanges of a prompt."""
    used = [gpu for replica in plan.placement for group in replica for gpu in group]
    strategy = pricer.strategy(plan.parallelism, plan.layer_partition, plan.limits, used)
    assert not isinstance(strategy, Infeasible)  # it was placed
    placed = pricer.placed(strategy)
    exchange = placed.exchange_of(plan.placement)
    times, metrics = placed.outcomes(plan.placement, placed.sharing(plan.placement), exchange)
    return strategy, times, metrics, exchange[1]


def prefill_side(pricer: Pricer, plan: Plan, estimate: Estimate, *, proven: bool) -> PrefillSide:
    """A prefill pool, given a pricer of :func:`prefill_workload`."""
    strategy, times, metrics, exchange = outcomes(pricer, plan)
    alone = max(one.prefill_max for one in times) + exchange
    together, prompts = alone, 1
    most = min(strategy.room, plan.limits.max_batched_tokens // pricer.workload.new_tokens)
    if most > 1:
        batch, filled, _, exchanged = outcomes(pricer.at(most * plan.parallelism.data, "batch"), plan)
        together, prompts = max(one.prefill_max for one in filled) + exchanged, batch.requests
    service = Seconds(1 / prefill_rate(1, Seconds(alone), Seconds(together), prompts))
    shared = prompts if service < alone else 1
    way = max(one.prefill for one in metrics)
    return PrefillSide(plan, estimate, proven, way, service, shared, strategy.chunks.count, strategy.room)


def step_of(pricer: Pricer, plan: Plan, requests: int) -> Seconds:
    """A decode step of the slowest replica with so many ``requests`` on each and no prompts, given a pricer of :func:`decode_workload`."""
    metrics = outcomes(pricer.at(requests * plan.parallelism.data, "concurrency"), plan)[2]
    return Seconds(max(one.decode_period for one in metrics))


def decode_side(pricer: Pricer, plan: Plan, estimate: Estimate, target: Seconds | None, *, proven: bool) -> DecodeSide:
    """A decode pool under a ``target`` for TPOT, given a pricer of :func:`decode_workload`."""
    room = max(1, min(estimate.max_concurrency, plan.limits.max_sequences))
    side = DecodeSide(plan, estimate, proven, room, room, True, pricer)
    if target is None or side.step(room) <= target:
        return side
    low, high = 1, room  # a step takes longer the more it decodes
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if side.step(middle) <= target else (low, middle - 1)
    return replace(side, most=low, kept=side.step(low) <= target)
