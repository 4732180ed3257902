"""Weights, cache and state of every kind of layer on one rank, against numbers worked by hand and against logs of engines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner import api
from planner.core.model import Attention, DenseMlp, LatentAttention, Layer, LinearAttention, ModelSpec, MoeMlp
from planner.core.plan import Parallelism
from planner.core.quantization import BF16, FORMATS
from planner.cost import memory
from planner.cost.strategy import stages_of

GIB = 2.0**30


def weights(model: ModelSpec, degrees: Parallelism) -> dict[str, float]:
    return dict(memory.stage_weights(model, model.layers, degrees, first=True, last=True, multiple=64))


def test_e6_llama_70b_is_as_it_was() -> None:
    parts = weights(api.load_model("llama-3.1-70b"), Parallelism(4))
    assert sum(parts.values()) == 35_278_831_616 + memory.rope_table(131_072, 128)
    assert parts["encoder"] == 0


def test_e8_a_latent_is_whole_on_every_rank() -> None:
    layers = api.load_model("deepseek-v3").layers
    for tensor in (1, 8, 16):
        assert int(memory.kv_bytes_of_token(layers, tensor)) == 70_272
    assert int(memory.kv_bytes_of_token(layers, 1, 1)) == 35_136
    index = replace(layers[0], attention=api.load_model("deepseek-v3.2").layers[0].attention)
    assert int(memory.kv_bytes_of_token((index,), 8)) == 576 * 2 + 128 + 4
    assert int(memory.kv_bytes_of_token((index,), 8, 1)) == 656 + 128 + 4


def test_down_projections_are_whole_and_the_latents_expansion_is_held_twice() -> None:
    form = LatentAttention(128, 1536, 512, 64, 128, 128)
    model = replace(api.load_model("deepseek-v3"), layers=(Layer(form, None),))
    whole = 7168 * 1536 + 7168 * 576
    split = 1536 * 128 * 192 + 512 * 128 * 256 + 128 * 128 * 7168
    copies, norms = 512 * 128 * 256 * 2, (1536 + 512) * 2
    for tensor in (1, 8):
        expected = (whole + split / tensor) * FORMATS["fp8-block"].bytes_per_weight + copies / tensor + norms
        assert memory.attention_weights(model.layers[0], model, tensor) == pytest.approx(expected)


def test_shared_experts_are_split_like_a_block_and_routed_ones_over_all_ranks() -> None:
    model = replace(api.load_model("llama-3.1-8b"), hidden_size=1024)
    layer = Layer(None, MoeMlp(8, 2, 512, shared=DenseMlp(2048)))
    routed, shared, router = 8 * 3 * 1024 * 512 * 2, 3 * 1024 * 2048 * 2, 1024 * 8 * 2
    assert memory.mlp_weights(layer, model, 4, 4) == routed / 4 + shared / 4 + router
    assert memory.mlp_weights(layer, model, 2, 8, 8) == routed / 8 + shared / 2 + router  # experts over TP 2 × DP 4


def test_parts_in_formats_of_their_own() -> None:
    model = replace(api.load_model("llama-3.1-8b", quant="fp8"), hidden_size=1024)
    block, form = DenseMlp(2048), Attention(8, 8, 128)
    plain = Layer(form, block, formats=(("attention", BF16), ("mlp", FORMATS["nvfp4"])))
    assert memory.attention_weights(plain, model, 1) == 2 * memory.attention_weights(Layer(form, block), model, 1)
    assert memory.mlp_weights(plain, model, 1, 1) == 0.5625 * memory.mlp_weights(Layer(form, block), model, 1, 1)


def test_padded_experts_of_gpt_oss_are_what_vllm_reports() -> None:
    """vLLM 0.19 on H100: 13.64 GiB on one GPU, 7.01 on each of two; unpadded 12.8 and 6.4."""
    model = api.load_model("gpt-oss-20b")
    for tensor, reported in ((1, 13.64), (2, 7.01)):
        assert sum(weights(model, Parallelism(tensor)).values()) / GIB == pytest.approx(reported, rel=0.01)


@pytest.mark.parametrize(
    ("name", "layers", "padded"),
    [("gemma-3-27b", 62, 70), ("gemma-3-4b", 34, 35), ("gemma-2-27b", 46, 46), ("gpt-oss-20b", 24, 24)],
)
def test_layers_with_and_without_a_window_are_grouped(name: str, layers: int, padded: int) -> None:
    model = api.load_model(name)
    for grouped, expected in ((False, layers), (True, padded)):
        assert sum(count for _, count in memory.cached_layers(model.layers, grouped=grouped)) == expected


def test_gemma_3_27b_counts_as_vllm_does() -> None:
    """19.53 GiB were reported as 36,560 tokens."""
    each = int(memory.kv_bytes_of_token(api.load_model("gemma-3-27b").layers, 1, grouped=True))
    assert each == 573_440
    assert 19.53 * GIB / each == pytest.approx(36_560, rel=0.001)


def test_a_window_caps_what_a_request_keeps() -> None:
    near, far = Layer(Attention(8, 8, 128, window=1024), None), Layer(Attention(8, 8, 128), None)
    each = 2 * 8 * 128 * 2
    assert int(memory.kv_bytes((near, far), 1, 10_000, 2048)) == (1024 + 2048) * each + 10_000 * each
    assert int(memory.kv_bytes((near, far), 1, 100, 2048)) == 2 * 100 * each
    assert int(memory.kv_bytes((near, far), 1, 10_000, 2048, 1)) == memory.kv_bytes((near, far), 1, 10_000, 2048) / 2


def test_a_state_is_kept_once_whatever_the_length() -> None:
    linear = LinearAttention(16, 128, 48, 128, 4, 2)
    layers = (Layer(linear, None), Layer(linear, None), Layer(Attention(8, 8, 128), None))
    state = 2 * (48 * 128 * 128 * 4 + 3 * (2 * 16 + 48) * 128 * 2)
    assert int(memory.state_bytes(layers, 1)) == state
    assert int(memory.state_bytes(layers, 4)) == state / 4
    assert int(memory.kv_bytes_of_token(layers, 1)) == 2 * 8 * 128 * 2
    assert memory.kv_bytes(layers, 1, 1000, 2048) - memory.kv_bytes(layers, 1, 0, 2048) == 1000 * memory.kv_bytes_of_token(
        layers, 1
    )


def test_stages_hold_what_they_hold() -> None:
    """Layers of one block each: a stage without attention caches nothing, encoders lie on the first, the head on the last."""
    model = api.load_model("nemotron-h-56b")
    stages = stages_of(model, (5, 113))
    first, last = (
        memory.stage_weights(model, layers, Parallelism(1, 2), first=number == 0, last=number == 1, multiple=64)
        for number, layers in enumerate(stages)
    )
    assert int(memory.kv_bytes_of_token(stages[0], 1)) == 0 < int(memory.state_bytes(stages[0], 1))
    assert not first["head"]
    assert not last["embedding"]
    whole = weights(model, Parallelism())
    assert sum(first.values()) + sum(last.values()) == pytest.approx(sum(whole.values()))
    assert sum(whole.values()) == pytest.approx(2 * model.parameters, rel=1e-4)


def test_an_encoder_is_split_over_the_tensor_ranks() -> None:
    """Qwen2-VL-7B on two GPUs: vLLM reported 7.754 GiB each, 8.35 would be with the whole tower on both."""
    model = api.load_model("qwen2-vl-7b")
    parts = weights(model, Parallelism(2))
    assert parts["encoder"] == model.encoder_parameters
    assert sum(parts.values()) / GIB == pytest.approx(7.754, rel=0.005)
