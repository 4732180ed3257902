"""The tree of an estimate: every step is what its children make it, and its roots and parts are those of the estimate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner import api
from planner.core.explanation import Explanation, Step, added, numbered
from planner.core.measured import MeasuredCurve
from planner.core.plan import Parallelism
from planner.core.workload import Workload
from planner.cost.formula import REGISTRY
from planner.units import Bytes, Seconds

PLANS = [
    ("llama-3.1-70b", "8xH100-SXM5-80GB", Parallelism(8), Workload(), "vllm"),
    ("llama-3.1-70b", "8xH100-SXM5-80GB", Parallelism(2, 2, 2), Workload(20000, 100, 64), "vllm"),
    ("llama-3.1-70b", "8x-l40s", Parallelism(4, 2), Workload(concurrency=500), "vllm"),
    ("llama-3.1-70b", "8x-l40s", Parallelism(2, 4), Workload(30000, 256, 3), "tensorrt-llm"),
    ("llama-3.1-8b", "1xL40S", Parallelism(), Workload(concurrency=1), "sglang"),
    ("mixtral-8x7b", "8x-l40s", Parallelism(2, 2, 2, 2), Workload(), "vllm"),
    ("qwen3-235b-a22b-fp8", "2x-dgx-h100", Parallelism(8, 1, 2, 16), Workload(), "vllm"),
    ("deepseek-v3", "2x-dgx-h100", Parallelism(8, 2), Workload(5000, 1, 8), "vllm"),
    ("gpt-oss-120b", "dgx-h100", Parallelism(4, 1, 2), Workload(), "sglang"),
    ("deepseek-v3", "8xH200-SXM5-141GB", Parallelism(8, 1, 1, 8, 8), Workload(), "vllm"),
    ("deepseek-v3", "2x-dgx-h100", Parallelism(8, 2, 1, 1, 4), Workload(20000, 64, 64), "vllm"),
    ("qwen3-235b-a22b", "8xH200-SXM5-141GB", Parallelism(8, 1, 1, 1, 2), Workload(20000, 64, 64), "vllm"),
    ("deepseek-v3", "8xH200-SXM5-141GB", Parallelism(4, 1, 1, 1, 1, 2), Workload(20000, 64, 64), "vllm"),
    ("deepseek-v2-lite", "4x-rtx-3090-bridged", Parallelism(2, 1, 1, 4, 1, 2), Workload(9000, 64, 5), "vllm"),
    ("deepseek-v3", "8xH200-SXM5-141GB", Parallelism(8, 1, 1, 1, 8), Workload(20000, 64, 64), "sglang"),
    ("deepseek-v3.2", "8xB200-SXM-180GB", Parallelism(8, 1, 1, 8), Workload(9000, 300, 16), "vllm"),
    ("gemma-3-27b", "4xL40S", Parallelism(2, 2), Workload(9000, 300, 16), "vllm"),
    ("qwen3.5-35b-a3b", "4xL40S", Parallelism(4), Workload(), "vllm"),
    ("nemotron-3-nano-30b-a3b", "4xL40S", Parallelism(4), Workload(), "vllm"),
    ("llama-4-scout", "dgx-h100", Parallelism(8), Workload(), "tensorrt-llm"),
    ("minimax-m2.5", "8xL40S", Parallelism(4, 2), Workload(9000, 300, 16), "vllm"),
    ("minimax-m2.5", "dgx-h100", Parallelism(4), Workload(9000, 300, 16), "sglang"),
    ("mixtral-8x7b", "8x-l40s", Parallelism(2, 4), Workload(512, 200, 64, load="batch"), "tensorrt-llm"),
    ("llama-3.1-70b", "8xMI300X", Parallelism(2, 2), Workload(), "vllm"),
]


def ask(model: str, topology: str, degrees: Parallelism, workload: Workload, engine: str) -> Explanation:
    answer, tree = api.explain(api.load_model(model), api.load_topology(topology), workload, degrees, engine=engine)
    assert tree is not None
    assert tree.estimate == answer.plans[0].ranked.estimate
    return tree


@pytest.fixture(params=PLANS, ids=lambda one: f"{one[0]} on {one[1]}, {one[2]}, {one[4]}", scope="module")
def tree(request: pytest.FixtureRequest) -> Explanation:
    return ask(*request.param)


def every(tree: Explanation) -> list[Step]:
    return [step for root in tree.roots for step in root.walk()]


def test_every_step_is_what_its_children_make_it(tree: Explanation) -> None:
    inner = [step for step in every(tree) if step.children]
    assert len(inner) > 12
    for step in inner:
        assert step.how in {"sum", "max"}
        assert step.value == pytest.approx(step.together, rel=1e-9), step.name


def test_the_roots_are_the_estimate(tree: Explanation) -> None:
    tpot, ttft, rate, memory = tree.roots
    estimate = tree.estimate
    assert tpot.value == pytest.approx(estimate.tpot, rel=1e-9)
    assert ttft.value == pytest.approx(estimate.ttft, rel=1e-9)
    assert rate.value == pytest.approx(estimate.output_tokens_per_second, rel=1e-9)
    assert memory.value == pytest.approx(max(stage.total for stage in estimate.memory), rel=1e-12)
    for root, bar in ((tpot, estimate.uncertainty.tpot), (ttft, estimate.uncertainty.ttft)):
        assert root.bar is not None
        assert (root.bar.low, root.bar.high) == bar


def below(step: Step, parent: str) -> Step:
    return next(one for one in step.walk() if one.name == parent)


def parts_of(step: Step) -> dict[str, float]:
    """What a step is made of by the names of the estimate's parts, over all stages."""
    found: dict[str, float] = {}

    def collect(one: Step, times: float) -> None:
        if one.name.startswith("stage") and one.children and " to stage" not in one.name:
            for child in one.children:
                collect(child, times * one.times)
        else:
            found[one.name] = found.get(one.name, 0.0) + times * one.value

    for child in step.children:
        collect(child, 1.0)
    return found


