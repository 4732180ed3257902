"""Architectures that no family knows, read by their standard fields, with a warning; code beside the config is never run."""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import LatentAttention, Layer, Mixer, ModelSpec
from planner.models.config import Config
from planner.models.family import (
    Family,
    attention,
    decoder,
    dense_mlp,
    experts,
    latent_attention,
    optional_dense,
    prediction_layers,
    same_layers,
    shared_experts,
    sparse_layers,
    windows,
)

_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings")
_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
_STRANGE = (
    "ssm_state_size",
    "mamba_num_heads",
    "mamba_d_state",
    "mamba_expand",
    "linear_num_key_heads",
    "linear_key_head_dim",
    "linear_attn_config",
    "block_configs",
    "hybrid_override_pattern",
    "cross_attention_layers",
    "hidden_size_per_layer_input",
    "is_encoder_decoder",
    "o_lora_rank",
    "compress_ratios",
    "num_kv_shared_layers",
)
"""Fields that change what a layer is in ways only a family can know."""
_NO_TEXT = (
    "ForMaskedLM",
    "ForPreTraining",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForRetrieval",
    "ForTextEncoding",
    "ForRewardModeling",
    "Classification",
    "Model",
)
_TEXT = ("LMHeadModel", "ChatModel")
"""Ends of names by which architectures say that they write no text, or do though they end in ``Model`` (vLLM 0.33 config/model.py,
``_SUFFIX_TO_DEFAULTS``; what Transformers calls the heads of encoders)."""
_ENCODERS = ("bert", "electra")
"""In the names of encoders that can be made decoders by ``is_decoder``."""


def is_standard(config: Config) -> bool:
    """Whether the fields are those of an ordinary decoder, with or without experts or latent attention."""
    sized = config.any_of(("intermediate_size", "moe_intermediate_size"))
    compressed = config.get("q_lora_rank") and not config.get("kv_lora_rank")
    return (
        all(config.get(field) for field in _NEEDED) and sized is not None and config.any_of(_STRANGE) is None and not compressed
    )


def writes_text(config: Config, architecture: str) -> bool:
    """Whether an architecture goes on with a text token by token, as far as its name and ``is_decoder`` say."""
    if config.get("is_decoder") is True:
        return True
    if any(word in architecture.lower() for word in _ENCODERS):
        return False
    return architecture.endswith(_TEXT) or not architecture.endswith(_NO_TEXT)


def _read(config: Config, name: str) -> ModelSpec:
    form: Mixer
    if config.get("kv_lora_rank") is not None:
        form, what = latent_attention(config), "latent attention"
        mixers: list[Mixer] = [form] * config.layers()
    else:
        forms = [attention(config, window=window) for window in windows(config)]
        if config.get("sliding_window") and not config.get("layer_types"):
            config.notes.append("sliding_window is passed over: which layers have it is not said by layer_types")
        mixers = [replace(one, value_size=config.optional_count("v_head_dim")) for one in forms]
        what = "grouped-query attention"
    if config.any_of(_EXPERTS):
        blocks = sparse_layers(config, optional_dense(config), experts(config, shared_experts(config)))
        what += " and experts"
    else:
        blocks = (dense_mlp(config),) * config.layers()
    layers: tuple[Layer, ...] = same_layers(list(zip(mixers, blocks, strict=True)))
    remote = "; its own code is not run" if config.mapping("auto_map") else ""
    kind = config.word("model_type", "no model type")
    config.notes.append(
        f"no family here knows this architecture ({kind}): read by its standard fields as {what}{remote}; check the parameter count"
    )
    rope = () if isinstance(layers[0].attention, LatentAttention) and not config.get("qk_rope_head_dim") else None
    drafting = prediction_layers(config, layers[-1])
    return decoder(config, name, "generic", layers, rope=rope, prediction_layers=drafting)


GENERIC = Family("generic", (), _read)
