"""What the groups and stage boundaries of one strategy take on the wires, alone or with a share of their bandwidth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.core.estimate import CollectiveTime
from planner.core.model import Attention, LatentAttention, Mixer
from planner.core.plan import Group
from planner.cost.collectives import Collectives
from planner.cost.contention import ALONE, Sharing, stretch
from planner.cost.exchanges import ContextExchange, context_messages
from planner.cost.point_to_point import boundary_bytes, hop_time
from planner.cost.strategy import HIDDEN_BYTES, Strategy
from planner.cost.traffic import Traffic
from planner.units import Bytes, Seconds


@dataclass(frozen=True, slots=True)
class GroupTimes:
    """All-reduces of one tensor-parallel group: of a decode step, of a chunk, of the last chunk; and its logits.

    ``riding`` is what one all-reduce of every chunk grows by when a prompt shares its steps with decoding.
    """

    decode: CollectiveTime
    chunk: CollectiveTime
    rest: CollectiveTime
    riding: Seconds
    logits: Seconds


@dataclass(frozen=True, slots=True)
class Hop:
    """One stage boundary: the time of a decode micro-batch and of a prompt's mean chunk; ``order`` lists the receivers
    as peers of the senders.
    """

    decode: Seconds
    prefill: Seconds
    order: Group


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
        self._contexts: dict[tuple[frozenset[int], Mixer, float], Seconds] = {}

    def group(self, gpus: Sequence[int], kept: float = 1.0) -> GroupTimes:
        """The all-reduces of one tensor-parallel group that keeps ``kept`` of its bandwidth."""
        key = frozenset(gpus), kept
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = self._group(gpus, kept)
        return found

    def _group(self, gpus: Sequence[int], kept: float) -> GroupTimes:
        strategy, facts = self.strategy, self.wires.group(gpus)

        def reduce(size: Bytes) -> CollectiveTime:
            alone = self.collectives.all_reduce(facts, size)
            if kept >= 1:
                return alone
            return replace(alone, time=Seconds(alone.time * stretch(facts, size, kept)))

        decode = reduce(strategy.decode_bytes)
        riding = sum(
            times * (reduce(strategy.chunk_bytes(size + strategy.batch)).time - decode.time)
            for size, times in strategy.chunks.parts
        )
        return GroupTimes(
            decode=decode,
            chunk=reduce(strategy.chunk_bytes(strategy.chunks.size)),
            rest=reduce(strategy.chunk_bytes(strategy.chunks.rest)),
            riding=Seconds(riding),
            logits=self._all_gather(gpus, strategy.logits_bytes, kept),
        )

    def _all_gather(self, gpus: Sequence[int], size: Bytes, kept: float) -> Seconds:
        facts = self.wires.group(gpus)
        alone = self.collectives.all_gather(facts, size)
        return alone if kept >= 1 else Seconds(alone * stretch(facts, size, kept))

    def contexts(self, stage: int, gpus: Sequence[int], kept: float = 1.0) -> Seconds:
        """What the ranks of a stage exchange in a decode step because they share out the cache; nothing where they do not."""
        return Seconds(sum(count * self.context(gpus, mixer, kept) for mixer, count in self.strategy.stages[stage].contexts))

    def context(self, gpus: Sequence[int], mixer: Mixer, kept: float = 1.0) -> Seconds:
        """Of one layer: queries and sums are gathered, partial outputs reduced and scattered, over the links of the whole group."""
        key = frozenset(gpus), mixer, kept
        found = self._contexts.get(key)
        if found is None:
            held = self.context_messages(mixer)
            sizes = held.queries, held.outputs, held.sums
            found = self._contexts[key] = Seconds(sum(self._all_gather(gpus, size, kept) for size in sizes))
        return found

    def context_messages(self, mixer: Mixer) -> ContextExchange:
        """What the ranks which share a cache hold together of a decode micro-batch."""
        degrees = self.strategy.parallelism
        assert isinstance(mixer, Attention | LatentAttention)
        heads = mixer.query_heads * degrees.decode_context // degrees.tensor
        if isinstance(mixer, LatentAttention):
            width, output = mixer.cached, mixer.latent_size
        else:
            width, output = mixer.head_size, mixer.values
        return context_messages(self.strategy.batch, heads, width, output, HIDDEN_BYTES)

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
            found = self._pairs[key] = time(strategy.batch), Seconds(prefill)
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
