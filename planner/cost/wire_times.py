"""What the groups and stage boundaries of one strategy take on the wires, alone or with a share of their bandwidth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice

from planner.core.estimate import CollectiveTime
from planner.core.plan import Group, tensor_groups
from planner.cost.collectives import Collectives
from planner.cost.contention import ALONE, Sharing, stretch
from planner.cost.context_times import ContextTimes
from planner.cost.point_to_point import boundary_bytes, hop_time
from planner.cost.strategy import HIDDEN_BYTES, Strategy
from planner.cost.traffic import Traffic
from planner.units import Bytes, Seconds


@dataclass(frozen=True, slots=True)
class GroupTimes:
    """All-reduces of one tensor-parallel group: of a decode step, of a chunk, of the last chunk; and its logits.

    ``riding`` is what one all-reduce of every chunk grows by when a prompt shares its steps with decoding, ``draft`` an all-reduce
    while tokens are guessed, ``draft_logits`` the logits of a guess. ``norm`` is a sum of norms in a decode step, ``norms`` of a
    whole prompt, ``norms_riding`` what they grow by.
    """

    decode: CollectiveTime
    chunk: CollectiveTime
    rest: CollectiveTime
    riding: Seconds
    logits: Seconds
    draft: CollectiveTime | None
    draft_logits: Seconds
    norm: CollectiveTime | None
    norms: Seconds
    norms_riding: Seconds


@dataclass(frozen=True, slots=True)
class Hop:
    """One stage boundary: the time of a decode micro-batch and of a prompt's mean chunk; ``order`` lists the receivers
    as peers of the senders.
    """

    decode: Seconds
    prefill: Seconds
    order: Group


MOST_ORDERS = 500
"""Orders of a stage's GPUs that are tried: all 105 of eight GPUs in pairs."""


def partitions(gpus: Group, size: int) -> Iterator[Group]:
    """Every way to cut GPUs into groups of ``size``, one group after the other, those in order of index first.

    >>> list(partitions((0, 1, 2, 3), 2))
    [(0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2)]
    """
    if not gpus:
        yield ()
        return
    for others in combinations(gpus[1:], size - 1):
        group = (gpus[0], *others)
        for rest in partitions(tuple(gpu for gpu in gpus if gpu not in group), size):
            yield (*group, *rest)


