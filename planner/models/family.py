"""What the readers of model families share: typed access to a config, quantisation, rotary tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from planner.core.model import Attention, Layer, ModelSpec
from planner.core.quantization import BF16, FORMATS, FP16, WeightFormat
from planner.errors import BadInput

MAX_NUMBER = 10**9
MAX_LAYERS = 10**4


class Config:
    """Fields of a ``config.json`` that say where they are when they are wrong."""

    def __init__(self, data: Mapping[str, Any], source: str) -> None:
        self._data = data
        self._source = source

    def refuse(self, field: str, problem: str, hint: str = "") -> BadInput:
        """The error for one field."""
        return BadInput(problem, path=f"{self._source}: $.{field}", hint=hint)

    def count(self, field: str, default: int | None = None, most: int = MAX_NUMBER) -> int:
        """A positive whole number, no larger than ``most``."""
        value = self._data.get(field)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.refuse(field, "is missing")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
            raise self.refuse(field, f"must be a positive whole number up to {most}, found {value!r}")
        return value

    def layers(self) -> int:
        """How many decoder layers: few enough to hold one by one."""
        return self.count("num_hidden_layers", most=MAX_LAYERS)

    def optional_count(self, field: str) -> int | None:
        """A positive whole number, or ``None`` where it is absent or null."""
        return None if self._data.get(field) is None else self.count(field)

    def flag(self, field: str, default: bool) -> bool:
        """A truth value."""
        value = self._data.get(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(field, f"must be true or false, found {value!r}")
        return value

    def counts(self, field: str) -> list[int]:
        """A list of whole numbers, empty where it is absent."""
        value = self._data.get(field) or []
        if not isinstance(value, list) or not all(isinstance(one, int) for one in value):
            raise self.refuse(field, f"must be a list of whole numbers, found {value!r}")
        return value

    def mapping(self, field: str) -> Mapping[str, Any]:
        """An object, empty where it is absent or null."""
        value = self._data.get(field) or {}
        if not isinstance(value, dict):
            raise self.refuse(field, f"must be an object, found {value!r}")
        return value

    def word(self, field: str, default: str = "") -> str:
        """A string."""
        value = self._data.get(field)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.refuse(field, f"must be text, found {value!r}")
        return value


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models: its name, the ``architectures`` it reads, and how."""

    name: str
    architectures: tuple[str, ...]
    read: Callable[[Config, str], ModelSpec]


def attention(config: Config, *, input_bias: bool = False, head_norm: bool = False, window: int | None = None) -> Attention:
    """Grouped-query attention out of the usual fields; the output projection has a bias only where ``attention_bias`` says so."""
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    kv_heads = config.count("num_key_value_heads", heads)
    size = config.optional_count("head_dim")
    if size is None:
        if hidden % heads:
            raise config.refuse("num_attention_heads", f"{hidden} is not divisible by {heads} heads, and head_dim is missing")
        size = hidden // heads
    if heads % kv_heads:
        raise config.refuse("num_key_value_heads", f"{heads} attention heads are not divisible by {kv_heads} KV heads")
    bias = config.flag("attention_bias", False)
    return Attention(heads, kv_heads, size, input_bias or bias, bias, head_norm, window)


def rope_positions(config: Config, max_positions: int) -> int:
    """Length of the rotary cos/sin table: linear and YaRN scaling stretch it beyond the trained positions."""
    scaling = config.mapping("rope_scaling")
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if not isinstance(factor, int | float) or isinstance(factor, bool) or factor < 1:
        return max_positions
    if kind == "linear":
        return int(max_positions * factor)
    original = scaling.get("original_max_position_embeddings")
    if kind == "yarn" and isinstance(original, int):
        return max(max_positions, int(original * factor))
    return max_positions


def checkpoint_format(config: Config) -> WeightFormat:
    """The weight format of the checkpoint itself."""
    settings = config.mapping("quantization_config")
    if not settings:
        dtype = config.word("torch_dtype", config.word("dtype", "bfloat16"))
        if dtype in {"float16", "half"}:
            return FP16
        if dtype in {"bfloat16", "float32", "float"}:  # engines load float32 checkpoints in 16 bit
            return BF16
        raise config.refuse("torch_dtype", f"{dtype!r} is not a weight type this release reads")
    method = str(settings.get("quant_method", "")).lower()
    if method == "fp8":
        return FORMATS["fp8-block"] if settings.get("weight_block_size") else FORMATS["fp8"]
    if method in {"awq", "gptq"}:
        bits, group = settings.get("bits", 4), settings.get("group_size", 128)
        if bits == 4 and group == 128:
            return FORMATS[method]
        raise config.refuse("quantization_config", f"{method} with {bits} bits in groups of {group} is not read yet", _QUANT_HINT)
    if method in FORMATS:
        return FORMATS[method]
    raise config.refuse("quantization_config.quant_method", f"{method or 'no method'!r} is not read yet", _QUANT_HINT)


def decoder(config: Config, name: str, family: str, layers: tuple[Layer, ...]) -> ModelSpec:
    """A decoder of ``layers`` with the usual fields for everything around them."""
    positions = config.count("max_position_embeddings")
    weights = checkpoint_format(config)
    return ModelSpec(
        name=name,
        family=family,
        hidden_size=config.count("hidden_size"),
        vocabulary_size=config.count("vocab_size"),
        layers=layers,
        tied_embeddings=config.flag("tie_word_embeddings", False),
        max_positions=positions,
        rope_positions=rope_positions(config, positions),
        weight_format=weights,
        checkpoint_format=weights,
    )


_QUANT_HINT = f"say what the weights are with --quant; known: {', '.join(FORMATS)}"
