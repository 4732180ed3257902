"""GPT-NeoX and Pythia: attention and feed-forward side by side, biases everywhere."""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import Layer, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder, dense_mlp


def _read(config: Config, name: str) -> ModelSpec:
    bias = config.flag("attention_bias", True)
    form = replace(attention(config), input_bias=bias, output_bias=bias)
    layer = Layer(form, dense_mlp(config, gated=False, bias=True), 4, config.flag("use_parallel_residual", True))
    return decoder(config, name, "gpt-neox", (layer,) * config.layers(), final_vectors=2)


FAMILY = Family("gpt-neox", ("GPTNeoXForCausalLM",), _read, ("gpt_neox",))
