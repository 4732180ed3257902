"""Which pools an engine can join, and why not the others."""

from __future__ import annotations

from planner.core.model import Attention, LinearAttention, ModelSpec, kinds
from planner.core.plan import Parallelism
from planner.core.pools import HandoverRules


def refused(rules: HandoverRules, model: ModelSpec, prefill: Parallelism, decode: Parallelism) -> str:
    """Why caches do not go from pools of these degrees to each other; empty where they do."""
    holding, reading = prefill.tensor, decode.tensor
    if decode.pipeline not in {1, prefill.pipeline} and rules.decode_stages == "one-or-equal":
        return f"{rules.connector} fills as many pipeline stages as it reads from, or one"
    if max(holding, reading) % min(holding, reading):
        return f"{rules.connector} joins tensor degrees of which one divides the other"
    mixers = [layer.attention for layer, _ in kinds(model.layers) if layer.attention is not None]
    if holding != reading and any(isinstance(mixer, LinearAttention) for mixer in mixers):
        return f"{rules.connector} moves recurrent states between equal tensor degrees alone"
    heads = min((mixer.kv_heads for mixer in mixers if isinstance(mixer, Attention)), default=holding)
    if holding > reading and holding > heads and not rules.copies:
        return (
            f"{rules.connector} does not read from more prefill ranks than there are KV heads ({heads}) into fewer decode ranks"
        )
    return ""
