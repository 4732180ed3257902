"""The wires of one placement added to a strategy: group by group, hop by hop, then the whole estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from planner.core.estimate import (
    Breakdown,
    Communication,
    Estimate,
    PipelineUse,
)
from planner.core.plan import Placement, Replica
from planner.cost import pipeline
from planner.cost.collectives import Collectives
from planner.cost.contention import ALONE, WHOLE, Flow, Share, Sharing, meetings, share_out
from planner.cost.replica import NO_EXCHANGE, ReplicaMetrics, ReplicaTimes, metrics_of, slowest_of
from planner.cost.served import serving_of
from planner.cost.stage_memory import tight_note
from planner.cost.strategy import Strategy, stages_of
from planner.cost.traffic import Traffic
from planner.cost.uncertainty import uncertainty_of
from planner.cost.wire_times import Hop, WireTimes
from planner.units import Seconds

ALL_REDUCES_PER_LAYER = 2
WORTH_SAYING = 0.01


class Placed:
    """Prices placements of one strategy on one machine."""

    def __init__(self, strategy: Strategy, traffic: Traffic, collectives: Collectives) -> None:
        self.strategy = strategy
        self.wires = traffic.wires
        self.times = WireTimes(strategy, traffic, collectives)
        self.traffic = traffic
        self._flows: dict[Replica, tuple[Flow, ...]] = {}
        self._busy: dict[Replica, tuple[float, ...]] = {}

    def stage(self, number: int, gpus: Sequence[int], kept: float = 1.0) -> tuple[Seconds, Seconds, Seconds]:
        """Seconds of stage ``number`` on these GPUs: one decode step, one whole prompt alone, what one keeps decoding from.

        ``kept`` is what the others leave the group of its bandwidth.
        """
        work, times = self.strategy.stages[number], self.times.group(gpus, kept)
        decode = work.decode_total + work.all_reduces * times.decode.time + work.last * times.logits
        decode += self.times.contexts.decode(number, gpus, kept) + self.times.drafting(number, gpus, kept)
        norms = self.times.norms(number, gpus, kept)
        alone, beside = self._prompt_on_wires(number, gpus, kept)
        prefill, riding = work.prefill_total + alone, work.riding + beside
        return Seconds(decode + norms[0]), Seconds(prefill), Seconds(prefill if self.strategy.traits.prompts_apart else riding)

    def _prompt_on_wires(self, number: int, gpus: Sequence[int], kept: float = 1.0) -> tuple[Seconds, Seconds]:
        """What a stage sends for a whole prompt: of one alone, and what that adds to decode steps it shares."""
        work, times, chunks = self.strategy.stages[number], self.times.group(gpus, kept), self.strategy.chunks
        contexts, norms = self.times.contexts, self.times.norms(number, gpus, kept)
        prompt = chunks.whole * times.chunk.time + times.rest.time
        alone = work.all_reduces * prompt + contexts.prompt(number, gpus, kept) + norms[1]
        beside = work.all_reduces * times.riding + contexts.riding(number, gpus, kept) + norms[2]
        return Seconds(alone), Seconds(beside)

    def exchange(self, gpus: Sequence[int]) -> tuple[Seconds, Seconds]:
        """Seconds that the expert group of ``gpus`` spends in exchanges: one decode step, one whole prompt."""
        return self.times.exchange(gpus)

    def hops(self, senders: Sequence[int], receivers: Sequence[int]) -> list[Hop]:
        """The ways to pair the ranks of two stages that no other pairing beats, best first."""
        return self.times.hops(senders, receivers)

    def replica_times(self, replica: Replica, sharing: Sharing = ALONE) -> ReplicaTimes:
        """The sums and maxima of a replica whose ranks are paired as they stand."""
        stages = [self.stage(number, group, sharing.group(group)) for number, group in enumerate(replica)]
        hops = [self.times.boundary(senders, receivers, sharing) for senders, receivers in pairwise(replica)]
        return ReplicaTimes(
            Seconds(sum(stage[0] for stage in stages)),
            Seconds(max(stage[0] for stage in stages)),
            Seconds(sum(stage[1] for stage in stages)),
            Seconds(max(stage[1] for stage in stages)),
            Seconds(max(stage[2] for stage in stages)),
            Seconds(sum((hop[0] for hop in hops), 0.0)),
            Seconds(sum((hop[1] for hop in hops), 0.0)),
        )

    def sharing(self, placement: Placement) -> Sharing:
        """What the groups and sends of a placement leave each other of the links they meet on.

        How much of the time each is busy is taken from its times alone: one step of the fixed point.
        """
        flows = [replace(flow, replica=number) for number, replica in enumerate(placement) for flow in self._flows_of(replica)]
        meeting = meetings(flows)
        if not meeting:
            return ALONE
        strategy = self.strategy
        busy = [share for replica in placement for share in self._busy_of(replica)]
        flows = [replace(flow, busy=share) for flow, share in zip(flows, busy, strict=True)]
        together = strategy.parallelism.attention_data_parallel
        shares = share_out(flows, meeting, self.wires.capacity, strategy.micro_batches, together=together)
        groups: dict[frozenset[int], Share] = {}
        sends: dict[tuple[int, int], Share] = {}
        pairs = iter(pair for replica in placement for pair in _sends(replica))
        for flow, share in zip(flows, shares, strict=True):
            pair = None if flow.boundary is None else next(pairs)
            if share.kept < 1:
                if pair is None:
                    groups[flow.gpus] = share
                else:
                    sends[pair] = share
        return Sharing(groups, sends, flows)

    def _flows_of(self, replica: Replica) -> tuple[Flow, ...]:
        """The all-reduces of a replica's stages, then its sends boundary by boundary."""
        found = self._flows.get(replica)
        if found is None:
            flows = [Flow(frozenset(group), 0, None, self.traffic.group(group)) for group in replica if len(group) > 1]
            for number, (senders, receivers) in enumerate(pairwise(replica)):
                flows += [
                    Flow(frozenset((a, b)), 0, number, self.traffic.send(a, b)) for a, b in zip(senders, receivers, strict=True)
                ]
            found = self._flows[replica] = tuple(flows)
        return found

    def _busy_of(self, replica: Replica) -> tuple[float, ...]:
        """For what share of the time each flow of a replica sends, over a round in which every request is prefilled once
        and decodes all its tokens.
        """
        found = self._busy.get(replica)
        if found is None:
            strategy, times = self.strategy, self.replica_times(replica)
            steps, requests, chunks = strategy.workload.output_tokens, strategy.requests, strategy.chunks.count
            in_flight = strategy.micro_batches
            period = steps * self.metrics(times).decode_period + requests * strategy.held_up * times.riding_max
            shares = []
            for number, group in enumerate(replica):
                if len(group) > 1:
                    work, one = strategy.stages[number], self.times.group(group)
                    gather = self.times.gather(group) if number else NO_EXCHANGE
                    decode = in_flight * (work.all_reduces * one.decode.time + work.last * one.logits + gather[0])
                    norms = self.times.norms(number, group)
                    decode += in_flight * (
                        self.times.contexts.decode(number, group) + self.times.drafting(number, group) + norms[0]
                    )
                    prefill = chunks * gather[1] + self._prompt_on_wires(number, group)[not strategy.traits.prompts_apart]
                    shares.append(steps * decode + requests * prefill)
            for senders, receivers in pairwise(replica):
                gather, (hop_decode, hop_prefill) = self.times.gather(receivers), self.times.boundary(senders, receivers)
                send = steps * in_flight * (hop_decode - gather[0]) + requests * chunks * (hop_prefill - gather[1])
                shares += [send] * len(senders)
            found = self._busy[replica] = tuple(min(1.0, strategy.slower * share / period) for share in shares)
        return found

    def metrics(self, times: ReplicaTimes, exchange: tuple[Seconds, Seconds] = NO_EXCHANGE) -> ReplicaMetrics:
        """What users of a replica see. Rises with every time of ``times``."""
        return metrics_of(self.strategy, times, exchange)

    def outcomes(
        self, placement: Placement, sharing: Sharing, exchange: tuple[Seconds, Seconds] = NO_EXCHANGE
    ) -> tuple[list[ReplicaTimes], list[ReplicaMetrics]]:
        """Times and metrics of every replica."""
        times = [self.replica_times(replica, sharing) for replica in placement]
        if self.strategy.parallelism.attention_data_parallel:
            times = [slowest_of(times)] * len(times)
        return times, [self.metrics(one, exchange) for one in times]

    def exchange_of(self, placement: Placement) -> tuple[Seconds, Seconds]:
        """The exchanges between replicas that share their experts; none where they do not."""
        if not self.strategy.parallelism.attention_data_parallel:
            return NO_EXCHANGE
        return self.exchange([gpu for replica in placement for group in replica for gpu in group])

    def estimate(self, placement: Placement) -> Estimate:
        """The whole answer for one placement, whose groups and sends share the links they meet on."""
        strategy = self.strategy
        exchange, sharing = self.exchange_of(placement), self.sharing(placement)
        times, metrics = self.outcomes(placement, sharing, exchange)
        slow = max(range(len(metrics)), key=lambda number: (metrics[number].tpot, metrics[number].ttft))
        communication = self._communication(placement, sharing)
        decode, prefill = self._breakdowns(placement[slow], times[slow], metrics[slow], exchange, sharing)
        return Estimate(
            memory=strategy.memory,
            kv_cache_tokens=strategy.kv_cache_tokens,
            max_concurrency=strategy.max_concurrency,
            communication=communication,
            pipeline=self._pipeline_use(placement[slow], metrics[slow], sharing),
            decode=decode,
            prefill=prefill,
            ttft=Seconds(max(one.ttft for one in metrics)),
            tpot=Seconds(max(one.tpot for one in metrics)),
            output_tokens_per_second=sum(one.throughput for one in metrics),
            uncertainty=uncertainty_of(strategy, metrics, communication, decode),
            serving=serving_of(strategy, metrics),
            assumptions=self._assumptions(metrics[slow]),
        )

    def _pipeline_use(self, replica: Replica, metrics: ReplicaMetrics, sharing: Sharing) -> PipelineUse:
        strategy = self.strategy
        stages = len(strategy.stages)
        decode_times = [self.stage(number, group, sharing.group(group))[0] for number, group in enumerate(replica)]
        return PipelineUse(
            prefill_micro_batches=strategy.chunks.count,
            bubble_ratio=pipeline.bubble_ratio(stages, strategy.chunks.count),
            decode_micro_batches=strategy.micro_batches,
            batches_in_flight=min(strategy.requests, strategy.traits.batches_in_flight(stages)),
            idle_ratio=pipeline.idle_ratio(decode_times, strategy.micro_batches, metrics.decode_period) if stages > 1 else 0.0,
        )

    def _communication(self, placement: Placement, sharing: Sharing) -> Communication:
        """Of the slowest group and the slowest boundary of the whole placement."""
        groups = [group for replica in placement for group in replica]
        slowest = max(groups, key=lambda group: self.times.group(group, sharing.group(group)).chunk.time)
        times = self.times.group(slowest, sharing.group(slowest))
        boundaries = [hop for replica in placement for hop in pairwise(replica)]
        hops = [self.times.boundary(senders, receivers, sharing) for senders, receivers in boundaries]
        link, reduced = times.chunk.limiting_link, len(self.times.reducing(slowest)) > 1
        shares = [sharing.groups.get(frozenset(slowest), WHOLE)]
        if hops:
            worst = boundaries[max(range(len(hops)), key=lambda number: hops[number][1])]
            sender, receiver = max(
                zip(*worst, strict=True), key=lambda ends: self.times.pair(ends[0], ends[1], sharing.send(ends[0], ends[1]))[1]
            )
            shares.append(sharing.sends.get((sender, receiver), WHOLE))
            path = self.wires.path(sender, receiver)
            weakest = min(path.links, key=lambda one: self.wires.capacity[one], default=None)
            link = link or (self.wires.describe(weakest) if weakest else None)
        shared = (sharing.describe(self.wires, share) for share in (*shares, *sharing.groups.values(), *sharing.sends.values()))
        return Communication(
            all_reduce_decode=times.decode if reduced else None,
            all_reduce_prefill=times.chunk if reduced else None,
            all_reduces_per_layer=ALL_REDUCES_PER_LAYER,
            point_to_point_decode=Seconds(max((hop[0] for hop in hops), default=0.0)),
            point_to_point_prefill=Seconds(max((hop[1] for hop in hops), default=0.0)),
            limiting_link=link,
            shared_link=next((one for one in shared if one is not None), None),
            confidence=times.chunk.confidence if reduced else "high",
        )

    def _breakdowns(
        self,
        replica: Replica,
        times: ReplicaTimes,
        metrics: ReplicaMetrics,
        exchange: tuple[Seconds, Seconds],
        sharing: Sharing,
    ) -> tuple[Breakdown, Breakdown]:
        """Where the time of a token and of a prompt goes. ``shared_links`` is what the others on the wires add to the
        all-reduces and sends; ``waiting`` is for the slowest stage; ``overlap`` is negative: what chunks save by being in
        several stages at once.
        """
        decode: dict[str, float] = {}
        prefill: dict[str, float] = {}
        chunks = self.strategy.chunks
        shared_decode = shared_prefill = 0.0
        for number, group in enumerate(replica):
            work, group_times = self.strategy.stages[number], self.times.group(group)
            for part, time in work.decode.items():
                decode[part] = decode.get(part, 0.0) + time
            for part, time in work.prefill.items():
                prefill[part] = prefill.get(part, 0.0) + time
            reduce = work.all_reduces * group_times.decode.time + work.last * group_times.logits
            norms = self.times.norms(number, group)
            reduce += self.times.drafting(number, group) + norms[0]
            decode["all_reduce"] = decode.get("all_reduce", 0.0) + reduce
            contexts = self.times.contexts
            decode["context_exchange"] = decode.get("context_exchange", 0.0) + contexts.decode(number, group)
            prefill["context_exchange"] = prefill.get("context_exchange", 0.0) + contexts.prompt(number, group)
            prompt = chunks.whole * group_times.chunk.time + group_times.rest.time
            prefill["all_reduce"] = prefill.get("all_reduce", 0.0) + work.all_reduces * prompt + norms[1]
            if sharing.group(group) < 1:
                alone, slowed = self.stage(number, group), self.stage(number, group, sharing.group(group))
                shared_decode += slowed[0] - alone[0]
                shared_prefill += slowed[1] - alone[1]
        hops_decode, hops_prefill = times.hops_decode, times.hops_prefill
        if sharing is not ALONE and len(replica) > 1:
            alone_times = self.replica_times(replica)
            hops_decode, hops_prefill = alone_times.hops_decode, alone_times.hops_prefill
            shared_decode += times.hops_decode - hops_decode
            shared_prefill += chunks.count * (times.hops_prefill - hops_prefill)
        decode |= {
            "expert_exchange": exchange[0],
            "point_to_point": hops_decode,
            "shared_links": shared_decode,
        }
        prefill |= {
            "expert_exchange": exchange[1],
            "point_to_point": chunks.count * hops_prefill,
            "shared_links": shared_prefill,
        }
        slower, overhead = self.strategy.slower, self.strategy.step_overhead
        step, prompt = (metrics.decode_period - overhead) / slower, metrics.prefill / slower
        decode["waiting"], prefill["overlap"] = step - sum(decode.values()), prompt - sum(prefill.values())
        if slower != 1:
            decode["other_vendor"], prefill["other_vendor"] = (slower - 1) * step, (slower - 1) * prompt
        decode["step_overhead"] = overhead
        return _breakdown(decode), _breakdown(prefill)

    def _assumptions(self, metrics: ReplicaMetrics) -> tuple[str, ...]:
        strategy, model = self.strategy, self.strategy.model
        stages, tokens = stages_of(model, strategy.partition), strategy.workload.total_tokens
        tight = tight_note(strategy.memory, stages, model, tokens, strategy.parallelism, strategy.limits, strategy.traits)
        notes = [tight] if tight is not None else []
        if metrics.wait > WORTH_SAYING * metrics.ttft:
            offered = f"{strategy.offered:,.1f}".removesuffix(".0")
            notes.append(
                f"{offered} requests a replica, room for {strategy.room:,}: they wait {metrics.wait:,.1f} s for KV cache"
            )
        if strategy.workload.load == "batch" and len(strategy.stages) > 1:
            how = f"in {strategy.micro_batches} parts, one after another" if strategy.micro_batches > 1 else "as one"
            notes.append(f"a static batch goes through the stages {how}: one of them works at a time")
        elif strategy.micro_batches < len(strategy.stages):
            few = f"{strategy.requests} request{'s' * (strategy.requests != 1)}"
            notes.append(f"{few} cannot keep {len(strategy.stages)} stages busy")
        return tuple(notes)


def _sends(replica: Replica) -> list[tuple[int, int]]:
    """Sender and receiver of every send of a replica, boundary by boundary."""
    return [pair for senders, receivers in pairwise(replica) for pair in zip(senders, receivers, strict=True)]


def _breakdown(parts: dict[str, float]) -> Breakdown:
    return Breakdown({part: Seconds(time) for part, time in parts.items() if time})
