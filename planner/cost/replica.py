"""What the users of one replica see, from what its stages take: a closed loop, an open one, or a static batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.cost import pipeline, serving
from planner.cost.strategy import Strategy
from planner.units import Seconds

NO_EXCHANGE = (Seconds(0.0), Seconds(0.0))


@dataclass(frozen=True, slots=True)
class ReplicaTimes:
    """Sums and maxima over the stages of one replica: all that its serving metrics depend on.

    ``decode_*`` of one decode step, ``prefill_*`` of a whole prompt alone, ``riding_max`` what one keeps decoding from: what it adds
    to steps that it shares, or all of it where it has steps of its own; ``hops_*`` of all boundaries.
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
    """What the users of one replica see, in the mean.

    ``wait`` is the part of ``ttft`` that is spent in the queue for KV cache, ``queue`` that behind other prompts. ``riding`` is what
    a prompt adds to the decode steps it shares or holds up, ``decode_period`` a decode step without prompts, ``prefill`` a prompt's own way (of a
    static batch: of all prompts). ``throughput`` is in output tokens a second.
    """

    ttft: Seconds
    wait: Seconds
    queue: Seconds
    tpot: Seconds
    decode_period: Seconds
    riding: Seconds
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


def metrics_of(strategy: Strategy, times: ReplicaTimes, exchange: tuple[Seconds, Seconds] = NO_EXCHANGE) -> ReplicaMetrics:
    """What users of a replica see. Times to wait rise with every time of ``times``, throughput falls."""
    workload, traits, calibration = strategy.workload, strategy.traits, strategy.calibration
    stages, passes = len(strategy.stages), strategy.chunks.count
    round_trip = times.hops_decode * stages / max(1, stages - 1)
    around, bottleneck = times.decode_sum + round_trip, strategy.micro_batches * times.decode_max
    period = strategy.micro_batches * around if workload.load == "batch" else max(around, bottleneck)
    decode = Seconds(strategy.slower * (period + exchange[0]) + strategy.step_overhead)
    riding = Seconds(strategy.held_up * (times.riding_max + exchange[1]))
    serial = times.prefill_sum + passes * times.hops_prefill + exchange[1]
    mean_max, mean_sum = times.prefill_max / passes, times.prefill_sum / passes
    ideal = mean_sum + times.hops_prefill + (passes - 1) * mean_max + exchange[1]
    makespan = pipeline.prompt_makespan(Seconds(serial), Seconds(ideal), traits.chunk_pipelining)
    prompt = Seconds(strategy.slower * makespan)
    if workload.load == "batch":
        return _static(strategy, decode, riding, prompt)
    fit, output = calibration.first_token(traits.first_token), workload.output_tokens
    tpot = serving.time_per_output_token(decode, riding, strategy.interference, strategy.tokens_a_step)
    alone = serving.time_to_first_token(prompt, decode, fit, latent=strategy.model.latent)
    if workload.load == "request-rate":
        queue = open_queue(strategy, decode, riding)
    else:
        queue = serving.burst_wait(service_time(strategy, decode, riding), strategy.requests, output, fit)
    residence = Seconds(alone + queue + tpot * (output - 1))
    running = min(strategy.offered, strategy.requests)
    rate = serving.throughput(running, Seconds(alone + queue), tpot, output)
    if workload.load == "request-rate":
        asked = workload.request_rate / strategy.parallelism.data
        if not math.isinf(queue):  # it keeps up: as many are answered as come
            rate = asked * output
        wait = serving.slot_wait(asked, residence, strategy.room)
    else:
        wait = serving.saturation_wait(strategy.offered, strategy.requests, residence)
    return ReplicaMetrics(Seconds(alone + queue + wait), wait, queue, tpot, decode, riding, prompt, rate)


def open_queue(strategy: Strategy, decode: Seconds, riding: Seconds) -> Seconds:
    """How long a prompt waits behind others where they come as they please."""
    service = service_time(strategy, decode, riding)
    return serving.prompt_wait(service, strategy.workload.request_rate / strategy.parallelism.data)


def service_time(strategy: Strategy, decode: Seconds, riding: Seconds) -> Seconds:
    """How long a prompt keeps the others out: its share of the steps it takes, with what is decoded in them."""
    if strategy.traits.prompts_apart:
        return riding
    share = strategy.workload.new_tokens / strategy.limits.max_batched_tokens
    return Seconds(riding + share * decode)


def _static(strategy: Strategy, decode: Seconds, riding: Seconds, prompts: Seconds) -> ReplicaMetrics:
    """A batch that starts together and ends together; what does not fit is a batch after it."""
    output = strategy.workload.output_tokens
    ttft = Seconds(prompts + strategy.step_overhead)
    tpot = serving.time_per_output_token(decode, riding, 0.0, strategy.tokens_a_step)
    decoding = Seconds(tpot * (output - 1))
    wait, together = serving.turns(strategy.offered, strategy.requests, ttft, decoding, strategy.weights_read)
    rate = strategy.offered * output / together
    return ReplicaMetrics(Seconds(ttft + wait), wait, Seconds(0.0), tpot, decode, riding, prompts, rate)
