"""Qwen 2 and 2.5 (and QwQ): Llama's shape with biases on the query, key and value projections."""

from __future__ import annotations

from planner.core.model import ModelSpec
from planner.models.family import Config, Family, attention
from planner.models.llama import dense_model


def no_window(config: Config) -> None:
    """Raise ``BadInput`` where the config asks for a sliding window on some of the layers."""
    if config.flag("use_sliding_window", False):
        raise config.refuse("use_sliding_window", "a sliding window on some of the layers is not read yet")


def _read(config: Config, name: str) -> ModelSpec:
    no_window(config)
    return dense_model(config, name, "qwen2", attention(config, input_bias=True))


FAMILY = Family("qwen2", ("Qwen2ForCausalLM",), _read)
