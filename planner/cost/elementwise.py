"""The small kernels of a layer: norms, rotations, writes to the cache, activations, the routing of tokens.

They are launched one by one beside the products, attention and experts that have formulas of their own, and take about as long
whatever they work on. Counted as vLLM 0.33 launches them, where a norm and the sum before it are one.
"""

from __future__ import annotations

from planner.core.model import Attention, DenseMlp, LatentAttention, Layer, LinearAttention, Mixer, MoeMlp
from planner.cost.formula import formula


@formula(source="vLLM 0.33, decoder layers as their forward passes launch kernels (model_executor/models, layers/mla.py)")
def small_kernels(layer: Layer) -> int:
    """How many small kernels (norms, rotations, the cache, activations, routing) a forward pass of ``layer`` launches on one rank.

    >>> plain = Attention(query_heads=32, kv_heads=8, head_size=128)
    >>> small_kernels(Layer(plain, DenseMlp(14336))), small_kernels(Layer(plain, MoeMlp(128, 8, 1536)))
    (5, 6)
    """
    return _of_mixer(layer.attention) + _of_block(layer)


def _of_mixer(mixer: Mixer | None) -> int:
    """The norm before attention, rotation and cache; and what a kind of it does besides."""
    if isinstance(mixer, Attention):  # beside them: norms of queries and keys, an output gate
        return 3 + 2 * (mixer.head_norm or mixer.summed_norm) + mixer.output_gate
    if isinstance(mixer, LatentAttention):  # norms of both latents, queries put together, values expanded
        return 7 + (0 if mixer.indexer is None else 5)  # the index's norm, rotation, rounding, cache and choice
    if isinstance(mixer, LinearAttention):  # norm, unpacking, convolution, gates, norm of what comes out
        return 5
    return 0


def _of_block(layer: Layer) -> int:
    """The norm before the block and its activation, or the router and its choice; the activation and the sum of a shared block."""
    if isinstance(layer.mlp, DenseMlp):
        return 2
    if isinstance(layer.mlp, MoeMlp):
        return 3 + 2 * (layer.mlp.shared is not None) + layer.mlp.shared_gate
    return 0
