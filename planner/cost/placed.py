"""The wires of one placement added to a strategy: group by group, hop by hop, then the whole estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

from planner.core.estimate import (
    Breakdown,
    CollectiveTime,
    Communication,
    Estimate,
    PipelineUse,
    Uncertainty,
)
from planner.core.plan import Group, Placement, Replica
from planner.cost import pipeline, serving
from planner.cost.collectives import Collectives
from planner.cost.interconnect import Interconnect
from planner.cost.point_to_point import boundary_bytes, hop_time
from planner.cost.strategy import HIDDEN_BYTES, Strategy
from planner.units import Bytes, Seconds

ALL_REDUCES_PER_LAYER = 2
EXHAUSTIVE_ORDERS = 4
NO_EXCHANGE = (Seconds(0.0), Seconds(0.0))
WORTH_SAYING = 0.01


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


@dataclass(frozen=True, slots=True)
class ReplicaTimes:
    """Sums and maxima over the stages of one replica: all that its serving metrics depend on.

    ``decode_*`` of one decode step, ``prefill_*`` of a whole prompt alone, ``riding_max`` of one that shares its steps
    with decoding, ``hops_*`` of all boundaries.
    """

    decode_sum: Seconds
    decode_max: Seconds
    prefill_sum: Seconds
    prefill_max: Seconds
    riding_max: Seconds
    hops_decode: Seconds
    hops_prefill: Seconds


@dataclass(frozen=True, slots=True)
class ReplicaMetrics:
    """What the users of one replica see."""

    ttft: Seconds
    wait: Seconds
    tpot: Seconds
    decode_period: Seconds
    prefill: Seconds
    throughput: float


def slowest_of(times: Sequence[ReplicaTimes]) -> ReplicaTimes:
    """What replicas that step together all take: of each time the longest."""
    return ReplicaTimes(
        Seconds(max(one.decode_sum for one in times)),
        Seconds(max(one.decode_max for one in times)),
        Seconds(max(one.prefill_sum for one in times)),
        Seconds(max(one.prefill_max for one in times)),
        Seconds(max(one.riding_max for one in times)),
        Seconds(max(one.hops_decode for one in times)),
        Seconds(max(one.hops_prefill for one in times)),
    )


class Placed:
    """Prices placements of one strategy on one machine; group and hop times are memoised."""

    def __init__(self, strategy: Strategy, wires: Interconnect, collectives: Collectives) -> None:
        self.strategy = strategy
        self.wires = wires
        self.collectives = collectives
        self._groups: dict[frozenset[int], GroupTimes] = {}
        self._hops: dict[tuple[frozenset[int], frozenset[int]], list[Hop]] = {}
        self._pairs: dict[tuple[int, int], tuple[Seconds, Seconds]] = {}
        self._gathers: dict[frozenset[int], tuple[Seconds, Seconds]] = {}

    def group(self, gpus: Sequence[int]) -> GroupTimes:
        """The all-reduces of one tensor-parallel group."""
        key = frozenset(gpus)
        found = self._groups.get(key)
        if found is None:
            strategy, facts = self.strategy, self.wires.group(gpus)
            reduce = self.collectives.all_reduce
            decode = reduce(facts, strategy.decode_bytes)
            riding = sum(
                times * (reduce(facts, strategy.chunk_bytes(size + strategy.batch)).time - decode.time)
                for size, times in strategy.chunks.parts
            )
            found = self._groups[key] = GroupTimes(
                decode=decode,
                chunk=reduce(facts, strategy.chunk_bytes(strategy.chunks.size)),
                rest=reduce(facts, strategy.chunk_bytes(strategy.chunks.rest)),
                riding=Seconds(riding),
                logits=self.collectives.all_gather(facts, strategy.logits_bytes),
            )
        return found

    def stage(self, number: int, gpus: Sequence[int]) -> tuple[Seconds, Seconds, Seconds]:
        """Seconds of stage ``number`` on these GPUs: one decode step, one whole prompt alone, one that rides along."""
        work, times, chunks = self.strategy.stages[number], self.group(gpus), self.strategy.chunks
        decode = work.decode_total + work.all_reduces * times.decode.time + work.last * times.logits
        prompt = chunks.whole * times.chunk.time + times.rest.time
        riding = work.riding + work.all_reduces * times.riding
        return Seconds(decode), Seconds(work.prefill_total + work.all_reduces * prompt), Seconds(riding)

    def exchange(self, gpus: Sequence[int]) -> tuple[Seconds, Seconds]:
        """Seconds that the expert group of ``gpus`` spends in exchanges: one decode step, one whole prompt."""
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

    def hops(self, senders: Sequence[int], receivers: Sequence[int]) -> list[Hop]:
        """The ways to pair the ranks of two stages that no other pairing beats, best first."""
        key = frozenset(senders), frozenset(receivers)
        found = self._hops.get(key)
        if found is None:
            found = self._hops[key] = self._pairings(sorted(senders), sorted(receivers))
        return found

    def _pair(self, sender: int, receiver: int) -> tuple[Seconds, Seconds]:
        found = self._pairs.get((sender, receiver))
        if found is None:
            strategy, traits = self.strategy, self.strategy.traits
            slices = strategy.parallelism.tensor if traits.pipeline_sliced else 1

            def time(tokens: int) -> Seconds:
                size = boundary_bytes(tokens, strategy.model.hidden_size, HIDDEN_BYTES, traits.pipeline_tensors, slices)
                return hop_time(self.wires, strategy.calibration.point_to_point, sender, receiver, size)

            chunks = strategy.chunks
            prefill = sum(times * time(size) for size, times in chunks.parts) / chunks.count
            found = self._pairs[sender, receiver] = time(strategy.batch), Seconds(prefill)
        return found

    def _gather(self, receivers: Sequence[int]) -> tuple[Seconds, Seconds]:
        """The all-gather that puts a sliced boundary tensor together again."""
        strategy, traits = self.strategy, self.strategy.traits
        if not traits.pipeline_sliced or len(receivers) == 1:
            return Seconds(0.0), Seconds(0.0)
        key = frozenset(receivers)
        if key not in self._gathers:
            facts, tensors, chunks = self.wires.group(receivers), traits.pipeline_tensors, strategy.chunks
            gather = self.collectives.all_gather
            prompt = sum(times * gather(facts, Bytes(tensors * strategy.chunk_bytes(size))) for size, times in chunks.parts)
            self._gathers[key] = gather(facts, Bytes(tensors * strategy.decode_bytes)), Seconds(prompt / chunks.count)
        return self._gathers[key]

    def _pairings(self, senders: Sequence[int], receivers: Sequence[int]) -> list[Hop]:
        gather = self._gather(receivers)
        times = {self._pair(a, b) for a in senders for b in receivers}
        if len(times) == 1 or len(receivers) > EXHAUSTIVE_ORDERS:
            orders = [tuple(receivers)]
        else:
            orders = list(permutations(receivers))
        best: dict[tuple[float, float], Hop] = {}
        for order in orders:
            pairs = [self._pair(a, b) for a, b in zip(senders, order, strict=True)]
            decode = max(pair[0] for pair in pairs) + gather[0]
            prefill = max(pair[1] for pair in pairs) + gather[1]
            best.setdefault((decode, prefill), Hop(Seconds(decode), Seconds(prefill), order))
        kept: list[Hop] = []
        for (_, prefill), hop in sorted(best.items()):
            if all(prefill < other.prefill for other in kept):
                kept.append(hop)
        return kept

    def replica_times(self, replica: Replica) -> ReplicaTimes:
        """The sums and maxima of a replica whose ranks are paired as they stand."""
        stages = [self.stage(number, group) for number, group in enumerate(replica)]
        hops_decode = hops_prefill = 0.0
        for senders, receivers in pairwise(replica):
            gather = self._gather(receivers)
            pairs = [self._pair(a, b) for a, b in zip(senders, receivers, strict=True)]
            hops_decode += max(pair[0] for pair in pairs) + gather[0]
            hops_prefill += max(pair[1] for pair in pairs) + gather[1]
        return ReplicaTimes(
            Seconds(sum(stage[0] for stage in stages)),
            Seconds(max(stage[0] for stage in stages)),
            Seconds(sum(stage[1] for stage in stages)),
            Seconds(max(stage[1] for stage in stages)),
            Seconds(max(stage[2] for stage in stages)),
            Seconds(hops_decode),
            Seconds(hops_prefill),
        )

    def metrics(self, times: ReplicaTimes, exchange: tuple[Seconds, Seconds] = NO_EXCHANGE) -> ReplicaMetrics:
        """What users of a replica see. Rises with every time of ``times``."""
        strategy = self.strategy
        workload, traits, fit = strategy.workload, strategy.traits, strategy.calibration
        stages, passes = len(strategy.stages), strategy.chunks.count
        round_trip = times.hops_decode * stages / max(1, stages - 1)
        bottleneck = strategy.micro_batches * times.decode_max
        decode = max(times.decode_sum + round_trip, bottleneck) + exchange[0] + fit.step_overhead
        riding = times.riding_max + exchange[1]
        serial = times.prefill_sum + passes * times.hops_prefill + exchange[1]
        mean_max, mean_sum = times.prefill_max / passes, times.prefill_sum / passes
        ideal = mean_sum + times.hops_prefill + (passes - 1) * mean_max + exchange[1]
        prompt = pipeline.prompt_makespan(Seconds(serial), Seconds(ideal), traits.chunk_pipelining)
        tpot = serving.time_per_output_token(Seconds(decode), Seconds(riding), strategy.requests, workload.output_tokens)
        ttft = serving.time_to_first_token(
            prompt, Seconds(times.prefill_max + exchange[1]), Seconds(decode), strategy.requests, fit.ttft[traits.stack]
        )
        residence = Seconds(ttft + tpot * (workload.output_tokens - 1))
        wait = serving.saturation_wait(strategy.offered, strategy.requests, residence)
        running = min(strategy.offered, strategy.requests)
        rate = serving.throughput(running, ttft, tpot, workload.output_tokens)
        return ReplicaMetrics(Seconds(ttft + wait), wait, tpot, Seconds(decode), prompt, rate)

    def estimate(self, placement: Placement) -> Estimate:
        """The whole answer for one placement."""
        strategy = self.strategy
        exchange = NO_EXCHANGE
        if strategy.parallelism.attention_data_parallel:
            exchange = self.exchange([gpu for replica in placement for group in replica for gpu in group])
        times = [self.replica_times(replica) for replica in placement]
        if strategy.parallelism.attention_data_parallel:
            times = [slowest_of(times)] * len(times)
        metrics = [self.metrics(one, exchange) for one in times]
        slow = max(range(len(metrics)), key=lambda number: (metrics[number].tpot, metrics[number].ttft))
        communication = self._communication(placement)
        decode, prefill = self._breakdowns(placement[slow], times[slow], metrics[slow], exchange)
        return Estimate(
            memory=strategy.memory,
            kv_cache_tokens=strategy.kv_cache_tokens,
            max_concurrency=strategy.max_concurrency,
            communication=communication,
            pipeline=self._pipeline_use(placement[slow], metrics[slow]),
            decode=decode,
            prefill=prefill,
            ttft=Seconds(max(one.ttft for one in metrics)),
            tpot=Seconds(max(one.tpot for one in metrics)),
            output_tokens_per_second=sum(one.throughput for one in metrics),
            uncertainty=self._uncertainty(metrics, communication, decode),
            assumptions=self._assumptions(metrics[slow]),
        )

    def _pipeline_use(self, replica: Replica, metrics: ReplicaMetrics) -> PipelineUse:
        strategy = self.strategy
        stages = len(strategy.stages)
        decode_times = [self.stage(number, group)[0] for number, group in enumerate(replica)]
        return PipelineUse(
            prefill_micro_batches=strategy.chunks.count,
            bubble_ratio=pipeline.bubble_ratio(stages, strategy.chunks.count),
            decode_micro_batches=strategy.micro_batches,
            batches_in_flight=min(strategy.requests, strategy.traits.batches_in_flight(stages)),
            idle_ratio=pipeline.idle_ratio(decode_times, strategy.micro_batches, metrics.decode_period) if stages > 1 else 0.0,
        )

    def _communication(self, placement: Placement) -> Communication:
        """Of the slowest group and the slowest boundary of the whole placement."""
        groups = [group for replica in placement for group in replica]
        slowest = max(groups, key=lambda group: self.group(group).chunk.time)
        times = self.group(slowest)
        hops_decode = hops_prefill = 0.0
        worst_pair: tuple[int, int] | None = None
        for replica in placement:
            for senders, receivers in pairwise(replica):
                gather = self._gather(receivers)
                for a, b in zip(senders, receivers, strict=True):
                    decode, prefill = self._pair(a, b)
                    if prefill + gather[1] > hops_prefill:
                        worst_pair = a, b
                    hops_decode = max(hops_decode, decode + gather[0])
                    hops_prefill = max(hops_prefill, prefill + gather[1])
        link = times.chunk.limiting_link
        if link is None and worst_pair is not None:
            path = self.wires.path(*worst_pair)
            weakest = min(path.links, key=lambda one: self.wires.capacity[one], default=None)
            link = self.wires.describe(weakest) if weakest else None
        reduced = len(slowest) > 1
        return Communication(
            all_reduce_decode=times.decode if reduced else None,
            all_reduce_prefill=times.chunk if reduced else None,
            all_reduces_per_layer=ALL_REDUCES_PER_LAYER,
            point_to_point_decode=Seconds(hops_decode),
            point_to_point_prefill=Seconds(hops_prefill),
            limiting_link=link,
            confidence=times.chunk.confidence if reduced else "high",
        )

    def _breakdowns(
        self, replica: Replica, times: ReplicaTimes, metrics: ReplicaMetrics, exchange: tuple[Seconds, Seconds]
    ) -> tuple[Breakdown, Breakdown]:
        """Where the time of a token and of a prompt goes. ``waiting`` is for the slowest stage; ``overlap`` is negative:
        what chunks save by being in several stages at once.
        """
        decode: dict[str, float] = {}
        prefill: dict[str, float] = {}
        chunks = self.strategy.chunks
        for number, group in enumerate(replica):
            work, group_times = self.strategy.stages[number], self.group(group)
            for part, time in work.decode.items():
                decode[part] = decode.get(part, 0.0) + time
            for part, time in work.prefill.items():
                prefill[part] = prefill.get(part, 0.0) + time
            reduce = work.all_reduces * group_times.decode.time + work.last * group_times.logits
            decode["all_reduce"] = decode.get("all_reduce", 0.0) + reduce
            prompt = chunks.whole * group_times.chunk.time + group_times.rest.time
            prefill["all_reduce"] = prefill.get("all_reduce", 0.0) + work.all_reduces * prompt
        decode |= {
            "expert_exchange": exchange[0],
            "point_to_point": times.hops_decode,
            "step_overhead": self.strategy.calibration.step_overhead,
        }
        prefill |= {"expert_exchange": exchange[1], "point_to_point": chunks.count * times.hops_prefill}
        decode["waiting"] = metrics.decode_period - sum(decode.values())
        prefill["overlap"] = metrics.prefill - sum(prefill.values())
        return _breakdown(decode), _breakdown(prefill)

    def _uncertainty(self, metrics: Sequence[ReplicaMetrics], communication: Communication, decode: Breakdown) -> Uncertainty:
        """What held 90 % of published runs, wider by what the wires and the pipeline are unsure of."""
        fit, traits = self.strategy.calibration.uncertainty, self.strategy.traits
        reasons = ["90 % of published runs on NVSwitch machines fell within"]
        wires = {"high": 0.0, "medium": fit.modelled_links, "low": fit.unmeasured_links}[communication.confidence]
        share = decode.parts.get("all_reduce", 0.0) / decode.total
        if wires * share > WORTH_SAYING:
            reasons.append(
                "these links are modelled, not measured"
                if communication.confidence == "medium"
                else "no measurement of these links: measure them"
            )
        pipelined = len(self.strategy.stages) > 1
        if pipelined:
            reasons.append("pipelines are not validated against measurement")
        wider = 1 + wires * share + fit.pipeline * pipelined
        low, high = fit.tpot["moe" if self.strategy.model.experts else "dense"]
        first_low, first_high = fit.ttft[traits.name]
        ttft, tpot = max(one.ttft for one in metrics), max(one.tpot for one in metrics)
        rate = sum(one.throughput for one in metrics)
        return Uncertainty(
            ttft=(Seconds(ttft * first_low / wider), Seconds(ttft * first_high * wider)),
            tpot=(Seconds(tpot * low / wider), Seconds(tpot * high * wider)),
            output_tokens_per_second=(rate / (high * wider), rate * wider / low),
            basis="; ".join(reasons),
        )

    def _assumptions(self, metrics: ReplicaMetrics) -> tuple[str, ...]:
        strategy = self.strategy
        notes = []
        if metrics.wait > 0:
            notes.append(
                f"{strategy.offered:g} requests a replica, room for {strategy.requests}: they wait {metrics.wait:.1f} s for KV cache"
            )
        if strategy.micro_batches < len(strategy.stages):
            notes.append(f"{strategy.requests} requests cannot keep {len(strategy.stages)} stages busy")
        return tuple(notes)


def _breakdown(parts: dict[str, float]) -> Breakdown:
    return Breakdown({part: Seconds(time) for part, time in parts.items() if time})
