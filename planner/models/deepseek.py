"""DeepSeek V2, V3, R1, V3.x and Kimi K2: latent attention, routed and shared experts after some dense layers."""

from __future__ import annotations

from planner.core.model import Mixer, ModelSpec
from planner.models.config import Config
from planner.models.family import (
    Family,
    attention,
    decoder,
    experts,
    latent_attention,
    optional_dense,
    prediction_layers,
    same_layers,
    shared_experts,
    sparse_layers,
)


def latent_model(config: Config, name: str, family: str) -> ModelSpec:
    """A decoder of latent attention (grouped-query where there is no latent), dense layers, then experts."""
    form: Mixer = latent_attention(config) if config.get("kv_lora_rank") is not None else attention(config)
    corrected = config.word("topk_method") == "noaux_tc"
    routed = experts(config, shared_experts(config), router_bias=corrected)
    blocks = sparse_layers(config, optional_dense(config), routed)
    layers = same_layers([(form, block) for block in blocks])
    return decoder(config, name, family, layers, prediction_layers=prediction_layers(config, layers[-1]))


def _read(config: Config, name: str) -> ModelSpec:
    return latent_model(config, name, "deepseek")


FAMILY = Family(
    "deepseek",
    (
        "DeepseekForCausalLM",
        "DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM",
        "DeepseekV32ForCausalLM",
        "MistralLarge3ForCausalLM",
        "KimiVLForConditionalGeneration",
        "KimiK25ForConditionalGeneration",
    ),
    _read,
    ("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2"),
)
