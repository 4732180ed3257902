"""Qwen 1.5 and 2 mixture of experts: Qwen 2's attention; experts with a gated shared block."""

from __future__ import annotations

from planner.core.model import ModelSpec
from planner.models.config import Config
from planner.models.family import Family, decoder, experts, optional_dense, same_layers, shared_experts, sparse_layers
from planner.models.qwen2 import qwen_attention


def _read(config: Config, name: str) -> ModelSpec:
    forms = qwen_attention(config, input_bias=config.flag("qkv_bias", True))
    blocks = sparse_layers(config, optional_dense(config), experts(config, shared_experts(config), shared_gate=True))
    return decoder(config, name, "qwen2-moe", same_layers(list(zip(forms, blocks, strict=True))))


FAMILY = Family("qwen2-moe", ("Qwen2MoeForCausalLM",), _read, ("qwen2_moe",))
