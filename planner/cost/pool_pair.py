"""A prefill pool and a decode pool put together: the rate they settle at, and what users see there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.core.estimate import Breakdown, Serving, Uncertainty
from planner.core.model import ModelSpec
from planner.core.pools import HandoverRules, Limit, Pool, PoolPair, Transfer
from planner.core.workload import Workload
from planner.cost import latency, serving
from planner.cost.calibration import TtftFit
from planner.cost.disaggregated import (
    DECODE_SHARE,
    LINK_SHARE,
    PREFILL_SHARE,
    UNMEASURED,
    decode_rate,
    exposed_transfer,
)
from planner.cost.handover import Handovers, regrouping
from planner.cost.pool_times import DecodeSide, PrefillSide
from planner.units import Seconds

_HALVINGS = 30


@dataclass(frozen=True)
class _Joined:
    """Two pools and the links between them, before a rate is known."""

    prefill: PrefillSide
    decode: DecodeSide
    transfer: Transfer
    limits: dict[Limit, float]

    @property
    def most(self) -> float:
        """Requests a second that no part of it would refuse."""
        return min(self.limits.values())


@dataclass(frozen=True)
class _Waits:
    """Mean waits at one rate, and how much of the time each is waited for at all."""

    prompts: Seconds
    prompts_load: float
    links: Seconds
    links_load: float
    slots: Seconds
    slots_load: float

    def at(self, share: float) -> float:
        """What ``share`` of the requests wait at most, as if the queues agreed on whom to keep."""
        queues = (self.prompts, self.prompts_load), (self.links, self.links_load), (self.slots, self.slots_load)
        return sum(latency.queue_quantile(mean, load, share) for mean, load in queues)


class PairCost:
    """Prices pairs of pools of one question."""

    def __init__(self, rules: HandoverRules, workload: Workload, fit: TtftFit, handovers: Handovers, model: ModelSpec) -> None:
        self._rules = rules
        self._workload = workload
        self._fit = fit
        self._handovers = handovers
        self._model = model

    def pair(self, prefill: PrefillSide, decode: DecodeSide) -> PoolPair:
        """The pair at the most requests a second that meet the targets, or at the rate that is asked for."""
        joined = self._joined(prefill, decode)
        rate = self._rate(joined)
        limits = dict(joined.limits)
        if rate < joined.most:
            limits["asked" if self._asked else "ttft"] = rate
        return self._settled(joined, rate, limits)

    @property
    def _asked(self) -> bool:
        return self._workload.load == "request-rate"

    def _joined(self, prefill: PrefillSide, decode: DecodeSide) -> _Joined:
        crossing = self._handovers.farthest(prefill.plan, decode.plan)
        carried, link = self._handovers.most(prefill.plan, decode.plan)
        parts = {"prompt": 1, "chunk": prefill.chunks, "layer": len(self._model.layers)}[self._rules.handover]
        transfer = Transfer(
            size=crossing.size,
            time=Seconds(crossing.time + crossing.latency),
            exposed=exposed_transfer(crossing.time, prefill.way, parts, crossing.latency),
            by_layer=exposed_transfer(crossing.time, prefill.way, len(self._model.layers), crossing.latency),
            wait=Seconds(0.0),
            link=self._handovers.words(link or crossing.link),
            requests_per_second=carried,
            kinds=crossing.kinds,
            regrouping=regrouping(self._model, prefill.plan.parallelism.tensor, decode.plan.parallelism.tensor),
        )
        held = Seconds(crossing.time + (prefill.way if self._rules.early else 0.0))
        tokens = self._workload.output_tokens
        residence = Seconds(decode.step(decode.most) * tokens)
        answered = decode_rate(decode.plan.parallelism.data, decode.most, decode.room, residence, held)
        waiting = prefill.plan.parallelism.data * prefill.room / (prefill.way + crossing.time)
        limits: dict[Limit, float] = {
            "prefill": PREFILL_SHARE * prefill.rate,
            "decode": DECODE_SHARE * answered,
            "link": LINK_SHARE * carried,
            "prefill-cache": waiting,
        }
        return _Joined(prefill, decode, transfer, limits)

    def _rate(self, joined: _Joined) -> float:
        """What is asked for, if it can be kept up with; else the most at which the target for the first token is met."""
        most = joined.most
        if self._asked:
            return min(most, self._workload.request_rate)
        target = self._workload.ttft_target
        if target is None or self._held_to(joined, most) <= target:
            return most
        low, high = 0.0, most
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._held_to(joined, middle) <= target else (low, middle)
        return low or most  # out of reach however few there are

    def _held_to(self, joined: _Joined, rate: float) -> float:
        """The time to first token that a target is for, with decode steps as long as they get."""
        return self._first_token_at(joined, rate, joined.decode.step(joined.decode.most))

    def _first_token_at(self, joined: _Joined, rate: float, step: Seconds) -> float:
        waits = self._waits(joined, rate, step)
        if self._workload.percentile is None:
            return self._parts(joined, waits, step).total
        return self._alone(joined, step) + waits.at(self._workload.percentile / 100)

    def _waits(self, joined: _Joined, rate: float, step: Seconds) -> _Waits:
        prefill, decode = joined.prefill, joined.decode
        each = rate / prefill.plan.parallelism.data
        answering = rate / decode.plan.parallelism.data
        residence = Seconds(step * self._workload.output_tokens + joined.transfer.exposed)
        sending = Seconds(1 / joined.transfer.requests_per_second)
        return _Waits(
            prompts=serving.prompt_wait(prefill.service, each),
            prompts_load=each * prefill.service,
            links=serving.prompt_wait(sending, rate),
            links_load=rate * sending,
            slots=serving.slot_wait(answering, residence, decode.room),
            slots_load=min(1.0, answering * residence / decode.room),
        )

    def _alone(self, joined: _Joined, step: Seconds) -> Seconds:
        """A first token that nobody is before: its prompt, its cache's way, the first step of the decode pool."""
        return Seconds(self._computed(joined.prefill.way) + joined.transfer.exposed + step)

    def _computed(self, way: Seconds) -> Seconds:
        """A prompt on an engine that decodes nothing beside it."""
        return serving.time_to_first_token(way, Seconds(0.0), self._fit, latent=self._model.latent)

    def _parts(self, joined: _Joined, waits: _Waits, step: Seconds) -> Breakdown:
        way = joined.prefill.way
        return Breakdown(
            {
                "prompt": way,
                "engine": Seconds(self._computed(way) - way),
                "prompt_queue": waits.prompts,
                "transfer": joined.transfer.exposed,
                "transfer_queue": waits.links,
                "cache_queue": waits.slots,
                "first_step": step,
            }
        )

    def _running(self, decode: DecodeSide, rate: float) -> int:
        """Requests that decode at once on a replica at a rate: as few as keep up with it (Little's law)."""
        each, tokens = rate / decode.plan.parallelism.data, self._workload.output_tokens
        low, high = 1, decode.most
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if middle / (decode.step(middle) * tokens) >= each else (middle + 1, high)
        return high

    def _settled(self, joined: _Joined, rate: float, limits: dict[Limit, float]) -> PoolPair:
        workload, prefill, decode = self._workload, joined.prefill, joined.decode
        running = self._running(decode, rate)
        step = decode.step(running)
        waits = self._waits(joined, rate, step)
        first = self._parts(joined, waits, step)
        alone = self._alone(joined, step)
        fares = self._serving(alone, waits, step, rate, first.total)
        return PoolPair(
            prefill=Pool("prefill", prefill.plan, prefill.estimate, prefill.rate, prefill.prompts, prefill.proven),
            decode=Pool("decode", decode.plan, decode.estimate, decode.rate, running, decode.proven),
            transfer=replace(joined.transfer, wait=waits.links),
            requests_per_second=rate,
            limits=limits,
            limited_by=min(limits, key=lambda name: limits[name]),
            first_token=first,
            tpot=step,
            output_tokens_per_second=rate * workload.output_tokens,
            serving=fares,
            uncertainty=_bars(prefill, decode, first.total, step, rate * workload.output_tokens),
            missed=self._missed(fares, first.total, step, limits),
            assumptions=self._assumptions(),
        )

    def _serving(self, alone: Seconds, waits: _Waits, step: Seconds, rate: float, first: Seconds) -> Serving:
        workload = self._workload

        def quantile(share: float) -> float:
            return alone + waits.at(share)

        share = None
        if workload.has_targets:
            share = 1.0
            if workload.ttft_target is not None:
                share *= latency.share_within(quantile, workload.ttft_target)
            if workload.tpot_target is not None:
                share *= float(step <= workload.tpot_target)
        steady = latency.normal_percentiles(step, Seconds(0.0))
        return Serving(
            in_flight=rate * (first + step * (workload.output_tokens - 1)),
            requests_per_second=rate,
            ttft=latency.percentiles_of(quantile),
            tpot=steady,
            itl=steady,
            within_targets=share,
        )

    def _missed(self, fares: Serving, first: Seconds, step: Seconds, limits: dict[Limit, float]) -> tuple[str, ...]:
        workload = self._workload
        if workload.percentile is not None:
            first, step = fares.ttft.at(workload.percentile), fares.tpot.at(workload.percentile)
        missed = []
        if self._asked and min(limits.values()) < workload.request_rate * (1 - 1e-9):
            missed.append("request rate")
        if workload.ttft_target is not None and first > workload.ttft_target * (1 + 1e-6):
            missed.append("TTFT")
        if workload.tpot_target is not None and step > workload.tpot_target:
            missed.append("TPOT")
        return tuple(missed)

    def _assumptions(self) -> tuple[str, ...]:
        if self._workload.cached_tokens:
            return ("the decode pool finds nothing of a prompt in a cache of its own: all of it is sent",)
        return ()


def _bars(prefill: PrefillSide, decode: DecodeSide, first: Seconds, step: Seconds, tokens: float) -> Uncertainty:
    """The bars of each pool for its half, wider by what nobody measured."""
    wider = 1 + UNMEASURED
    of, other = prefill.estimate, decode.estimate
    first_low, first_high = (of.uncertainty.ttft[end] / of.ttft for end in (0, 1))
    low, high = (other.uncertainty.tpot[end] / other.tpot for end in (0, 1))
    served = [
        [one.uncertainty.output_tokens_per_second[end] / one.output_tokens_per_second for one in (of, other)] for end in (0, 1)
    ]
    return Uncertainty(
        ttft=(Seconds(first * first_low / wider), Seconds(first * first_high * wider)),
        tpot=(Seconds(step * low / wider), Seconds(step * high * wider)),
        output_tokens_per_second=(tokens * min(served[0]) / wider, tokens * max(served[1]) * wider),
        basis=f"no disaggregated run was measured: the bars of each pool, {UNMEASURED:.0%} wider".replace("%", " %"),
    )
