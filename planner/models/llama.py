"""Llama 1 to 3.3 and models of the same shape (Granite)."""

from __future__ import annotations

from collections.abc import Sequence

from planner.core.model import Attention, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder, dense_mlp, same_layers


def dense_model(config: Config, name: str, family: str, forms: Sequence[Attention]) -> ModelSpec:
    """A decoder whose layers are one of ``forms`` each, then a gated feed-forward block."""
    block = dense_mlp(config, bias=config.flag("mlp_bias", False))
    return decoder(config, name, family, same_layers([(form, block) for form in forms]))


def _read(config: Config, name: str) -> ModelSpec:
    return dense_model(config, name, "llama", (attention(config),) * config.layers())


FAMILY = Family("llama", ("LlamaForCausalLM", "LLaMAForCausalLM", "GraniteForCausalLM"), _read, ("llama", "granite"))
