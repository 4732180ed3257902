"""Qwen 3 mixture of experts, and its VL: Qwen 3's attention; experts on every layer but those the config names."""

from __future__ import annotations

from planner.core.model import ModelSpec
from planner.models.config import Config
from planner.models.family import Family, decoder, experts, optional_dense, same_layers, sparse_layers
from planner.models.qwen2 import qwen_attention


def _read(config: Config, name: str) -> ModelSpec:
    forms = qwen_attention(config, head_norm=True)
    blocks = sparse_layers(config, optional_dense(config), experts(config))
    return decoder(config, name, "qwen3-moe", same_layers(list(zip(forms, blocks, strict=True))))


FAMILY = Family(
    "qwen3-moe",
    ("Qwen3MoeForCausalLM", "Qwen3VLMoeForConditionalGeneration"),
    _read,
    ("qwen3_moe", "qwen3_vl_moe_text", "qwen3_omni_moe_text"),
)
