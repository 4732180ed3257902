"""StarCoder 2: Mistral's attention with biases everywhere, a plain feed-forward block, norms with biases."""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import Layer, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder, dense_mlp


def _read(config: Config, name: str) -> ModelSpec:
    bias = config.flag("use_bias", True)
    form = replace(attention(config, window=config.optional_count("sliding_window")), input_bias=bias, output_bias=bias)
    layer = Layer(form, dense_mlp(config, gated=False, bias=bias), 4)
    return decoder(config, name, "starcoder2", (layer,) * config.layers(), tied=True, final_vectors=2)


FAMILY = Family("starcoder2", ("Starcoder2ForCausalLM",), _read, ("starcoder2",))
