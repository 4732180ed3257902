"""The pools of one kind or the other that fit on sets of GPUs, each priced once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from planner.core.plan import Infeasible, Parallelism
from planner.core.pools import HandoverRules, Role
from planner.cost.pool_times import (
    DecodeSide,
    PrefillSide,
    decode_side,
    decode_workload,
    prefill_side,
    prefill_workload,
)
from planner.cost.pricer import Pricer
from planner.graph.symmetry import interchangeable
from planner.search.placement import Placer
from planner.search.rank import Ranked, Search
from planner.search.space import candidates

MOST_SETS = 3
"""Sets of GPUs tried for the larger pool of one size, of those that differ."""
SIZES = 2
"""Of pools that differ in their number of replicas alone so many are tried."""
Gpus = tuple[int, ...]
Side = PrefillSide | DecodeSide


class PoolSides:
    """Prefill pools and decode pools for the question of ``pricer``, memoised."""

    def __init__(self, pricer: Pricer, rules: HandoverRules) -> None:
        self._pricer = pricer
        self._rules = rules
        placer = Placer(pricer.topology, "throughput")
        self._searches: dict[Role, Search] = {
            "prefill": Search(pricer.under(prefill_workload(pricer.workload)), "throughput", placer),
            "decode": Search(pricer.under(decode_workload(pricer.workload)), "throughput", placer),
        }
        self._plans: dict[tuple[Role, Parallelism, Gpus], Ranked | Infeasible] = {}
        self._sides: dict[tuple[Role, Parallelism, Gpus], Side] = {}
        self._degrees: dict[tuple[Role, int], list[Parallelism]] = {}

    @property
    def everything(self) -> Gpus:
        """All GPUs."""
        return tuple(range(len(self._pricer.topology.gpus)))

    @property
    def asked(self) -> float | None:
        """The rate that is asked for, if one is."""
        workload = self._pricer.workload
        return workload.request_rate if workload.load == "request-rate" else None

    def unfit(self) -> tuple[Infeasible, ...]:
        """Why pools did not fit, of all that were tried."""
        return tuple(one for one in self._plans.values() if isinstance(one, Infeasible))

    def smallest(self) -> dict[Role, int]:
        """The fewest GPUs that a pool of each role takes, of all that were tried; without a role where none fits."""
        found: dict[Role, int] = {}
        for (role, degrees, _), plan in self._plans.items():
            if isinstance(plan, Ranked):
                found[role] = min(found.get(role, degrees.gpus), degrees.gpus)
        return found

    def chosen(self, role: Role, size: int) -> list[Gpus]:
        """Sets of ``size`` GPUs that placements of so many choose, those of the best first; of sets that are alike one."""
        tried = [
            self._plan(role, degrees, self.everything) for degrees in self._of(role, len(self.everything)) if degrees.gpus == size
        ]
        plans = [plan for plan in tried if isinstance(plan, Ranked)]
        classes = interchangeable(self._pricer.topology, self.everything)
        found: dict[Gpus, Gpus] = {}
        for plan in self._searches[role].rank(plans):
            used = tuple(sorted(gpu for replica in plan.plan.placement for group in replica for gpu in group))
            alike = tuple(len(set(members) & set(used)) for members in classes)
            if alike not in found and len(found) < MOST_SETS:
                found[alike] = used
        return list(found.values())

    def different(self, size: int) -> Iterator[Gpus]:
        """All sets of ``size`` GPUs of a host, of those that are alike one."""
        classes = interchangeable(self._pricer.topology, self.everything)
        for counts in product(*(range(len(members) + 1) for members in classes)):
            if sum(counts) == size:
                yield tuple(sorted(gpu for members, count in zip(classes, counts, strict=True) for gpu in members[:count]))

    def fitting(self, role: Role, gpus: Gpus, *, exactly: bool = False, most: int | None = None) -> list[Side]:
        """The pools of a role that fit on (some of, or ``exactly``) these GPUs, or at ``most`` so many: of those that differ in their number
        of replicas alone the two that serve most; or the two smallest that keep up with the rate that is asked for.
        """
        limit, asked = len(gpus) if most is None else min(most, len(gpus)), self.asked
        alike: dict[tuple[int, int, bool], list[Parallelism]] = {}
        for degrees in self._of(role, limit):
            if not exactly or degrees.gpus == len(gpus):
                alike.setdefault((degrees.tensor, degrees.pipeline, degrees.expert > 1), []).append(degrees)
        kept: list[Side] = []
        for several in alike.values():
            found: list[Side] = []
            for degrees in sorted(several, key=lambda one: one.data, reverse=asked is None):
                side = self._side(role, degrees, gpus)
                if side is not None and (asked is None or side.rate >= asked):
                    found.append(side)
                if len(found) == SIZES:
                    break
            largest = self._side(role, max(several, key=lambda one: one.data), gpus) if not found else None
            kept += found or ([] if largest is None else [largest])
        return kept

    def both(self, prefill: Parallelism, decode: Parallelism, mine: Gpus) -> tuple[PrefillSide, DecodeSide] | None:
        """A prefill pool on (some of) the GPUs of ``mine`` and a decode pool on (some of) the rest, where both fit."""
        rest = tuple(gpu for gpu in self.everything if gpu not in mine)
        first, second = self._side("prefill", prefill, mine), self._side("decode", decode, rest)
        return (first, second) if isinstance(first, PrefillSide) and isinstance(second, DecodeSide) else None

    def _of(self, role: Role, gpus: int) -> list[Parallelism]:
        """Degrees that a pool of a role may have on so many GPUs."""
        found = self._degrees.get((role, gpus))
        if found is None:
            staged = self._rules.prefill_stages if role == "prefill" else self._rules.decode_stages != "one"
            legal = candidates(gpus, self._pricer.model, self._pricer.traits)
            found = self._degrees[role, gpus] = [degrees for degrees in legal if staged or degrees.pipeline == 1]
        return found

    def _plan(self, role: Role, degrees: Parallelism, gpus: Gpus) -> Ranked | Infeasible:
        key = role, degrees, gpus
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = self._searches[role].on(degrees, gpus)
        return found

    def _side(self, role: Role, degrees: Parallelism, gpus: Sequence[int]) -> Side | None:
        plan = self._plan(role, degrees, tuple(gpus))
        if isinstance(plan, Infeasible):
            return None
        key = role, degrees, tuple(gpu for replica in plan.plan.placement for group in replica for gpu in group)
        found = self._sides.get(key)
        if found is None:
            found = self._sides[key] = self._priced(role, plan)
        return found

    def _priced(self, role: Role, plan: Ranked) -> Side:
        pricer = self._searches[role].pricer
        if role == "prefill":
            return prefill_side(pricer, plan.plan, plan.estimate, proven=plan.proven)
        target = self._pricer.workload.tpot_target
        return decode_side(pricer, plan.plan, plan.estimate, target, proven=plan.proven)
