"""A benchmark of a running server held against the plan it was launched from, and the thresholds that operators use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

from planner.core.benchmark import BenchmarkAnswer, Compared, ComparedWith, Exposed, FigureName, Flag, Served
from planner.core.estimate import Breakdown, Estimate
from planner.core.plan import Infeasible
from planner.core.saved import Expected, Interval, SavedPlan
from planner.core.workload import Workload
from planner.errors import BadInput
from planner.units import Seconds

MOST_COMMUNICATION = 0.20
"""Share of the time per token above which communication is flagged."""
LEAST_RATIO = 0.70
"""Measured over predicted speed below which a figure is flagged."""
SAME = 0.10
"""Traffic is the plan's where concurrency and lengths are within this share of it."""
FEW_ROUNDS = 4
"""Fewer requests than this many times the concurrency hardly ever meet a full server."""
MOST = 10_000_000
"""More requests in flight, or tokens of one, are no traffic."""
COMMUNICATION = ("all_reduce", "shared_links", "point_to_point", "expert_exchange", "context_exchange")
"""Parts of a breakdown that are spent on wires."""

Price = Callable[[Workload], Estimate | Infeasible]
"""The plan as it is placed, priced for a workload."""


def hold(saved: SavedPlan, served: Served, price: Price) -> BenchmarkAnswer:
    """Measured figures against those the plan expected; where the traffic is another, against the plan priced for that."""
    workload, differences, notes = _traffic(served, saved.workload)
    estimate = price(workload)
    compared_with: ComparedWith = "plan"
    figures: tuple[Compared, ...] = ()
    if differences and isinstance(estimate, Infeasible):
        compared_with = "nothing"
        notes.append(f"the plan cannot be priced for this traffic: {estimate.message}")
    else:
        compared_with = "estimate" if differences else "plan"
        figures = _compared(served, estimate if differences and isinstance(estimate, Estimate) else saved.expected)
    if isinstance(estimate, Infeasible) and not differences:
        notes.append(f"the plan cannot be priced any more, so nothing is known of its communication: {estimate.message}")
    exposed = None if isinstance(estimate, Infeasible) else communication_of(estimate)
    notes = [*served.notes, *_mistaken(served, saved), *notes]
    flags = _flags(figures, exposed)
    return BenchmarkAnswer(served, workload, tuple(differences), compared_with, figures, exposed, tuple(flags), tuple(notes))


def communication_of(estimate: Estimate) -> Exposed:
    """What of the time per token is communication: in the decode step, and in the prompts of others that it waits for, of which as
    large a share as of a prompt alone.
    """
    decode = sum(estimate.decode.parts.get(name, 0.0) for name in COMMUNICATION)
    waited = max(0.0, estimate.tpot - estimate.decode.total)
    prefill = waited * _communicating(estimate.prefill)
    wires = estimate.communication
    link = str(wires.shared_link.link) if wires.shared_link is not None else wires.limiting_link
    return Exposed(Seconds(decode), Seconds(prefill), (decode + prefill) / estimate.tpot, link)


def _communicating(breakdown: Breakdown) -> float:
    """The share of communication in the work of a breakdown; what overlap saves is no part."""
    work = sum(time for time in breakdown.parts.values() if time > 0)
    return sum(breakdown.parts.get(name, 0.0) for name in COMMUNICATION) / work if work > 0 else 0.0


def _traffic(served: Served, planned: Workload) -> tuple[Workload, list[str], list[str]]:
    """The workload to predict for, how it differs from the plan's, and what is assumed of it."""
    found = {
        "concurrency": (_in_flight(served), planned.concurrency),
        "input_tokens": (served.input_tokens, planned.input_tokens),
        "output_tokens": (served.output_tokens, planned.output_tokens),
    }
    differences, notes = [], []
    for name, (measured, asked) in found.items():
        words = name.replace("_", " ")
        if measured is None:
            notes.append(f"the result says nothing of {words}: assumed are the plan's {asked}")
        elif measured > MOST:
            raise BadInput(f"{words} of {measured:.3g} are no traffic", path=served.source)
        elif abs(measured / asked - 1) > SAME:
            differences.append(f"{words} {_count(measured)}, planned {asked}")
    if served.paced:
        notes.append(
            f"requests were sent {served.paced}; predicted is a closed loop with as many in flight as there were on average"
        )
    if served.completed and served.concurrency and not served.paced and served.completed < FEW_ROUNDS * served.concurrency:
        notes.append(
            f"{served.completed:.0f} requests with {served.concurrency:.0f} in flight: the server was seldom full; "
            f"send {FEW_ROUNDS} times as many as are in flight, or more"
        )
    if served.failed:
        notes.append(f"{served.failed:.0f} requests failed")
    if not differences:
        return planned, differences, notes
    counts = {name: asked if measured is None else max(1, round(measured)) for name, (measured, asked) in found.items()}
    workload = replace(
        planned,
        load="concurrency",
        concurrency=counts["concurrency"],
        input_tokens=counts["input_tokens"],
        output_tokens=counts["output_tokens"],
    )
    return workload, differences, notes


