"""Whether a plan still stands: does it fit the machine as it is now, and is nothing much better."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.core.estimate import Estimate
from planner.core.plan import Infeasible, Plan
from planner.core.topology import Topology
from planner.core.workload import Objective, Workload
from planner.graph.difference import Change
from planner.search.load import held_to_targets, missed_targets, settled_estimate
from planner.search.rank import Ranked, Search
from planner.search.space import illegal

TOLERANCE = 0.05
"""A plan stands while nothing is better by more: the figures are not known to less."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of a plan.

    ``estimate`` is what it costs on ``topology`` now, ``None`` where it cannot run. ``best`` is the best plan there is now, ``None``
    where none fits; ``behind`` how much worse the plan is, as a share of the best by the objective. ``problems`` are why it does
    not stand; ``changes`` what is not as it was planned for, ``notes`` what could not be judged.
    """

    topology: Topology
    objective: Objective
    estimate: Estimate | None
    best: Ranked | None
    behind: float
    problems: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def stands(self) -> bool:
        """Whether there is nothing against it."""
        return not self.problems


def judge(plan: Plan, search: Search, before: Topology | None = None, changes: tuple[Change, ...] = ()) -> Judgement:
    """The plan priced as it is placed, held against the best plan that ``search`` finds on the same machine.

    ``before`` is the machine that was planned for: its GPUs are found again by host, in order, and by the host's own number.
    """
    topology, workload = search.pricer.topology, search.pricer.workload
    ranked = search.everything().ranked
    best = ranked[0] if ranked else None
    places = _found_again(before or topology, topology)
    used = [gpu for replica in plan.placement for group in replica for gpu in group]
    absent = [gpu for gpu in sorted(used) if gpu not in places]
    if absent:
        problem = f"the plan uses GPU {', '.join(map(str, absent))}, which {topology.name} does not have"
        return Judgement(topology, search.objective, None, best, 1.0, (problem,), changes)
    placement = tuple(tuple(tuple(places[gpu] for gpu in group) for group in replica) for replica in plan.placement)
    pricer, on = search.pricer, [places[gpu] for gpu in used]
    refused = illegal(plan.parallelism, pricer.model, workload, pricer.weakest_of(on)[0], len(on), pricer.traits)
    estimate = refused or settled_estimate(pricer, replace(plan, placement=placement))
    if isinstance(estimate, Infeasible):
        return Judgement(topology, search.objective, None, best, 1.0, (estimate.message,), changes)
    problems = [*_room(plan, estimate, workload), *_missed(estimate, workload)]
    behind = 0.0 if best is None else max(0.0, _behind(estimate, best, search.objective, workload))
    if best is not None and behind > TOLERANCE:
        other = (
            f"{best.plan.parallelism} is" if best.plan.parallelism != plan.parallelism else "other GPUs for the same degrees are"
        )
        what = "output" if search.objective == "throughput" else "latency"
        problems.append(f"{other} better: the {what} of this plan is {behind:.0%}".replace("%", " %") + " worse")
    return Judgement(topology, search.objective, estimate, best, behind, tuple(problems), changes)


def _found_again(before: Topology, now: Topology) -> dict[int, int]:
    """From the GPUs of one topology to those of another: hosts in order, GPUs by their host's number."""

    def keys(topology: Topology) -> list[tuple[int, int | None]]:
        order = {host.name: number for number, host in enumerate(topology.hosts)}
        return [(order[gpu.host], gpu.index) for gpu in topology.gpus]

    there = {key: place for place, key in enumerate(keys(now))}
    return {place: there[key] for place, key in enumerate(keys(before)) if key in there}


def _room(plan: Plan, estimate: Estimate, workload: Workload) -> list[str]:
    """Whether the KV cache holds the longest request, which engines refuse to start without, and the requests in flight."""
    tokens, longest = estimate.kv_cache_tokens, plan.limits.max_model_tokens
    if longest and tokens < longest:
        return [f"the KV cache of a replica holds {tokens} tokens, fewer than the longest request may have ({longest})"]
    if workload.total_tokens > tokens:
        return [f"the KV cache of a replica holds {tokens} tokens, fewer than one request takes ({workload.total_tokens})"]
    return []


def _missed(estimate: Estimate, workload: Workload) -> list[str]:
    held, targets = held_to_targets(estimate, workload), (workload.ttft_target, workload.tpot_target)
    which = "" if workload.percentile is None else f"p{workload.percentile} of "
    missed = [
        f"{which}{name} is {now * 1e3:.3g} ms, the target {most * 1e3:.3g} ms"
        for (name, now), most in zip(held.items(), targets, strict=True)
        if most is not None and now > most
    ]
    if not missed and missed_targets(estimate, workload):
        share = f"{estimate.serving.within_targets or 0.0:.0%}".replace("%", " %")
        missed.append(f"{share} of the requests meet both targets, {workload.percentile} % are asked for")
    return missed


def _behind(estimate: Estimate, best: Ranked, objective: Objective, workload: Workload) -> float:
    if objective == "throughput":
        return 1 - estimate.output_tokens_per_second / best.estimate.output_tokens_per_second
    return estimate.latency(workload.output_tokens) / best.latency(workload) - 1
