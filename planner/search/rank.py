"""All candidates priced, placed and ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from planner.core.estimate import Estimate
from planner.core.plan import EngineLimits, Infeasible, Parallelism, Plan
from planner.core.workload import Objective, Workload
from planner.cost.pipeline import best_partition
from planner.cost.pricer import Pricer
from planner.cost.strategy import Strategy
from planner.search.load import REQUEST_RATE, missed_targets, settled
from planner.search.placement import Placer
from planner.search.space import PIPELINE_STAGES, candidates, illegal, shared_caches
from planner.units import Seconds


@dataclass(frozen=True, slots=True)
class Ranked:
    """A priced plan. ``proven`` if no placement of these degrees is better under the cost model (by more than a tenth of a
    percent, where its groups share links).
    """

    plan: Plan
    estimate: Estimate
    proven: bool

    def latency(self, workload: Workload) -> Seconds:
        """From request to last token."""
        return self.estimate.latency(workload.output_tokens)

    def missed(self, workload: Workload) -> tuple[str, ...]:
        """The targets this plan does not meet."""
        return missed_targets(self.estimate, workload)


@dataclass(frozen=True, slots=True)
class Answer:
    """Every feasible plan, best first, and every refusal."""

    ranked: tuple[Ranked, ...]
    infeasible: tuple[Infeasible, ...]


class Search:
    """Prices and ranks plans of one question."""

    def __init__(self, pricer: Pricer, objective: Objective, placer: Placer | None = None) -> None:
        self.pricer = pricer
        self.objective = objective
        self._placer = placer or Placer(pricer.topology, objective)

    def everything(self) -> Answer:
        """All legal degrees on the machine, ranked."""
        pricer = self.pricer
        gpus = len(pricer.topology.gpus)
        ranked: list[Ranked] = []
        refusals: dict[tuple[str, int, int, int, int], Infeasible] = {}
        for degrees in candidates(gpus, pricer.model, pricer.traits):
            outcome = self.one(degrees)
            ranked += self._with_shared_cache(degrees, outcome)
            if isinstance(outcome, Infeasible):
                # the same rule with the same numbers at another count of replicas says nothing new
                stages = degrees.pipeline if outcome.rule in _BY_STAGES else 0
                replicas = degrees.data if outcome.rule == REQUEST_RATE else 0
                shape = (0, 0, 0) if outcome.rule == PIPELINE_STAGES else (degrees.tensor, stages, degrees.expert)
                refusals.setdefault((outcome.rule, *shape, replicas), outcome)
        return Answer(tuple(self.rank(ranked)), tuple(refusals.values()))

    def _with_shared_cache(self, degrees: Parallelism, plain: Ranked | Infeasible) -> Iterator[Ranked]:
        """The plan with these degrees, then those whose ranks share out the cache: each where it ranks before those with fewer."""
        best = plain if isinstance(plain, Ranked) else None
        if best is not None:
            yield best
        elif isinstance(plain, Infeasible) and plain.rule not in _OF_THE_CACHE:
            return
        shared = list(shared_caches(degrees, self.pricer.model, self.pricer.traits))
        if best is None and shared and isinstance(self.one(shared[-1]), Infeasible):
            return  # what the most ranks cannot hold, fewer cannot
        for more in shared:
            if best is not None and self._settles and not self._may_win(more, best):
                continue
            found = self.one(more)
            if isinstance(found, Ranked) and (best is None or self.rank((best, found))[0] is found):
                best = found
                yield found

    @property
    def _settles(self) -> bool:
        """Whether requests are let in until a target or a rate is reached."""
        workload = self.pricer.workload
        return workload.load == "request-rate" or (workload.load == "full" and workload.has_targets)

    def _may_win(self, shared: Parallelism, best: Ranked) -> bool:
        """Whether requests can fare better where the cache is shared out: it holds them up, or each would be faster beside as many."""
        plan, in_flight = best.plan, best.estimate.serving.in_flight
        if in_flight > HELD_UP * best.estimate.max_concurrency * plan.parallelism.data:
            return True
        pricer, limits = self.pricer.at(max(1, round(in_flight)), "concurrency"), replace(plan.limits, max_model_tokens=0)
        plain, other = (
            pricer.estimate(degrees, plan.layer_partition, limits, plan.placement) for degrees in (plan.parallelism, shared)
        )
        if isinstance(plain, Infeasible) or isinstance(other, Infeasible):
            return True
        output = self.pricer.workload.output_tokens
        return other.latency(output) < plain.latency(output)

    def rank(self, plans: Sequence[Ranked]) -> list[Ranked]:
        """Plans that meet the targets first, then by the objective, then the simpler ones.

        At a request rate all that keep up serve alike: there the most throughput is that of the fewest GPUs. Plans whose ranks share
        out the cache count as worse by :data:`UNMEASURED`.
        """
        workload = self.pricer.workload

        def key(one: Ranked) -> tuple[int, float, float, int, Parallelism]:
            held_against = 1 + UNMEASURED if one.plan.parallelism.decode_context > 1 else 1.0
            latency, rate = held_against * one.latency(workload), -one.estimate.output_tokens_per_second / held_against
            if workload.load == "request-rate":
                rate = float(one.plan.parallelism.gpus)
            first, second = (rate, latency) if self.objective == "throughput" else (latency, rate)
            degrees = one.plan.parallelism
            return len(one.missed(workload)), first, second, degrees.gpus, degrees

        return sorted(plans, key=key)

    def one(self, degrees: Parallelism) -> Ranked | Infeasible:
        """The best plan with these degrees: partition, limits and placement chosen; and how many requests are in flight, where the
        workload leaves that open.
        """
        pricer = self.pricer
        if pricer.workload.load == "request-rate":
            first = Search(pricer.at(1, "full"), self.objective, self._placer).as_loaded(degrees)
        else:
            first = self.as_loaded(degrees)
        if isinstance(first, Infeasible):
            return first
        limits = replace(first.plan.limits, max_model_tokens=0)  # how long a request may be is said when all else is known
        found = settled(pricer, replace(first.plan, limits=limits))
        if isinstance(found, Infeasible):
            return found
        if found is pricer:
            return first
        options = [Search(found, self.objective, self._placer).as_loaded(degrees)]
        kept = found.estimate(degrees, first.plan.layer_partition, limits, first.plan.placement)
        if isinstance(kept, Estimate):
            options.append(replace(first, estimate=kept, proven=False))
        return self.rank([one for one in options if isinstance(one, Ranked)])[0]

    def as_loaded(self, degrees: Parallelism) -> Ranked | Infeasible:
        """The best plan with these degrees under the workload as it stands."""
        pricer = self.pricer
        gpus = range(len(pricer.topology.gpus))
        options: list[Ranked] = []
        refusal: Infeasible | None = None
        for pool in self._pools(degrees.gpus):
            outcome = self.on(degrees, pool)
            if isinstance(outcome, Ranked):
                options.append(outcome)
            else:
                refusal = refusal or outcome
        if options:
            return self.rank(options)[0]
        if refusal is None:  # no pool is large enough
            spec, _ = pricer.weakest_of(gpus)
            refusal = illegal(degrees, pricer.model, pricer.workload, spec, len(gpus), pricer.traits)
        assert refusal is not None
        return refusal

    def on(self, degrees: Parallelism, pool: Sequence[int]) -> Ranked | Infeasible:
        """The best plan with these degrees on (some of) the GPUs of ``pool``, under the workload as it stands."""
        pricer = self.pricer
        spec, _ = pricer.weakest_of(pool)
        refused = illegal(degrees, pricer.model, pricer.workload, spec, len(pool), pricer.traits)
        return refused or self._on(degrees, pool)

    def _pools(self, need: int) -> list[list[int]]:
        """Sets of GPUs to place on: all of them; where models are mixed, also every set of models that is large enough."""
        topology = self.pricer.topology
        kinds: dict[tuple[str | None, float | None], list[int]] = {}
        for number, gpu in enumerate(topology.gpus):
            kinds.setdefault((gpu.hardware, gpu.memory), []).append(number)
        groups = list(kinds.values())
        pools = []
        for chosen in range(2 ** len(groups) - 1, 0, -1) if len(groups) <= MAX_KINDS else [2 ** len(groups) - 1]:
            pool = sorted(gpu for bit, group in enumerate(groups) if chosen >> bit & 1 for gpu in group)
            if len(pool) >= need:
                pools.append(pool)
        return pools

    def _on(self, degrees: Parallelism, pool: Sequence[int]) -> Ranked | Infeasible:
        options: list[Ranked] = []
        refusal: Infeasible | None = None
        for strategy in self._strategies(degrees, pool):
            if isinstance(strategy, Infeasible):
                refusal = refusal or strategy
                continue
            placed = self.pricer.placed(strategy)
            choice = self._placer.place(placed, pool)
            if isinstance(choice, Infeasible):
                refusal = refusal or choice
                continue
            limits = replace(strategy.limits, max_model_tokens=_longest(strategy))
            plan = Plan(degrees, choice.placement, strategy.partition, limits, strategy.workload.speculation)
            options.append(Ranked(plan, placed.estimate(choice.placement), choice.proven))
        if options:
            return self.rank(options)[0]
        assert refusal is not None
        return refusal

    def _strategies(self, degrees: Parallelism, pool: Sequence[int]) -> list[Strategy | Infeasible]:
        """The engine's own partition and the one that levels the stages' decode times, under limits that fit."""
        layers = len(self.pricer.model.layers)
        first = self._with_limits(degrees, self.pricer.traits.default_partition(layers, degrees.pipeline), pool)
        if degrees.pipeline == 1:
            return [first]
        partition = self._levelled(degrees, first) if isinstance(first, Strategy) else self._by_memory(degrees)
        if isinstance(first, Strategy) and partition == first.partition:
            return [first]
        return [first, self._with_limits(degrees, partition, pool)]

    def _with_limits(self, degrees: Parallelism, partition: tuple[int, ...], pool: Sequence[int]) -> Strategy | Infeasible:
        pricer = self.pricer
        offered = -(-pricer.workload.concurrency // degrees.data)
        spec, capacity = pricer.weakest_of(pool)
        limits = pricer.traits.default_limits(spec, capacity)
        offered = FEW_SEQUENCES if pricer.workload.load == "full" else min(offered, MOST_SEQUENCES)
        outcome = pricer.strategy(degrees, partition, limits, pool)
        if isinstance(outcome, Infeasible) or 2 * outcome.max_concurrency < min(offered, FEW_SEQUENCES):
            # a smaller step leaves more memory: no more sequences than are offered, or few, and a short chunk
            best = outcome
            for few in sorted({min(offered, limits.max_sequences), min(offered, FEW_SEQUENCES)}):
                small = pricer.traits.smaller(limits, capacity, few, max(few, _short(limits)))
                best = _roomier(best, pricer.strategy(degrees, partition, small, pool))
            return best
        more = min(offered, outcome.max_concurrency)
        if more <= limits.max_sequences:
            return outcome
        # engines want a token of every sequence to fit a step; those who find no room need no place in it
        wider = replace(limits, max_sequences=more, max_batched_tokens=max(limits.max_batched_tokens, more))
        raised = pricer.strategy(degrees, partition, wider, pool)
        return _roomier(outcome, raised)

    def _levelled(self, degrees: Parallelism, even: Strategy) -> tuple[int, ...]:
        """Layers cut so that the slowest stage of a decode step is as fast as can be (the head counts on the last)."""
        per_layer = [
            work.decode_total / count if number < degrees.pipeline - 1 else 0.0
            for number, (work, count) in enumerate(zip(even.stages, even.partition, strict=True))
        ]
        layer = max(per_layer)
        extra = max(0.0, even.stages[-1].decode_total - even.partition[-1] * layer)

        def cost(stage: int, count: int) -> float:
            return count * layer + extra * (stage == degrees.pipeline - 1)

        return best_partition(sum(even.partition), degrees.pipeline, cost)

    def _by_memory(self, degrees: Parallelism) -> tuple[int, ...]:
        """Layers cut so that the fullest stage holds as little as can be."""
        model, tensor = self.pricer.model, degrees.tensor
        layers = len(model.layers)
        weight = model.weight_format.bytes_per_weight
        layer = sum(one.parameters(model.hidden_size) for one in model.layers) * weight / layers / tensor
        table = model.vocabulary_size * model.hidden_size * 2 / tensor

        def cost(stage: int, count: int) -> float:
            return count * layer + table * ((stage == 0) + (stage == degrees.pipeline - 1))

        return best_partition(layers, degrees.pipeline, cost)


MAX_KINDS = 4
UNMEASURED = 0.03
"""Held against plans whose ranks share out the cache, as a share of their time: what they exchange is priced as collectives alone,
and nothing measured of a whole decode step stands behind it.
"""
FEW_SEQUENCES = 32
"""What an engine is started with that has no memory for its usual number of sequences, where nobody says how many come."""
MOST_SEQUENCES = 4096
"""An engine is asked for no larger step than this: the logits of more sequences take memory the KV cache needs."""
HELD_UP = 0.95
"""Where as large a share of the requests that the cache has room for are in flight, it holds others up."""
_OF_THE_CACHE = frozenset({"memory", REQUEST_RATE})
_BY_STAGES = frozenset({"memory", "layers", "node-boundary", REQUEST_RATE})
_SHORT_CHUNK = 2048


def _roomier(one: Strategy | Infeasible, other: Strategy | Infeasible) -> Strategy | Infeasible:
    """The one that runs more requests at once, the first of equals."""
    if isinstance(other, Infeasible):
        return one
    return other if isinstance(one, Infeasible) or other.room > one.room else one


def _short(limits: EngineLimits) -> int:
    return min(limits.max_batched_tokens, _SHORT_CHUNK)


def _longest(strategy: Strategy) -> int:
    """The longest request the KV cache surely holds, up to what the model takes."""
    return max(strategy.workload.total_tokens, min(strategy.model.max_positions, strategy.kv_cache_tokens))
