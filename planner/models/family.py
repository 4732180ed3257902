"""What the readers of model families share: attention, feed-forward and experts out of the usual fields, rotary tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from planner.core.model import Attention, DenseMlp, FeedForward, Indexer, LatentAttention, Layer, ModelSpec, MoeMlp
from planner.models.config import MAX_LAYERS, MAX_NUMBER, Config
from planner.models.encoder import encoder_parameters
from planner.models.quantization import checkpoint, layer_formats

FULL = ("full_attention", "attention", "full", "deepseek_sparse_attention")
WINDOWED = ("sliding_attention", "chunked_attention", "sliding_window", "local")
_LENGTH_STATED = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"})
"""Kinds of stretched positions whose ``max_position_embeddings`` is that of the stretched model already."""


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models: its name, the ``architectures`` it reads, how, and the ``model_types`` by which a wrapper (a model of
    pictures and text) names it.
    """

    name: str
    architectures: tuple[str, ...]
    read: Callable[[Config, str], ModelSpec]
    model_types: tuple[str, ...] = ()


def head_size(config: Config) -> int:
    """Size of an attention head: stated, or the hidden size over the heads."""
    size = config.optional_count("head_dim")
    if size is not None:
        return size
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    if hidden % heads:
        raise config.refuse("num_attention_heads", f"{hidden} is not divisible by {heads} heads, and head_dim is missing")
    return hidden // heads


def attention(config: Config, *, input_bias: bool = False, head_norm: bool = False, window: int | None = None) -> Attention:
    """Grouped-query attention out of the usual fields; the output projection has a bias only where ``attention_bias`` says so."""
    if config.get("hidden_size") is None:  # the first that is missed
        raise config.refuse("hidden_size", "is missing")
    heads = config.count("num_attention_heads")
    kv_heads = config.count("num_key_value_heads", heads)
    size = head_size(config)
    if heads % kv_heads:
        raise config.refuse("num_key_value_heads", f"{heads} attention heads are not divisible by {kv_heads} KV heads")
    bias = config.flag("attention_bias", False)
    return Attention(heads, kv_heads, size, input_bias or bias, bias, head_norm, window)


def latent_attention(config: Config) -> LatentAttention:
    """Multi-head latent attention out of DeepSeek's fields, with an indexer where there are its fields."""
    indexer = None
    if config.get("index_topk") is not None:
        indexer = Indexer(config.count("index_n_heads"), config.count("index_head_dim"), config.count("index_topk"))
    return LatentAttention(
        config.count("num_attention_heads"),
        config.optional_count("q_lora_rank"),
        config.count("kv_lora_rank"),
        config.number_or_zero("qk_rope_head_dim"),
        config.count("qk_nope_head_dim"),
        config.count("v_head_dim"),
        config.flag("attention_bias", False),
        indexer,
    )


def dense_mlp(config: Config, field: str = "intermediate_size", *, gated: bool = True, bias: bool = False) -> DenseMlp:
    """A dense block of the size that ``field`` states."""
    return DenseMlp(config.count(field), gated, bias)


def experts(config: Config, shared: DenseMlp | None = None, **options: Any) -> MoeMlp:
    """Routed experts out of whichever of the usual fields are there; ``options`` are further fields of ``MoeMlp``."""
    number = config.any_of(("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")) or "num_experts"
    chosen = config.any_of(("num_experts_per_tok", "experts_per_token", "moe_topk", "top_k_experts", "moe_top_k"))
    size = config.any_of(("moe_intermediate_size", "expert_ffn_hidden_size")) or "intermediate_size"
    found = config.count(number)
    visited = config.count(chosen or "num_experts_per_tok")
    if visited > found:
        raise config.refuse(chosen or "num_experts_per_tok", f"a token cannot visit {visited} of {found} experts")
    return MoeMlp(found, visited, config.count(size), shared=shared, **options)


