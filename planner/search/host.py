"""The best placement on one host, exactly, with every group and boundary priced as if nobody else were on the wires.

Where they share links, :mod:`planner.search.contended` goes on from here.

GPUs that can be swapped without changing anything form a class; a set of GPUs is then a vector of counts by class, and
every placement can be renumbered so that within a class the lowest indices are taken first. Pipelines are built stage
by stage with a dynamic programme that keeps, for every set of GPUs used and every last group, the undominated sums and
maxima of stage times: the serving metrics rise with each of them, so the best placement is never thrown away.
Replicas are then packed the same way.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planner.core.plan import Group, Placement, Replica
from planner.core.workload import Objective
from planner.cost.placed import Placed
from planner.cost.replica import ReplicaTimes
from planner.units import Seconds

Counts = tuple[int, ...]
"""How many GPUs of each class."""

MAX_STATES = 20_000
MAX_STEPS = 150_000
"""Sets of GPUs times groups: what a stage of the dynamic programme goes through. Eight GPUs all different need 18,000."""


Times = tuple[float, float, float, float, float, float, float]
"""The fields of :class:`ReplicaTimes`, in order."""


@dataclass(frozen=True, slots=True)
class Label:
    """A partial pipeline: sums and maxima so far, its groups as counts, and which pairing each hop took."""

    times: Times
    groups: tuple[Counts, ...]
    hops: tuple[int, ...]


class TooIrregular(Exception):
    """More states than the exact search is allowed."""


class HostSearch:
    """Exact search over the GPUs of one host for one strategy."""

    full: Counts
    """The GPUs there are."""
    groups: list[Counts]
    """All tensor-parallel groups."""

    def __init__(self, placed: Placed, classes: Sequence[Sequence[int]], stages: range | None = None) -> None:
        self._placed = placed
        self._stages = stages or range(len(placed.strategy.stages))
        self._classes = [sorted(members) for members in classes]
        self.full = tuple(len(members) for members in self._classes)
        states = math.prod(size + 1 for size in self.full)
        if states > MAX_STATES:
            raise TooIrregular(f"{states} sets of GPUs")
        self._strategy = placed.strategy
        self.groups = list(_vectors(self.full, self._strategy.parallelism.gpus_per_stage))
        if states * len(self.groups) > MAX_STEPS:
            raise TooIrregular(f"{states} sets of GPUs, {len(self.groups)} groups")

    def best(self, objective: Objective, count: int) -> Placement | None:
        """The best placement of ``count`` replicas for ``objective``; ``None`` if the GPUs are too few."""
        degrees = self._strategy.parallelism
        if count * degrees.gpus_per_stage * len(self._stages) > sum(self.full):
            return None
        replicas = self._replicas()
        if degrees.attention_data_parallel:
            chosen = self._together(replicas, count)
        else:
            chosen = self._apart(replicas, objective, count)
        return self._realise(chosen) if chosen else None

    def counts(self, placement: Placement) -> Counts:
        """How many GPUs of each class a placement takes."""
        taken = {gpu for replica in placement for group in replica for gpu in group}
        return tuple(sum(gpu in taken for gpu in members) for members in self._classes)

    def members(self, counts: Counts, before: Counts | None = None) -> Group:
        """Representatives of ``counts``: the lowest of each class after those of ``before``."""
        start = before or (0,) * len(counts)
        found = sorted(
            gpu
            for members, first, count in zip(self._classes, start, counts, strict=True)
            for gpu in members[first : first + count]
        )
        alike = sum(count > 0 for count in counts) == 1  # any order is as good
        split = not alike and len(found) == self._strategy.parallelism.gpus_per_stage
        return self._placed.times.in_order(found) if split else tuple(found)

    def _replicas(self) -> dict[Counts, list[Label]]:
        """For every set of GPUs that a replica may use: its undominated pipelines."""
        placed, first = self._placed, self._stages[0]
        stage = {(number, group): placed.stage(number, self.members(group)) for group in self.groups for number in self._stages}
        states: dict[tuple[Counts, Counts], list[Label]] = {}
        for group in self.groups:
            decode, prefill, riding = stage[first, group]
            states[group, group] = [Label((decode, decode, prefill, prefill, riding, 0.0, 0.0), (group,), ())]
        # what may follow a group does not depend on what was used before, so hops are asked for once
        onward = {
            last: [
                (group, placed.hops(self.members(last), self.members(group, last)))
                for group in self.groups
                if not exceeds(joined(last, group), self.full)
            ]
            for last in (self.groups if len(self._stages) > 1 else ())
        }
        for number in self._stages[1:]:
            following: dict[tuple[Counts, Counts], list[Label]] = {}
            for (used, last), labels in states.items():
                for group, hops in onward[last]:
                    total = joined(used, group)
                    if exceeds(total, self.full):
                        continue
                    decode, prefill, riding = stage[number, group]
                    bucket = following.setdefault((total, group), [])
                    for label in labels:
                        d_sum, d_max, p_sum, p_max, r_max, h_decode, h_prefill = label.times
                        for choice, hop in enumerate(hops):
                            times = (
                                d_sum + decode,
                                max(d_max, decode),
                                p_sum + prefill,
                                max(p_max, prefill),
                                max(r_max, riding),
                                h_decode + hop.decode,
                                h_prefill + hop.prefill,
                            )
                            _keep(bucket, Label(times, (*label.groups, group), (*label.hops, choice)))
            states = following
        replicas: dict[Counts, list[Label]] = {}
        for (used, _), labels in states.items():
            bucket = replicas.setdefault(used, [])
            for label in labels:
                _keep(bucket, label)
        return replicas

    def _apart(self, replicas: dict[Counts, list[Label]], objective: Objective, count: int) -> list[Label] | None:
        """Independent replicas: the best pack of ``count`` of them."""
        output = self._strategy.workload.output_tokens
        options: dict[Counts, tuple[float, float, Label]] = {}
        for used, labels in replicas.items():
            scored = []
            for label in labels:
                metrics = self._placed.metrics(_replica_times(label.times))
                scored.append((metrics.ttft + metrics.tpot * (output - 1), -metrics.throughput, label.groups, label.hops, label))
            latency, negative, _, _, label = min(scored, key=lambda one: one[:4])
            options[used] = latency, -negative, label
        vectors = sorted(options, reverse=True)
        # (used, position of the last replica's vector) → undominated (worst latency, throughput, replicas)
        empty: tuple[float, float, tuple[int, ...]] = (0.0, 0.0, ())
        states: dict[tuple[Counts, int], list[tuple[float, float, tuple[int, ...]]]] = {((0,) * len(self.full), 0): [empty]}
        for _ in range(count):
            following: dict[tuple[Counts, int], list[tuple[float, float, tuple[int, ...]]]] = {}
            for (used, start), packs in states.items():
                for position in range(start, len(vectors)):
                    total = joined(used, vectors[position])
                    if exceeds(total, self.full):
                        continue
                    latency, rate, _ = options[vectors[position]]
                    bucket = following.setdefault((total, position), [])
                    for worst, together, chosen in packs:
                        _keep_pack(bucket, (max(worst, latency), together + rate, (*chosen, position)))
            states = following
        packs = [pack for several in states.values() for pack in several]
        if not packs:
            return None
        if objective == "throughput":
            winner = min(packs, key=lambda pack: (-pack[1], pack[0], pack[2]))
        else:
            winner = min(packs, key=lambda pack: (pack[0], -pack[1], pack[2]))
        return [options[vectors[position]][2] for position in winner[2]]

    def _together(self, replicas: dict[Counts, list[Label]], count: int) -> list[Label] | None:
        """Replicas that share their experts and step together: the best set of GPUs, then the best division of it."""
        states: dict[Counts, list[tuple[tuple[float, ...], tuple[Label, ...]]]] = {(0,) * len(self.full): [((0.0,) * 7, ())]}
        for _ in range(count):
            following: dict[Counts, list[tuple[tuple[float, ...], tuple[Label, ...]]]] = {}
            for used, packs in states.items():
                for vector, labels in replicas.items():
                    total = joined(used, vector)
                    if exceeds(total, self.full):
                        continue
                    bucket = following.setdefault(total, [])
                    for slowest, chosen in packs:
                        for label in labels:
                            times = tuple(max(a, b) for a, b in zip(slowest, label.times, strict=True))
                            if not any(_dominates(other, times) for other, _ in bucket):
                                bucket[:] = [one for one in bucket if not _dominates(times, one[0])]
                                bucket.append((times, (*chosen, label)))
            states = following
        best: tuple[float, tuple[Label, ...]] | None = None
        output = self._strategy.workload.output_tokens
        for used, packs in sorted(states.items(), reverse=True):
            exchange = self._placed.exchange(self.members(used))
            for times, chosen in packs:
                metrics = self._placed.metrics(_replica_times(times), exchange)
                latency = metrics.ttft + metrics.tpot * (output - 1)
                if best is None or latency < best[0]:
                    best = latency, chosen
        return list(best[1]) if best else None

    def _realise(self, labels: Sequence[Label]) -> Placement:
        """GPU indices for a pack of pipelines: within a class the lowest free index first."""
        used: Counts = (0,) * len(self.full)
        placement: list[Replica] = []
        for label in labels:
            replica: list[Group] = []
            for number, counts in enumerate(label.groups):
                members = self.members(counts, used)
                used = joined(used, counts)
                if number:
                    choice = self._placed.hops(replica[-1], members)[label.hops[number - 1]]
                    members = reordered(replica[-1], choice.order)
                replica.append(members)
            placement.append(tuple(replica))
        return tuple(placement)


def reordered(senders: Group, order: Group) -> Group:
    """The receivers in the order of ``senders`` as they stand, given their order beside the senders sorted.

    >>> reordered((2, 0), (5, 6))
    (6, 5)
    """
    ranked = sorted(senders)
    return tuple(order[ranked.index(sender)] for sender in senders)


def joined(one: Counts, other: Counts) -> Counts:
    """The GPUs of both."""
    return tuple(map(operator.add, one, other))


def exceeds(total: Counts, full: Counts) -> bool:
    """Whether that is more than there are."""
    return any(map(operator.gt, total, full))


def _vectors(full: Counts, size: int) -> Iterator[Counts]:
    """All count vectors of ``size`` GPUs within ``full``, those with more of the first classes first."""
    if not full:
        if size == 0:
            yield ()
        return
    for count in range(min(full[0], size), -1, -1):
        for rest in _vectors(full[1:], size - count):
            yield (count, *rest)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(map(operator.le, one, other))


def _keep(bucket: list[Label], label: Label) -> None:
    """Add ``label`` unless another is as good; drop those it beats."""
    if any(_dominates(other.times, label.times) for other in bucket):
        return
    bucket[:] = [other for other in bucket if not _dominates(label.times, other.times)]
    bucket.append(label)


def _keep_pack(bucket: list[tuple[float, float, tuple[int, ...]]], pack: tuple[float, float, tuple[int, ...]]) -> None:
    if any(other[0] <= pack[0] and other[1] >= pack[1] for other in bucket):
        return
    bucket[:] = [other for other in bucket if not (pack[0] <= other[0] and pack[1] >= other[1])]
    bucket.append(pack)


def _replica_times(times: Sequence[float]) -> ReplicaTimes:
    return ReplicaTimes(*(Seconds(time) for time in times))
