"""How many parameters an encoder of pictures or sound has, from the usual fields of its config."""

from __future__ import annotations

from planner.models.config import MAX_LAYERS, Config

_DEPTH = ("depth", "num_hidden_layers", "vt_num_hidden_layers", "encoder_layers")
_WIDTH = ("embed_dim", "vt_hidden_size", "hidden_size", "d_model")
_INNER = ("intermediate_size", "vt_intermediate_size", "encoder_ffn_dim")
_GATED = ("qwen2_5_vl", "pixtral", "gemma4_vision", "glm4v_moe", "glm4v")
_CHANNELS = 3
_MAX_WIDTH = 10**6


def encoder_parameters(config: Config, hidden_size: int) -> int:
    """Parameters of all encoders of a model whose language model has ``hidden_size``; noted as what they are, an estimate."""
    total = sum(_transformer(one, hidden_size) for one in config.encoders())
    if total:
        config.notes.append(f"encoders of pictures or sound: about {total / 1e9:.2f}B parameters, by the fields of their configs")
    return total


def _first(config: Config, fields: tuple[str, ...], most: int) -> int:
    field = config.any_of(fields)
    return config.count(field, most=most) if field else 0


def _transformer(config: Config, hidden_size: int) -> int:
    """Layers of attention and feed-forward with biases, patches, positions, and the way into the language model."""
    depth, width = _first(config, _DEPTH, MAX_LAYERS), _first(config, _WIDTH, _MAX_WIDTH)
    if not depth or not width:
        config.notes.append("an encoder whose config has none of the usual fields is left out of the memory")
        return 0
    inner = _first(config, _INNER, _MAX_WIDTH) or int(config.ratio("mlp_ratio", 4.0) * width)
    matrices = 3 if config.word("model_type") in _GATED else 2
    layers = depth * (4 * width**2 + matrices * width * inner + 9 * width + inner)
    frames = config.count("temporal_patch_size", 1, 64)
    patches = _CHANNELS * frames * config.count("patch_size", 1, 1024) ** 2 * width if config.get("patch_size") else 0
    positions = config.number_or_zero("num_position_embeddings") or config.number_or_zero("position_embedding_size")
    merge = config.get("spatial_merge_size") or config.get("merge_kernel_size") or 1
    side = merge[0] if isinstance(merge, list) and merge else merge
    merged = width * (side**2 if isinstance(side, int) and 0 < side < 64 else 1)
    leaves = config.counts("deepstack_visual_indexes")
    projector = merged**2 + merged * hidden_size if merged > width else width * hidden_size
    return layers + patches + positions * width + projector * (1 + len(leaves))
