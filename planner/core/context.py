"""Which caches the ranks of a tensor group can share out by tokens (decode context parallelism), and whose prompts groups can split."""

from __future__ import annotations

from planner.core.engine import ContextKind, EngineTraits
from planner.core.model import Attention, LatentAttention, Mixer, ModelSpec, kinds


def context_kind(mixer: Mixer) -> ContextKind | None:
    """What kind of cache a layer keeps, of those that can be shared out: no windows, no states, no indexer."""
    if isinstance(mixer, Attention) and mixer.window is None:
        return "grouped"
    return "latent" if isinstance(mixer, LatentAttention) and mixer.indexer is None else None


def not_split(model: ModelSpec, traits: EngineTraits) -> str | None:
    """Why an engine's tensor groups do not split prompts of a model, in words; ``None`` if they can."""
    if not traits.prefill_context:
        return f"{traits.name} is not planned with prefill context parallelism"
    if any(not isinstance(layer.attention, LatentAttention | None) for layer, _ in kinds(model.layers)):
        return f"{traits.name} takes prefill context parallelism for latent attention alone"
    if model.encoder_parameters:
        return f"{traits.name} takes prefill context parallelism for models of text alone"
    return None


def not_shared(model: ModelSpec, traits: EngineTraits) -> str | None:
    """Why an engine shares out nothing of a model's cache, in words; ``None`` if it can."""
    if not traits.decode_context:
        return f"{traits.name} is not planned with decode context parallelism"
    found = {context_kind(layer.attention) for layer, _ in kinds(model.layers) if layer.attention is not None}
    if None in found:
        return "decode context parallelism is planned for full and latent attention alone: no windows, no states, no indexer"
    if found - traits.decode_context:
        return f"{traits.name} is planned with decode context parallelism for latent attention alone"
    if model.kv_element_bytes < traits.decode_context_element:
        bits = f"{8 * traits.decode_context_element:g}", f"{8 * model.kv_element_bytes:g}"
        return f"{traits.name} shares out a cache of {bits[0]} bits a number, this one has {bits[1]}"
    return None
