"""Why the winner won, in sentences: against the next plan of each other kind, naming the link that holds it back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from planner.core.plan import Infeasible, Parallelism, tensor_groups
from planner.search.fit import most_tokens, remedy
from planner.search.load import REQUEST_RATE
from planner.search.rank import UNMEASURED, Ranked, Search

RUNNERS_UP = 3
WORTH_SAYING = 0.05e-3
"""Seconds of a token's time below which no part of it is a reason."""


def plan_reasons(search: Search, ranked: Sequence[Ranked], place: int) -> tuple[str, ...]:
    """Why the plan at ``place`` stands there: what carries the first, what holds back another."""
    winner = ranked[0]
    return (_winner(search, winner),) if place == 0 else (_against(search, winner, ranked[place]),)


def reasons(search: Search, ranked: Sequence[Ranked], infeasible: Sequence[Infeasible]) -> tuple[str, ...]:
    """Why the winner won, against the best plan of each other shape; or why nothing fits, and what would."""
    if not ranked:
        return _nothing(search, infeasible)
    lines = [*plan_reasons(search, ranked, 0)]
    shapes = {_shape(ranked[0])}
    for place, other in enumerate(ranked):
        if _shape(other) not in shapes and len(lines) <= RUNNERS_UP:
            shapes.add(_shape(other))
            lines += plan_reasons(search, ranked, place)
    return tuple(lines)


def _shape(one: Ranked) -> tuple[int, int]:
    return one.plan.parallelism.tensor, one.plan.parallelism.pipeline


def _winner(search: Search, winner: Ranked) -> str:
    communication = winner.estimate.communication
    degrees = winner.plan.parallelism
    head = f"{degrees} ranks first for {search.objective}"
    parts = winner.estimate.decode.parts
    if communication.limiting_link is None:
        experts = parts.get("expert_exchange", 0.0) / winner.estimate.decode.total
        if experts:
            return f"{head}: no all-reduces; sending tokens to their experts and back takes {_percent(experts)} of a decode step"
        return f"{head}: no GPU waits for another within a request"
    share = (parts.get("all_reduce", 0.0) + parts.get("shared_links", 0.0)) / winner.estimate.decode.total
    exchange, kept = parts.get("context_exchange", 0.0), _kept(search, winner)
    if exchange:
        what = "splitting prompts" if degrees.prefill_context > 1 else "sharing out the cache"
        kept = f"; {what} takes {_percent(exchange / winner.estimate.decode.total)} and is not measured{kept}"
    if degrees.tensor == 1:
        return f"{head}: no all-reduces; stages send over {communication.limiting_link}{kept}"
    return f"{head}: all-reduces take {_percent(share)} of a decode step over {communication.limiting_link}{kept}"


def _kept(search: Search, winner: Ranked) -> str:
    """What the placement avoids, if the machine has worse groups of that size."""
    wires, tensor = search.pricer.wires, winner.plan.parallelism.tensor
    if tensor < 2:
        return ""
    used = [one for replica in winner.plan.placement for group in replica for one in tensor_groups(group, tensor)]
    worst_used = min((wires.group(group).packing.bandwidth for group in used), default=0.0)
    natural = tuple(range(tensor))
    plain = wires.group(natural)
    if plain.packing.bandwidth < 0.99 * worst_used:
        return (
            f"; GPUs {_set(natural)} in index order would share {plain.limiting_link}, "
            f"{worst_used / max(plain.packing.bandwidth, 1.0):.1f} times slower than {_set(used[0])}"
        )
    return ""


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _set(group: Sequence[int]) -> str:
    return "{" + ",".join(str(gpu) for gpu in group) + "}"


def _against(search: Search, winner: Ranked, other: Ranked) -> str:
    workload = search.pricer.workload
    rate = 1 - other.estimate.output_tokens_per_second / winner.estimate.output_tokens_per_second
    slower = other.latency(workload) / winner.latency(workload) - 1
    difference = (
        f"{_percent(rate)} less throughput"
        if search.objective == "throughput" and rate > 0
        else f"{_percent(slower)} more latency"
    )
    if workload.load == "request-rate" and search.objective == "throughput":
        difference = f"{other.plan.parallelism.gpus} GPUs instead of {winner.plan.parallelism.gpus}"
        if other.plan.parallelism.gpus == winner.plan.parallelism.gpus:
            difference = f"as many GPUs, {_percent(slower)} more latency"
        if len(other.missed(workload)) > len(winner.missed(workload)):
            difference += ", a target missed"
    elif search.objective == "throughput" and rate <= 0:
        difference = "as much throughput, but a target missed" if other.missed(workload) else "as much throughput"
    elif search.objective == "latency" and slower <= 0:
        difference = "as little latency, but a target missed" if other.missed(workload) else "as little latency"
    if len(other.missed(workload)) == len(winner.missed(workload)) and _held_against(search, winner, other):
        difference += f", within the {_percent(UNMEASURED)} held against an exchange that is not measured"
    return f"{other.plan.parallelism}: {difference}; {_cause(winner, other)}"