def test_the_parts_of_a_decode_step_are_those_of_the_estimate(tree: Explanation) -> None:
    step = below(tree.roots[0], "decode step")
    several = tree.plan.parallelism.pipeline > 1
    found = parts_of(step)
    if several:
        around = parts_of(below(step, "once through all stages"))
        around["point_to_point"] = sum(hop.value for hop in below(step, "sends, and back to the first stage").children)
        found |= around
    # the estimate counts the gathering of logits and the sums of norms among the all-reduces
    beside = found.pop("gather_logits", 0.0) + found.pop("all_reduce of norms", 0.0)
    found["all_reduce"] = found.get("all_reduce", 0.0) + beside
    said = dict(tree.estimate.decode.parts)
    if "other_vendor" in said:  # the tree multiplies where the estimate adds
        device = below(step, "kernels and wires")
        assert said.pop("other_vendor") == pytest.approx(device.value * (1 - 1 / device.times))
    if tree.estimate.communication.shared_link:  # the estimate keeps apart what others on the link add to sends, too
        wires = ("all_reduce", "shared_links", "point_to_point")
        assert sum(found.pop(part, 0.0) for part in wires) == pytest.approx(sum(said.pop(part, 0.0) for part in wires), rel=1e-9)
    for part, time in said.items():
        if part != "waiting":
            assert found[part] == pytest.approx(time, rel=1e-9), part
    assert step.value == pytest.approx(tree.estimate.decode.total, rel=1e-9)


def test_the_parts_of_a_prompt_are_those_of_the_estimate(tree: Explanation) -> None:
    prompt = below(tree.roots[1], "one prompt")
    assert prompt.value == pytest.approx(tree.estimate.prefill.total, rel=1e-9)
    serial = next((one for one in prompt.walk() if one.name == "chunks one after another"), prompt)
    found = parts_of(serial)
    for part in ("linear", "attention", "experts", "elementwise", "expert_exchange", "context_exchange"):
        assert found.get(part, 0.0) == pytest.approx(tree.estimate.prefill.parts.get(part, 0.0), rel=1e-9), part


def test_the_memory_of_every_stage_is_that_of_the_estimate(tree: Explanation) -> None:
    root = tree.roots[3]
    stages = [root] if root.how == "sum" else list(root.children)
    assert {round(stage.value) for stage in stages} == {round(stage.total) for stage in tree.estimate.memory}
    for stage in stages:
        parts = {child.name: child.value for child in stage.children}
        same = [
            one
            for one in tree.estimate.memory
            if parts
            == pytest.approx(
                {"weights": one.weights, "KV cache": one.kv_cache, "activation": one.activation, "overhead": one.overhead},
                rel=1e-9,
            )
        ]
        assert same


def test_leaves_say_where_they_come_from(tree: Explanation) -> None:
    for step in every(tree):
        if step.formula is not None:
            assert step.formula in REGISTRY
        if not step.children and step.how == "formula":
            assert step.formula is not None
        if step.how == "given" and step.unit == "s":
            assert step.constants
        for one in step.constants:
            assert one.source
        if step.bar is not None:
            assert step.bar.low < step.bar.high
            assert step.bar.basis


def test_a_measurement_of_this_machine_is_named() -> None:
    plain = api.load_topology("4xL40S")
    points = ((Bytes(1024.0), Seconds(20e-6)), (Bytes(2.0**26), Seconds(9e-3)))
    curve = MeasuredCurve("all_reduce", tuple(gpu.id for gpu in plain.gpus), "nccl", points, "all_reduce_perf.txt")
    model = api.load_model("llama-3.1-8b")
    for topology, words in ((plain, "ring packing"), (replace(plain, measurements=(curve,)), "all_reduce_perf.txt")):
        _, tree = api.explain(model, topology, Workload(), Parallelism(4))
        assert tree is not None
        step = below(tree.roots[0], "all_reduce")
        assert words in step.source
        assert (step.formula == "interpolate") == bool(topology.measurements)


def test_what_does_not_fit_has_no_tree() -> None:
    answer, tree = api.explain(api.load_model("llama-3.1-70b"), api.load_topology("1xL4"), Workload(), Parallelism())
    assert tree is None
    assert [one.rule for one in answer.infeasible] == ["memory"]


def leaf(value: float) -> Step:
    return Step("stage", value, "s", "given")


def test_stages_in_a_row_that_are_alike_are_shown_once() -> None:
    one, other = added("stage", (leaf(1.0),)), added("stage", (leaf(2.0),))
    summed = numbered("stage", [one, one, other, one], together=True)
    assert [(step.name, step.value, step.times) for step in summed] == [
        ("stages 1 to 2, each alike", 2.0, 2.0),
        ("stage 3", 2.0, 1.0),
        ("stage 4", 1.0, 1.0),
    ]
    assert all(step.value == step.together for step in summed)
    assert [step.value for step in numbered("stage", [one, one, other, one], together=False)] == [1.0, 2.0, 1.0]
