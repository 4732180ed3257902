"""A model as the cost of serving it sees it: layers as a tuple of layer kinds, never one hidden size for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from planner.core.quantization import BF16, WeightFormat


@dataclass(frozen=True, slots=True)
class Attention:
    """Grouped-query attention. ``window`` is the sliding window in tokens, ``None`` for the whole context."""

    query_heads: int
    kv_heads: int
    head_size: int
    input_bias: bool = False
    output_bias: bool = False
    head_norm: bool = False
    window: int | None = None

    def parameters(self, hidden_size: int) -> int:
        """Weights and biases of the four projections and the per-head norms."""
        inputs = (self.query_heads + 2 * self.kv_heads) * self.head_size
        outputs = self.query_heads * self.head_size
        biases = inputs * self.input_bias + hidden_size * self.output_bias
        return hidden_size * (inputs + outputs) + biases + 2 * self.head_size * self.head_norm


@dataclass(frozen=True, slots=True)
class DenseMlp:
    """A gated feed-forward block: gate and up, then down."""

    intermediate_size: int

    def parameters(self, hidden_size: int) -> int:
        """Weights of the three matrices."""
        return 3 * hidden_size * self.intermediate_size


@dataclass(frozen=True, slots=True)
class MoeMlp:
    """Routed experts, each a gated feed-forward block; every token visits ``experts_per_token`` of them."""

    experts: int
    experts_per_token: int
    intermediate_size: int

    def expert_parameters(self, hidden_size: int) -> int:
        """Weights of one expert."""
        return 3 * hidden_size * self.intermediate_size

    def router_parameters(self, hidden_size: int) -> int:
        """Weights of the router."""
        return hidden_size * self.experts

    def parameters(self, hidden_size: int) -> int:
        """Weights of all experts and the router."""
        return self.experts * self.expert_parameters(hidden_size) + self.router_parameters(hidden_size)


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer: attention, then a feed-forward block, each behind a norm."""

    attention: Attention
    mlp: DenseMlp | MoeMlp

    def parameters(self, hidden_size: int) -> int:
        """All parameters of the layer."""
        return self.attention.parameters(hidden_size) + self.mlp.parameters(hidden_size) + 2 * hidden_size


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer.

    ``name`` is the hub id or the path it was given as (what the engine is told to load). ``weight_format`` is that of
    the layers' matrices, ``checkpoint_format`` what the checkpoint itself holds. ``dtype_override`` is the 16-bit
    type the engine must be told where the hardware lacks the checkpoint's. ``rope_positions`` is the length of
    the cos/sin table that engines keep on every rank.
    """

    name: str
    family: str
    hidden_size: int
    vocabulary_size: int
    layers: tuple[Layer, ...]
    tied_embeddings: bool
    max_positions: int
    rope_positions: int
    weight_format: WeightFormat = BF16
    checkpoint_format: WeightFormat = BF16
    dtype_override: str | None = None

    @property
    def parameters(self) -> int:
        """All parameters; tied embeddings count once."""
        layers = sum(count * layer.parameters(self.hidden_size) for layer, count in kinds(self.layers))
        tables = 1 if self.tied_embeddings else 2
        return layers + tables * self.vocabulary_size * self.hidden_size + self.hidden_size

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
    def experts(self) -> int:
        """Routed experts of the layer that has most of them; 0 for a dense model."""
        return max((layer.mlp.experts for layer, _ in kinds(self.layers) if isinstance(layer.mlp, MoeMlp)), default=0)


def kinds(layers: Sequence[Layer]) -> list[tuple[Layer, int]]:
    """The distinct layers with how many there are of each, in order of appearance.

    By identity, not by value: models repeat one object, and this is asked often.
    """
    objects = {id(layer): layer for layer in layers}
    return [(objects[identity], count) for identity, count in Counter(map(id, layers)).items()]
