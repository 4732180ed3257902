"""``config.json`` → ModelSpec, one module a family.

A family is a module with a ``FAMILY``; :func:`families` finds them all, so adding one touches one file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from planner.core.model import ModelSpec
from planner.errors import BadInput, nearest
from planner.models.family import Config, Family


@cache
def families() -> dict[str, Family]:
    """All families by the architecture names of their ``config.json``."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__):
        family = getattr(importlib.import_module(f"{__name__}.{module.name}"), "FAMILY", None)
        if isinstance(family, Family):
            for architecture in family.architectures:
                found[architecture] = family
    return found


def read_config(config: Mapping[str, Any], name: str, source: str) -> ModelSpec:
    """The model of a parsed ``config.json``.

    ``name`` is what an engine is told to load; ``source`` is what messages call the file. Raises ``BadInput`` for an
    unknown architecture (with the nearest known) and for a missing or impossible field, with its path.
    """
    fields = Config(config, source)
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not all(isinstance(one, str) for one in architectures) or not architectures:
        raise BadInput(
            "names no architecture; not a model's config.json?",
            path=f"{source}: $.architectures",
            hint="pass the config.json that lies beside the weights",
        )
    known = families()
    for architecture in architectures:
        if architecture in known:
            return known[architecture].read(fields, name)
    raise _unsupported(config, architectures[0], source)


def _unsupported(config: Mapping[str, Any], architecture: str, source: str) -> BadInput:
    """The refusal of an architecture: what of it is missing here, as far as its fields tell, and the nearest that is read."""
    text = config.get("text_config")
    inner = text if isinstance(text, dict) else {}
    missing = [what for fields, what in _NOT_READ if any(config.get(field) or inner.get(field) for field in fields)]
    experts = any(config.get(field) or inner.get(field) for field in _EXPERTS)
    known = families()
    alike = [name for name in known if ("Moe" in name or "Mixtral" in name) == experts]
    near = next(iter([*nearest(architecture, alike), *alike]))
    return BadInput(
        f"the architecture {architecture!r} is not supported; missing: {', '.join(missing) or 'a family that reads it'}",
        path=f"{source}: $.architectures[0]",
        hint=f"the nearest supported: {near} ({known[near].name}); all supported: {', '.join(sorted(known))}",
    )


_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_NOT_READ = (
    (("kv_lora_rank",), "multi-head latent attention (kv_lora_rank)"),
    (("index_topk",), "sparse attention (index_topk)"),
    (("n_shared_experts", "num_shared_experts", "shared_expert_intermediate_size"), "shared experts"),
    (("ssm_state_size", "mamba_num_heads", "mamba_expand"), "state-space layers (Mamba)"),
    (("linear_num_key_heads", "linear_key_head_dim"), "linear-attention layers"),
    (("layer_types", "sliding_window_pattern", "interleave_moe_layer_step"), "layers of several kinds"),
    (("block_configs",), "layers that differ one by one (block_configs)"),
    (("vision_config", "audio_config"), "an encoder of pictures or sound"),
    (("num_nextn_predict_layers",), "multi-token prediction layers"),
)
"""Fields by which an architecture shows what this release does not model."""
