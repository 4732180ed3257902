"""Mistral 7B, Nemo, Small, Large and Ministral: Llama's shape with an optional sliding window, on all layers or on some."""

from __future__ import annotations

from planner.core.model import ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, windows
from planner.models.llama import dense_model


def _read(config: Config, name: str) -> ModelSpec:
    everywhere = None if config.get("layer_types") else config.optional_count("sliding_window")
    return dense_model(config, name, "mistral", [attention(config, window=one or everywhere) for one in windows(config)])


FAMILY = Family(
    "mistral",
    (
        "MistralForCausalLM",
        "MinistralForCausalLM",
        "Ministral3ForCausalLM",
        "Mistral3ForConditionalGeneration",
    ),
    _read,
    ("mistral", "ministral", "ministral3"),
)