def shared_experts(config: Config) -> DenseMlp | None:
    """The block beside the experts that every token visits: its own size, or so many experts' sizes; ``None`` without one."""
    size = config.any_of(("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size"))
    number = config.any_of(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"))
    if size is not None:
        return DenseMlp(config.count(size))
    if number is None:
        return None
    return DenseMlp(config.count(number) * config.count("moe_intermediate_size"))


def sparse_layers(config: Config, dense: DenseMlp | None, routed: MoeMlp) -> tuple[FeedForward, ...]:
    """Which layers are dense and which have experts: ``first_k_dense_replace``, ``moe_layer_freq``, ``mlp_only_layers``,
    ``decoder_sparse_step``.
    """
    plain = set(config.counts("mlp_only_layers"))
    frequency = config.get("moe_layer_freq")
    if isinstance(frequency, list):
        marked = config.counts("moe_layer_freq")
        plain |= {number for number, marks in enumerate(marked) if not marks}
        every = 1
    else:
        every = config.count("moe_layer_freq", 1)
    first, step = config.number_or_zero("first_k_dense_replace"), config.count("decoder_sparse_step", 1)
    chosen: list[FeedForward] = []
    for number in range(config.layers()):
        sparse = number >= first and number % every == 0 and number not in plain and (number + 1) % step == 0
        if not sparse and dense is None:
            raise config.refuse("intermediate_size", f"is missing: layer {number} has no experts")
        chosen.append(routed if sparse else dense or routed)
    return tuple(chosen)


def optional_dense(config: Config) -> DenseMlp | None:
    """The dense block, ``None`` where no size is stated."""
    return DenseMlp(config.count("intermediate_size")) if config.get("intermediate_size") else None


def layer_types(config: Config, known: Sequence[str] = (*FULL, *WINDOWED)) -> list[str]:
    """What each layer is, by ``layer_types``; empty where it is absent. Raises ``BadInput`` for a kind that is not ``known``."""
    kinds = config.words("layer_types")
    strange = next((kind for kind in kinds if kind not in known), None)
    if strange is not None:
        raise config.refuse("layer_types", f"layers of the kind {strange[:40]!r} are not read yet")
    if kinds and len(kinds) != config.layers():
        raise config.refuse("layer_types", f"names {len(kinds)} layers, num_hidden_layers is {config.layers()}")
    return kinds


def windows(config: Config, windowed: Callable[[int], bool] | None = None) -> tuple[int | None, ...]:
    """The sliding window of each layer: by ``layer_types``, else where ``windowed`` says so of its number, else on none."""
    kinds, number = layer_types(config), config.layers()
    chosen = [kind in WINDOWED for kind in kinds] or [windowed is not None and windowed(one) for one in range(number)]
    if not any(chosen):
        return (None,) * number
    size = config.count("sliding_window")
    return tuple(size if one else None for one in chosen)


def rope_settings(config: Config) -> Mapping[str, Any]:
    """How positions turn heads, under either of the names it goes by."""
    return config.mapping("rope_scaling") or config.mapping("rope_parameters")


def served_positions(config: Config, stated: int) -> int:
    """The most positions of a request that engines take where the config states so many (vLLM 0.33, ``_get_and_verify_max_len``).

    ``model_max_length`` goes before what is ``stated``. Linear and dynamic scaling stretch it. YaRN and the like do not: what is
    stated is taken to be the length they reach. Where it is less, that is noted.
    """
    longest = config.get("model_max_length")
    if _whole(longest):
        stated = longest
    if "gemma3" in config.word("model_type"):  # stated as stretched
        return stated
    settings = rope_settings(config)
    nested = [one for one in settings.values() if isinstance(one, Mapping)]
    factor, reached = 1.0, stated
    for one in nested or [settings]:
        kind = _rope_kind(one)
        if kind not in _LENGTH_STATED:
            factor = _rope_factor(one) or factor
        elif kind == "yarn":
            reached = max(reached, rope_positions(config, stated, one))
    if reached > stated:
        config.notes.append(
            f"YaRN reaches {reached} positions, max_position_embeddings is {stated}: engines take {stated} until that says {reached}"
        )
    return min(int(stated * factor), MAX_NUMBER)


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_NUMBER


def _rope_kind(scaling: Mapping[str, Any]) -> str:
    return str(scaling.get("rope_type", scaling.get("type")))


def _rope_factor(scaling: Mapping[str, Any]) -> float | None:
    """By how much positions are stretched, ``None`` where that is not said in a way that can be used."""
    factor = scaling.get("factor")
    usable = isinstance(factor, int | float) and not isinstance(factor, bool) and 1 <= factor <= MAX_NUMBER
    return float(factor) if usable and factor is not None else None


def rope_positions(config: Config, max_positions: int, scaling: Mapping[str, Any] | None = None) -> int:
    """Length of the rotary cos/sin table: linear, dynamic and YaRN scaling stretch it beyond the trained positions."""
    scaling = rope_settings(config) if scaling is None else scaling
    kind, factor = _rope_kind(scaling), _rope_factor(scaling)
    if factor is None:
        return max_positions
    if kind in {"linear", "dynamic"}:
        return int(max_positions * factor)
    original = scaling.get("original_max_position_embeddings")
    if kind == "yarn" and _whole(original):
        return max(max_positions, int(original * factor))
    return max_positions


def rotary(config: Config, size: int) -> int:
    """How much of a head of ``size`` turns with the position."""
    stated = config.optional_count("rotary_dim")
    if stated is not None:
        return min(stated, size)
    settings = rope_settings(config).get("partial_rotary_factor")
    if isinstance(settings, float) and 0 < settings <= 1:
        return int(size * settings)
    part = config.any_of(("partial_rotary_factor", "rotary_pct"))
    return int(size * min(1.0, config.ratio(part, 1.0))) if part else size


def decoder(
    config: Config,
    name: str,
    family: str,
    layers: Sequence[Layer],
    *,
    tied: bool = False,
    max_positions: int | None = None,
    rope: tuple[tuple[int, int], ...] | None = None,
    vocabulary: int | None = None,
    **others: Any,
) -> ModelSpec:
    """A decoder of ``layers`` with the usual fields for everything around them.

    ``tied``, ``max_positions``, ``vocabulary`` stand in where the config does not say; ``rope`` are the rotary tables where
    they are not one for heads of the usual size; ``others`` are further fields of ``ModelSpec``.
    """
    positions = config.count("max_position_embeddings", max_positions)
    stored = checkpoint(config)
    weights, kept = layer_formats(config, layers, stored)
    if rope is None:
        form = layers[0].attention if layers else None
        size = form.rope_size if isinstance(form, LatentAttention) else rotary(config, head_size(config))
        rope = ((rope_positions(config, positions), size),)
    hidden = config.count("hidden_size")
    return ModelSpec(
        name=name,
        family=family,
        hidden_size=hidden,
        vocabulary_size=config.count("vocab_size", vocabulary),
        layers=kept,
        tied_embeddings=config.flag("tie_word_embeddings", tied),
        max_positions=served_positions(config, positions),
        rope_tables=rope,
        encoder_parameters=encoder_parameters(config, hidden),
        weight_format=weights,
        checkpoint_format=weights,
        kv_element_bytes=stored.kv_element_bytes,
        **others,
    )


def prediction_layers(config: Config, layer: Layer, fields: Sequence[str] = ("num_nextn_predict_layers",)) -> tuple[Layer, ...]:
    """The layers that draft further tokens: as many as the first of ``fields`` that is there says, shaped like ``layer``."""
    field = config.any_of(fields)
    return (layer,) * config.count(field, most=MAX_LAYERS) if field else ()


def same_layers(forms: Sequence[tuple[Any, ...]], **options: Any) -> tuple[Layer, ...]:
    """Layers of (attention, feed-forward) pairs, equal pairs as one object."""
    found: dict[tuple[Any, ...], Layer] = {}
    return tuple(found.setdefault(form, Layer(*form, **options)) for form in forms)
