"""Llama 1 to 3.3 and models of the same shape."""

from __future__ import annotations

from planner.core.model import Attention, DenseMlp, Layer, ModelSpec
from planner.models.family import Config, Family, attention, decoder


def dense_model(config: Config, name: str, family: str, form: Attention) -> ModelSpec:
    """A decoder of equal layers: ``form`` of attention, then a gated feed-forward block."""
    layer = Layer(form, DenseMlp(config.count("intermediate_size")))
    return decoder(config, name, family, (layer,) * config.layers())


def _read(config: Config, name: str) -> ModelSpec:
    return dense_model(config, name, "llama", attention(config))


FAMILY = Family("llama", ("LlamaForCausalLM", "LLaMAForCausalLM"), _read)
