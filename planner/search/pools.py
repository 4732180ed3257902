"""Pairs of a prefill pool and a decode pool on one machine, priced and ranked.

Over several hosts a pool is a union of whole hosts. On one host every division of its GPUs is tried: the larger pool takes the GPUs that
its own placement chooses of all, the other is placed on the rest; where the links between them then set the pace, other sets are tried.
The best that is found so is not proven to be the best there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from planner.core.plan import Infeasible, Parallelism, Plan
from planner.core.pools import HandoverRules, PoolPair, Role
from planner.cost.disaggregated import DECODE_SHARE, PREFILL_SHARE
from planner.cost.handover import Handovers
from planner.cost.pool_pair import PairCost
from planner.cost.pool_times import DecodeSide, PrefillSide
from planner.graph.paths import DirectedLink
from planner.search.handover import refused
from planner.search.pool_sides import Gpus, PoolSides
from planner.search.rank import Search

MOST_DIVISIONS = 6
"""Divisions of many hosts that are tried, evenly spaced."""
MOST_PAIRS = 4000
MOST_HELD_UP = 3
"""Pairs that the links hold up for which other GPUs are tried,"""
MOST_TRIED = 72
"""and about how many sets of them."""
REQUEST_RATE = "request rate"
Division = tuple[Role, Gpus, Gpus, bool]
"""Whose the first set of GPUs is, that set, what is left for the other, and whether the first takes all of its own."""
Found = dict[tuple[Parallelism, Parallelism], PoolPair]


@dataclass(frozen=True)
class Pairs:
    """Pairs best first, one for each pair of layouts, and how many were ``considered``.

    ``nearest`` is the pair that keeps up with most where none keeps up with what is asked for. ``unfit`` are refusals of single pools,
    ``unjoined`` why pools that fit do not go together; ``smallest`` is the fewest GPUs that each role takes, where it fits at all.
    """

    ranked: tuple[PoolPair, ...]
    considered: int
    nearest: PoolPair | None
    unfit: tuple[Infeasible, ...]
    unjoined: tuple[str, ...]
    smallest: dict[Role, int]


class PoolSearch:
    """Finds pairs of pools for the question of ``search``."""

    def __init__(self, search: Search, rules: HandoverRules) -> None:
        pricer = search.pricer
        self._pricer = pricer
        self._rules = rules
        self.sides = PoolSides(pricer, rules)
        calibration, traits = pricer.calibration, pricer.traits
        handovers = Handovers(pricer.wires, calibration.point_to_point, pricer.model, pricer.workload, traits.block_tokens)
        self._cost = PairCost(rules, pricer.workload, calibration.first_token(traits.stack), handovers, pricer.model)

    def best(self, top: int) -> Pairs:
        """The ``top`` pairs."""
        pairings = sorted(self._pairings(), key=lambda pair: self._hope(*pair))
        unjoined: dict[str, None] = {}
        found: Found = {}
        failed: Found = {}
        priced = 0
        for prefill, decode in pairings:
            words = refused(self._rules, self._pricer.model, prefill.plan.parallelism, decode.plan.parallelism)
            if words:
                unjoined[words] = None
                continue
            if priced >= MOST_PAIRS or self._enough(list(found.values()), prefill, decode, top):
                break
            priced += 1
            self._take(prefill, decode, found, failed)
        if len(self._pricer.topology.hosts) == 1:
            self._elsewhere(found, failed)
        ranked = [self._with_meetings(pair) for pair in sorted(found.values(), key=self._key)[:top]]
        nearest = max(failed.values(), key=lambda pair: pair.requests_per_second, default=None)
        return Pairs(tuple(ranked), len(pairings), nearest, self.sides.unfit(), tuple(unjoined), self.sides.smallest())

    def price(self, prefill: PrefillSide, decode: DecodeSide) -> float:
        """Requests a second of one pair; 0 where the engine does not join the pools."""
        if refused(self._rules, self._pricer.model, prefill.plan.parallelism, decode.plan.parallelism):
            return 0.0
        return self._cost.pair(prefill, decode).requests_per_second

    def _take(self, prefill: PrefillSide, decode: DecodeSide, found: Found, failed: Found) -> None:
        """Price a pair, and keep it where it is the best of its layouts: that keep up with what is asked for, or that do not."""
        pair = self._cost.pair(prefill, decode)
        if not pair.requests_per_second:
            return  # nothing joins them
        kept = failed if REQUEST_RATE in pair.missed else found
        key = prefill.plan.parallelism, decode.plan.parallelism
        if key not in kept or self._key(pair) < self._key(kept[key]):
            kept[key] = pair

    def _elsewhere(self, found: Found, failed: Found) -> None:
        """Where links hold a pair up that could be first, the same layouts on other sets of GPUs, which may lie closer together."""
        best = max((pair.requests_per_second for pair in found.values()), default=0.0)

        def could(pair: PoolPair) -> float:
            return min(pair.limits["prefill"], pair.limits["decode"])

        held_up = [pair for pair in (*found.values(), *failed.values()) if pair.limited_by == "link" and could(pair) > best]
        for pair in sorted(held_up, key=could, reverse=True)[:MOST_HELD_UP]:
            layouts = pair.prefill.plan.parallelism, pair.decode.plan.parallelism
            sets = list(self.sides.different(layouts[0].gpus))
            for mine in sets[:: -(-len(sets) // MOST_TRIED)]:
                both = self.sides.both(*layouts, mine)
                if both is not None:
                    self._take(*both, found, failed)

    def _with_meetings(self, pair: PoolPair) -> PoolPair:
        """The pair with what is said of links that more than one use it is priced for: those prices do not know of each other."""

        def used(plan: Plan) -> set[DirectedLink]:
            groups = [group for replica in plan.placement for group in replica if len(group) > 1]
            return {link for group in groups for link in self._pricer.traffic.group(group).crossings}

        mine, others = used(pair.prefill.plan), used(pair.decode.plan)
        describe, notes = self._pricer.wires.describe, []
        if common := sorted(mine & others):
            notes.append(f"{describe(common[0])} carries all-reduces of both pools")
        if pair.transfer.link in map(describe, mine | others):
            notes.append(f"{pair.transfer.link} carries all-reduces as well as KV caches")
        said = (f"{note}: what they take from each other there is not in the figures" for note in notes)
        return replace(pair, assumptions=(*pair.assumptions, *said))

    def _key(self, pair: PoolPair) -> tuple[int, float, float, float, Parallelism, Parallelism]:
        """Pairs that meet the targets first, then those that serve more; at a rate that all keep up with the fewest GPUs."""
        latency = pair.ttft + pair.tpot * (self._pricer.workload.output_tokens - 1)
        served, gpus = -round(pair.requests_per_second, 9), float(pair.gpus)
        first, second = (served, gpus) if self.sides.asked is None else (gpus, latency)
        return len(pair.missed), first, second, latency, pair.prefill.plan.parallelism, pair.decode.plan.parallelism

    @staticmethod
    def _bound(prefill: PrefillSide, decode: DecodeSide) -> float:
        """What the pair serves at most, with the best of links."""
        return min(PREFILL_SHARE * prefill.rate, DECODE_SHARE * decode.rate)

    def _hope(self, prefill: PrefillSide, decode: DecodeSide) -> tuple[float, float]:
        """What sorts pairs so that the first may be the best."""
        bound, asked = self._bound(prefill, decode), self.sides.asked
        if asked is None:
            return -bound, 0.0
        gpus = prefill.plan.parallelism.gpus + decode.plan.parallelism.gpus
        return (float(gpus) if bound >= asked else float("inf")), -bound

    def _enough(self, found: Sequence[PoolPair], prefill: PrefillSide, decode: DecodeSide, top: int) -> bool:
        """Whether no pair from here on, in order of hope, is among the first."""
        good = sorted((pair for pair in found if not pair.missed), key=self._key)
        if len(good) < top:
            return False
        last, asked = good[top - 1], self.sides.asked
        if asked is None:
            return self._bound(prefill, decode) < last.requests_per_second
        gpus = prefill.plan.parallelism.gpus + decode.plan.parallelism.gpus
        return gpus > last.gpus or self._bound(prefill, decode) < asked

    def _pairings(self) -> Iterator[tuple[PrefillSide, DecodeSide]]:
        """All pools that are worth a look, in twos on GPUs that they do not share."""
        seen = set()
        for divisions in self._divisions():
            for role, mine, rest, exactly in divisions:
                other: Role = "decode" if role == "prefill" else "prefill"
                first = self.sides.fitting(role, mine, exactly=exactly)
                second = self.sides.fitting(other, rest, most=len(mine) if exactly else len(rest)) if first else []
                for one in first:
                    for two in second:
                        pair = (one, two) if isinstance(one, PrefillSide) else (two, one)
                        if not isinstance(pair[0], PrefillSide) or not isinstance(pair[1], DecodeSide):
                            continue
                        key = pair[0].plan.placement, pair[1].plan.placement, pair[0].plan.parallelism, pair[1].plan.parallelism
                        if key not in seen:
                            seen.add(key)
                            yield pair[0], pair[1]
            if seen and self.sides.asked is None:
                return  # smaller pools serve less

    def _divisions(self) -> Iterator[Iterator[Division]]:
        """Divisions of the machine, those with the larger pools first."""
        hosts = list(self._pricer.topology.gpus_of_host.values())
        if len(hosts) > 1:
            yield self._by_host(hosts)
            return
        gpus = len(self._pricer.topology.gpus)
        yield self._of_a_host(range((gpus + 1) // 2, gpus))
        yield self._of_a_host(range((gpus - 1) // 2, 0, -1))

    def _by_host(self, hosts: Sequence[Sequence[int]]) -> Iterator[Division]:
        counts = range(1, len(hosts))
        step = -(-len(counts) // MOST_DIVISIONS)
        mixed = len({gpu.hardware for gpu in self._pricer.topology.gpus}) > 1  # then it matters which host does what
        for count in counts[::step]:
            for order in (hosts, hosts[::-1]) if mixed else (hosts,):
                mine = tuple(gpu for host in order[:count] for gpu in host)
                yield "prefill", mine, tuple(gpu for host in order[count:] for gpu in host), False

    def _of_a_host(self, sizes: Sequence[int]) -> Iterator[Division]:
        roles: tuple[Role, ...] = ("prefill", "decode")
        for size in sizes:
            for role in roles:
                for mine in self.sides.chosen(role, size):
                    yield role, mine, tuple(gpu for gpu in self.sides.everything if gpu not in mine), True
