"""What the planner exists for: the plans that every estimator without a topology gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from planner import api
from planner.core.plan import Parallelism
from planner.core.workload import Workload
from planner.search.recommendation import Recommendation
from planner.units import Seconds

BRIDGED = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity
GPU0\t X \tPHB\tNV4\tNODE\t0-31\t0
GPU1\tPHB\t X \tNODE\tNV4\t0-31\t0
GPU2\tNV4\tNODE\t X \tPHB\t0-31\t0
GPU3\tNODE\tNV4\tPHB\t X \t0-31\t0
"""


def answer(model: str, topology: str, *, top: int = 100, quant: str | None = None, **options: object) -> Recommendation:
    workload = Workload(
        input_tokens=int(str(options.pop("input_tokens", 1024))),
        output_tokens=int(str(options.pop("output_tokens", 256))),
        concurrency=int(str(options.pop("concurrency", 32))),
    )
    return api.recommend(
        api.load_model(model, quant=quant),
        api.load_topology(topology),
        workload,
        top=top,
        **options,  # type: ignore[arg-type]
    )


def groups(one: Recommendation) -> list[tuple[Parallelism, tuple[int, ...]]]:
    return [
        (plan.ranked.plan.parallelism, group) for plan in one.plans for replica in plan.ranked.plan.placement for group in replica
    ]


@pytest.fixture
def capture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    path = tmp_path_factory.mktemp("box") / "bridged.txt"
    path.write_text(BRIDGED)
    return lambda: str(path)


@pytest.mark.parametrize("engine", ["vllm", "tensorrt-llm"])
@pytest.mark.parametrize("objective", ["throughput", "latency"])
@pytest.mark.parametrize(("model", "quant"), [("llama-3.1-70b", "awq"), ("qwen3-14b", None), ("llama-3.1-8b", None)])
def test_bridged_pairs_are_kept_together(engine: str, objective: str, model: str, quant: str | None) -> None:
    found = answer(model, "4x-rtx-3090-bridged", quant=quant, engine=engine, objective=objective)
    pairs = [(degrees, group) for degrees, group in groups(found) if degrees.tensor == 2]
    assert pairs
    assert all(set(group) in ({0, 2}, {1, 3}) for _, group in pairs)
    for plan in found.plans:
        if plan.ranked.plan.parallelism == Parallelism(2, 2):
            (process,) = plan.launch.processes
            visible = process.environment["CUDA_VISIBLE_DEVICES"]
            assert visible in {"0,2,1,3", "1,3,0,2", "2,0,3,1", "3,1,2,0"}
            assert process.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        if plan.ranked.plan.parallelism == Parallelism(2, 1, 2):
            seen = [set(process.environment["CUDA_VISIBLE_DEVICES"].split(",")) for process in plan.launch.processes]
            assert sorted(map(sorted, seen)) == [["0", "2"], ["1", "3"]]


def test_and_from_the_pasted_text(capture: Callable[[], str]) -> None:
    topology = api.load_topology(capture(), gpu="RTX-3090")
    found = api.recommend(api.load_model("llama-3.1-70b", quant="awq"), topology, Workload(), top=100)
    pairs = [set(group) for degrees, group in groups(found) if degrees.tensor == 2]
    assert pairs
    assert all(pair in ({0, 2}, {1, 3}) for pair in pairs)


def test_the_reason_names_the_link_that_index_order_would_share() -> None:
    found = answer("llama-3.1-70b", "4x-rtx-3090-bridged", quant="awq")
    assert found.plans[0].ranked.plan.parallelism == Parallelism(2, 2)
    assert "gpu0–gpu2" in found.reasons[0]
    assert "{0,1} in index order" in found.reasons[0]


@pytest.mark.parametrize("topology", ["8xH100-SXM5-80GB", "dgx-h100"])
@pytest.mark.parametrize("engine", ["vllm", "tensorrt-llm"])
def test_seventy_billion_on_eight_h100_is_fastest_with_tensor_parallelism(topology: str, engine: str) -> None:
    first = answer("llama-3.1-70b", topology, objective="latency", engine=engine).plans[0].ranked.plan.parallelism
    assert first.tensor > 1
    assert first.pipeline == 1


@pytest.mark.parametrize("topology", ["8x-l40s", "8xL40S"])
@pytest.mark.parametrize("model", ["llama-3.1-70b", "llama-3.1-8b", "qwen3-32b"])
def test_no_group_crosses_a_socket_while_one_that_does_not_is_free(topology: str, model: str) -> None:
    machine = api.load_topology(topology)
    sockets = [set(range(4)), set(range(4, 8))]
    assert [gpu.index for gpu in machine.gpus] == list(range(8))
    seen = [group for degrees, group in groups(answer(model, topology)) if degrees.tensor in (2, 4)]
    assert seen
    assert all(set(group) <= sockets[0] or set(group) <= sockets[1] for group in seen)


