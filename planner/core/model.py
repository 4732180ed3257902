"""A model as the cost of serving it sees it: layers as a tuple of layer kinds, never one hidden size for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from planner.core.attention import Attention, Indexer, LatentAttention, LinearAttention, Mixer
from planner.core.feed_forward import DenseMlp, FeedForward, MoeMlp
from planner.core.quantization import BF16, CacheDtype, WeightFormat

Part = Literal["attention", "mlp", "experts", "shared_experts"]
"""The matrices of a layer that a checkpoint may store in formats of their own. ``attention`` is any mixer of tokens."""


HALF_PRECISION = 2
"""Bytes of a number in 16 bits."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer: attention, then a feed-forward block, each behind a norm; or one of the two alone.

    ``parallel``: both read the same input and their outputs are summed, so tensor ranks meet once. ``vectors`` is how many
    norms and biases of the hidden size it has; ``formats`` are the parts stored otherwise than the model's matrices.
    """

    attention: Mixer | None
    mlp: FeedForward | None
    vectors: int = 2
    parallel: bool = False
    formats: tuple[tuple[Part, WeightFormat], ...] = ()

    def format_of(self, part: Part, otherwise: WeightFormat) -> WeightFormat:
        """How a part is stored, where the model's matrices are ``otherwise``."""
        return next((one for name, one in self.formats if name == part), otherwise)

    @property
    def reductions(self) -> int:
        """How often tensor ranks sum what they hold: after each block, once where blocks are parallel."""
        return 1 if self.parallel else (self.attention is not None) + (self.mlp is not None)

    @property
    def sums_norms(self) -> bool:
        """Whether tensor ranks sum the squares of queries and keys before their norms."""
        return isinstance(self.attention, Attention) and self.attention.summed_norm

    def parameters(self, hidden_size: int) -> int:
        """All parameters of the layer."""
        mixer = self.attention.parameters(hidden_size) if self.attention else 0
        block = self.mlp.parameters(hidden_size) if self.mlp else 0
        return mixer + block + self.vectors * hidden_size


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer.

    ``name`` is the hub id or the path it was given as (what the engine is told to load). ``weight_format`` is that of
    the layers' matrices but for each layer's own ``formats``, ``checkpoint_format`` what the checkpoint itself holds.
    ``dtype_override`` is the 16-bit type the engine must be told where the hardware lacks the checkpoint's. ``rope_tables`` are
    (positions, rotary size) of the cos/sin tables that engines keep on every rank, ``learned_positions`` the rows of a table of
    learned positions, ``encoder_parameters`` those of encoders of pictures or sound, ``final_vectors`` norms and biases of the
    hidden size after the layers (and before them), ``head_bias`` whether the head has one. ``prediction_layers`` draft further
    tokens (multi-token prediction); engines load them only to speculate, and they count in no total. ``kv_element_bytes`` is
    what the checkpoint asks of the KV cache; ``notes`` is what the user should know of how the config was read.
    """

    name: str
    family: str
    hidden_size: int
    vocabulary_size: int
    layers: tuple[Layer, ...]
    tied_embeddings: bool
    max_positions: int
    rope_tables: tuple[tuple[int, int], ...] = ()
    learned_positions: int = 0
    encoder_parameters: int = 0
    final_vectors: int = 1
    head_bias: bool = False
    prediction_layers: tuple[Layer, ...] = ()
    weight_format: WeightFormat = BF16
    checkpoint_format: WeightFormat = BF16
    dtype_override: str | None = None
    kv_element_bytes: float = 2
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """All parameters, encoders too; tied embeddings count once, layers that only draft not at all."""
        layers = sum(count * layer.parameters(self.hidden_size) for layer, count in kinds(self.layers))
        tables = (1 if self.tied_embeddings else 2) * self.vocabulary_size + self.learned_positions + self.final_vectors
        return layers + tables * self.hidden_size + self.head_bias * self.vocabulary_size + self.encoder_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters a token meets: of the routed experts only those it visits."""
        spared = sum(
            count * (layer.mlp.experts - layer.mlp.experts_per_token) * layer.mlp.expert_parameters(self.hidden_size)
            for layer, count in kinds(self.layers)
            if isinstance(layer.mlp, MoeMlp)
        )
        return self.parameters - spared

    @property
    def prediction_parameters(self) -> int:
        """Parameters of the layers that draft: each joins the hidden state and an embedding, behind norms of its own."""
        joined = 2 * self.hidden_size**2 + 3 * self.hidden_size
        return sum(layer.parameters(self.hidden_size) + joined for layer in self.prediction_layers)

    @property
    def experts(self) -> int:
        """Routed experts of the layer that has most of them; 0 for a dense model."""
        return max((layer.mlp.experts for layer, _ in kinds(self.layers) if isinstance(layer.mlp, MoeMlp)), default=0)

    @property
    def latent(self) -> bool:
        """Whether its attention caches latents."""
        return any(isinstance(layer.attention, LatentAttention) for layer in self.layers)

    @property
    def storage(self) -> str:
        """The name of the weight format, then parts that some layers store otherwise, and the cache: ``mxfp4, attention bf16``."""
        others: dict[str, list[str]] = {}
        for layer, _ in kinds(self.layers):
            for part, weights in layer.formats:
                parts = others.setdefault(weights.name, [])
                parts += [part] if part not in parts else []
        words = [f"{' and '.join(parts)} {name}".replace("_", " ") for name, parts in others.items()]
        narrow = self.kv_element_bytes < HALF_PRECISION
        cache = [f"KV cache {'fp8' if self.cache_dtype == 'fp8' else f'{8 * self.kv_element_bytes:g} bit'}"] if narrow else []
        return ", ".join([self.weight_format.name, *words, *cache])

    @property
    def cache_dtype(self) -> CacheDtype:
        """What engines are told to keep the KV cache in: ``auto`` is 16 bits, or what the checkpoint asks beside 8."""
        return "fp8" if self.kv_element_bytes == 1 else "auto"

    def cached_in(self, dtype: CacheDtype) -> ModelSpec:
        """The same model with its KV cache in another format; ``auto`` leaves it as the checkpoint asks."""
        return self if dtype == "auto" else replace(self, kv_element_bytes=1.0)

    def stored_as(self, weights: WeightFormat) -> ModelSpec:
        """The same model with its matrices in another format; which parts stay 16-bit is the checkpoint's own affair, so a
        checkpoint of another format starts anew: 4-bit ones of models with latent attention leave the attention alone.
        """
        if weights == self.checkpoint_format:
            return replace(self, weight_format=weights)
        changed = {
            id(layer): replace(layer, formats=_customary(layer, weights)) for layer, _ in kinds(self.layers)
        }  # one object a kind, as before
        layers = tuple(changed[id(layer)] for layer in self.layers)
        return replace(self, layers=layers, weight_format=weights, kv_element_bytes=2)


def _customary(layer: Layer, weights: WeightFormat) -> tuple[tuple[Part, WeightFormat], ...]:
    if isinstance(layer.attention, LatentAttention) and weights.math == "fp4":
        return (("attention", BF16),)
    return ()


def kinds(layers: Sequence[Layer]) -> list[tuple[Layer, int]]:
    """The distinct layers with how many there are of each, in order of appearance.

    By identity, not by value: models repeat one object, and this is asked often.
    """
    objects = {id(layer): layer for layer in layers}
    return [(objects[identity], count) for identity, count in Counter(map(id, layers)).items()]


__all__ = [
    "Attention",
    "DenseMlp",
    "FeedForward",
    "Indexer",
    "LatentAttention",
    "Layer",
    "LinearAttention",
    "Mixer",
    "ModelSpec",
    "MoeMlp",
    "Part",
    "kinds",
]
