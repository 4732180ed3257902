"""Phi: 2 is a parallel block with biases; 3 to 4 have Llama's shape."""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import Layer, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder, dense_mlp
from planner.models.llama import dense_model


def _read(config: Config, name: str) -> ModelSpec:
    window = config.optional_count("sliding_window")
    form = attention(config, window=window if window and window < config.count("max_position_embeddings") else None)
    if config.word("model_type") != "phi":
        return dense_model(config, name, "phi", (form,) * config.layers())
    biased = replace(form, input_bias=True, output_bias=True)
    layer = Layer(biased, dense_mlp(config, gated=False, bias=True), 2, parallel=True)
    return decoder(config, name, "phi", (layer,) * config.layers(), final_vectors=2, head_bias=True)


FAMILY = Family("phi", ("PhiForCausalLM", "Phi3ForCausalLM"), _read, ("phi", "phi3"))
