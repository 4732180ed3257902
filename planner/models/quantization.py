"""How a checkpoint stores its matrices: ``quantization_config``, or ModelOpt's ``hf_quant_config.json``, part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from planner.core.model import LatentAttention, Layer, LinearAttention, Mixer, MoeMlp, Part
from planner.core.quantization import BF16, FORMATS, FP16, WeightFormat, integers
from planner.models.config import Config
from planner.models.exclusions import Exclusions

FIELD = "quantization_config"
HINT = f"say what the weights are with --quant; known: {', '.join(FORMATS)}"
_PREFIXES = (
    "model.layers.",
    "model.language_model.layers.",
    "language_model.model.layers.",
    "language_model.layers.",
    "backbone.layers.",
    "model.decoder.layers.",
    "gpt_neox.layers.",
    "transformer.h.",
)
_ATTENTION = (
    ("self_attn.q_proj", "self_attn.o_proj"),
    ("self_attn.qkv_proj", "self_attn.o_proj"),
    ("mixer.q_proj", "mixer.o_proj"),
)
_LATENT = (("self_attn.q_b_proj", "self_attn.o_proj"), ("self_attn.q_proj", "self_attn.o_proj"))
_LINEAR = (
    ("linear_attn.in_proj_qkv", "linear_attn.out_proj"),
    ("linear_attn.in_proj_qkvz", "linear_attn.out_proj"),
    ("mixer.in_proj", "mixer.out_proj"),
    ("mamba.in_proj", "mamba.out_proj"),
)
_MODULES: dict[Part, tuple[tuple[str, ...], ...]] = {
    "mlp": (
        ("mlp.gate_proj", "mlp.down_proj"),
        ("mlp.gate_up_proj", "mlp.down_proj"),
        ("mlp.up_proj", "mlp.down_proj"),
        ("feed_forward.up_proj", "feed_forward.down_proj"),
        ("mixer.up_proj", "mixer.down_proj"),
    ),
    "experts": (
        ("mlp.experts.0.gate_proj", "mlp.experts.0.down_proj"),
        ("mlp.experts.0.up_proj", "mlp.experts.0.down_proj"),
        ("block_sparse_moe.experts.0.w1", "block_sparse_moe.experts.0.w2"),
        ("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"),
        ("mixer.experts.0.up_proj", "mixer.experts.0.down_proj"),
        ("mlp.experts",),
    ),
    "shared_experts": (
        ("mlp.shared_experts.gate_proj", "mlp.shared_experts.down_proj"),
        ("mlp.shared_expert.gate_proj", "mlp.shared_expert.down_proj"),
        ("feed_forward.shared_expert.up_proj", "feed_forward.shared_expert.down_proj"),
        ("mixer.shared_experts.up_proj", "mixer.shared_experts.down_proj"),
    ),
}
_MODELOPT = {
    "FP8": FORMATS["fp8"],
    "FP8_PER_CHANNEL_PER_TOKEN": FORMATS["fp8"],
    "FP8_PB_WO": FORMATS["fp8-block"],
    "FP8_BLOCK_SCALES": FORMATS["fp8-block"],
    "NVFP4": FORMATS["nvfp4"],
    "NVFP4_AWQ": FORMATS["nvfp4"],
    "W4A16_NVFP4": FORMATS["nvfp4"],
    "MXFP8": FORMATS["fp8"],
    "W4A16_MXFP4": FORMATS["mxfp4"],
    "W4A8_MXFP4_FP8": FORMATS["mxfp4"],
    "W4A8_NVFP4_FP8": FORMATS["nvfp4"],
    "W4A16_AWQ": FORMATS["awq"],
    "W4A8_AWQ": FORMATS["awq"],
    "INT8_SQ": FORMATS["int8"],
    "W8A8_SQ_PER_CHANNEL": FORMATS["int8"],
}
_FLOAT8 = ("fp8", "fbgemm_fp8", "ptpc_fp8", "deepspeedfp")
_KV_BYTES = {"FP8": 1.0, "INT8": 1.0, "NVFP4": 0.5625}


@dataclass(frozen=True)
class Stored:
    """``weights`` is the format of what is neither excluded nor named; ``named`` are modules in other formats."""

    weights: WeightFormat
    excluded: Exclusions = field(default_factory=lambda: Exclusions(()))
    named: tuple[tuple[Exclusions, WeightFormat], ...] = ()
    kv_element_bytes: float = 2

    def of(self, path: str) -> WeightFormat:
        """How the module at ``path`` is stored."""
        if self.excluded.cover(path):
            return BF16
        return next((one for modules, one in self.named if modules.cover(path)), self.weights)

    @property
    def numbered(self) -> bool:
        """Whether layers may differ."""
        return self.excluded.numbered or any(modules.numbered for modules, _ in self.named)


def checkpoint(config: Config) -> Stored:
    """How the checkpoint itself is stored. Raises ``BadInput`` for a format that is not read."""
    settings = config.mapping(FIELD)
    if not settings:
        dtype = config.word("torch_dtype", config.word("dtype", "bfloat16")).removeprefix("torch.")
        if dtype in {"float16", "half"}:
            return Stored(FP16)
        if dtype in {"bfloat16", "float32", "float", "auto"}:  # engines load float32 checkpoints in 16 bit
            return Stored(BF16)
        raise config.refuse("torch_dtype", f"{dtype!r} is not a weight type this release reads")
    method = str(settings.get("quant_method", "")).lower()
    if method.startswith("modelopt"):
        return _modelopt(config, settings)
    if method in {"compressed-tensors", "compressed_tensors"}:
        return _compressed(config, settings)
    return Stored(_everywhere(config, settings, method), Exclusions(_excluded(config, settings)))


def _excluded(config: Config, settings: Mapping[str, Any]) -> list[str]:
    """The names and patterns under whichever name the method has for them."""
    names = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules", "exclude", "llm_int8_skip_modules")
    found: list[str] = []
    for name in names:
        value = settings.get(name) or []
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise config.refuse(f"{FIELD}.{name}", f"must be a list of module names, found {str(value)[:60]!r}")
        found += value
    return found


def _everywhere(config: Config, settings: Mapping[str, Any], method: str) -> WeightFormat:
    """One format for all that is not excluded."""
    if method in _FLOAT8:
        return _blocks(config, settings)
    if method in {"bitsandbytes", "bnb"}:
        return FORMATS["bnb-4bit"] if settings.get("load_in_4bit") or settings.get("_load_in_4bit") else FORMATS["int8"]
    base = method.removesuffix("_marlin").removeprefix("intel/")
    if base in {"awq", "gptq", "auto-round", "auto_round"}:
        bits = _whole(config, settings, ("bits", "w_bit"), 4)
        group = _whole(config, settings, ("group_size", "q_group_size"), 128)
        if bits in (4, 8) and (group == -1 or 16 <= group <= 1024):
            return integers("awq" if base == "awq" else "gptq", bits, None if group == -1 else group, zeros=True)
        raise config.refuse(FIELD, f"{method} with {bits} bits in groups of {group} is not read yet", HINT)
    if method == "quark":
        weight = settings.get("global_quant_config")
        dtype = str((weight.get("weight") or {}).get("dtype", "")) if isinstance(weight, dict) else ""
        known = {"fp8_e4m3": "fp8", "fp4": "mxfp4", "int8": "int8"}
        if dtype in known:
            return FORMATS[known[dtype]]
        raise config.refuse(f"{FIELD}.global_quant_config", f"quark weights of type {dtype!r} are not read yet", HINT)
    if method in FORMATS:
        return FORMATS[method]
    raise config.refuse(f"{FIELD}.quant_method", f"{method or 'no method'!r} is not read yet", HINT)


def _whole(config: Config, settings: Mapping[str, Any], names: Sequence[str], default: int) -> int:
    """The whole number under the first of ``names`` that is there."""
    name = next((name for name in names if settings.get(name) is not None), None)
    value = default if name is None else settings[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise config.refuse(f"{FIELD}.{name}", f"must be a whole number, found {value!r}")
    return value


def _blocks(config: Config, settings: Mapping[str, Any]) -> WeightFormat:
    """FP8 with a scale for every tile where there is the size of one."""
    size, known = settings.get("weight_block_size"), FORMATS["fp8-block"]
    if size is None:
        return FORMATS["fp8"]
    if not isinstance(size, list) or len(size) != 2 or not all(type(one) is int and one > 0 for one in size):
        raise config.refuse(f"{FIELD}.weight_block_size", f"must be two whole numbers above 0, found {str(size)[:60]!r}", HINT)
    if tuple(size) != known.block:
        config.notes.append(f"weight_block_size {size}: planned as blocks of {' × '.join(map(str, known.block or ()))}")
    return known


def _cache_bits(config: Config, settings: Mapping[str, Any], widths: Sequence[int]) -> int | None:
    """How many bits ``kv_cache_scheme`` gives a number of the KV cache, of the ``widths`` that engines have; ``None`` without one."""
    scheme = settings.get("kv_cache_scheme")
    if scheme is None:
        return None
    bits = scheme.get("num_bits") if isinstance(scheme, dict) else None
    if type(bits) is not int or bits not in widths:
        problem = f"num_bits must be {' or '.join(map(str, widths))}, found {bits!r}"
        hint = "with --quant, what a checkpoint says of how it is stored is passed over"
        raise config.refuse(f"{FIELD}.kv_cache_scheme", problem, hint)
    return bits


def _modelopt(config: Config, settings: Mapping[str, Any]) -> Stored:
    """NVIDIA ModelOpt: one algorithm, or one for each module (``MIXED_PRECISION``), and modules that stay 16-bit."""
    algorithm = settings.get("quant_algo")
    kv = settings.get("kv_cache_quant_algo")
    bits = _cache_bits(config, settings, (4, 8))
    kv_bytes = _KV_BYTES.get(str(kv), bits / 8 if bits is not None else 2)
    if kv is not None and str(kv) not in _KV_BYTES:
        config.notes.append(f"a KV cache in {str(kv)[:40]} is not read: planned with {8 * kv_bytes:g} bits a number")
    excluded = Exclusions(_excluded(config, settings))
    if algorithm is None and "config_groups" not in settings:
        return Stored(BF16, kv_element_bytes=kv_bytes)
    if algorithm == "MIXED_PRECISION":
        modules = settings.get("quantized_layers")
        if not isinstance(modules, dict):
            raise config.refuse(f"{FIELD}.quantized_layers", "is missing: which module is stored how", HINT)
        named: dict[str, list[str]] = {}
        for name, one in modules.items():
            named.setdefault(str(one.get("quant_algo")) if isinstance(one, dict) else "", []).append(name)
        known = tuple((Exclusions(names), _algorithm(config, one)) for one, names in named.items())
        return Stored(BF16, excluded, known, kv_bytes)
    if algorithm is None:
        return replace(_groups(config, settings), kv_element_bytes=kv_bytes)
    return Stored(_algorithm(config, algorithm, settings), excluded, kv_element_bytes=kv_bytes)


def _algorithm(config: Config, algorithm: object, settings: Mapping[str, Any] | None = None) -> WeightFormat:
    found = _MODELOPT.get(str(algorithm).upper())
    if found is None:
        raise config.refuse(
            f"{FIELD}.quant_algo", f"quant_algo {algorithm!r} is not read yet", f"known: {', '.join(_MODELOPT)}; {HINT}"
        )
    group = (settings or {}).get("group_size")
    if found.name == "awq" and isinstance(group, int) and 16 <= group <= 1024:
        return integers("awq", 4, group, zeros=True)
    return found


def _compressed(config: Config, settings: Mapping[str, Any]) -> Stored:
    """compressed-tensors, whose KV cache engines read in 8 bits alone (vLLM 0.33, ``validate_kv_cache_scheme``)."""
    bits = _cache_bits(config, settings, (8,))
    return replace(_groups(config, settings), kv_element_bytes=2 if bits is None else bits / 8)


def _groups(config: Config, settings: Mapping[str, Any]) -> Stored:
    """Groups of modules with a scheme each; ``Linear`` means all that no other group takes."""
    groups = settings.get("config_groups")
    if not isinstance(groups, dict) or not all(isinstance(one, dict) for one in groups.values()):
        raise config.refuse(f"{FIELD}.config_groups", "must be an object of groups", HINT)
    weights: WeightFormat | None = None
    named = []
    for key, group in groups.items():
        stored = _scheme(config, group, f"{FIELD}.config_groups.{key}")
        targets = group.get("targets") or ["Linear"]
        if not isinstance(targets, list) or not all(isinstance(one, str) for one in targets):
            raise config.refuse(f"{FIELD}.config_groups.{key}.targets", "must be a list of names", HINT)
        if "Linear" in targets:
            weights = stored
        else:
            named.append((Exclusions(targets), stored))
    return Stored(weights or BF16, Exclusions(_excluded(config, settings)), tuple(named))


def _scheme(config: Config, group: Mapping[str, Any], place: str) -> WeightFormat:
    weights = group.get("weights")
    if weights is None:
        return BF16
    if not isinstance(weights, dict):
        raise config.refuse(f"{place}.weights", "must be an object", HINT)
    bits, kind, strategy = weights.get("num_bits"), weights.get("type", "int"), weights.get("strategy")
    size = weights.get("group_size")
    size = size if isinstance(size, int) and size > 0 and strategy in ("group", "tensor_group", None) else None
    if kind == "float" and bits == 8:
        return FORMATS["fp8-block"] if strategy == "block" else FORMATS["fp8"]
    if kind == "float" and bits == 4:
        return FORMATS["mxfp4" if size == 32 else "nvfp4"]
    if kind == "int" and bits == 8 and group.get("input_activations") is not None:
        return FORMATS["int8"]
    if kind == "int" and bits in (4, 8) and (size is None or 16 <= size <= 1024):
        return integers(f"w{bits}a16", bits, size, zeros=weights.get("symmetric") is False)
    raise config.refuse(f"{place}.weights", f"{bits} bits of type {kind} are not read yet", HINT)


def layer_formats(config: Config, layers: Sequence[Layer], stored: Stored) -> tuple[WeightFormat, tuple[Layer, ...]]:
    """The format of most matrices, and the layers with the parts that are stored otherwise; equal layers stay one object."""
    if not stored.excluded and not stored.named:
        return stored.weights, tuple(layers)
    for entries in (stored.excluded, *(modules for modules, _ in stored.named)):
        config.notes += [
            f"the pattern {one[:60]!r} of {FIELD} is not understood: taken to match nothing" for one in entries.unread[:1]
        ]
    first = {part: _format_of(stored, part, layer, 0) for layer in layers[:1] for part in _parts(layer)}
    weights = stored.weights
    if stored.named:  # what the experts are, else the first format named
        last = layers[-1] if layers else None
        found = [_format_of(stored, part, last, len(layers) - 1) for part in _parts(last)] if last else []
        weights = next((one for one in [*reversed(found), *first.values()] if one is not BF16), stored.weights)
    seen: dict[tuple[int, tuple[tuple[Part, WeightFormat], ...]], Layer] = {}
    answers: dict[int, tuple[tuple[Part, WeightFormat], ...]] = {}
    changed = []
    for number, layer in enumerate(layers):
        if stored.numbered or id(layer) not in answers:
            found_formats = ((part, _format_of(stored, part, layer, number)) for part in _parts(layer))
            answers[id(layer)] = tuple((part, one) for part, one in found_formats if one is not weights)
        key = id(layer), answers[id(layer)]
        if key not in seen:
            seen[key] = replace(layer, formats=key[1]) if key[1] else layer
        changed.append(seen[key])
    return weights, tuple(changed)


def _parts(layer: Layer) -> list[Part]:
    parts: list[Part] = ["attention"] if layer.attention is not None else []
    if isinstance(layer.mlp, MoeMlp):
        return [*parts, *(["shared_experts"] if layer.mlp.shared else []), "experts"]  # type: ignore[list-item]
    return [*parts, "mlp"] if layer.mlp is not None else parts


def _format_of(stored: Stored, part: Part, layer: Layer, number: int) -> WeightFormat:
    """The format of a part under whichever names its modules go; quantised as soon as one of them is."""
    names = _mixer_modules(layer.attention) if part == "attention" else _MODULES[part]
    for prefix in _PREFIXES:
        for modules in names:
            found = [stored.of(f"{prefix}{number}.{module}") for module in modules]
            differing = [one for one in found if one is not stored.weights]
            if len(differing) == len(found):
                return differing[0]
    return stored.weights


def _mixer_modules(mixer: Mixer | None) -> tuple[tuple[str, ...], ...]:
    if isinstance(mixer, LatentAttention):
        return _LATENT if mixer.query_rank else _LATENT[1:]
    return _LINEAR if isinstance(mixer, LinearAttention) else _ATTENTION
