"""MiniMax M2: norms over all query and all key heads, experts on every layer."""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import Layer, ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder, experts, shared_experts


def _read(config: Config, name: str) -> ModelSpec:
    form = attention(config)
    if config.flag("use_qk_norm", True):
        form = replace(form, summed_norm=True, vectors=(form.query_heads + form.kv_heads) * form.head_size)
    routed = experts(config, shared_experts(config), router_bias=config.flag("use_routing_bias", True))
    layer = Layer(form, routed)
    modules = config.number_or_zero("num_mtp_modules", 64) if config.flag("use_mtp", False) else 0
    drafting = (layer,) * (modules * config.count("mtp_transformer_layers", 1, 64))
    return decoder(config, name, "minimax", (layer,) * config.layers(), prediction_layers=drafting)


FAMILY = Family("minimax", ("MiniMaxM2ForCausalLM",), _read, ("minimax_m2",))
