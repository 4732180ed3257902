"""Qwen 3, dense, and its VL: Llama's shape with a norm on every query and key head."""

from __future__ import annotations

from planner.core.model import ModelSpec
from planner.models.config import Config
from planner.models.family import Family
from planner.models.llama import dense_model
from planner.models.qwen2 import qwen_attention


def _read(config: Config, name: str) -> ModelSpec:
    return dense_model(config, name, "qwen3", qwen_attention(config, head_norm=True))


FAMILY = Family("qwen3", ("Qwen3ForCausalLM", "Qwen3VLForConditionalGeneration"), _read, ("qwen3", "qwen3_vl_text"))
