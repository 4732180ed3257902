"""How many requests are in flight where the workload does not say: as many as targets allow, or as a request rate brings about."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from planner.core.estimate import Estimate
from planner.core.plan import Infeasible, Plan
from planner.core.workload import Workload
from planner.cost.latency import chance_within
from planner.cost.pricer import Pricer
from planner.cost.replica import service_time
from planner.units import Seconds

REQUEST_RATE = "request-rate"

SHORT_ANSWER = 16
"""Of fewer tokens, and with as many in flight as fit fewer may be answered than with fewer: their prompts wait for each other."""

_STEPS = 1000

BOTH = "TTFT and TPOT together"
"""What is missed where enough requests meet either target, and too few both."""


def settled(pricer: Pricer, plan: Plan) -> Pricer | Infeasible:
    """The same pricer with as many requests in flight as the plan settles at; or why it cannot keep up with the rate.

    With targets and no load: the most that meets them, one to each replica where even that does not. At a request rate: the
    fewest that a closed loop needs to answer as many.
    """
    workload = pricer.workload
    if workload.load == "request-rate":
        return _at_rate(pricer, plan)
    if workload.load != "full" or not workload.has_targets:
        return pricer
    full = _priced(pricer, plan)
    if isinstance(full, Infeasible) or not missed_targets(full, workload):
        return pricer

    def at(each: int) -> Pricer:
        return pricer.at(each * plan.parallelism.data, "concurrency")

    def misses(each: int) -> bool:
        estimate = _priced(at(each), plan)
        return isinstance(estimate, Infeasible) or bool(missed_targets(estimate, workload))

    first_that_misses = _first(misses, math.ceil(full.serving.in_flight / plan.parallelism.data))
    return at(max(1, first_that_misses - 1))


def settled_estimate(pricer: Pricer, plan: Plan) -> Estimate | Infeasible:
    """What a fully placed plan costs with as many requests in flight as it settles at."""
    found = settled(pricer, plan)
    return found if isinstance(found, Infeasible) else _priced(found, plan)


def held_to_targets(estimate: Estimate, workload: Workload) -> dict[str, Seconds]:
    """The times that targets are for, by name: means, or the percentile that is asked for."""
    percentile, serving = workload.percentile, estimate.serving
    if percentile is None:
        return {"TTFT": estimate.ttft, "TPOT": estimate.tpot}
    return {"TTFT": serving.ttft.at(percentile), "TPOT": serving.tpot.at(percentile)}


def missed_targets(estimate: Estimate, workload: Workload) -> tuple[str, ...]:
    """The targets that are not met, by name."""
    held, targets = held_to_targets(estimate, workload), (workload.ttft_target, workload.tpot_target)
    misses = [name for (name, time), target in zip(held.items(), targets, strict=True) if target is not None and time > target]
    share, together = estimate.serving.within_targets, workload.percentile
    if not misses and share is not None and together is not None and share < together / 100:
        return (BOTH,)
    return tuple(misses)


def chances(estimate: Estimate, workload: Workload) -> dict[str, float]:
    """How likely each target is met, by name, as far as the error bars go: those that there are."""
    unsure, means = estimate.uncertainty, {"TTFT": estimate.ttft, "TPOT": estimate.tpot}
    bars = {"TTFT": unsure.ttft, "TPOT": unsure.tpot}
    held, targets = held_to_targets(estimate, workload), (workload.ttft_target, workload.tpot_target)
    found = {}
    for (name, time), target in zip(held.items(), targets, strict=True):
        if target is not None:
            low, high = bars[name]
            limit = target * means[name] / time if math.isfinite(time) else 0.0
            found[name] = chance_within(limit, means[name], low, high) if limit else 0.0
    return found


def maximum(pricer: Pricer, plan: Plan) -> Estimate | None:
    """The most the plan does: mostly with as many requests in flight as fit, or meet the targets; with fewer where answers are so
    short that more only wait. ``None`` where the workload asks for that itself, or for no closed loop.
    """
    workload = pricer.workload
    if workload.load != "concurrency":
        return None
    limits = replace(plan.limits, max_model_tokens=0)
    plan = replace(plan, limits=limits)
    found = settled_estimate(pricer.at(workload.concurrency, "full"), plan)
    if isinstance(found, Infeasible) or missed_targets(found, workload):
        return None
    here = _priced(pricer, plan)
    if isinstance(here, Infeasible):
        return found
    if workload.output_tokens >= SHORT_ANSWER and here.output_tokens_per_second <= found.output_tokens_per_second:
        return found
    most = math.ceil(found.serving.in_flight)
    met = [one for one in _with_fewer(pricer, plan, most, min(workload.concurrency, most)) if not missed_targets(one, workload)]
    return max((found, *met), key=lambda one: one.output_tokens_per_second)


def _with_fewer(pricer: Pricer, plan: Plan, most: int, *others: int) -> list[Estimate]:
    """The plan with 1, 2, 4, 8, ... requests in flight on every replica, fewer than ``most`` in all, and with so many ``others``."""
    data = plan.parallelism.data
    numbers = sorted({data * 2**power for power in range((most // data).bit_length())} | set(others))
    found = (_priced(pricer.at(number, "concurrency"), plan) for number in numbers)
    return [one for one in found if not isinstance(one, Infeasible)]


def _at_rate(pricer: Pricer, plan: Plan) -> Pricer | Infeasible:
    rate, data = pricer.workload.request_rate, plan.parallelism.data
    full = _priced(pricer.at(1, "full"), plan)
    if isinstance(full, Infeasible):
        return full
    if full.serving.requests_per_second < rate:
        fewer = _with_fewer(pricer, plan, math.ceil(full.serving.in_flight))
        full = max((full, *fewer), key=lambda one: one.serving.requests_per_second)
    most = full.serving.requests_per_second
    if most < rate:
        number = full.serving.in_flight
        return _overrun(plan, rate, _kept_up(pricer.at(math.ceil(number)), plan, most), f"with {number:.0f} in flight")

    def answered(each: int) -> float:
        estimate = _priced(pricer.at(each * data, "concurrency"), plan)
        return math.inf if isinstance(estimate, Infeasible) else estimate.serving.requests_per_second

    found = pricer.at(fewest_in_flight(answered, rate, math.ceil(full.serving.in_flight / data), most) * data)
    estimate = _priced(found, plan)
    if isinstance(estimate, Infeasible):
        return estimate
    if math.isinf(estimate.ttft):
        by_prompts = data / _service(found, plan)
        if by_prompts > rate:  # those who wait do so for a place
            return _overrun(plan, rate, _kept_up(found, plan, rate), f"with room for {estimate.max_concurrency:,} on a replica")
        return _overrun(plan, rate, by_prompts, "which is what its prompts take")
    return found


def _kept_up(pricer: Pricer, plan: Plan, limit: float) -> float:
    """The highest rate up to ``limit`` at which nobody waits for ever, to a thousandth of that."""
    low, high, rate = 0.0, limit, limit * (1 - 1 / _STEPS)
    while high - low > limit / _STEPS:
        estimate = _priced(pricer.under(replace(pricer.workload, request_rate=rate)), plan)
        finite = not isinstance(estimate, Infeasible) and math.isfinite(estimate.ttft)
        low, high = (rate, high) if finite else (low, rate)
        rate = (low + high) / 2
    return high if high == limit else low


def _service(pricer: Pricer, plan: Plan) -> float:
    """How long a prompt of the slowest replica keeps others out."""
    strategy = pricer.strategy(plan.parallelism, plan.layer_partition, plan.limits, _used(plan))
    assert not isinstance(strategy, Infeasible)
    placed = pricer.placed(strategy)
    metrics = placed.outcomes(plan.placement, placed.sharing(plan.placement), placed.exchange_of(plan.placement))[1]
    return max(service_time(strategy, one.decode_period, one.riding) for one in metrics)


def _overrun(plan: Plan, rate: float, most: float, why: str) -> Infeasible:
    reached = f"{most:,.0f}" if most >= 100 else f"{most:.3g}"
    message = f"keeps up with {reached} requests a second, {why}; asked for {rate:g}"
    return Infeasible(plan.parallelism, REQUEST_RATE, have=most, need=rate, unit="requests/s", message=message)


def _priced(pricer: Pricer, plan: Plan) -> Estimate | Infeasible:
    return pricer.estimate(plan.parallelism, plan.layer_partition, plan.limits, plan.placement)


def _used(plan: Plan) -> list[int]:
    return [gpu for replica in plan.placement for group in replica for gpu in group]


def fewest_in_flight(answered: Callable[[int], float], rate: float, most: int, by_most: float) -> int:
    """The smallest number from 1 to ``most`` for which ``answered``, in requests a second, reaches ``rate``; ``by_most`` is what
    ``most`` reach, and is enough.

    By Little's law the rate keeps as many in flight as arrive while one is answered, and one is answered no sooner beside more
    others: where n are too few, so is all that is below ``needed(n)``; where n are enough, so are ``needed(n)``. A straight line
    through what both ends need says where to ask next; every third time it is the middle.

    >>> fewest_in_flight(lambda n: n / (2 + 0.01 * n), 20, 100, 100 / 3)
    50
    """

    def needed(number: int, reached: float) -> float:
        return number if math.isinf(reached) else number * rate / max(reached, rate * 1e-9)

    below, above = (0, 0.0), (most, needed(most, by_most))
    low, high = 1, max(1, min(most, _whole(above[1])))
    guess, asked = 1, 0
    while low < high:
        asked += 1
        reached = answered(guess)
        need = needed(guess, reached)
        if reached >= rate:
            high, above = min(guess, max(low, _whole(need))), (guess, need)
        else:
            low, below = max(guess + 1, min(high, _whole(need))), (guess, need)
        guess = max(low, min(_crossing(below, above) if asked % 3 else (low + high) // 2, high - 1))
    return high


def _crossing(below: tuple[int, float], above: tuple[int, float]) -> int:
    """Where a straight line through two numbers and their needs meets the number itself."""
    (first, need), (last, other) = below, above
    slope = (other - need) / (last - first)
    return _whole((need - slope * first) / (1 - slope)) if slope < 1 else last


def _whole(requests: float) -> int:
    """The next whole number of requests, whatever a quotient errs by."""
    return math.ceil(requests - 1e-6)


def _first(holds: Callable[[int], bool], most: int) -> int:
    """The smallest number from 1 to ``most`` for which something holds that holds for all larger ones; ``most`` if none is known."""
    low, high = 1, max(1, most)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high
