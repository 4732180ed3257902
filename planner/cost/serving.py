"""From step times to what a user sees: time per output token, time to first token, throughput."""

from __future__ import annotations

import math

from planner.cost.calibration import TtftFit
from planner.cost.formula import formula
from planner.units import Bytes, BytesPerSecond, Seconds


@formula(
    source="closed loop: each of the other C-1 requests is prefilled once while one emits its output tokens",
    valid="continuous batching, steady state",
)
def time_per_output_token(
    decode_step: Seconds, prefill: Seconds, prompts_a_token: float, tokens_per_step: float = 1.0
) -> Seconds:
    """Mean time between output tokens, prefill of others included: ``prompts_a_token`` is (C-1) over output tokens.

    >>> round(time_per_output_token(Seconds(0.02), Seconds(0.1), 32 / 256) * 1e3, 2)
    32.5
    """
    return Seconds(decode_step / tokens_per_step + prompts_a_token * prefill)


@formula(
    source="this project's reading of 1,260 published closed-loop runs (data/calibration/engines.yaml), median error about 25 %",
    valid="a prompt that nobody is before",
)
def time_to_first_token(prompt: Seconds, decode_step: Seconds, fit: TtftFit, *, latent: bool = False) -> Seconds:
    """Mean time to first token without waiting for others or for KV cache: ``prompt`` is its own way through the pipeline, of a
    model with ``latent`` attention or without.

    >>> round(time_to_first_token(Seconds(0.1), Seconds(0.02), TtftFit(Seconds(0.025), 1.27, 0.14, 0.85)), 3)
    0.169
    """
    return Seconds(fit.base + latent * fit.latent + fit.prefill_factor * prompt + fit.decode_factor * decode_step)


@formula(
    source="this project's reading of the same runs: all requests start at once, and stay apart from then on; and in steady state "
    "all others' prompts are computed while one request is answered, its first token's share of them before it",
    valid="closed loop",
)
def burst_wait(service: Seconds, requests: float, output_tokens: int, fit: TtftFit) -> Seconds:
    """Mean time that a prompt waits behind others of a closed loop: a share of the ``requests`` stands before it, each of which
    keeps it out for ``service``.

    >>> fit = TtftFit(Seconds(0.025), 1.27, 0.14, 0.85)
    >>> round(burst_wait(Seconds(0.1), 21, 256, fit), 3), round(burst_wait(Seconds(0.1), 21, 1, fit), 3)
    (0.14, 2.0)
    """
    return Seconds(share_before(output_tokens, fit) * (requests - 1) * service)


def share_before(output_tokens: int, fit: TtftFit) -> float:
    """The share of the other requests of a closed loop that stands before a prompt: of those that come while a request is answered,
    one in as many as it has tokens, and no fewer than in runs that were measured.

    >>> share_before(2, TtftFit(Seconds(0.025), 1.27, 0.14, 0.85))
    0.5
    """
    return max(fit.queue_share / 2, 1 / output_tokens)


@formula(source="Little's law: those who find no room wait for a round of those who did")
def saturation_wait(requests: float, room: float, residence: Seconds) -> Seconds:
    """Time a request waits when ``requests`` are in flight and the KV cache holds ``room``.

    >>> saturation_wait(32, 64, Seconds(5)), saturation_wait(96, 64, Seconds(5))
    (0.0, 2.5)
    """
    return Seconds(max(0.0, requests / room - 1) * residence)


