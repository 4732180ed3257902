"""Which degrees are legal, and the rule and numbers of those that are not."""

from __future__ import annotations

import pytest

from planner import api
from planner.core.plan import Infeasible, Parallelism
from planner.core.workload import Workload
from planner.engines import engines
from planner.search.space import candidates, illegal

H100, T4 = "H100-SXM5-80GB", "T4"


def refusal(degrees: Parallelism, model: str, *, gpu: str = H100, gpus: int = 64, **options: str) -> Infeasible | None:
    engine = engines()[options.pop("engine", "vllm")]
    quant = options.get("quant")
    return illegal(degrees, api.load_model(model, quant=quant), Workload(), api.load_gpu(gpu), gpus, engine.traits)


@pytest.mark.parametrize(
    ("degrees", "model", "rule", "have", "need"),
    [
        (Parallelism(3), "llama-3.1-70b", "attention-heads", 64, 3),
        (Parallelism(4, 4, 8), "llama-3.1-70b", "gpus", 64, 128),
        (Parallelism(1, 33), "llama-3.1-8b", "layers", 32, 33),
        (Parallelism(5), "qwen2.5-32b", "kv-heads", 8, 5),
        (Parallelism(2, expert=2), "llama-3.1-8b", "experts", 0, 2),
        (Parallelism(8), "qwen3-235b-a22b-fp8", "quantisation-block", 192, 128),
        (Parallelism(2), "qwen2.5-0.5b-awq", "quantisation-block", 448, 128),
    ],
    ids=str,
)
def test_a_broken_rule_comes_with_its_numbers(degrees: Parallelism, model: str, rule: str, have: float, need: float) -> None:
    found = refusal(degrees, model)
    assert found is not None
    assert (found.rule, found.have, found.need) == (rule, have, need)
    assert have == 0 or str(int(have)) in found.message


@pytest.mark.parametrize(
    "degrees", [Parallelism(1), Parallelism(2, 3, 2), Parallelism(8, 8), Parallelism(16), Parallelism(1, 1, 64)]
)
def test_legal_degrees_break_none(degrees: Parallelism) -> None:
    assert refusal(degrees, "llama-3.1-70b") is None


def test_block_scaled_experts_are_never_cut_in_eight_but_may_be_spread_over_eight() -> None:
    """Qwen3-235B-A22B-FP8: 1536 / 8 = 192 is no multiple of the 128 × 128 block."""
    assert refusal(Parallelism(8, expert=8), "qwen3-235b-a22b-fp8") is None
    assert refusal(Parallelism(4), "qwen3-235b-a22b-fp8") is None
    assert refusal(Parallelism(8), "qwen3-235b-a22b") is None


def test_a_format_wants_hardware_that_has_its_kernels() -> None:
    found = refusal(Parallelism(1), "llama-3.1-8b", gpu=T4, quant="fp8")
    assert found is not None
    assert (found.rule, found.have, found.need) == ("weight-format", 7.5, 8.0)


@pytest.mark.parametrize(
    ("engine", "gpu", "runs"),
    [
        ("tensorrt-llm", "MI300X", False),
        ("tensorrt-llm", "Intel-Arc-Pro-B60", False),
        ("tgi", "MI300X", True),
        ("tgi", "Intel-Arc-Pro-B60", False),
        ("vllm", "MI300X", True),
        ("sglang", "Intel-Arc-Pro-B60", True),
    ],
)
def test_an_engine_runs_on_the_gpus_of_some_vendors(engine: str, gpu: str, *, runs: bool) -> None:
    found = refusal(Parallelism(), "llama-3.1-8b", gpu=gpu, engine=engine)
    assert (found is None) == runs
    assert found is None or (found.rule == "vendor" and f"{engine} runs on NVIDIA" in found.message)


def test_an_engine_that_runs_nowhere_on_a_machine_is_answered_with_no() -> None:
    answer = api.recommend(api.load_model("llama-3.1-8b"), api.load_topology("2xMI300X"), Workload(), engine="tensorrt-llm")
    assert not answer.plans
    assert "tensorrt-llm runs on NVIDIA GPUs, MI300X is AMD's" in answer.reasons[1]


