"""Gemma 1 to 4: tied embeddings; from 2 on windows on some layers and norms after each block too; 4 with experts beside a block.

Configs of Gemma 3 leave out what is the family's default; those stand here.
"""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import Attention, DenseMlp, FeedForward, Layer, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, decoder, dense_mlp, experts, layer_types, rope_positions, rope_settings, windows

NORMS = {1: 2, 2: 4, 3: 4, 4: 4}
NORMS_WITH_EXPERTS = 7
WINDOW_PATTERN = 6
HEAD_SIZE = 256
_DEFAULT_HEADS, _DEFAULT_KV_HEADS, _DEFAULT_VOCABULARY, _DEFAULT_POSITIONS = 8, 4, 262_208, 131_072
_STRANGE = ("hidden_size_per_layer_input", "num_kv_shared_layers", "altup_num_inputs")


def _generation(config: Config) -> int:
    word = config.word("model_type", "gemma").removesuffix("_text")
    return {"gemma": 1, "gemma2": 2, "gemma3": 3, "gemma4": 4}.get(word, 3)


def _attention(config: Config, generation: int) -> Attention:
    heads = config.count("num_attention_heads", _DEFAULT_HEADS)
    kv_heads = config.count("num_key_value_heads", _DEFAULT_KV_HEADS if generation == 3 else heads)
    if heads % kv_heads:
        raise config.refuse("num_key_value_heads", f"{heads} attention heads are not divisible by {kv_heads} KV heads")
    bias = config.flag("attention_bias", False)
    return Attention(heads, kv_heads, config.count("head_dim", HEAD_SIZE), bias, bias, head_norm=generation >= 3)


def _global_attention(config: Config, near: Attention) -> Attention:
    """Gemma 4's layers that see everything: larger heads, fewer of them for keys, whose projection makes the values too."""
    kv_heads = config.count("num_global_key_value_heads", near.kv_heads)
    size = config.count("global_head_dim", near.head_size)
    return replace(near, kv_heads=kv_heads, head_size=size, shared_values=config.flag("attention_k_eq_v", False))


def _windows(config: Config, generation: int) -> tuple[int | None, ...]:
    if generation == 1:
        return (None,) * config.layers()
    pattern = config.count("sliding_window_pattern", 2 if generation == 2 else WINDOW_PATTERN)
    return windows(config, lambda number: (number + 1) % pattern != 0)


def _tables(config: Config, near: Attention, far: Attention, generation: int) -> tuple[tuple[int, int], ...]:
    """One rotary table, and from 3 on another for the layers with a window, whose positions are not stretched."""
    positions = config.count("max_position_embeddings", _DEFAULT_POSITIONS)
    settings = rope_settings(config)
    whole_context = settings.get("full_attention")
    stretched = rope_positions(config, positions, whole_context if isinstance(whole_context, dict) else settings)
    whole = stretched, far.head_size
    return (whole, (positions, near.head_size)) if generation >= 3 else (whole,)


def _read(config: Config, name: str) -> ModelSpec:
    strange = config.any_of(_STRANGE)
    if strange is not None:
        raise config.refuse(strange, "embeddings or caches shared between layers (the E models) are not read yet")
    generation = _generation(config)
    near = _attention(config, generation)
    far = _global_attention(config, near) if generation == 4 else near
    block: FeedForward = dense_mlp(config)
    norms = NORMS[generation]
    if config.flag("enable_moe_block", False) and isinstance(block, DenseMlp):
        block, norms = experts(config, block, router_bias=True), NORMS_WITH_EXPERTS
    layer_types(config)
    kept = {
        window: Layer(far if window is None else replace(near, window=window), block, norms)
        for window in dict.fromkeys(_windows(config, generation))
    }
    layers = tuple(kept[window] for window in _windows(config, generation))
    tables = _tables(config, near, far, generation)
    return decoder(
        config, name, "gemma", layers, tied=True, max_positions=_DEFAULT_POSITIONS, rope=tables, vocabulary=_DEFAULT_VOCABULARY
    )


FAMILY = Family(
    "gemma",
    (
        "GemmaForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Gemma3ForConditionalGeneration",
        "Gemma4ForCausalLM",
        "Gemma4ForConditionalGeneration",
    ),
    _read,
    ("gemma", "gemma2", "gemma3_text", "gemma4_text"),
)
