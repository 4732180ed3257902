"""GLM 4 to 5: grouped-query attention with biases, then (5) DeepSeek's latent attention with an indexer; dense or with experts."""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import Attention, Layer, ModelSpec
from planner.models.config import Config
from planner.models.deepseek import latent_model
from planner.models.family import (
    Family,
    attention,
    decoder,
    dense_mlp,
    experts,
    optional_dense,
    prediction_layers,
    same_layers,
    shared_experts,
    sparse_layers,
)

NORMS_OF_GLM4 = 4


def _attention(config: Config) -> Attention:
    """Biases on queries, keys and values only."""
    form = attention(config, head_norm=config.flag("use_qk_norm", False))
    return replace(form, output_bias=False)


def _read(config: Config, name: str) -> ModelSpec:
    if config.get("kv_lora_rank"):
        return latent_model(config, name, "glm")
    form = _attention(config)
    if not config.get("n_routed_experts"):
        older = config.word("model_type") == "glm"
        layer = Layer(form, dense_mlp(config), 2 if older else NORMS_OF_GLM4)
        return decoder(config, name, "glm", (layer,) * config.layers())
    routed = experts(config, shared_experts(config), router_bias=True)
    layers = same_layers([(form, block) for block in sparse_layers(config, optional_dense(config), routed)])
    return decoder(config, name, "glm", layers, prediction_layers=prediction_layers(config, layers[-1]))


FAMILY = Family(
    "glm",
    (
        "GlmForCausalLM",
        "Glm4ForCausalLM",
        "Glm4vForConditionalGeneration",
        "Glm4MoeForCausalLM",
        "Glm4vMoeForConditionalGeneration",
        "Glm4MoeLiteForCausalLM",
        "GlmMoeDsaForCausalLM",
    ),
    _read,
    ("glm4", "glm4v_text", "glm4_moe", "glm4v_moe_text"),
)
