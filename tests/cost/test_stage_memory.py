"""What an engine takes beside weights and cache: by part, by release, with its range, and where that makes a plan tight."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner import api
from planner.core.engine import release_order
from planner.core.estimate import StageMemory
from planner.core.plan import EngineLimits, Parallelism
from planner.cost import memory
from planner.cost.stage_memory import (
    FORWARD,
    REQUESTS,
    SAMPLER,
    WORKSPACE,
    activation_parts,
    stage_activation,
    stage_graphs,
    tight_note,
)
from planner.cost.strategy import stage_memory, stages_of
from planner.engines import engines
from planner.units import Bytes

GIB = 2.0**30
VLLM, SGLANG, TRTLLM = (engines()[name].traits for name in ("vllm", "sglang", "tensorrt-llm"))
LIMITS = EngineLimits(1024, 8192, 0.9)


def one_gpu(name: str, capacity: float, engine: str = "vllm", limits: EngineLimits = LIMITS) -> StageMemory:
    model = api.load_model(name)
    traits = engines()[engine].traits
    return stage_memory(model, Parallelism(), (len(model.layers),), limits, Bytes(capacity), traits, nvlink=True)[0]


@pytest.mark.parametrize(
    ("name", "degrees", "logged"),
    [  # vLLM 0.19 on H100, GiB: the peak, and what of it is beside the sampler
        ("qwen1.5-moe-a2.7b", Parallelism(), 2.47),
        ("deepseek-v2-lite", Parallelism(), 1.93),
    ],
)
def test_the_workspace_of_experts_is_what_peaks_exceed_the_sampler_by(name: str, degrees: Parallelism, logged: float) -> None:
    model = api.load_model(name)
    parts = activation_parts(model, model.layers, VLLM.memory, LIMITS, degrees, last=True)
    assert parts[WORKSPACE] > 0
    assert stage_activation(parts) / GIB == pytest.approx(logged, abs=0.02)


def test_a_step_takes_the_larger_of_pass_and_sampler_and_all_beside() -> None:
    parts = {FORWARD: Bytes(3), SAMPLER: Bytes(5), WORKSPACE: Bytes(2), REQUESTS: Bytes(1)}
    assert int(stage_activation(parts)) == 8
    assert int(stage_activation({**parts, FORWARD: Bytes(7)})) == 10
    assert int(stage_activation({name: size for name, size in parts.items() if name != SAMPLER})) == 6


def test_only_the_last_stage_samples_and_tensor_ranks_split_the_widest_block() -> None:
    model = api.load_model("llama-3.1-8b")
    first = activation_parts(model, model.layers[:16], VLLM.memory, LIMITS, Parallelism(1, 2), last=False)
    assert SAMPLER not in first
    whole, half = (
        activation_parts(model, model.layers, VLLM.memory, LIMITS, Parallelism(tensor), last=True)[FORWARD] for tensor in (1, 2)
    )
    assert int(whole - half) == 8192 * 2 * 3 * 14336 / 2


def test_experts_on_ranks_of_their_own_are_not_sliced() -> None:
    model = api.load_model("deepseek-v3")
    sliced, spread = (
        activation_parts(model, model.layers, VLLM.memory, LIMITS, degrees, last=True)[WORKSPACE]
        for degrees in (Parallelism(8), Parallelism(8, expert=8))
    )
    assert int(sliced) == 2 * 8192 * 8 * (7168 + 256)
    assert int(spread) == 2 * 8192 * 8 * (7168 + 2048)


def test_layers_of_experts_capture_more() -> None:
    model = api.load_model("deepseek-v2-lite")
    dense = memory.cuda_graphs(27, 1, VLLM.memory.cuda_graphs)
    assert int(stage_graphs(VLLM.memory, model.layers, 1) - dense) == int(26 * VLLM.memory.cuda_graphs_expert_layer)


def test_sglang_takes_its_share_of_what_is_free_when_it_starts() -> None:
    """Four H100 of 79.1 GiB, 0.93: 16.46 GiB were logged, and 17.9 are a share of all memory."""
    model = api.load_model("qwen3-235b-a22b-fp8")
    limits = replace(SGLANG.default_limits(api.load_gpu("H100-SXM5-80GB"), Bytes(79.1 * GIB)), memory_fraction=0.93)
    stage = stage_memory(model, Parallelism(4), (94,), limits, Bytes(79.1 * GIB), SGLANG, nvlink=True)[0]
    assert stage.kv_cache <= 0.93 * (79.1 * GIB - SGLANG.memory.buffers_nvlink) - stage.weights
    assert stage.kv_cache / GIB == pytest.approx(16.46, rel=0.1)


def test_ranges_bracket_what_is_said_and_the_cache_is_least_where_all_else_is_most() -> None:
    for engine in ("vllm", "sglang", "tensorrt-llm", "tgi"):
        stage = one_gpu("llama-3.1-8b", 40 * GIB, engine)
        assert stage.activation_range[0] < stage.activation < stage.activation_range[1]
        assert stage.overhead_range[0] < stage.overhead < stage.overhead_range[1]
        assert stage.kv_cache_range[0] <= stage.kv_cache <= stage.kv_cache_range[1]
    stage = one_gpu("llama-3.1-8b", 40 * GIB)
    more = stage.activation_range[1] - stage.activation + stage.overhead_range[1] - stage.overhead
    assert stage.kv_cache - stage.kv_cache_range[0] == pytest.approx(more)


def test_a_release_is_what_its_logs_were_like() -> None:
    now = VLLM.at("")
    assert now is VLLM
    assert VLLM.at("0.33.0") is VLLM
    assert VLLM.at("nightly") is VLLM
    old, sorting, plain = VLLM.at("0.7.3"), VLLM.at("0.16.0"), VLLM.at("0.20.1")
    assert not old.cache_groups
    assert old.whole_prompts == 32768
    assert sorting.memory.sampler_bytes_per_logit > 2 * plain.memory.sampler_bytes_per_logit
    assert not plain.memory.graphs_in_budget
    gpu = api.load_gpu("L40S")
    fractions = [VLLM.at(version).default_limits(gpu, gpu.memory).memory_fraction for version in ("0.19.2", "0.20.0", "0.21")]
    assert fractions == [0.90, 0.92, 0.92]
    sequences = [VLLM.at(version).default_limits(gpu, gpu.memory).max_sequences for version in ("0.7.3", "0.8.3", "0.8.4")]
    assert sequences == [256, 1024, 256]
    untils = [order for one in VLLM.releases if (order := release_order(one.until))]
    assert len(untils) == len(VLLM.releases)
    assert untils == sorted(untils)


def test_graphs_outside_the_budget_take_nothing_of_the_cache() -> None:
    model, limits = api.load_model("llama-3.1-8b"), EngineLimits(1024, 8192, 0.95)
    stages = [
        stage_memory(model, Parallelism(), (32,), limits, Bytes(79.19 * GIB), VLLM.at(version), nvlink=True)[0]
        for version in ("0.19.0", "0.21.0")
    ]
    assert stages[0].kv_cache / GIB == pytest.approx(58.11, abs=0.05)  # as logged by 0.19
    assert int(stages[0].kv_cache - stages[1].kv_cache) == int(stage_graphs(VLLM.memory, model.layers, 1))


def test_a_candidate_comes_before_its_release() -> None:
    assert release_order("") is None
    ascending = ["0.2.4", "0.8.0rc3.dev5", "0.8.x", "0.8.5.dev1", "0.8.5", "0.26.1rc1.dev608", "1.0"]
    found = [order for version in ascending if (order := release_order(version))]
    assert found == sorted(found)
    assert len(set(found)) == len(ascending)


@pytest.mark.parametrize(("capacity", "tight"), [(24.0, True), (40.0, False)])
def test_a_plan_that_fits_by_less_than_what_is_not_sure_says_so(capacity: float, tight: bool) -> None:
    model = api.load_model("llama-3.1-8b")
    limits, degrees = EngineLimits(256, 2048, 0.92), Parallelism()
    stages = stage_memory(model, degrees, (32,), limits, Bytes(capacity * GIB), VLLM, nvlink=False)
    tokens = 30_000 if tight else 8192
    note = tight_note(stages, stages_of(model, (32,)), model, tokens, degrees, limits, VLLM)
    one = memory.request_bytes(model.layers, model, tokens, degrees, limits, VLLM)
    assert stages[0].kv_cache > one
    if not tight:
        assert note is None
    else:
        assert note is not None
        room = (stages[0].kv_cache - one) / GIB
        unsure = (stages[0].kv_cache - stages[0].kv_cache_range[0]) / GIB
        assert room < unsure
        assert f"{room:.1f} GiB, less than the uncertainty of {unsure:.1f} GiB" in note