def _in_flight(served: Served) -> float | None:
    """Requests in flight: as many as were allowed where they came as others ended, else as many as there were on average."""
    if served.concurrency is not None and not served.paced:
        return min(served.concurrency, served.completed or served.concurrency)
    mean = served.mean_in_flight
    return mean if mean is None or served.concurrency is None else min(mean, served.concurrency)


def _mistaken(served: Served, saved: SavedPlan) -> list[str]:
    """What speaks against this being a benchmark of this plan."""
    notes = []
    if served.model is not None and _last(served.model) not in {_last(saved.model.name), _last(saved.model_reference)}:
        notes.append(f"the result is of {served.model}, the plan is of {saved.model.name}")
    if served.engine is not None and served.engine != saved.engine:
        notes.append(f"{served.tool} measures {served.engine}, the plan is for {saved.engine}")
    ran, planned = served.parallelism, saved.plan.parallelism
    if ran is not None and (ran.tensor, ran.pipeline) != (planned.tensor, planned.pipeline):
        notes.append(f"measured was TP {ran.tensor} × PP {ran.pipeline}, the plan is {planned}")
    return notes


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", maxsplit=1)[-1].casefold()


def _compared(served: Served, predicted: Expected | Estimate) -> tuple[Compared, ...]:
    """The figures that were measured; a prediction of 0, which only a hand can write, compares with nothing."""
    intervals: tuple[Interval, Interval, Interval]
    if isinstance(predicted, Estimate):
        unsure = predicted.uncertainty
        intervals = (unsure.ttft, unsure.tpot, unsure.output_tokens_per_second)
    else:
        intervals = (predicted.ttft_interval, predicted.tpot_interval, predicted.output_interval)
    measured = (served.ttft, served.tpot, served.output_tokens_per_second)
    said = (predicted.ttft, predicted.tpot, predicted.output_tokens_per_second)
    return tuple(
        Compared(name, value, figure, *interval)
        for name, value, figure, interval in zip(get_args(FigureName), measured, said, intervals, strict=True)
        if value is not None and figure > 0
    )


def _flags(figures: tuple[Compared, ...], exposed: Exposed | None) -> list[Flag]:
    flags = []
    if exposed is not None and exposed.share > MOST_COMMUNICATION:
        limit = f"what limits it is {exposed.link}: " if exposed.link is not None else ""
        flags.append(
            Flag(
                "communication",
                f"communication takes {_percent(exposed.share)} of the time per token, more than {_percent(MOST_COMMUNICATION)}",
                f"{limit}planner doctor says whether links are slower than they should be, planner recommend which layout sends less",
            )
        )
    for one in figures:
        speed = one.ratio if one.name == "output_tokens_per_s" else 1 / one.ratio
        if speed < LEAST_RATIO:
            flags.append(_slow(one, exposed))
    return flags


def _slow(one: Compared, exposed: Exposed | None) -> Flag:
    least = _percent(LEAST_RATIO)
    if one.name == "output_tokens_per_s":
        code, message = "output", f"output is {_percent(one.ratio)} of predicted, less than {least}"
    else:
        code, words = {"ttft_s": ("ttft", "time to first token"), "tpot_s": ("tpot", "time per output token")}[one.name]
        message = f"{words} is {one.ratio:.3g} times the predicted, {_percent(1 / one.ratio)} of the speed, less than {least}"
    inside = ", though still inside the prediction's interval" if one.inside else ""
    return Flag(code, message + inside, _remedy(code, exposed))


def _remedy(code: str, exposed: Exposed | None) -> str:
    """What to look at: the links where much of the time goes there, else what is not the links."""
    if code == "ttft":
        return "see in the engine's log whether requests waited for KV cache, and planner doctor for what slows the host"
    if exposed is not None and exposed.share > MOST_COMMUNICATION:
        link = exposed.link or "its links"
        return f"measure what communication waits for, {link}: planner probe --measure on the host, or planner calibrate with nccl-tests"
    share = "" if exposed is None else f"communication should be only {_percent(exposed.share)}: "
    return f"{share}see planner doctor for what slows the GPUs themselves, and whether engine, version and options are the plan's"


def _count(value: float) -> str:
    """A mean number: whole where it is large.

    >>> _count(1024.4), _count(25.96)
    ('1024', '26')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
