"""Falcon 7B to 180B: attention and feed-forward side by side, few key heads, four hidden sizes wide."""

from __future__ import annotations

from planner.core.model import Attention, DenseMlp, Layer, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, decoder, head_size

POSITIONS = 2048
WIDTH = 4


def _read(config: Config, name: str) -> ModelSpec:
    heads, new = config.count("num_attention_heads"), config.flag("new_decoder_architecture", False)
    kv_heads = config.count("num_kv_heads", heads) if new else 1 if config.flag("multi_query", True) else heads
    if heads % kv_heads:
        raise config.refuse("num_kv_heads", f"{heads} attention heads are not divisible by {kv_heads} KV heads")
    bias = config.flag("bias", False)
    form = Attention(heads, kv_heads, head_size(config), bias, bias)
    size = config.optional_count("ffn_hidden_size") or WIDTH * config.count("hidden_size")
    parallel = new or config.flag("parallel_attn", True)
    norms = config.count("num_ln_in_parallel_attn", 2 if new else 1) if parallel else 2
    layer = Layer(form, DenseMlp(size, gated=False, bias=bias), 2 * norms, parallel)
    rope = () if config.flag("alibi", False) else None
    layers = (layer,) * config.layers()
    return decoder(config, name, "falcon", layers, tied=True, max_positions=POSITIONS, final_vectors=2, rope=rope)


FAMILY = Family("falcon", ("FalconForCausalLM", "RWForCausalLM"), _read, ("falcon",))
