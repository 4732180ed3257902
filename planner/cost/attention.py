"""Attention: prompt (prefill) and one token against a cache (decode)."""

from __future__ import annotations

from planner.core.engine import replicated_kv_heads
from planner.core.hardware import GpuSpec
from planner.core.model import Attention
from planner.cost.calibration import AttentionFit
from planner.cost.formula import formula
from planner.units import Bytes, Flop, Seconds

KV_ELEMENT_BYTES = 2


@formula(source="grouped-query attention (Ainslie et al. 2023): keys and values of one token in one layer")
def kv_bytes_per_token(kv_heads: int, head_size: int, element_bytes: int = KV_ELEMENT_BYTES) -> Bytes:
    """Bytes one token adds to the cache of one layer, for ``kv_heads`` heads on this rank.

    >>> 80 * kv_bytes_per_token(8, 128)
    327680
    """
    return Bytes(2 * kv_heads * head_size * element_bytes)


@formula(source="multi-head latent attention (DeepSeek-V2 2024): one compressed latent and one rotary key, shared by all heads")
def latent_kv_bytes_per_token(latent_size: int, rope_size: int, element_bytes: int = KV_ELEMENT_BYTES) -> Bytes:
    """Bytes one token adds to the cache of one MLA layer; tensor parallelism does not divide it.

    >>> 61 * latent_kv_bytes_per_token(512, 64)
    70272
    """
    return Bytes((latent_size + rope_size) * element_bytes)


@formula(source="causal attention: query-key and attention-value products over the positions seen")
def causal_attention_work(query_heads: int, head_size: int, tokens: float, prefix: float = 0) -> Flop:
    """FLOP of ``tokens`` new positions after ``prefix`` cached ones.

    >>> causal_attention_work(64, 128, 8192) / 1e12
    1.099511627776
    """
    return Flop(4 * query_heads * head_size * tokens * (prefix + tokens / 2))


@formula(source="sliding-window attention (Mistral 7B 2023): a position sees at most a window")
def window_attention_work(query_heads: int, head_size: int, tokens: float, window: int) -> Flop:
    """FLOP of a prompt of ``tokens`` under a sliding window.

    >>> window_attention_work(32, 128, 4096, 4096) == causal_attention_work(32, 128, 4096)
    True
    """
    inside = min(tokens, window)
    return Flop(4 * query_heads * head_size * (inside * inside / 2 + max(0.0, tokens - window) * window))


def prompt_work(attention: Attention, tensor: int, tokens: int) -> Flop:
    """FLOP of the whole prompt in one layer on one rank, in however many chunks."""
    heads = attention.query_heads // tensor
    if attention.window is not None:
        return window_attention_work(heads, attention.head_size, tokens, attention.window)
    return causal_attention_work(heads, attention.head_size, tokens)


def prefill(work: Flop, chunks: int, gpu: GpuSpec, fit: AttentionFit) -> Seconds:
    """Attention of a prompt of ``work`` FLOP in ``chunks`` calls."""
    return Seconds(work / (gpu.half_precision * fit.efficiency) + chunks * fit.launch)


def decode(attention: Attention, tensor: int, sequences: float, context: int, gpu: GpuSpec, fit: AttentionFit) -> Seconds:
    """One token of each of ``sequences`` requests against ``context`` cached tokens, on one rank."""
    seen = min(context, attention.window) if attention.window is not None else context
    heads = replicated_kv_heads(attention.kv_heads, tensor)
    read = sequences * seen * kv_bytes_per_token(heads, attention.head_size)
    return Seconds(read / (gpu.memory_bandwidth * fit.efficiency) + fit.launch)
