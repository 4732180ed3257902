"""Llama 4: experts with a shared block on all or every second layer, chunks of attention on three layers of four."""

from __future__ import annotations

from planner.core.model import FeedForward, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder, dense_mlp, experts, layer_types, same_layers

WHOLE_EVERY = 4


def _whole_context(config: Config) -> list[bool]:
    """Which layers see everything: those without rotary positions."""
    kinds, turning = layer_types(config), config.counts("no_rope_layers")
    if kinds:
        return [kind == "full_attention" for kind in kinds]
    if turning:
        if len(turning) != config.layers():
            raise config.refuse("no_rope_layers", f"names {len(turning)} layers, num_hidden_layers is {config.layers()}")
        return [not turns for turns in turning]
    every = config.count("no_rope_layer_interval", WHOLE_EVERY)
    return [(number + 1) % every == 0 for number in range(config.layers())]


def _read(config: Config, name: str) -> ModelSpec:
    chunk = config.optional_count("attention_chunk_size")
    forms = [attention(config, window=None if whole else chunk) for whole in _whole_context(config)]
    routed = experts(config, dense_mlp(config))
    dense = dense_mlp(config, "intermediate_size_mlp")
    step = config.count("interleave_moe_layer_step", 1)
    listed = set(config.counts("moe_layers"))
    blocks: list[FeedForward] = [
        routed if (number in listed if listed else (number + 1) % step == 0) else dense for number in range(config.layers())
    ]
    return decoder(config, name, "llama4", same_layers(list(zip(forms, blocks, strict=True))))


FAMILY = Family("llama4", ("Llama4ForConditionalGeneration", "Llama4ForCausalLM"), _read, ("llama4_text",))
