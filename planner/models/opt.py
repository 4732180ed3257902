"""OPT: learned positions, biases everywhere, a plain feed-forward block."""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import Layer, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder, dense_mlp

POSITION_OFFSET = 2


def _read(config: Config, name: str) -> ModelSpec:
    if config.count("word_embed_proj_dim", config.count("hidden_size")) != config.count("hidden_size"):
        raise config.refuse("word_embed_proj_dim", "embeddings of another size than the layers (OPT 350M) are not read yet")
    bias = config.flag("enable_bias", True)
    form = replace(attention(config), input_bias=bias, output_bias=bias)
    layer = Layer(form, dense_mlp(config, "ffn_dim", gated=False, bias=bias), 4)
    last = 2 if config.flag("do_layer_norm_before", True) else 0
    rows = config.count("max_position_embeddings") + POSITION_OFFSET
    layers = (layer,) * config.layers()
    return decoder(config, name, "opt", layers, tied=True, rope=(), learned_positions=rows, final_vectors=last)


FAMILY = Family("opt", ("OPTForCausalLM",), _read, ("opt",))
