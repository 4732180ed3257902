"""Qwen 2 and 2.5 (QwQ, VL) and MiMo: Llama's shape with biases on the query, key and value projections."""

from __future__ import annotations

from planner.core.model import Attention, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, windows
from planner.models.llama import dense_model


def qwen_attention(config: Config, *, input_bias: bool = False, head_norm: bool = False) -> list[Attention]:
    """Attention of each layer: where ``use_sliding_window`` says so, with a window from layer ``max_window_layers`` on."""
    near: tuple[int | None, ...] = (None,) * config.layers()
    if config.flag("use_sliding_window", False):
        first = config.number_or_zero("max_window_layers")
        near = windows(config, lambda number: number >= first)
    return [attention(config, input_bias=input_bias, head_norm=head_norm, window=window) for window in near]


def _read(config: Config, name: str) -> ModelSpec:
    return dense_model(config, name, "qwen2", qwen_attention(config, input_bias=True))


FAMILY = Family(
    "qwen2",
    ("Qwen2ForCausalLM", "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration", "MiMoForCausalLM"),
    _read,
    ("qwen2", "qwen2_vl_text", "qwen2_5_vl_text"),
)
