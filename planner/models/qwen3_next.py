"""Qwen 3 Next and 3.5: gated delta nets on three layers of four, gated attention on the fourth; dense or with experts."""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import Attention, FeedForward, LinearAttention, ModelSpec
from planner.models.config import Config
from planner.models.family import (
    Family,
    attention,
    decoder,
    dense_mlp,
    experts,
    layer_types,
    optional_dense,
    prediction_layers,
    same_layers,
    shared_experts,
    sparse_layers,
)

FULL_EVERY = 4
GATES = 2
_DRAFTING = ("mtp_num_hidden_layers", "num_nextn_predict_layers")


def _delta_net(config: Config) -> LinearAttention:
    """Small parameters: decay and step bias of every value head, the norm of its output."""
    values, size = config.count("linear_num_value_heads"), config.count("linear_value_head_dim")
    keys = config.count("linear_num_key_heads")
    kernel = config.count("linear_conv_kernel_dim", FULL_EVERY)
    return LinearAttention(keys, config.count("linear_key_head_dim"), values, size, kernel, GATES, 2 * values + size)


def _kinds(config: Config) -> list[str]:
    stated = layer_types(config, ("linear_attention", "full_attention"))
    every = config.count("full_attention_interval", FULL_EVERY)
    return stated or ["linear_attention" if (one + 1) % every else "full_attention" for one in range(config.layers())]


def _read(config: Config, name: str) -> ModelSpec:
    full: Attention = replace(attention(config, head_norm=True), output_gate=config.flag("attn_output_gate", True))
    linear = _delta_net(config)
    blocks: tuple[FeedForward, ...]
    if config.any_of(("num_experts",)):
        blocks = sparse_layers(config, optional_dense(config), experts(config, shared_experts(config), shared_gate=True))
    else:
        blocks = (dense_mlp(config),) * config.layers()
    mixers = [full if kind == "full_attention" else linear for kind in _kinds(config)]
    layers = same_layers(list(zip(mixers, blocks, strict=True)))
    drafting = prediction_layers(config, replace(layers[-1], attention=full), _DRAFTING)
    return decoder(config, name, "qwen3-next", layers, prediction_layers=drafting)


FAMILY = Family(
    "qwen3-next",
    (
        "Qwen3NextForCausalLM",
        "Qwen3_5ForCausalLM",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForCausalLM",
        "Qwen3_5MoeForConditionalGeneration",
    ),
    _read,
    ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"),
)
