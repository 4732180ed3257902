"""gpt-oss: every second layer sees a short window; biases and attention sinks everywhere; experts in MXFP4, the rest 16-bit."""

from __future__ import annotations

from dataclasses import replace

from planner.core.model import ModelSpec
from planner.models.config import Config
from planner.models.family import Family, attention, decoder, experts, same_layers, windows


def _read(config: Config, name: str) -> ModelSpec:
    routed = experts(config, bias=True, router_bias=True)
    near = windows(config, lambda number: number % 2 == 0)
    forms = [attention(config, window=window) for window in near]
    biased = config.flag("attention_bias", True)
    forms = [replace(one, input_bias=biased, output_bias=biased, vectors=one.query_heads) for one in forms]
    return decoder(config, name, "gpt-oss", same_layers([(form, routed) for form in forms]))


FAMILY = Family("gpt-oss", ("GptOssForCausalLM",), _read, ("gpt_oss",))
