"""How the times of single requests spread around their means: percentiles, and the share that meets targets.

What is known is the order of things: who stands before a prompt, how many prompts fall into an answer. Lengths are taken as equal,
arrivals as independent. No published run of ``data/calibration`` says percentiles: these are models that nothing was measured against.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from planner.core.estimate import Percentiles
from planner.core.workload import PERCENTILES
from planner.cost.formula import formula
from planner.units import Seconds

Quantile = Callable[[float], float]
"""From a share of the requests to what they stay within."""
_HALVINGS = 40
_LARGE = 50.0
"""A mean from which on a Poisson distribution is as good as normal."""
_NORMAL = {0.5: 0.0, 0.9: 1.2815515655446004, 0.99: 2.3263478740408408}
"""Quantiles of the standard normal distribution."""
_END_OF_A_BAR = 1.6448536269514722
"""Its 95th percentile."""


@formula(
    source="the first of a burst waits for nobody, the last for all: waits are uniform up to twice their mean",
    valid="closed loop",
)
def burst_quantile(mean: Seconds, share: float) -> Seconds:
    """What ``share`` of the prompts wait at most in a closed loop.

    >>> round(burst_quantile(Seconds(0.5), 0.9), 3)
    0.9
    """
    return Seconds(2 * mean * share)


@formula(source="exponential tail of a queue: P(wait > t) = load exp(-load t / mean)", valid="open loop, load below one")
def queue_quantile(mean: Seconds, load: float, share: float) -> Seconds:
    """What ``share`` of the arrivals wait at most, where ``load`` of them have to wait at all and all wait ``mean`` in the mean.

    >>> queue_quantile(Seconds(0.05), 0.5, 0.4), round(queue_quantile(Seconds(0.05), 0.5, 0.9), 4)
    (0.0, 0.1609)
    """
    if mean <= 0 or share <= 1 - load:
        return Seconds(0.0)
    return Seconds(mean / load * math.log(load / (1 - share)))


@formula(source="prompts that fall into one answer are Poisson, their number taken as normal", valid="continuous batching")
def token_time_spread(riding: Seconds, prompts: float, output_tokens: int) -> Seconds:
    """Standard deviation over requests of the mean time per output token: ``prompts`` are prefilled during an answer in the mean,
    each of which adds ``riding`` to one of its steps.

    >>> round(token_time_spread(Seconds(0.1), 100, 200), 5)
    0.005
    """
    return Seconds(math.sqrt(prompts) * riding / output_tokens)


@formula(source="a step decodes alone or takes chunks of prompts along (Sarathi-Serve, Agrawal et al. 2024), Poisson many")
def step_quantile(decode: Seconds, chunk: Seconds, chunks_a_step: float, share: float) -> Seconds:
    """Inter-token latency that ``share`` of the tokens stay within, where each of the chunks in a step adds ``chunk``.

    >>> step_quantile(Seconds(0.02), Seconds(0.08), 0.05, 0.9), step_quantile(Seconds(0.02), Seconds(0.08), 0.05, 0.99)
    (0.02, 0.1)
    """
    return Seconds(decode + poisson_quantile(chunks_a_step, share) * chunk)


def poisson_quantile(mean: float, share: float) -> float:
    """The least count that ``share`` of a Poisson distribution does not exceed; of a large ``mean`` the normal one's.

    >>> [poisson_quantile(1.0, share) for share in (0.3, 0.9, 0.99)], round(poisson_quantile(100.0, 0.9), 1)
    ([0.0, 2.0, 4.0], 112.8)
    """
    if mean > _LARGE:
        return mean + _NORMAL[share] * math.sqrt(mean)
    count, chance = 0.0, math.exp(-mean)
    below = chance
    while below < share:
        count += 1
        chance *= mean / count
        below += chance
    return count


def percentiles_of(quantile: Quantile) -> Percentiles:
    """Half, nine of ten, 99 of a hundred."""
    return Percentiles(*(Seconds(quantile(one / 100)) for one in PERCENTILES))


def normal_percentiles(mean: Seconds, deviation: Seconds) -> Percentiles:
    """The same of what is normally distributed."""
    return percentiles_of(lambda share: mean + _NORMAL[share] * deviation)


def share_within(quantile: Quantile, limit: float) -> float:
    """The share of the requests that stay within ``limit``.

    >>> round(share_within(lambda share: 2 * share, 0.5), 6)
    0.25
    """
    if quantile(0.0) > limit:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if quantile(middle) <= limit else (low, middle)
    return high


def normal_share_within(mean: Seconds, deviation: Seconds, limit: float) -> float:
    """The same of what is normally distributed.

    >>> normal_share_within(Seconds(0.02), Seconds(0.0), 0.02), round(normal_share_within(Seconds(0.02), Seconds(0.005), 0.025), 4)
    (1.0, 0.8413)
    """
    if deviation <= 0:
        return float(mean <= limit)
    return (1 + math.erf((limit - mean) / deviation / math.sqrt(2))) / 2


@formula(
    source="two halves of a log-normal distribution around a prediction, its 5th and 95th percentile at the ends of the error bar"
)
def chance_within(limit: float, predicted: float, low: float, high: float) -> float:
    """How likely a measured value is no more than ``limit``, by the error bar of its prediction.

    >>> [round(chance_within(limit, 40, 32, 60), 2) for limit in (32, 40, 48, 60)]
    [0.05, 0.5, 0.77, 0.95]
    """
    if not math.isfinite(predicted):
        return 0.0
    end = high if limit >= predicted else low
    if end == predicted:
        return float(limit >= predicted)
    deviation = abs(math.log(end / predicted)) / _END_OF_A_BAR
    return normal_share_within(Seconds(math.log(predicted)), Seconds(deviation), math.log(limit))
