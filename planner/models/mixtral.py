"""Mixtral: Mistral's attention, eight experts of which a token visits two."""

from __future__ import annotations

from planner.core.model import Layer, ModelSpec, MoeMlp
from planner.models.family import Config, Family, attention, decoder


def _read(config: Config, name: str) -> ModelSpec:
    form = attention(config, window=config.optional_count("sliding_window"))
    experts = MoeMlp(config.count("num_local_experts"), config.count("num_experts_per_tok"), config.count("intermediate_size"))
    return decoder(config, name, "mixtral", (Layer(form, experts),) * config.layers())


FAMILY = Family("mixtral", ("MixtralForCausalLM",), _read)
