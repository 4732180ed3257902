"""Time of the kinds of attention: what they read and what they multiply."""

from __future__ import annotations

import pytest

from planner import api
from planner.core.model import Attention, Indexer, LatentAttention, LinearAttention
from planner.core.plan import Parallelism
from planner.cost import attention
from planner.cost.calibration import AttentionFit
from planner.cost.layer import LayerCost, cut
from planner.documents.calibration import load_calibration
from planner.units import Seconds

H100 = api.load_gpu("H100-SXM5-80GB")
FIT = AttentionFit(Seconds(0.0), 1.0, None)
LATENT = LatentAttention(128, 1536, 512, 64, 128, 128)


def decode(mixer: Attention | LatentAttention | LinearAttention, tensor: int, context: int, element: float = 2) -> float:
    return attention.decode(mixer, tensor, 1, context, H100, FIT, element, FIT)


def test_a_window_is_all_that_is_read() -> None:
    near, far = Attention(32, 8, 128, window=1024), Attention(32, 8, 128)
    assert decode(near, 1, 8192) == decode(far, 1, 1024) < decode(far, 1, 8192)
    assert decode(far, 1, 8192, 1) == decode(far, 1, 8192) / 2


def test_a_latent_is_read_whole_by_every_rank() -> None:
    few = LatentAttention(8, 1536, 512, 64, 128, 128)
    read = 8192 * 576 * 2 / H100.memory_bandwidth
    assert decode(few, 1, 8192) == decode(few, 8, 8192) == pytest.approx(read)


def test_many_heads_on_a_latent_are_bound_by_arithmetic() -> None:
    work = 2 * 128 * (2 * 512 + 64) * 8192 / H100.half_precision
    assert decode(LATENT, 1, 8192) == pytest.approx(max(work, 8192 * 576 * 2 / H100.memory_bandwidth))


def test_an_indexer_leaves_its_choice_to_read() -> None:
    sparse = LatentAttention(128, 1536, 512, 64, 128, 128, indexer=Indexer(64, 128, 2048))
    assert decode(sparse, 8, 100_000) < decode(LATENT, 8, 100_000)
    assert decode(sparse, 8, 1000) > decode(LATENT, 8, 1000)
    assert attention.prompt_work(sparse, 1, 100_000) < attention.prompt_work(LATENT, 1, 100_000)


def test_a_recurrence_costs_the_same_at_any_length() -> None:
    linear = LinearAttention(16, 128, 48, 128, 4, 2)
    assert (
        decode(linear, 1, 100) == decode(linear, 1, 100_000) == pytest.approx(2 * linear.state_bytes(1) / H100.memory_bandwidth)
    )
    assert attention.prompt_work(linear, 1, 2000) == 2 * attention.prompt_work(linear, 1, 1000)


def test_prompts_of_a_latent_have_heads_of_their_own() -> None:
    assert float(attention.prompt_work(LATENT, 8, 1000)) == 2 * 16 * (192 + 128) * 1000 * 500


@pytest.mark.parametrize("name", ["deepseek-r1", "qwen3.5-27b", "gpt-oss-20b", "nemotron-h-56b", "glm-5-fp8", "gemma-4-26b-a4b"])
def test_every_layer_of_every_kind_has_a_price(name: str) -> None:
    model = api.load_model(name)
    whole = LayerCost(model, Parallelism(1), H100, load_calibration())
    split = LayerCost(model, Parallelism(2), H100, load_calibration())
    for layer in {id(one): one for one in model.layers}.values():
        alone, shared = whole.decode(layer, 8, 4096), split.decode(layer, 8, 4096)
        assert 0 < sum(shared.values()) < sum(alone.values())
        assert (alone["attention"] > 0) == (layer.attention is not None)
        chunks = cut(8192, 2048)
        assert 0 < whole.riding(layer, chunks, 8) <= sum(whole.prefill(layer, chunks).values())


def test_narrow_heads_take_longer_for_as_many_products() -> None:
    factors = [attention.narrow_heads(size) for size in (32, 64, 80, 96, 128, 160, 256)]
    assert factors == sorted(factors, reverse=True)
    assert factors[4:] == [1.0, 1.0, 1.0]
    assert 1 / factors[1] == pytest.approx(473 / 616, abs=0.01)  # FlashAttention-3, H100, causal, 16k
    wide, narrow = api.load_model("llama-3.1-8b"), api.load_model("gpt-oss-20b")
    for model, size in ((wide, 128), (narrow, 64)):
        mixer = model.layers[-1].attention
        assert mixer is not None
        assert attention.prompt_heads(mixer) == size
    assert attention.prompt_heads(LATENT) == 160
