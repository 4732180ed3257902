"""Nemotron: Llama pruned layer by layer (``block_configs``), hybrids of Mamba 2, attention and experts, and the first, plain ones."""

from __future__ import annotations

import math
from dataclasses import replace

from planner.core.model import Attention, DenseMlp, Layer, LinearAttention, ModelSpec, MoeMlp
from planner.models.config import MAX_LAYERS, Config
from planner.models.family import Family, attention, decoder, experts, head_size, same_layers

FFN_MULTIPLE = 256
_KINDS = {"M": "M", "*": "*", "-": "-", "E": "E", "mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}


def _pruned(config: Config, name: str) -> ModelSpec:
    """Llama whose layers each say how many heads share keys, how wide they are, and which of their blocks are gone."""
    blocks = config.objects("block_configs")
    if len(blocks) != config.layers():
        raise config.refuse("block_configs", f"describes {len(blocks)} layers, num_hidden_layers is {config.layers()}")
    forms = [(_pruned_attention(config, block), _pruned_mlp(config, block)) for block in blocks]
    layers = [
        replace(layer, vectors=(layer.attention is not None) + (layer.mlp is not None))
        for layer in dict.fromkeys(same_layers(forms))
    ]
    kept = {(layer.attention, layer.mlp): layer for layer in layers}
    return decoder(config, name, "nemotron", tuple(kept[form] for form in forms))


def _pruned_attention(config: Config, block: Config) -> Attention | None:
    said = block.object("attention")
    if said.flag("no_op", False):
        return None
    if said.flag("replace_with_linear", False):
        raise said.refuse("replace_with_linear", "attention replaced by a linear map is not read yet")
    heads, group = config.count("num_attention_heads"), said.count("n_heads_in_group", 1)
    if heads % group:
        raise said.refuse("n_heads_in_group", f"{heads} attention heads are not divisible into groups of {group}")
    return Attention(heads, heads // group, head_size(config), window=said.optional_count("window_length"))


def _pruned_mlp(config: Config, block: Config) -> DenseMlp | None:
    said = block.object("ffn")
    if said.flag("no_op", False):
        return None
    if said.flag("replace_with_linear", False):
        raise said.refuse("replace_with_linear", "a feed-forward block replaced by a linear map is not read yet")
    if said.get("intermediate_size"):
        return DenseMlp(said.count("intermediate_size"))
    width = int(2 * said.ratio("ffn_mult", 4.0) * config.count("hidden_size") / 3)
    return DenseMlp(math.ceil(width / FFN_MULTIPLE) * FFN_MULTIPLE)


def _hybrid(config: Config, name: str) -> ModelSpec:
    """Layers of one block each, by a letter: Mamba 2, attention, a plain block, experts. No rotary positions."""
    kinds = _hybrid_kinds(config)
    size = config.optional_count("attention_head_dim") or head_size(config)
    bias = config.flag("mlp_bias", False)
    form = attention(config)
    made = {"*": Layer(replace(form, head_size=size), None, 1)}
    if "M" in kinds:
        made["M"] = Layer(_mamba(config), None, 1)
    if "-" in kinds:
        made["-"] = Layer(None, DenseMlp(config.count("intermediate_size"), gated=False, bias=bias), 1)
    if "E" in kinds:
        made["E"] = Layer(None, _hybrid_experts(config), 1)
    layers = tuple(made[kind] for kind in kinds)
    drafting = tuple(made[kind] for kind in _drafting(config) if kind in made) * config.number_or_zero(
        "num_nextn_predict_layers", 16
    )
    return decoder(config, name, "nemotron", layers, rope=(), prediction_layers=drafting)


def _hybrid_kinds(config: Config) -> list[str]:
    pattern = config.word("hybrid_override_pattern") or config.words("layers_block_type")
    field = "hybrid_override_pattern" if isinstance(pattern, str) else "layers_block_type"
    if not pattern or len(pattern) > MAX_LAYERS:
        raise config.refuse(field, "is missing: which layer is of which kind" if not pattern else "has too many layers")
    strange = next((one for one in pattern if one not in _KINDS), None)
    if strange is not None:
        raise config.refuse(field, f"layers of the kind {strange[:40]!r} are not read yet")
    return [_KINDS[one] for one in pattern]


def _drafting(config: Config) -> list[str]:
    return [_KINDS[one] for one in config.word("mtp_hybrid_override_pattern", "*E") if one in _KINDS]


def _mamba(config: Config) -> LinearAttention:
    """Small parameters: decay, skip and step bias of every head, the output's norm, the convolution's biases."""
    heads, size = config.count("mamba_num_heads"), config.count("mamba_head_dim")
    groups, state = config.count("n_groups"), config.count("ssm_state_size")
    plain = LinearAttention(groups, state, heads, size, config.count("conv_kernel", 4), 1)
    convolution = plain.channels() * config.flag("use_conv_bias", True)
    return replace(plain, vectors=3 * heads + heads * size + convolution)


def _hybrid_experts(config: Config) -> MoeMlp:
    field = "moe_shared_expert_intermediate_size"
    number = config.number_or_zero("n_shared_experts")
    shared = DenseMlp(number * config.count(field), gated=False) if number and config.get(field) else None
    return experts(config, shared, gated=False, router_bias=True, latent_size=config.optional_count("moe_latent_size"))


def _plain(config: Config, name: str) -> ModelSpec:
    """Nemotron 3 and 4, Minitron: squared ReLU, norms with biases."""
    block = DenseMlp(config.count("intermediate_size"), gated=False, bias=config.flag("mlp_bias", False))
    layer = Layer(attention(config), block, 4)
    return decoder(config, name, "nemotron", (layer,) * config.layers(), final_vectors=2)


def _read(config: Config, name: str) -> ModelSpec:
    if config.get("block_configs"):
        return _pruned(config, name)
    if config.get("hybrid_override_pattern") or config.get("layers_block_type"):
        return _hybrid(config, name)
    return _plain(config, name)


FAMILY = Family(
    "nemotron", ("DeciLMForCausalLM", "NemotronHForCausalLM", "NemotronForCausalLM"), _read, ("nemotron-nas", "nemotron_h")
)
