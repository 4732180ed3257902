"""How the requests of a deployment fare one by one: how many are in flight, their percentiles, the share that meets the targets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from planner.core.estimate import Serving
from planner.cost import latency
from planner.cost.replica import ReplicaMetrics, service_time
from planner.cost.strategy import Strategy
from planner.units import Seconds


def serving_of(strategy: Strategy, metrics: Sequence[ReplicaMetrics]) -> Serving:
    """Of all replicas together; percentiles of the slowest."""
    output = strategy.workload.output_tokens
    rates = [one.throughput / output for one in metrics]
    lasting = [one.ttft + one.tpot * (output - 1) for one in metrics]
    slow = metrics[max(range(len(metrics)), key=lambda number: (metrics[number].tpot, metrics[number].ttft))]
    return Serving(
        in_flight=sum(rate * time for rate, time in zip(rates, lasting, strict=True) if rate),
        requests_per_second=sum(rates),
        ttft=latency.percentiles_of(first_token_quantile(strategy, slow)),
        tpot=latency.normal_percentiles(slow.tpot, _deviation(strategy, slow)),
        itl=latency.percentiles_of(_inter_token_quantile(strategy, slow)),
        within_targets=_within_targets(strategy, slow),
    )


def first_token_quantile(strategy: Strategy, metrics: ReplicaMetrics) -> latency.Quantile:
    """Time to first token by share of requests: what nobody shortens, and the queues."""
    workload = strategy.workload
    alone = Seconds(metrics.ttft - metrics.wait - metrics.queue)
    if workload.load == "request-rate":
        if math.isinf(metrics.ttft):
            return lambda _: math.inf
        rate = workload.request_rate / strategy.parallelism.data
        behind = rate * service_time(strategy, metrics.decode_period, metrics.riding)
        full = min(1.0, rate * (alone + metrics.queue + metrics.tpot * (workload.output_tokens - 1)) / strategy.room)
        return lambda share: (
            alone + latency.queue_quantile(metrics.queue, behind, share) + latency.queue_quantile(metrics.wait, full, share)
        )
    return lambda share: alone + metrics.wait + latency.burst_quantile(metrics.queue, share)


def _deviation(strategy: Strategy, metrics: ReplicaMetrics) -> Seconds:
    output = strategy.workload.output_tokens
    return latency.token_time_spread(metrics.riding, strategy.interference * output, output)


def _inter_token_quantile(strategy: Strategy, metrics: ReplicaMetrics) -> latency.Quantile:
    passes = strategy.chunks.count
    each = Seconds(metrics.riding / passes)
    return lambda share: latency.step_quantile(metrics.decode_period, each, strategy.interference * passes, share)


def _within_targets(strategy: Strategy, metrics: ReplicaMetrics) -> float | None:
    """The share of requests that meet both targets, as if one said nothing of the other."""
    workload = strategy.workload
    if not workload.has_targets:
        return None
    share = 1.0
    if workload.ttft_target is not None:
        share *= latency.share_within(first_token_quantile(strategy, metrics), workload.ttft_target)
    if workload.tpot_target is not None:
        share *= latency.normal_share_within(metrics.tpot, _deviation(strategy, metrics), workload.tpot_target)
    return share
