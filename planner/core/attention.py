"""How a layer mixes tokens: grouped-query, latent or linear attention. Each kind knows its weights, its cache and its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

INDEX_SCALE_BYTES = 4
RECURRENT_STATE_BYTES = 4
CONVOLUTION_STATE_BYTES = 2


def replicated_kv_heads(heads: int, tensor: int) -> int:
    """KV heads on one rank: a shard, or one replicated head where there are more ranks than heads.

    >>> replicated_kv_heads(8, 4), replicated_kv_heads(8, 16)
    (2, 1)
    """
    return max(1, heads // tensor)


@dataclass(frozen=True, slots=True)
class Projections:
    """Weights of one rank: ``sharded`` are its part of what tensor ranks split, ``replicated`` whole on every one of them;
    ``vectors`` are biases, norms and other 16-bit trifles.
    """

    sharded: int
    replicated: int = 0
    vectors: int = 0

    @property
    def matrices(self) -> int:
        """All weights that a weight format applies to."""
        return self.sharded + self.replicated


@dataclass(frozen=True, slots=True)
class Attention:
    """Grouped-query attention (Ainslie et al. 2023). ``window`` is the sliding window in tokens, ``None`` for the whole context.

    ``value_size`` is the size of a value where it is not ``head_size``. ``output_gate`` doubles the queries (Qwen 3.5),
    ``shared_values`` spares the values' projection, not their cache (Gemma 4). ``head_norm`` is a norm on each query and key;
    ``summed_norm`` is a norm over all queries and one over all keys, for which tensor ranks first sum their squares (MiniMax);
    ``vectors`` counts other small parameters (sinks, norms over all heads).
    """

    query_heads: int
    kv_heads: int
    head_size: int
    input_bias: bool = False
    output_bias: bool = False
    head_norm: bool = False
    window: int | None = None
    value_size: int | None = None
    output_gate: bool = False
    shared_values: bool = False
    summed_norm: bool = False
    vectors: int = 0

    @property
    def values(self) -> int:
        """Size of a value."""
        return self.head_size if self.value_size is None else self.value_size

    def input_width(self, tensor: int = 1) -> int:
        """Columns of the query, key and value projections on one rank."""
        queries = (1 + self.output_gate) * (self.query_heads // tensor) * self.head_size
        return queries + replicated_kv_heads(self.kv_heads, tensor) * (self.head_size + self.values * (not self.shared_values))

    def output_width(self, tensor: int = 1) -> int:
        """Rows of the output projection on one rank."""
        return self.query_heads // tensor * self.values

    def weights(self, hidden_size: int, tensor: int = 1) -> Projections:
        """Weights and biases of the four projections and the small parameters, on one rank."""
        inputs, outputs = self.input_width(tensor), self.output_width(tensor)
        biases = inputs * self.input_bias + hidden_size * self.output_bias
        return Projections(hidden_size * (inputs + outputs), 0, biases + 2 * self.head_size * self.head_norm + self.vectors)

    def parameters(self, hidden_size: int) -> int:
        """All of them."""
        whole = self.weights(hidden_size)
        return whole.matrices + whole.vectors


@dataclass(frozen=True, slots=True)
class Indexer:
    """Chooses the ``top`` tokens a query attends to (DeepSeek sparse attention); every rank holds it whole, keys in 8 bits."""

    heads: int
    head_size: int
    top: int

    def parameters(self, hidden_size: int, query_rank: int) -> int:
        """Queries out of the compressed query, one shared key and a weight a head out of the hidden state, the key's norm."""
        return query_rank * self.heads * self.head_size + hidden_size * (self.head_size + self.heads) + 2 * self.head_size


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2 2024): queries and keys-and-values go through low ranks; the cache holds the latent.

    ``query_rank`` is ``None`` where queries are projected directly. The latent and the rotary key are shared by all heads, so
    tensor ranks hold the down-projections and the cache whole.
    """

    query_heads: int
    query_rank: int | None
    latent_size: int
    rope_size: int
    nope_size: int
    value_size: int
    bias: bool = False
    indexer: Indexer | None = None

    window: ClassVar[None] = None

    @property
    def cached(self) -> int:
        """Numbers cached for a token on every rank."""
        return self.latent_size + self.rope_size

    def expansion(self, tensor: int = 1) -> int:
        """Weights that expand the latent into keys and values on one rank; engines keep a 16-bit copy to absorb them."""
        return self.latent_size * (self.query_heads // tensor) * (self.nope_size + self.value_size)

    def weights(self, hidden_size: int, tensor: int = 1) -> Projections:
        """Weights of the projections on one rank, down-projections and indexer whole on each."""
        heads = self.query_heads // tensor
        queries = heads * (self.nope_size + self.rope_size)
        sharded = (self.query_rank or hidden_size) * queries + self.expansion(tensor) + heads * self.value_size * hidden_size
        replicated = hidden_size * (self.query_rank or 0) + hidden_size * self.cached
        if self.indexer is not None:
            replicated += self.indexer.parameters(hidden_size, self.query_rank or hidden_size)
        biases = self.bias * ((self.query_rank or 0) + self.cached + hidden_size)
        return Projections(sharded, replicated, (self.query_rank or 0) + self.latent_size + biases)

    def output_width(self, tensor: int = 1) -> int:
        """Columns of one rank's attention output."""
        return self.query_heads // tensor * self.value_size

    def parameters(self, hidden_size: int) -> int:
        """All of them."""
        whole = self.weights(hidden_size)
        return whole.matrices + whole.vectors

    @property
    def index_bytes(self) -> int:
        """What the indexer caches of a token: a key in 8 bits with its scale."""
        return 0 if self.indexer is None else self.indexer.head_size + INDEX_SCALE_BYTES


