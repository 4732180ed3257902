"""Times of single kernels: what they grow with, and whose constants price them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import api
from planner.core.attention import Attention
from planner.core.feed_forward import MoeMlp
from planner.core.hardware import REFERENCE_CLOCK, GpuSpec
from planner.core.plan import Parallelism
from planner.core.quantization import BF16, FORMATS
from planner.cost import attention
from planner.cost.calibration import AttentionFit, KernelFit, OverheadFit
from planner.cost.gemm import gemm
from planner.cost.layer import LayerCost, cut
from planner.cost.moe import Routing, experts_time
from planner.documents.calibration import load_calibration
from planner.units import BytesPerSecond, Flop, FlopPerSecond, Hertz, Seconds

H100, A100 = api.load_gpu("H100-SXM5-80GB"), api.load_gpu("A100-SXM4-80GB")
B200, L40S = api.load_gpu("B200-SXM-180GB"), api.load_gpu("L40S")
CONSTANTS = load_calibration()
EXPERTS = MoeMlp(128, 8, 1536)


def key(phase: str, gpu: GpuSpec, stack: str, element_bytes: float) -> str:
    chosen = CONSTANTS.attention_fit(phase, gpu, stack, element_bytes)
    return next(name for name, one in CONSTANTS.attention.items() if one is chosen)


@pytest.mark.parametrize(
    ("phase", "gpu", "stack", "element_bytes", "expected"),
    [
        ("decode", A100, "vllm", 2, "decode"),
        ("decode", H100, "", 1, "decode@8-bit"),
        ("decode", H100, "sglang", 1, "decode@sglang@8-bit"),
        ("decode", B200, "sglang", 2, "decode@blackwell"),
        ("decode", B200, "tensorrt-llm", 1, "decode@blackwell@8-bit"),
        ("decode", B200, "sglang", 1, "decode@blackwell@sglang@8-bit"),
        ("prefill", B200, "vllm", 2, "prefill"),
        ("prefill", B200, "no such engine", 1, "prefill@8-bit"),
        ("prefill", H100, "tensorrt-llm", 1, "prefill@hopper@tensorrt-llm@8-bit"),
        ("prefill", L40S, "tensorrt-llm", 1, "prefill@tensorrt-llm"),
    ],
)
def test_attention_is_priced_with_the_nearest_constants(
    phase: str, gpu: GpuSpec, stack: str, element_bytes: float, expected: str
) -> None:
    assert key(phase, gpu, stack, element_bytes) == expected


def test_geforce_and_workstation_blackwell_have_older_kernels() -> None:
    workstation = replace(B200, compute_capability=(12, 0))
    assert key("decode", workstation, "vllm", 2) == "decode"
    assert key("decode", replace(B200, compute_capability=None), "vllm", 2) == "decode"


def test_layers_are_priced_with_the_constants_of_their_engine() -> None:
    model = api.load_model("llama-3.1-8b")
    overheads = {name: replace(one, small_kernel=Seconds(0.0)) for name, one in CONSTANTS.overheads.items()}
    fits = {name: LayerCost(model, Parallelism(1), H100, CONSTANTS, one).prompt_fit for name, one in overheads.items()}
    assert fits["tensorrt-llm"] is CONSTANTS.attention["prefill@tensorrt-llm"]
    assert fits["vllm"] is fits["sglang"] is CONSTANTS.attention["prefill"]
    unknown = OverheadFit(Seconds(0.0), Seconds(0.0), Seconds(0.0))
    assert LayerCost(model, Parallelism(1), H100, CONSTANTS, unknown).prompt_fit is CONSTANTS.attention["prefill"]


def test_a_step_pays_for_products_what_all_engines_together_say() -> None:
    alone, step = CONSTANTS.gemm_fit("fp8", "tensorrt-llm"), CONSTANTS.gemm_fit("fp8")
    assert alone is CONSTANTS.gemm["fp8@tensorrt-llm"]
    assert step is CONSTANTS.gemm["fp8"]
    assert CONSTANTS.gemm_fit("bf16", "tensorrt-llm") is CONSTANTS.gemm["bf16"]
    assert CONSTANTS.gemm_fit("gptq", "vllm") is CONSTANTS.gemm["awq"]


def test_quantised_inputs_are_read_before_the_product() -> None:
    plain = KernelFit(Seconds(0.0), 0.8, 0.8, None)
    weights = FORMATS["fp8"]
    added = gemm(4096, 8192, 8192, weights, H100, replace(plain, traffic=2.0)) - gemm(4096, 8192, 8192, weights, H100, plain)
    assert added == pytest.approx(2 * 2 * 4096 * 8192 / H100.memory_bandwidth)


def test_small_products_fill_the_gpu_less() -> None:
    fit, wide = KernelFit(Seconds(0.0), 0.8, 0.8, None, fill=Flop(2e9)), replace(H100, memory_bandwidth=BytesPerSecond(1e18))
    for tokens, longer in ((119, 3.0), (119_000, 1.002)):  # 1 GFLOP, 1 TFLOP
        full = gemm(tokens, 4096, 1024, BF16, wide, replace(fit, fill=Flop(0.0)))
        assert gemm(tokens, 4096, 1024, BF16, wide, fit) == pytest.approx(longer * full, rel=0.01)


@given(st.integers(1, 40_000), st.integers(1, 4000), st.integers(1, 8))
def test_a_longer_prompt_never_takes_less(tokens: int, more: int, heads: int) -> None:
    for fit in (one for name, one in CONSTANTS.attention.items() if name.startswith("prefill")):
        short, long = (
            attention.prefill(attention.causal_attention_work(heads, 128, n), Flop(0), heads * 128, n, n, 1, H100, fit)
            for n in (tokens, tokens + more)
        )
        assert long > short


def test_what_starts_a_kernel_takes_as_many_cycles_on_every_gpu() -> None:
    slow, unknown = replace(H100, clock=Hertz(REFERENCE_CLOCK / 2)), replace(H100, clock=None)
    product, token = CONSTANTS.gemm_fit("bf16"), CONSTANTS.attention["decode"]
    assert gemm(1, 64, 64, BF16, slow, product) - gemm(1, 64, 64, BF16, H100, product) == pytest.approx(
        product.launch + 64 * product.loop
    )
    mixer = Attention(8, 1, 128)
    longer = attention.decode(mixer, 1, 1, 1000, slow, token) - attention.decode(mixer, 1, 1, 1000, H100, token)
    assert longer == pytest.approx(token.launch + 1000 * token.context)
    plan, overhead = Parallelism(1, 1, 1, 1), OverheadFit(Seconds(3e-6), Seconds(0.0), Seconds(0.0))
    routed = api.load_model("mixtral-8x7b").layers[0]
    small = [
        LayerCost(api.load_model("mixtral-8x7b"), plan, gpu, CONSTANTS, overhead).decode(routed, 1, 1000)["elementwise"]
        for gpu in (H100, slow, unknown)
    ]
    assert small[0] == small[2] == small[1] / 2 > 0


def test_the_last_tile_of_a_prompt_has_one_multiprocessor() -> None:
    """A single short head leaves the others idle: more of them do not help, as they do in a batch."""
    fit = AttentionFit(Seconds(0.0), 0.7, None, last=0.7)
    twice = replace(H100, multiprocessors=264, compute={"bf16": FlopPerSecond(2 * H100.half_precision)})

    def time(gpu: GpuSpec, heads: int) -> float:
        work = attention.causal_attention_work(heads, 128, 4096)
        return attention.prefill(work, attention.last_tile_work(128, 4096), heads * 128, 4096, 4096, 1, gpu, fit)

    assert time(twice, 1) > 0.7 * time(H100, 1)
    assert time(twice, 512) == pytest.approx(time(H100, 512) / 2, rel=0.05)
    assert attention.last_work(Attention(8, 1, 128, window=1024), 4096) == attention.last_tile_work(128, 1024)


def test_chunks_of_a_prompt_see_more_and_more_of_it() -> None:
    assert cut(8192, 8192).seen == 8192
    assert cut(8192, 2048).seen == (2048 + 4096 + 6144 + 8192) / 4
    assert cut(2048, 2048, prefix=1000).seen == 3048
    assert cut(512, 2048, prompts=4).seen == 512


def test_short_prompts_are_less_efficient() -> None:
    fit = CONSTANTS.attention["prefill"]

    def rate(tokens: int) -> float:
        work = attention.causal_attention_work(64, 128, tokens)
        return work / attention.prefill(work, Flop(0), 64 * 128, tokens, tokens, 1, H100, fit)

    assert rate(512) < rate(4096) < rate(32768) < fit.efficiency * H100.half_precision


@given(st.integers(1, 200_000), st.integers(1, 4000))
def test_every_position_of_a_context_costs(context: int, more: int) -> None:
    fit = AttentionFit(Seconds(1e-5), 0.9, None, context=Seconds(1e-10))
    mixer = Attention(8, 1, 128)
    now, later = (attention.decode(mixer, 1, 1, seen, H100, fit) for seen in (context, context + more))
    assert later - now == pytest.approx(more * (1e-10 + 512 / (0.9 * H100.memory_bandwidth)), rel=1e-6)


def experts(tokens: int, routing: Routing, ranks: int = 1) -> float:
    return experts_time(EXPERTS, 4096, tokens, 1, ranks, BF16, H100, CONSTANTS, routing)


def test_even_routing_visits_more_experts_with_few_tokens() -> None:
    assert experts(16, "balanced") > experts(16, "uniform") == experts(16, "skewed")
    assert experts(4096, "balanced") == pytest.approx(experts(4096, "uniform"))


def test_popular_experts_keep_one_rank_busier() -> None:
    assert experts(16384, "skewed", 8) > 1.2 * experts(16384, "uniform", 8)
    assert experts(16384, "uniform", 8) > experts(16384, "balanced", 8)
    assert experts(16384, "skewed", 1) == experts(16384, "uniform", 1)


def test_ranks_sort_all_tokens_also_those_of_others_experts() -> None:
    alone, shared = experts(16384, "balanced", 1), experts(16384, "balanced", 8)
    routed = 4 * 16384 * 8 * 4096 / H100.memory_bandwidth * CONSTANTS.moe["bf16"].traffic
    assert shared - routed == pytest.approx((alone - routed) / 8, rel=0.1)