def test_seventy_billion_on_two_cards_of_24_gb_is_a_no_with_a_proof() -> None:
    found = answer("llama-3.1-70b", "2xRTX-3090")
    assert not found.plans
    text = " ".join(found.reasons)
    assert "7× RTX-3090 would fit" in text
    assert "--quant awq" in text
    memory = [one for one in found.infeasible if one.rule == "memory"]
    assert memory
    assert all(one.need > one.have > 0 for one in memory)


def test_what_is_said_to_fit_fits_and_one_gpu_less_does_not() -> None:
    model = api.load_model("llama-3.1-70b")
    remedy = api.smallest_that_fits(model, api.load_topology("2xRTX-3090"), Workload())
    assert remedy.gpus == 7
    assert api.recommend(model, api.load_topology("7xRTX-3090"), Workload()).plans
    assert not api.recommend(model, api.load_topology("6xRTX-3090"), Workload()).plans
    for name, degrees in remedy.formats:
        quantised = api.load_model("llama-3.1-70b", quant=name)
        assert api.estimate(quantised, api.load_topology("2xRTX-3090"), Workload(), degrees).plans


def test_experts_in_blocks_of_128_are_never_cut_in_eight() -> None:
    found = answer("qwen3-235b-a22b-fp8", "dgx-h100")
    degrees = [plan.ranked.plan.parallelism for plan in found.plans]
    assert any(one.expert == 8 for one in degrees)
    assert not any(one.tensor == 8 and one.expert == 1 for one in degrees)
    refused = [one for one in found.infeasible if one.rule == "quantisation-block"]
    assert any(one.parallelism.tensor == 8 for one in refused)


def test_over_two_nodes_no_tensor_group_leaves_its_node() -> None:
    found = answer("llama-3.1-70b", "2x-dgx-h100")
    assert any(degrees.gpus == 16 for degrees, _ in groups(found))
    for degrees, group in groups(found):
        if degrees.tensor <= 8:
            assert len({gpu // 8 for gpu in group}) == 1


def test_a_pipeline_over_nodes_crosses_the_network_once() -> None:
    found = api.estimate(api.load_model("llama-3.1-405b"), api.load_topology("2x-dgx-h100"), Workload(), Parallelism(8, 2))
    (replica,) = found.plans[0].ranked.plan.placement
    assert [{gpu // 8 for gpu in stage} for stage in replica] in ([{0}, {1}], [{1}, {0}])


def test_plans_come_best_first_and_targets_before_all() -> None:
    plain = answer("llama-3.1-8b", "dgx-h100", concurrency=256)
    rates = [plan.ranked.estimate.output_tokens_per_second for plan in plain.plans]
    assert all(a >= b for a, b in pairwise(rates))
    fast = answer("llama-3.1-8b", "dgx-h100", concurrency=256, objective="latency")
    latencies = [plan.ranked.latency(fast.workload) for plan in fast.plans]
    assert all(a <= b for a, b in pairwise(latencies))
    target = plain.plans[3].ranked.estimate.tpot * 0.999
    workload = Workload(concurrency=256, tpot_target=Seconds(target))
    aimed = api.recommend(api.load_model("llama-3.1-8b"), api.load_topology("dgx-h100"), workload, top=100)
    met = [not plan.ranked.missed(workload) for plan in aimed.plans]
    assert met == sorted(met, reverse=True)
    assert met[0]
    assert not met[-1]


def test_estimate_is_the_same_answer_as_recommend_gives() -> None:
    found = answer("llama-3.1-70b", "8x-a6000")
    for plan in found.plans[:10]:
        degrees = plan.ranked.plan.parallelism
        alone = api.estimate(found.model, api.load_topology("8x-a6000"), found.workload, degrees).plans[0]
        assert alone.ranked.plan == plan.ranked.plan
        assert alone.ranked.estimate == plan.ranked.estimate


def test_the_same_question_gets_the_same_answer() -> None:
    assert answer("mixtral-8x7b", "dgx-1-v100") == answer("mixtral-8x7b", "dgx-1-v100")


def test_groups_that_share_a_wire_are_said(tmp_path: Path) -> None:
    """Four cards without peer-to-peer behind one switch: both pairs go up its one link to host memory."""
    names = [f"GPU{number}" for number in range(4)]
    rows = ["\t".join([name, *(" X " if name == other else "PIX" for other in names)]) for name in names]
    path = tmp_path / "box.txt"
    path.write_text("\t".join(["", *names]) + "\n" + "\n".join(rows) + "\n")
    topology = api.load_topology(str(path), gpu="RTX-4090")
    shared = api.estimate(api.load_model("llama-3.1-8b"), topology, Workload(), Parallelism(2, 1, 2)).plans[0]
    said = " ".join(shared.assumptions)
    assert "PCIe bridge0–switch0 (24 GB/s) carries the all-reduces of 2 replicas: " in said
    assert shared.ranked.estimate.decode.parts["shared_links"] > 0
    alone = api.estimate(api.load_model("llama-3.1-8b"), topology, Workload(), Parallelism(2)).plans[0]
    assert "carries" not in " ".join(alone.assumptions)
    assert alone.ranked.estimate.communication.shared_link is None
