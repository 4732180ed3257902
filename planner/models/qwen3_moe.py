"""Qwen 3 mixture of experts: Qwen 3's attention; experts on every layer but those the config names."""

from __future__ import annotations

from planner.core.model import DenseMlp, Layer, ModelSpec, MoeMlp
from planner.models.family import Config, Family, attention, decoder
from planner.models.qwen2 import no_window


def _read(config: Config, name: str) -> ModelSpec:
    no_window(config)
    form = attention(config, head_norm=True)
    experts = MoeMlp(config.count("num_experts"), config.count("num_experts_per_tok"), config.count("moe_intermediate_size"))
    plain = set(config.counts("mlp_only_layers"))
    step = config.count("decoder_sparse_step", 1)
    layers = tuple(
        Layer(form, experts if number not in plain and (number + 1) % step == 0 else DenseMlp(config.count("intermediate_size")))
        for number in range(config.layers())
    )
    return decoder(config, name, "qwen3-moe", layers)


FAMILY = Family("qwen3-moe", ("Qwen3MoeForCausalLM",), _read)
