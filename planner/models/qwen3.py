"""Qwen 3, dense: Llama's shape with a norm on every query and key head."""

from __future__ import annotations

from planner.core.model import ModelSpec
from planner.models.family import Config, Family, attention
from planner.models.llama import dense_model
from planner.models.qwen2 import no_window


def _read(config: Config, name: str) -> ModelSpec:
    no_window(config)
    return dense_model(config, name, "qwen3", attention(config, head_norm=True))


FAMILY = Family("qwen3", ("Qwen3ForCausalLM",), _read)
