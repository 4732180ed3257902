"""Attention: prompt (prefill) and one token against a cache (decode)."""

from __future__ import annotations

from planner.core.attention import replicated_kv_heads
from planner.core.hardware import GpuSpec
from planner.core.model import Attention, Indexer, LatentAttention, LinearAttention, Mixer
from planner.cost.calibration import AttentionFit
from planner.cost.formula import formula
from planner.units import Bytes, Flop, Seconds

KV_ELEMENT_BYTES = 2


@formula(source="grouped-query attention (Ainslie et al. 2023): keys and values of one token in one layer")
def kv_bytes_per_token(kv_heads: int, head_size: float, element_bytes: float = KV_ELEMENT_BYTES) -> Bytes:
    """Bytes one token adds to the cache of one layer, for ``kv_heads`` heads on this rank.

    >>> 80 * kv_bytes_per_token(8, 128)
    327680
    """
    return Bytes(2 * kv_heads * head_size * element_bytes)


@formula(source="multi-head latent attention (DeepSeek-V2 2024): one compressed latent and one rotary key, shared by all heads")
def latent_kv_bytes_per_token(latent_size: int, rope_size: int, element_bytes: float = KV_ELEMENT_BYTES) -> Bytes:
    """Bytes one token adds to the cache of one MLA layer; tensor parallelism does not divide it.

    >>> 61 * latent_kv_bytes_per_token(512, 64)
    70272
    """
    return Bytes((latent_size + rope_size) * element_bytes)


@formula(source="vLLM 0.33 fp8_ds_mla: an 8-bit latent with a 32-bit scale for every 128, and the rotary key in 16 bit")
def scaled_latent_kv_bytes_per_token(latent_size: int, rope_size: int) -> Bytes:
    """The same where sparse attention keeps its latents in 8 bits.

    >>> 61 * scaled_latent_kv_bytes_per_token(512, 64)
    40016.0
    """
    return Bytes(latent_size + latent_size / 128 * 4 + rope_size * KV_ELEMENT_BYTES)


def cache_bytes(mixer: Mixer, tensor: int, element_bytes: float) -> Bytes:
    """What one token adds to the cache of one rank of one layer: a latent is whole on every rank, a recurrence adds nothing."""
    if isinstance(mixer, Attention):
        size = mixer.head_size if mixer.values == mixer.head_size else (mixer.head_size + mixer.values) / 2
        return kv_bytes_per_token(replicated_kv_heads(mixer.kv_heads, tensor), size, element_bytes)
    if isinstance(mixer, LinearAttention):
        return Bytes(0)
    if mixer.indexer is not None and element_bytes < KV_ELEMENT_BYTES:
        return Bytes(scaled_latent_kv_bytes_per_token(mixer.latent_size, mixer.rope_size) + mixer.index_bytes)
    return Bytes(latent_kv_bytes_per_token(mixer.latent_size, mixer.rope_size, element_bytes) + mixer.index_bytes)


@formula(source="causal attention: query-key and attention-value products over the positions seen")
def causal_attention_work(query_heads: int, head_size: float, tokens: float, prefix: float = 0) -> Flop:
    """FLOP of ``tokens`` new positions after ``prefix`` cached ones.

    >>> causal_attention_work(64, 128, 8192) / 1e12
    1.099511627776
    """
    return Flop(4 * query_heads * head_size * tokens * (prefix + tokens / 2))


@formula(source="sliding-window attention (Mistral 7B 2023): a position sees at most a window")
def window_attention_work(query_heads: int, head_size: float, tokens: float, window: int) -> Flop:
    """FLOP of a prompt of ``tokens`` under a sliding window.

    >>> window_attention_work(32, 128, 4096, 4096) == causal_attention_work(32, 128, 4096)
    True
    """
    inside = min(tokens, window)
    return Flop(4 * query_heads * head_size * (inside * inside / 2 + max(0.0, tokens - window) * window))


@formula(source="state-space duality (Dao and Gu 2024): each position updates the state once and reads it once")
def recurrence_work(state_elements: int, tokens: float) -> Flop:
    """FLOP of a recurrence over ``tokens`` positions.

    >>> recurrence_work(48 * 128 * 128, 1024) / 1e9
    3.221225472
    """
    return Flop(4 * state_elements * tokens)


@formula(source="absorbed latent attention (DeepSeek-V2 2024): scores over latent and rotary key, values over the latent")
def latent_decode_work(query_heads: int, latent_size: int, rope_size: int, context: float) -> Flop:
    """FLOP of one new token against ``context`` cached latents.

    >>> latent_decode_work(128, 512, 64, 1000) / 1e6
    278.528
    """
    return Flop(2 * query_heads * (2 * latent_size + rope_size) * context)


@formula(source="DeepSeek-V3.2 2025: the indexer scores every cached key with each of its heads")
def index_work(heads: int, head_size: int, tokens: float) -> Flop:
    """FLOP of scoring a prompt of ``tokens``.

    >>> index_work(64, 128, 4096) / 1e9
    137.438953472
    """
    return Flop(heads * head_size * tokens * tokens)


def prompt_work(mixer: Mixer, tensor: int, tokens: int) -> Flop:
    """FLOP of the whole prompt in one layer on one rank, in however many chunks."""
    if isinstance(mixer, LinearAttention):
        return recurrence_work(mixer.state_elements(tensor), tokens)
    heads = mixer.query_heads // tensor
    if isinstance(mixer, LatentAttention):
        size = prompt_heads(mixer)
        if mixer.indexer is None:
            return causal_attention_work(heads, size, tokens)
        index: Indexer = mixer.indexer
        chosen = window_attention_work(heads, size, tokens, index.top)
        return Flop(chosen + index_work(index.heads, index.head_size, tokens) / 2)  # 8-bit products run at twice the rate
    size = prompt_heads(mixer)
    if mixer.window is not None:
        return window_attention_work(heads, size, tokens, mixer.window)
    return causal_attention_work(heads, size, tokens)


