"""Command R and A: attention and feed-forward side by side behind one norm, tied embeddings; windows on three layers of four (A)."""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder, dense_mlp, same_layers, windows

WHOLE_EVERY = 4


def _read(config: Config, name: str) -> ModelSpec:
    second = config.word("model_type") == "cohere2"
    every = config.count("sliding_window_pattern", WHOLE_EVERY)
    near = windows(config, (lambda number: (number + 1) % every != 0) if second else None)
    forms = [attention(config, window=window) for window in near]
    if config.flag("use_qk_norm", False):
        forms = [replace(one, vectors=(one.query_heads + one.kv_heads) * one.head_size) for one in forms]
    block = dense_mlp(config)
    layers = same_layers([(form, block) for form in forms], vectors=1, parallel=True)
    return decoder(config, name, "cohere", layers, tied=True)


FAMILY = Family("cohere", ("CohereForCausalLM", "Cohere2ForCausalLM"), _read, ("cohere", "cohere2"))