def test_a_format_of_nvidia_has_no_kernels_elsewhere() -> None:
    found = refusal(Parallelism(), "llama-3.1-8b", gpu="MI300X", quant="nvfp4")
    assert found is not None
    assert (found.rule, found.message) == ("weight-format", "nvfp4 kernels need NVIDIA GPUs, MI300X is AMD's")
    assert refusal(Parallelism(), "llama-3.1-8b", gpu="MI300X", quant="mxfp4") is None
    assert refusal(Parallelism(), "llama-3.1-8b", quant="nvfp4") is None


def test_a_prompt_longer_than_the_model_takes() -> None:
    traits = engines()["vllm"].traits
    found = illegal(Parallelism(), api.load_model("llama-2-7b"), Workload(4000, 200), api.load_gpu(H100), 8, traits)
    assert found is not None
    assert (found.rule, found.have, found.need) == ("context", 4096, 4200)


def test_few_gpus_every_degree_is_tried() -> None:
    traits = engines()["vllm"].traits
    model = api.load_model("llama-3.1-8b")
    found = set(candidates(6, model, traits))
    expected = {Parallelism(t, p, d) for t in range(1, 7) for p in range(1, 7) for d in range(1, 7) if t * p * d <= 6}
    assert found == expected


def test_experts_are_spread_as_each_engine_can() -> None:
    model = api.load_model("qwen3-30b-a3b")
    vllm = {one.expert for one in candidates(8, model, engines()["vllm"].traits) if (one.tensor, one.data) == (4, 1)}
    tensorrt = {one.expert for one in candidates(8, model, engines()["tensorrt-llm"].traits) if (one.tensor, one.data) == (4, 1)}
    assert vllm == {1, 4}
    assert tensorrt == {1, 2, 4}


def test_an_engine_without_pipelines_is_offered_none() -> None:
    assert refusal(Parallelism(8), "llama-3.1-70b", engine="tgi") is None
    found = refusal(Parallelism(8, 2), "llama-3.1-70b", engine="tgi")
    assert found is not None
    assert (found.rule, found.have, found.need) == ("pipeline-stages", 1, 2)
    assert "raise TP or DP" in found.message
    answer = api.recommend(api.load_model("llama-3.1-8b"), api.load_topology("4xL40S"), Workload(), engine="tgi", top=99)
    assert {one.ranked.plan.parallelism.pipeline for one in answer.plans} == {1}
    assert [one.rule for one in answer.infeasible].count("pipeline-stages") == 1


def test_an_engine_of_one_host_is_offered_replicas_on_each() -> None:
    model, two = api.load_model("llama-3.1-70b"), api.load_topology("2x-dgx-h100")
    (refused,) = api.estimate(model, two, Workload(), Parallelism(16), engine="tgi").infeasible
    assert (refused.rule, refused.have, refused.need, refused.unit) == ("one-host", 8, 16, "GPUs")
    assert "the largest host has 8: lower TP" in refused.message
    assert api.estimate(model, two, Workload(), Parallelism(16)).plans  # vLLM spans them
    (one,) = api.estimate(model, two, Workload(), Parallelism(8, 1, 2), engine="tgi").plans
    hosts = [{two.gpus[gpu].host for group in replica for gpu in group} for replica in one.ranked.plan.placement]
    assert hosts == [{"node0"}, {"node1"}]
    three = api.load_topology("3x3xA100-SXM4-80GB@1x200")
    (refused,) = api.estimate(api.load_model("llama-3.1-8b"), three, Workload(), Parallelism(2, 1, 4), engine="tgi").infeasible
    assert (refused.rule, refused.have, refused.need, refused.unit) == ("one-host", 3, 4, "replicas")
    assert "room for 3 replicas of 2 GPUs, not 4: lower DP" in refused.message


@pytest.mark.parametrize("gpus", [17, 32, 72, 128])
def test_many_gpus_are_thinned_out_but_the_whole_machine_is_used(gpus: int) -> None:
    degrees = list(candidates(gpus, api.load_model("llama-3.1-8b"), engines()["vllm"].traits))
    assert len(degrees) == len(set(degrees)) < 2500
    assert max(one.gpus for one in degrees) == gpus
    assert Parallelism(1, 1, gpus) in degrees
