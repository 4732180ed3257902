"""What ranks send each other where they split a sequence or the experts of a layer, rather than its weights.

All sizes are bytes that one GPU sends (and receives) per layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.cost.calibration import AttentionFit
from planner.cost.formula import formula
from planner.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds


@formula(
    source="DeepSpeed-Ulysses (arXiv 2309.14509): an all-to-all each of queries, keys, values and the attention's output",
    valid="as many ranks as KV heads at most",
)
def ulysses_bytes(tokens: int, query_width: int, kv_width: int, element_bytes: float, ranks: int) -> Bytes:
    """What a GPU sends where ``ranks`` split ``tokens`` of a sequence and trade them for heads around the attention.

    ``query_width`` and ``kv_width`` are heads times head size of the queries and of the keys (the values are as wide).

    >>> round(ulysses_bytes(32768, 64 * 128, 8 * 128, 2, 8) / 1e6, 1)
    132.1
    """
    return Bytes(2 * (query_width + kv_width) * element_bytes * tokens / ranks * (ranks - 1) / ranks)


@formula(source="Megatron-LM sequence parallelism (arXiv 2205.05198): two all-gathers and two reduce-scatters a layer")
def tensor_sequence_bytes(tokens: int, hidden_size: int, element_bytes: float, ranks: int) -> Bytes:
    """What a GPU sends under tensor parallelism with the sequence split between the two halves of a layer.

    >>> round(tensor_sequence_bytes(32768, 8192, 2, 8) / 1e6)
    1879
    """
    return Bytes(4 * tokens * hidden_size * element_bytes * (ranks - 1) / ranks)


@formula(
    source="Ring Attention (arXiv 2310.01889): a block's keys and values travel while its predecessor's are attended to",
    valid="full attention; twice as much for causal attention whose blocks are not interleaved",
)
def ring_attention_chunk(
    query_heads: int, kv_heads: int, element_bytes: float, compute: FlopPerSecond, bandwidth: BytesPerSecond
) -> float:
    """The fewest tokens a GPU must hold for ring attention to hide its transfers.

    ``compute`` is what the attention reaches, FLOP/s; ``bandwidth`` that of one step of the ring, B/s.

    >>> round(ring_attention_chunk(64, 8, 2, FlopPerSecond(593.4e12), BytesPerSecond(360e9)))
    206
    """
    return kv_heads * element_bytes * compute / (2 * query_heads * bandwidth)


@formula(
    source="DeepEP README and docs/legacy.md (dd758caf4518): every token goes to each of its experts, fp8 with a scale a block"
)
def dispatch_bytes(tokens: int, experts_per_token: int, hidden_size: int, element_bytes: float, scale_block: int = 0) -> Bytes:
    """What a GPU sends to the experts of its ``tokens``; ``scale_block`` elements share one fp32 scale, 0 for none.

    The share of it that leaves the GPU is 1 - 1/ranks where experts are spread evenly.

    >>> round(dispatch_bytes(128, 8, 7168, 1, 128) / 1e6, 3)
    7.569
    """
    scales = 4 * hidden_size / scale_block if scale_block else 0.0
    return Bytes(tokens * experts_per_token * (hidden_size * element_bytes + scales))


@formula(source="DeepEP README and docs/legacy.md (dd758caf4518): every expert's output comes back in 16 bits")
def combine_bytes(tokens: int, experts_per_token: int, hidden_size: int) -> Bytes:
    """What comes back to a GPU from the experts of its ``tokens``.

    >>> round(combine_bytes(128, 8, 7168) / 1e6, 2)
    14.68
    """
    return Bytes(2 * tokens * experts_per_token * hidden_size)


@dataclass(frozen=True, slots=True)
class ContextExchange:
    """Of one layer's decode step: the queries that are gathered, the partial outputs that are reduced and scattered, and
    the logarithms of the softmax sums that say how to weigh those.
    """

    queries: Bytes
    outputs: Bytes
    sums: Bytes


@formula(
    source="vLLM docs/serving/context_parallel_deployment.md (decode context parallelism): all-gather, all-gather, reduce-scatter"
)
def context_messages(
    tokens: float, query_heads: int, query_width: int, output_width: int, element_bytes: float
) -> ContextExchange:
    """What ranks that each hold a share of every request's KV cache have together, for ``tokens`` new ones (a decode step: one of
    each request).

    ``query_heads`` are those of all these ranks, ``query_width`` and ``output_width`` those of one head.

    >>> round(context_messages(32, 128, 576, 512, 2).queries / 1e6, 2)
    4.72
    """
    heads = tokens * query_heads
    return ContextExchange(
        Bytes(heads * query_width * element_bytes), Bytes(heads * output_width * element_bytes), Bytes(4 * heads)
    )


@formula(source="a ring sends (n-1)/n of what its ranks hold together")
def context_exchange(
    requests: int, query_heads: int, query_width: int, output_width: int, element_bytes: float, ranks: int
) -> ContextExchange:
    """What each of these ``ranks`` sends of :func:`context_messages`.

    >>> exchange = context_exchange(32, 128, 576, 512, 2, 8)
    >>> round(exchange.queries / 1e6, 2), round(exchange.outputs / 1e6, 2), exchange.sums
    (4.13, 3.67, 14336.0)
    """
    share, held = (ranks - 1) / ranks, context_messages(requests, query_heads, query_width, output_width, element_bytes)
    return ContextExchange(Bytes(held.queries * share), Bytes(held.outputs * share), Bytes(held.sums * share))


@formula(source="DeepEP README: a token travels once to every rank that holds one of its experts", valid="uniform routing")
def exchanged_bytes(tokens: int, per_token: int, expert_ranks: int, hidden_size: int) -> Bytes:
    """Bytes in 16 bit that leave a rank when each of its ``tokens`` goes to its experts' ranks.

    >>> round(exchanged_bytes(128, 8, 8, 7168) / 2**20, 2)
    8.04
    """
    reached = expert_ranks * (1 - (1 - 1 / expert_ranks) ** per_token)
    return Bytes(2 * tokens * hidden_size * reached * (expert_ranks - 1) / expert_ranks)


def exchange_name(implementation: str, phase: str, dtype: str) -> str:
    """What an exchange of a library is called in the calibration: ``vllm-0.24.0/deepep_ll`` is ``deepep_ll``.

    >>> exchange_name("vllm-0.24.0/deepep_ll", "dispatch", "default")
    'deepep_ll-dispatch-default'
    """
    return f"{implementation.rsplit('/', 1)[-1]}-{phase}-{dtype}"


COPIED = BytesPerSecond(450e9)
"""Line rate of NVLink beyond which kernels for high throughput gain nothing: they copy with as many SMs on every GPU (DeepEP gives
them 20 to 24). H100 and B200 take as long, where B200's links are twice as fast.
"""


def exchange_rate(name: str, nvlink_bandwidth: BytesPerSecond) -> BytesPerSecond:
    """What bounds an exchange: the NVLinks, or in kernels for high throughput the SMs that copy.

    >>> exchange_rate("deepep_ht-combine-default", BytesPerSecond(900e9)) / 1e9
    450.0
    >>> exchange_rate("deepep_ll-combine-default", BytesPerSecond(900e9)) / 1e9
    900.0
    """
    copied = "_ht-" in name or "_context-" in name
    return min(nvlink_bandwidth, COPIED) if copied else nvlink_bandwidth


def exchange(size: Bytes, rate: BytesPerSecond, fit: AttentionFit) -> Seconds:
    """A dispatch or combine of ``size`` bytes on one node, at :func:`exchange_rate`."""
    return Seconds(fit.launch + size / (rate * fit.efficiency))