class WireTimes:
    """Times of groups and boundaries of one strategy, memoised."""

    def __init__(self, strategy: Strategy, traffic: Traffic, collectives: Collectives) -> None:
        self.strategy = strategy
        self.traffic = traffic
        self.wires = traffic.wires
        self.collectives = collectives
        self._groups: dict[tuple[frozenset[int], float], GroupTimes] = {}
        self._hops: dict[tuple[frozenset[int], frozenset[int]], list[Hop]] = {}
        self._pairs: dict[tuple[int, int, float], tuple[Seconds, Seconds]] = {}
        self._gathers: dict[tuple[frozenset[int], float], tuple[Seconds, Seconds]] = {}
        self.contexts = ContextTimes(strategy, self._all_gather)
        self._orders: dict[frozenset[int], Group] = {}

    def group(self, gpus: Sequence[int], kept: float = 1.0) -> GroupTimes:
        """The all-reduces of one tensor-parallel group that keeps ``kept`` of its bandwidth."""
        reducing = self.reducing(gpus)
        key = frozenset(reducing), kept
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = self._group(reducing, kept)
        return found

    def reducing(self, gpus: Sequence[int]) -> Sequence[int]:
        """The GPUs of a stage whose all-reduces take longest: all of them, or one tensor group of several."""
        degrees = self.strategy.parallelism
        if degrees.prefill_context == 1:
            return gpus
        size = self.strategy.chunk_bytes(self.strategy.chunks.size)
        groups = tensor_groups(tuple(gpus), degrees.tensor)
        return max(groups, key=lambda one: self.collectives.all_reduce(self.wires.group(one), size).time)

    def in_order(self, gpus: Sequence[int]) -> Group:
        """GPUs that become one stage in the best order found, where several tensor groups do."""
        degrees, several = self.strategy.parallelism, tuple(gpus)
        if degrees.prefill_context == 1:
            return several
        found = self._orders.get(frozenset(gpus))
        if found is None:
            orders = islice(partitions(tuple(sorted(several)), degrees.tensor), MOST_ORDERS)
            found = self._orders[frozenset(gpus)] = min(orders, key=self._on_the_wires)
        return found

    def _on_the_wires(self, gpus: Group) -> Seconds:
        """What a request of its own spends on the wires of a stage in this order."""
        work, times, chunks = self.strategy.stages[0], self.group(gpus), self.strategy.chunks
        prompt = work.all_reduces * (chunks.whole * times.chunk.time + times.rest.time) + self.contexts.prompt(0, gpus)
        decode = work.all_reduces * times.decode.time + self.contexts.decode(0, gpus)
        return Seconds(prompt + self.strategy.workload.output_tokens * decode)

    def _group(self, gpus: Sequence[int], kept: float) -> GroupTimes:
        strategy, facts = self.strategy, self.wires.group(gpus)

        def reduce(size: Bytes) -> CollectiveTime:
            alone = self.collectives.all_reduce(facts, size)
            if kept >= 1:
                return alone
            return replace(alone, time=Seconds(alone.time * stretch(facts, size, kept)))

        decode, drafts = reduce(strategy.decode_bytes), strategy.stages[-1].draft_passes > 0
        norm, norms, norms_riding = None, 0.0, 0.0
        if any(work.norm_sums for work in strategy.stages):
            norm = reduce(strategy.norm_bytes(strategy.step_tokens))
            for size, times in strategy.chunks.parts:
                norms += times * reduce(strategy.norm_bytes(size)).time
                norms_riding += times * (reduce(strategy.norm_bytes(size + strategy.step_tokens)).time - norm.time)
        riding = sum(
            times * (reduce(strategy.chunk_bytes(size + strategy.step_tokens)).time - decode.time)
            for size, times in strategy.chunks.parts
        )
        return GroupTimes(
            decode=decode,
            chunk=reduce(strategy.chunk_bytes(strategy.chunks.size)),
            rest=reduce(strategy.chunk_bytes(strategy.chunks.rest)),
            riding=Seconds(riding),
            logits=self._all_gather(gpus, strategy.logits_bytes, kept),
            draft=reduce(strategy.draft_bytes) if drafts else None,
            draft_logits=self._all_gather(gpus, strategy.draft_logits_bytes, kept) if drafts else Seconds(0.0),
            norm=norm,
            norms=Seconds(norms),
            norms_riding=Seconds(norms_riding),
        )

    def _all_gather(self, gpus: Sequence[int], size: Bytes, kept: float) -> Seconds:
        facts = self.wires.group(gpus)
        alone = self.collectives.all_gather(facts, size)
        return alone if kept >= 1 else Seconds(alone * stretch(facts, size, kept))

    def drafting(self, stage: int, gpus: Sequence[int], kept: float = 1.0) -> Seconds:
        """The all-reduces and logits of a stage while tokens are guessed; nothing where they are not."""
        work = self.strategy.stages[stage]
        times = self.group(gpus, kept) if work.draft_passes else None
        if times is None or times.draft is None:
            return Seconds(0.0)
        return Seconds(work.draft_all_reduces * times.draft.time + work.draft_passes * times.draft_logits)

    def norms(self, stage: int, gpus: Sequence[int], kept: float = 1.0) -> tuple[Seconds, Seconds, Seconds]:
        """The sums of norms of a stage: in a decode step, for a whole prompt, and what that adds to steps it shares."""
        count = self.strategy.stages[stage].norm_sums
        times = self.group(gpus, kept) if count else None
        if times is None or times.norm is None:
            return Seconds(0.0), Seconds(0.0), Seconds(0.0)
        return Seconds(count * times.norm.time), Seconds(count * times.norms), Seconds(count * times.norms_riding)

    def exchange(self, gpus: Sequence[int]) -> tuple[Seconds, Seconds]:
        """Seconds that the expert group of ``gpus`` spends in exchanges: one decode step, one whole prompt.

        All replicas take part, so nobody else is on the wires meanwhile.
        """
        strategy = self.strategy
        facts, degrees = self.wires.group(gpus), strategy.parallelism
        count = max((work.exchanges for work in strategy.stages), default=0)
        if not count:
            return Seconds(0.0), Seconds(0.0)
        reduce = self.collectives.nccl_all_reduce
        decode = reduce(facts, Bytes(degrees.data * strategy.decode_bytes))
        prompt = sum(
            times * reduce(facts, Bytes(degrees.data * strategy.chunk_bytes(size))) for size, times in strategy.chunks.parts
        )
        return Seconds(count * decode), Seconds(count * prompt)

    def pair(self, sender: int, receiver: int, kept: float = 1.0) -> tuple[Seconds, Seconds]:
        """One send of a decode micro-batch, and of a prompt's mean chunk, that keeps ``kept`` of its bandwidth."""
        key = sender, receiver, kept
        found = self._pairs.get(key)
        if found is None:
            strategy, traits = self.strategy, self.strategy.traits
            slices = strategy.parallelism.tensor if traits.pipeline_sliced else 1

            def time(tokens: int) -> Seconds:
                size = boundary_bytes(tokens, strategy.model.hidden_size, HIDDEN_BYTES, traits.pipeline_tensors, slices)
                return hop_time(self.wires, strategy.calibration.point_to_point, sender, receiver, size, kept)

            chunks = strategy.chunks
            prefill = sum(times * time(size) for size, times in chunks.parts) / chunks.count
            found = self._pairs[key] = time(strategy.step_tokens), Seconds(prefill)
        return found

    def gather(self, receivers: Sequence[int], kept: float = 1.0) -> tuple[Seconds, Seconds]:
        """The all-gather that puts a sliced boundary tensor together again."""
        strategy, traits = self.strategy, self.strategy.traits
        if not traits.pipeline_sliced or len(receivers) == 1:
            return Seconds(0.0), Seconds(0.0)
        key = frozenset(receivers), kept
        found = self._gathers.get(key)
        if found is None:
            tensors, chunks = traits.pipeline_tensors, strategy.chunks

            def time(size: Bytes) -> Seconds:
                return self._all_gather(receivers, Bytes(tensors * size), kept)

            prompt = sum(times * time(strategy.chunk_bytes(size)) for size, times in chunks.parts)
            found = self._gathers[key] = time(strategy.decode_bytes), Seconds(prompt / chunks.count)
        return found

    def boundary(self, senders: Group, receivers: Group, sharing: Sharing = ALONE) -> tuple[Seconds, Seconds]:
        """From one stage to the next, ranks paired as they stand: the slowest send, then the gathering.

        The sends leave together, so they share what they meet on even where nobody else is about.
        """
        gather = self.gather(receivers, sharing.group(receivers))
        if sharing.sends:
            kept = tuple(sharing.send(a, b) for a, b in zip(senders, receivers, strict=True))
        else:
            kept = self.traffic.among_themselves(senders, receivers)
        return self._sends(senders, receivers, kept, gather)

    def _sends(
        self, senders: Group, receivers: Group, kept: Sequence[float], gather: tuple[Seconds, Seconds]
    ) -> tuple[Seconds, Seconds]:
        pairs = [self.pair(a, b, share) for a, b, share in zip(senders, receivers, kept, strict=True)]
        return Seconds(max(pair[0] for pair in pairs) + gather[0]), Seconds(max(pair[1] for pair in pairs) + gather[1])

    def hops(self, senders: Sequence[int], receivers: Sequence[int]) -> list[Hop]:
        """The ways to pair the ranks of two stages that no other pairing beats, best first."""
        key = frozenset(senders), frozenset(receivers)
        found = self._hops.get(key)
        if found is None:
            found = self._hops[key] = self._pairings(tuple(sorted(senders)), tuple(sorted(receivers)))
        return found

    def _pairings(self, senders: Group, receivers: Group) -> list[Hop]:
        best: dict[tuple[float, float], Hop] = {}
        gather = self.gather(receivers)
        for pairing in self.traffic.pairings(senders, receivers):
            decode, prefill = self._sends(senders, pairing.order, pairing.kept, gather)
            best.setdefault((decode, prefill), Hop(decode, prefill, pairing.order))
        kept: list[Hop] = []
        for _, hop in sorted(best.items()):
            if all(hop.prefill < other.prefill for other in kept):
                kept.append(hop)
        return kept
