"""GPT-J: attention and feed-forward side by side behind one norm, biases in the block and the head; fields as GPT-2 named them."""

from __future__ import annotations

from planner.core.model import DenseMlp, Layer, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder

WIDTH = 4
_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}


def _read(config: Config, name: str) -> ModelSpec:
    config = config.renamed(_NAMES)
    size = config.optional_count("n_inner") or WIDTH * config.count("hidden_size")
    layer = Layer(attention(config), DenseMlp(size, gated=False, bias=True), 2, parallel=True)
    return decoder(config, name, "gpt-j", (layer,) * config.layers(), final_vectors=2, head_bias=True)


FAMILY = Family("gpt-j", ("GPTJForCausalLM",), _read, ("gptj",))
