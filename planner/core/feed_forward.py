"""What a layer does with each token alone: a dense block, or experts of which a token visits a few."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DenseMlp:
    """A feed-forward block: up (and, where ``gated``, a gate beside it), then down."""

    intermediate_size: int
    gated: bool = True
    bias: bool = False

    @property
    def inputs(self) -> int:
        """How many matrices take the hidden state in."""
        return 1 + self.gated

    def vectors(self, hidden_size: int) -> int:
        """Biases."""
        return self.bias * (self.inputs * self.intermediate_size + hidden_size)

    def weights(self, hidden_size: int) -> int:
        """Weights of the two or three matrices."""
        return (self.inputs + 1) * hidden_size * self.intermediate_size

    def parameters(self, hidden_size: int) -> int:
        """Weights and biases."""
        return self.weights(hidden_size) + self.vectors(hidden_size)


@dataclass(frozen=True, slots=True)
class MoeMlp:
    """Routed experts, each a feed-forward block; every token visits ``experts_per_token`` of them, and ``shared`` besides.

    ``latent_size`` is what the hidden state is projected to before the experts and back from after them (latent mixtures of
    experts); ``shared_gate`` a scalar gate on the shared block; ``router_bias`` one number an expert.
    """

    experts: int
    experts_per_token: int
    intermediate_size: int
    gated: bool = True
    bias: bool = False
    shared: DenseMlp | None = None
    shared_gate: bool = False
    router_bias: bool = False
    latent_size: int | None = None

    @property
    def expert(self) -> DenseMlp:
        """One expert as a block of its own."""
        return DenseMlp(self.intermediate_size, self.gated, self.bias)

    def width(self, hidden_size: int) -> int:
        """Size of what goes into an expert."""
        return self.latent_size or hidden_size

    def expert_parameters(self, hidden_size: int) -> int:
        """Weights and biases of one expert."""
        return self.expert.parameters(self.width(hidden_size))

    def router_parameters(self, hidden_size: int) -> int:
        """Weights and biases of the router and of the shared block's gate."""
        return hidden_size * (self.experts + self.shared_gate) + self.experts * self.router_bias

    def latent_parameters(self, hidden_size: int) -> int:
        """Weights of the projections to the experts' size and back."""
        return 2 * hidden_size * (self.latent_size or 0)

    def shared_parameters(self, hidden_size: int) -> int:
        """Weights and biases of the shared block."""
        return self.shared.parameters(hidden_size) if self.shared else 0

    def parameters(self, hidden_size: int) -> int:
        """All of them."""
        routed = self.experts * self.expert_parameters(hidden_size)
        beside = self.router_parameters(hidden_size) + self.latent_parameters(hidden_size)
        return routed + beside + self.shared_parameters(hidden_size)


FeedForward = DenseMlp | MoeMlp
