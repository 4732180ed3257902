"""Mistral 7B, Nemo, Small and Large: Llama's shape with an optional sliding window."""

from __future__ import annotations

from planner.core.model import ModelSpec
from planner.models.family import Config, Family, attention
from planner.models.llama import dense_model


def _read(config: Config, name: str) -> ModelSpec:
    return dense_model(config, name, "mistral", attention(config, window=config.optional_count("sliding_window")))


FAMILY = Family("mistral", ("MistralForCausalLM",), _read)