@formula(
    source="turns one after another; the last has as many prompts as there are requests left, and reads the weights and their cache"
)
def turns(requests: float, room: float, prompts: Seconds, decoding: Seconds, weights_read: float) -> tuple[Seconds, Seconds]:
    """The mean time that ``requests`` of a static batch wait for their turn, and how long all take, where ``room`` of them run at once:
    ``prompts`` until their first tokens, then ``decoding``, of which the share ``weights_read`` goes to reading weights.

    >>> turns(50, 25, Seconds(2), Seconds(8), 0.5), turns(30, 25, Seconds(2), Seconds(8), 0.5)
    ((5.0, 20.0), (1.4, 15.2))
    """
    lasting = Seconds(prompts + decoding)
    if requests <= room:
        return Seconds(0.0), lasting
    full = int(requests // room)
    rest = requests - full * room
    left, waited = rest / room, room * lasting * full * (full - 1) / 2
    if not rest:
        return Seconds(waited / requests), Seconds(float(full * lasting))
    waited += rest * (full * lasting - (1 - left) * prompts)
    last = left * prompts + (weights_read + (1 - weights_read) * left) * decoding
    return Seconds(waited / requests), Seconds(float(full * lasting + last))


@formula(source="Little's law (1961)")
def throughput(requests: float, ttft: Seconds, tpot: Seconds, output_tokens: int) -> float:
    """Output tokens per second of ``requests`` in a closed loop.

    >>> throughput(10, Seconds(1), Seconds(0.01), 101)
    505.0
    """
    return requests * output_tokens / (ttft + tpot * (output_tokens - 1))


@formula(source="M/D/1 queue (Pollaczek-Khinchine): Poisson arrivals, equal prompts", valid="open loop, load below one")
def prompt_wait(service: Seconds, rate: float) -> Seconds:
    """Mean time a prompt waits behind others that come at ``rate`` per second and keep it out for ``service`` each; infinite where
    they come faster than they are served.

    >>> round(prompt_wait(Seconds(0.1), 5), 4)
    0.05
    """
    load = rate * service
    return Seconds(load * service / (2 * (1 - load))) if load < 1 else Seconds(math.inf)


@formula(source="M/D/c queue, Sakasegawa's approximation (1977)", valid="open loop, load below one")
def slot_wait(rate: float, residence: Seconds, room: int) -> Seconds:
    """Mean time a request that comes at ``rate`` per second waits for one of ``room`` places that each holds for ``residence``.

    >>> round(slot_wait(0.9, Seconds(1), 1), 6), round(slot_wait(90, Seconds(1), 100), 6), slot_wait(2, Seconds(1), 1)
    (4.5, 0.012428, inf)
    """
    load = rate * residence / room
    if load >= 1:
        return Seconds(math.inf)
    return Seconds(residence * load ** (math.sqrt(2 * (room + 1)) - 1) / (room * (1 - load)) / 2)


@formula(source="M/D/1 queue, as in DistServe (Zhong et al. 2024), equation 1", valid="load below one")
def prefill_queue(duration: Seconds, rate: float) -> Seconds:
    """Mean time to first token of an open prefill queue: Poisson arrivals at ``rate`` per second, fixed ``duration``;
    infinite where it cannot keep up.

    >>> round(prefill_queue(Seconds(0.1), 5), 4)
    0.15
    """
    spare = 1 - rate * duration
    return Seconds(duration + rate * duration**2 / (2 * spare)) if spare > 0 else Seconds(math.inf)


@formula(source="DistServe (Zhong et al. 2024), equation 2", valid="two pipeline stages, load below one")
def prefill_queue_pipeline(duration: Seconds, rate: float) -> Seconds:
    """The same under two-way pipeline parallelism.

    >>> round(prefill_queue_pipeline(Seconds(0.1), 5), 4)
    0.1083
    """
    spare = 2 - rate * duration
    return Seconds(duration + rate * duration**2 / (4 * spare)) if spare > 0 else Seconds(math.inf)


@formula(source="DistServe (Zhong et al. 2024), equation 3", valid="tensor parallelism that speeds up by `speedup`")
def prefill_queue_tensor(duration: Seconds, rate: float, speedup: float) -> Seconds:
    """The same under tensor parallelism.

    >>> round(prefill_queue_tensor(Seconds(0.1), 5, 1.6), 4)
    0.0767
    """
    spare = speedup - rate * duration
    return Seconds(duration / speedup + rate * duration**2 / (2 * speedup * spare)) if spare > 0 else Seconds(math.inf)


@formula(source="speculative decoding (Leviathan et al. 2023), equation 1")
def tokens_per_iteration(acceptance: float, draft_tokens: int) -> float:
    """Expected tokens of one verification step.

    >>> round(tokens_per_iteration(0.8, 3), 3)
    2.952
    """
    return (1 - acceptance ** (draft_tokens + 1)) / (1 - acceptance)


@formula(source="one prompt's cache over the links between two pools")
def kv_transfer(tokens: int, bytes_per_token: Bytes, bandwidth: BytesPerSecond, rails: int = 1) -> Seconds:
    """Time to hand one prompt's cache from a prefill pool to a decode pool.

    >>> round(kv_transfer(8192, Bytes(327680), BytesPerSecond(50e9)) * 1e3, 1)
    53.7
    """
    return Seconds(tokens * bytes_per_token / (rails * bandwidth))