@formula(
    source="tiles that a causal mask cuts and pipelines that fill: a fitted power of the length (data/calibration/kernels.yaml)"
)
def short_prompts(length: float, short: float, steepness: float) -> float:
    """How much longer the arithmetic of a prompt of ``length`` tokens takes than that of an endless one.

    >>> short_prompts(1000, 3000, 0.5), short_prompts(1000, 0, 0)
    (2.0, 1.0)
    """
    return float((1 + short / length) ** steepness)


@formula(
    source="a softmax takes as long for a narrow head as for a wide one; FlashAttention-3 (Shah et al. 2024) figure 5, H100, causal: "
    "473 TFLOP/s with heads of 64, 616 with 128, about as much with 256",
)
def narrow_heads(head_size: float) -> float:
    """How much longer the products of a prompt's attention take than with heads of 128, those the kernels were timed with.

    >>> round(narrow_heads(64), 2), narrow_heads(128), narrow_heads(256)
    (1.3, 1.0, 1.0)
    """
    return (1 + _SOFTMAX / head_size) / (1 + _SOFTMAX / _TIMED_HEADS) if head_size < _TIMED_HEADS else 1.0


_TIMED_HEADS, _SOFTMAX = 128, 56
"""Size of the heads that kernels were timed with, and of those whose products take as long as their softmax."""


def last_work(mixer: Mixer, seen: float) -> Flop:
    """FLOP of the last tile of a call, the last query of which has ``seen`` positions before it."""
    if isinstance(mixer, LinearAttention):
        return Flop(0)
    most = mixer.window if isinstance(mixer, Attention) else mixer.indexer.top if mixer.indexer is not None else None
    return last_tile_work(prompt_heads(mixer), seen if most is None else min(seen, most))


def prompt_heads(mixer: Mixer) -> float:
    """Size of the heads of a prompt's attention: the mean of keys and values."""
    if isinstance(mixer, LinearAttention):
        return _TIMED_HEADS
    if isinstance(mixer, LatentAttention):
        return (mixer.nope_size + mixer.rope_size + mixer.value_size) / 2
    return (mixer.head_size + mixer.values) / 2


@formula(
    source="FlashAttention (Dao et al. 2022): one multiprocessor takes a tile of 128 queries past all keys that its last one sees"
)
def last_tile_work(head_size: float, seen: float) -> Flop:
    """FLOP of the tile that a call ends with, whose last query sees ``seen`` positions.

    >>> last_tile_work(128, 8192) / 1e6
    536.870912
    """
    return Flop(4 * _TILE * head_size * seen)


_TILE = 128


@formula(
    source="causal FLOP, the last tile on one multiprocessor, every element of the queries, a launch; fitted on kernel tables "
    "(data/calibration/kernels.yaml)",
    name="prompt_attention",
)
def prefill(
    work: Flop, last: Flop, width: float, tokens: int, length: int, chunks: int, gpu: GpuSpec, fit: AttentionFit
) -> Seconds:
    """Attention of ``work`` FLOP in ``chunks`` calls that end with tiles of ``last`` FLOP in all, for ``tokens`` positions whose queries
    have ``width`` elements, in prompts of ``length`` tokens.
    """
    longer = short_prompts(length, fit.short, fit.steepness)
    passed = width * tokens * 1e-6 * fit.elements + last * fit.last / gpu.one_multiprocessor
    return Seconds(chunks * gpu.cycle * fit.launch + passed + work * longer / (gpu.half_precision * fit.efficiency))


@formula(
    source="bytes of the cache at a fitted share of the memory's rate, every position, a launch (data/calibration/kernels.yaml)",
    name="decode_attention",
)
def decode(
    mixer: Mixer,
    tensor: int,
    sequences: float,
    context: int,
    gpu: GpuSpec,
    fit: AttentionFit,
    element_bytes: float = KV_ELEMENT_BYTES,
    arithmetic: AttentionFit | None = None,
    verified: int = 1,
) -> Seconds:
    """One token of each of ``sequences`` requests against ``context`` cached tokens, on one rank; or ``verified`` tokens of each, which
    read the cache once.

    ``arithmetic`` is the fit of prompts: products as dense as theirs bound latent attention with many heads. An indexer reads all
    of its keys and leaves ``top`` tokens to read.
    """
    rate, launch, step = gpu.memory_bandwidth * fit.efficiency, gpu.cycle * fit.launch, gpu.cycle * fit.context
    if isinstance(mixer, LinearAttention):
        return Seconds(2 * sequences * mixer.state_bytes(tensor) / rate + launch)
    seen = min(context, mixer.window) if mixer.window is not None else context
    if isinstance(mixer, Attention):
        return Seconds(sequences * seen * cache_bytes(mixer, tensor, element_bytes) / rate + seen * step + launch)
    scoring = 0.0
    if mixer.indexer is not None:
        scoring = sequences * context * mixer.index_bytes / rate + context * step + launch
        seen = min(context, mixer.indexer.top)
    heads = mixer.query_heads // tensor
    read = sequences * seen * (cache_bytes(mixer, tensor, element_bytes) - mixer.index_bytes) / rate
    work = sequences * verified * latent_decode_work(heads, mixer.latent_size, mixer.rope_size, seen)
    arithmetic_time = work / (gpu.half_precision * (arithmetic or fit).efficiency)
    return Seconds(max(read, arithmetic_time) + seen * step + scoring + launch)