@dataclass(frozen=True, slots=True)
class LinearAttention:
    """A recurrence with a fixed state: Mamba 2 (Dao and Gu 2024) and gated delta nets (Yang et al. 2024), which store alike.

    Keys are Mamba's B and queries its C (its groups are key heads), values its heads. ``gates`` are the scalars a value head
    takes from the input (1: Mamba's step, 2: decay and strength of a delta net); ``vectors`` counts norms, biases and decays.
    ``kernel`` is the width of the short convolution before the recurrence.
    """

    key_heads: int
    key_size: int
    value_heads: int
    value_size: int
    kernel: int
    gates: int
    vectors: int = 0

    window: ClassVar[None] = None

    def channels(self, tensor: int = 1) -> int:
        """Channels of the short convolution on one rank: queries, keys and values."""
        return 2 * replicated_kv_heads(self.key_heads, tensor) * self.key_size + self.value_heads // tensor * self.value_size

    def input_width(self, tensor: int = 1) -> int:
        """Columns of the input projections on one rank: the channels, the output's gate, and the scalars of each head."""
        heads = self.value_heads // tensor
        return self.channels(tensor) + heads * self.value_size + self.gates * heads

    def output_width(self, tensor: int = 1) -> int:
        """Rows of the output projection on one rank."""
        return self.value_heads // tensor * self.value_size

    def weights(self, hidden_size: int, tensor: int = 1) -> Projections:
        """Weights of the projections and of the convolution on one rank."""
        matrices = hidden_size * (self.input_width(tensor) + self.output_width(tensor))
        return Projections(matrices, 0, self.channels(tensor) * self.kernel + self.vectors)

    def parameters(self, hidden_size: int) -> int:
        """All of them."""
        whole = self.weights(hidden_size)
        return whole.matrices + whole.vectors

    def state_elements(self, tensor: int = 1) -> int:
        """Numbers of the recurrent state of one sequence on one rank."""
        return self.value_heads // tensor * self.key_size * self.value_size

    def state_bytes(self, tensor: int) -> float:
        """What one sequence keeps on one rank: the recurrent state in 32 bits, the convolution's last inputs in 16."""
        last = (self.kernel - 1) * self.channels(tensor)
        return self.state_elements(tensor) * RECURRENT_STATE_BYTES + last * CONVOLUTION_STATE_BYTES


Mixer = Attention | LatentAttention | LinearAttention


def state_bytes(mixer: Mixer | None, tensor: int) -> float:
    """What one sequence keeps on one rank of one layer whatever its length: only recurrences keep anything."""
    return mixer.state_bytes(tensor) if isinstance(mixer, LinearAttention) else 0.0