def _held_against(search: Search, winner: Ranked, other: Ranked) -> bool:
    """Whether the other is as good by the objective, and stands behind because it shares out its cache."""
    if other.plan.parallelism.decode_context == 1 or winner.plan.parallelism.decode_context > 1:
        return False
    workload = search.pricer.workload
    if search.objective == "throughput" and workload.load != "request-rate":
        return other.estimate.output_tokens_per_second >= winner.estimate.output_tokens_per_second
    same = search.objective == "latency" or other.plan.parallelism.gpus == winner.plan.parallelism.gpus
    return same and other.latency(workload) <= winner.latency(workload)


def _cause(winner: Ranked, other: Ranked) -> str:
    """The part of its token time that grew most, with the link where it is a wire."""
    mine, theirs = winner.estimate.decode.parts, other.estimate.decode.parts
    grown = {part: theirs.get(part, 0.0) - mine.get(part, 0.0) for part in {*mine, *theirs}}
    part = max(sorted(grown), key=lambda name: grown[name])
    link, shared = other.estimate.communication.limiting_link, other.estimate.communication.shared_link
    wait = other.estimate.ttft - winner.estimate.ttft
    if other.estimate.assumptions and wait > grown[part]:
        return other.estimate.assumptions[0]
    words = {
        "all_reduce": f"its all-reduces wait for {link}",
        "point_to_point": f"its stages wait for {link}",
        "shared_links": f"{shared.link} carries {shared.carries}" if shared else "its groups share links",
        "waiting": "its stages wait for each other",
        "linear": "each GPU reads more weights",
        "experts": "each GPU reads more expert weights",
        "context_exchange": f"its ranks exchange partial attention over {link}",
        "expert_exchange": "its experts exchange tokens over more GPUs",
        "attention": "each GPU reads more KV cache",
        "head": "each GPU computes more of the head",
    }
    if grown[part] >= WORTH_SAYING and part in words:
        tail = (
            f"; its slowest link is {link}"
            if link and part not in {"all_reduce", "context_exchange", "point_to_point", "shared_links"}
            else ""
        )
        return f"{words[part]} (+{grown[part] * 1e3:.1f} ms a token){tail}"
    here, there = round(winner.estimate.serving.in_flight), round(other.estimate.serving.in_flight)
    if there < here:  # each plan has found its own load
        return f"{there:,} in flight instead of {here:,}"
    extra = other.estimate.prefill.total - winner.estimate.prefill.total
    if extra >= WORTH_SAYING:
        return f"a prompt takes {extra * 1e3:.1f} ms longer" + (f" over {link}" if link else "")
    return "fewer GPUs at work" if other.plan.parallelism.gpus < winner.plan.parallelism.gpus else "many small parts together"


def _nothing(search: Search, infeasible: Sequence[Infeasible]) -> tuple[str, ...]:
    """Nothing fits: by what, and what would. With one refusal only (the degrees that were asked for), of that one."""
    topology, model = search.pricer.topology, search.pricer.model
    hardware = " and ".join(topology.hardware)
    there = len(topology.gpus)
    memory = [one for one in infeasible if one.rule == "memory"]
    if len(infeasible) == 1:
        nearest, fewest = infeasible[0], 1
        lines = [f"{nearest.parallelism} of {model.name} ({model.weight_format.name}): {nearest.message}"]
    else:
        lacks = "keeps up with the requests for" if any(one.rule == REQUEST_RATE for one in infeasible) else "fits"
        lines, fewest = [f"no plan {lacks} {model.name} ({model.weight_format.name}) on {there}× {hardware}"], there + 1
        rated = [one for one in infeasible if one.rule == REQUEST_RATE]
        nearest = (
            max(rated, key=lambda one: one.have) if rated else min(memory or infeasible, key=lambda one: one.need - one.have)
        )
        lines.append(f"the nearest is {nearest.parallelism}: {nearest.message}")
        if rated:  # it fits, and is too slow
            copies = math.ceil(nearest.need / nearest.have)
            lines.append(f"{copies} of these machines would keep up, each with that layout")
            return tuple(lines)
    if memory:
        what = remedy(search.pricer, fewest)
        if what.gpus is not None:
            lines.append(f"{what.gpus}× {hardware} would fit it, as {what.gpus_parallelism}")
        same: dict[Parallelism, list[str]] = {}
        for name, degrees in what.formats:
            same.setdefault(degrees, []).append(name)
        lines += [f"--quant {_either(names)} would fit it on these, as {degrees}" for degrees, names in same.items()]
        if what.cache is not None:
            lines.append(f"--kv-cache-dtype fp8 would fit it on these, as {what.cache}")
        shorter = most_tokens(search.pricer, dict.fromkeys(one.parallelism for one in memory))
        if shorter is not None:
            lines.append(f"requests of at most {shorter[0]:,} tokens, in and out together, would fit on these, as {shorter[1]}")
    return tuple(lines)


def _either(names: Sequence[str]) -> str:
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
