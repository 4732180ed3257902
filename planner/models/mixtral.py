"""Mixtral: Mistral's attention, eight experts of which a token visits two."""

from __future__ import annotations

from planner.core.model import Layer, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder, experts


def _read(config: Config, name: str) -> ModelSpec:
    form = attention(config, window=config.optional_count("sliding_window"))
    return decoder(config, name, "mixtral", (Layer(form, experts(config)),) * config.layers())


FAMILY = Family("mixtral", ("MixtralForCausalLM",), _read, ("mixtral",))
