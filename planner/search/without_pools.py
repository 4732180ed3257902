"""What pools are held against: the best plan without them, asked as they are."""

from __future__ import annotations

from dataclasses import replace

from planner.core.estimate import Estimate
from planner.search.load import missed_targets, settled_estimate
from planner.search.rank import Ranked, Search

MOST_PLANS = 3
_HALVINGS = 8


def best_without(search: Search) -> Ranked | None:
    """The best plan for the question of ``search``; ``None`` where nothing fits.

    With targets and no rate, requests come by chance as they do to pools: of the plans that are best in a closed loop the one that serves
    most of them within its targets; the first of them, in a closed loop, where none serves any so.
    """
    ranked = search.everything().ranked
    if not ranked:
        return None
    workload = search.pricer.workload
    if workload.load != "full" or not workload.has_targets:
        return ranked[0]
    found = [one for plan in ranked[:MOST_PLANS] if (one := _by_chance(search, plan)) is not None]
    return max(found, key=lambda one: one.estimate.serving.requests_per_second, default=ranked[0])


def _by_chance(search: Search, plan: Ranked) -> Ranked | None:
    """The plan at the most requests a second that come by chance and are served within the targets."""
    pricer = search.pricer
    full = pricer.estimate(plan.plan.parallelism, plan.plan.layer_partition, plan.plan.limits, plan.plan.placement)
    if not isinstance(full, Estimate):
        return None
    low, high = 0.0, full.serving.requests_per_second
    best: Estimate | None = None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        workload = replace(pricer.workload, load="request-rate", request_rate=middle)
        estimate = settled_estimate(pricer.under(workload), plan.plan)
        if isinstance(estimate, Estimate) and not missed_targets(estimate, workload):
            low, best = middle, estimate
        else:
            high = middle
    return None if best is None else replace(plan, estimate=best)
