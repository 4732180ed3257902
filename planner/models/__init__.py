"""``config.json`` → ModelSpec, one module a family.

A family is a module with a ``FAMILY``; :func:`families` finds them all, so adding one touches one file. Models that wrap a
language model in others (pictures, sound) are unwrapped here, in one place. Code that lies beside a config is never run.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from planner.core.model import HALF_PRECISION, ModelSpec
from planner.errors import BadInput, nearest
from planner.models.config import Config
from planner.models.family import Family
from planner.models.generic import GENERIC, is_standard, writes_text
from planner.models.quantization import FIELD


@cache
def families() -> dict[str, Family]:
    """All families by the architecture names of their ``config.json``."""
    return {architecture: family for family in _modules() for architecture in family.architectures}


@cache
def _modules() -> tuple[Family, ...]:
    found = []
    for module in pkgutil.iter_modules(__path__):
        family = getattr(importlib.import_module(f"{__name__}.{module.name}"), "FAMILY", None)
        if isinstance(family, Family):
            found.append(family)
    return tuple(found)


@cache
def _model_types() -> dict[str, Family]:
    return {model_type: family for family in _modules() for model_type in family.model_types}


def read_config(
    config: Mapping[str, Any],
    name: str,
    source: str,
    *,
    places: Mapping[str, str] | None = None,
    quantised: bool = True,
) -> ModelSpec:
    """The model of a parsed ``config.json``.

    ``name`` is what an engine is told to load; ``source`` is what messages call the file, ``places`` what they call fields that
    come from another one. Without ``quantised``, what the checkpoint says of its weights is passed over. Raises ``BadInput`` for
    an architecture that nothing here can read (with the nearest known) and for a missing or impossible field, with its path.
    """
    whole = Config(config if quantised else _without(config), source, places=places)
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not all(isinstance(one, str) for one in architectures) or not architectures:
        raise BadInput(
            "names no architecture; not a model's config.json?",
            path=f"{source}: $.architectures",
            hint="pass the config.json that lies beside the weights",
        )
    text = whole.text()
    family = _family(architectures, whole, text)
    if family is None:
        if not is_standard(text):
            raise _unsupported(config, architectures[0], source)
        if not any(writes_text(text, one) for one in architectures):
            raise _no_decoder(architectures[0], source)
        family = GENERIC
    model = family.read(text, name)
    if not any(layer.attention is not None for layer in model.layers):
        raise text.refuse("num_hidden_layers", "none of the layers has attention: not a decoder that this release plans")
    if model.prediction_layers:
        drafted = f"{len(model.prediction_layers)} multi-token-prediction layer{'s' * (len(model.prediction_layers) > 1)}"
        text.notes.append(f"{drafted} ({model.prediction_parameters / 1e9:.1f}B parameters): counted where they guess (mtp)")
    if model.kv_element_bytes < HALF_PRECISION:
        text.notes.append(f"the checkpoint asks for a KV cache of {8 * model.kv_element_bytes:g} bits a number: planned with it")
    return replace(model, notes=tuple(dict.fromkeys(text.notes)))


def _family(architectures: list[str], whole: Config, text: Config) -> Family | None:
    """The family by the architecture, else by that or the model type of the language model within."""
    inner = text.get("architectures") if text is not whole else None
    names = [*architectures, *(inner if isinstance(inner, list) else [])]
    found = next((families()[one] for one in names if isinstance(one, str) and one in families()), None)
    if found is None and text is not whole:
        return _model_types().get(text.word("model_type"))
    return found


def _without(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what it says of quantisation, here and in configs within."""
    kept = {key: value for key, value in config.items() if key != FIELD}
    return {key: _without(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def _no_decoder(architecture: str, source: str) -> BadInput:
    """The refusal of an architecture that writes no text."""
    return BadInput(
        f"the architecture {architecture!r} writes no text: an encoder, or a model of embeddings or scores",
        path=f"{source}: $.architectures[0]",
        hint="decoders are planned, whose architecture mostly ends in ForCausalLM",
    )


def _unsupported(config: Mapping[str, Any], architecture: str, source: str) -> BadInput:
    """The refusal of an architecture: what of it is missing here, as far as its fields tell, and the nearest that is read."""
    text = config.get("text_config")
    inner = text if isinstance(text, dict) else {}
    missing = [what for fields, what in _NOT_READ if any(config.get(field) or inner.get(field) for field in fields)]
    experts = any(config.get(field) or inner.get(field) for field in _EXPERTS)
    known = families()
    alike = [name for name in known if ("Moe" in name or "Mixtral" in name) == experts]
    near = next(iter([*nearest(architecture, known), *alike]))
    return BadInput(
        f"the architecture {architecture!r} is not supported; missing: {', '.join(missing) or 'the fields of an ordinary decoder'}",
        path=f"{source}: $.architectures[0]",
        hint=f"the nearest supported: {near} ({known[near].name}); families: {', '.join(sorted({one.name for one in known.values()}))}",
    )


_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_NOT_READ = (
    (("ssm_state_size", "mamba_num_heads", "mamba_expand", "mamba_d_state"), "state-space layers (Mamba) of this arrangement"),
    (("linear_num_key_heads", "linear_key_head_dim", "linear_attn_config"), "linear-attention layers of this arrangement"),
    (("block_configs",), "layers that differ one by one (block_configs)"),
    (("cross_attention_layers",), "cross-attention layers"),
    (("is_encoder_decoder",), "an encoder and a decoder"),
    (("hidden_size_per_layer_input",), "embeddings of each layer's own"),
    (("o_lora_rank", "compress_ratios", "q_lora_rank"), "compressed attention of this arrangement"),
)
"""Fields by which an architecture shows what this release does not model."""
