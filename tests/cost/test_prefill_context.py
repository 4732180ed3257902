"""Tensor groups that split prompts (prefill context parallelism)."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner import api
from planner.core.estimate import Estimate
from planner.core.plan import Infeasible, Parallelism, context_groups, tensor_groups
from planner.core.workload import Workload
from planner.cost.memory import attention_weights
from planner.cost.wire_times import partitions
from planner.search.rank import Ranked
from planner.search.recommendation import Recommendation

MACHINE = "8xH200-SXM5-141GB"
LONG = Workload(8192, 256, 8)


def answer(degrees: Parallelism, model: str = "deepseek-v3", machine: str = MACHINE, workload: Workload = LONG) -> Recommendation:
    return api.estimate(api.load_model(model), api.load_topology(machine), workload, degrees)


def priced(model: str, degrees: Parallelism, machine: str = MACHINE, engine: str = "vllm") -> Ranked | Infeasible:
    return api.priced(api.load_model(model), api.load_topology(machine), LONG, degrees, engine)


def estimate(degrees: Parallelism, workload: Workload = LONG) -> Estimate:
    return answer(degrees, workload=workload).plans[0].ranked.estimate


def test_a_stage_takes_as_many_gpus_as_its_groups_together() -> None:
    degrees = Parallelism(4, data=2, expert=8, prefill_context=2)
    assert (degrees.gpus_per_stage, degrees.gpus_per_replica, degrees.gpus) == (8, 8, 16)
    assert not degrees.attention_data_parallel
    assert str(degrees) == "TP 4 × PP 1 × DP 2 × EP 8 × PCP 2"
    assert tensor_groups((4, 5, 6, 7, 0, 1, 2, 3), 4) == [(4, 5, 6, 7), (0, 1, 2, 3)]
    assert context_groups((4, 5, 6, 7, 0, 1, 2, 3), 4) == [(4, 0), (5, 1), (6, 2), (7, 3)]


def test_every_group_keeps_the_cache_and_attention_whole_and_shares_the_experts() -> None:
    alone, split = (
        answer(degrees).plans[0].ranked.estimate.memory[0] for degrees in (Parallelism(8), Parallelism(4, prefill_context=2))
    )
    model = api.load_model("deepseek-v3")
    rest = 2 * sum(attention_weights(layer, model, 4) - attention_weights(layer, model, 8) for layer in model.layers)
    assert alone.weights < split.weights < alone.weights + rest + 2**30
    assert split.kv_cache < alone.kv_cache


def test_a_prompt_is_split_and_what_all_need_is_gathered() -> None:
    four, split = estimate(Parallelism(4, prefill_context=2)), estimate(Parallelism(2, prefill_context=4))
    whole = estimate(Parallelism(8))
    for part in ("attention", "linear"):
        assert four.prefill.parts[part] == pytest.approx(whole.prefill.parts[part], rel=0.25), part
    assert four.prefill.parts["all_reduce"] < whole.prefill.parts["all_reduce"]
    assert four.prefill.parts["experts"] == pytest.approx(whole.prefill.parts["experts"], rel=0.01)
    assert "context_exchange" not in whole.prefill.parts
    assert 0 < four.prefill.parts["context_exchange"] < split.prefill.parts["context_exchange"]
    assert four.decode.parts["context_exchange"] > 0


def test_requests_that_decode_are_dealt_out() -> None:
    one, many = (estimate(Parallelism(4, prefill_context=2), Workload(8192, 256, count)) for count in (1, 128))
    alone = [estimate(Parallelism(8), Workload(8192, 256, count)) for count in (1, 128)]
    assert one.decode.parts["attention"] >= alone[0].decode.parts["attention"]
    # half the requests, with twice the heads of each and the whole of its cache
    assert many.decode.parts["attention"] == pytest.approx(alone[1].decode.parts["attention"], rel=0.6)


def test_the_error_bar_is_wider_and_says_why() -> None:
    split = estimate(Parallelism(4, prefill_context=2))
    assert "prefill context parallelism is not validated" in split.uncertainty.basis


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_cut_into_groups_is_tried_once(size: int) -> None:
    found = list(partitions((0, 1, 2, 3, 4, 5, 6, 7), size))
    cuts = {frozenset(frozenset(group) for group in tensor_groups(one, size)) for one in found}
    assert len(cuts) == len(found) == {1: 1, 2: 105, 4: 35}[size]
    assert found[0] == (0, 1, 2, 3, 4, 5, 6, 7)


def test_tensor_groups_lie_on_the_fast_links() -> None:
    plan = answer(Parallelism(2, prefill_context=2), "deepseek-v2-lite", "4x-rtx-3090-bridged", Workload()).plans[0]
    assert plan.ranked.plan.placement == (((0, 2, 1, 3),),)
    assert not plan.ranked.proven
    assert "CUDA_VISIBLE_DEVICES=0,2,1,3 " in plan.commands[0]
    assert "--tensor-parallel-size 2 --prefill-context-parallel-size 2 " in plan.commands[0]


def test_the_order_that_is_given_is_the_one_that_is_priced(tmp_path: Path) -> None:
    model, topology = api.load_model("deepseek-v2-lite"), api.load_topology("4x-rtx-3090-bridged")
    times = []
    for order in ("0,2,1,3", "0,1,2,3"):
        launch = tmp_path / "start.sh"
        launch.write_text(f"CUDA_VISIBLE_DEVICES={order} vllm serve {model.name} -tp 2 -pcp 2\n")
        imported = api.import_launch([str(launch)], topology, LONG)
        assert imported.plan.parallelism == Parallelism(2, prefill_context=2)
        assert imported.plan.placement == ((tuple(int(gpu) for gpu in order.split(",")),),)
        assert imported.found.estimate is not None
        times.append(imported.found.estimate.prefill.parts)
    given, swapped = times
    assert given["all_reduce"] < 0.7 * swapped["all_reduce"]
    assert given["context_exchange"] > 1.3 * swapped["context_exchange"]


def test_groups_lie_on_one_host_each_where_a_stage_spans_two() -> None:
    ranked = answer(Parallelism(8, prefill_context=2), machine="2x-dgx-h100").plans[0].ranked
    (stage,) = ranked.plan.placement[0]
    hosts = [{gpu // 8 for gpu in group} for group in tensor_groups(stage, 8)]
    assert all(len(one) == 1 for one in hosts)
    assert hosts[0] != hosts[1]


@pytest.mark.parametrize(
    ("model", "degrees", "engine", "said"),
    [
        ("llama-3.1-8b", Parallelism(4, prefill_context=2), "vllm", "for latent attention alone"),
        ("kimi-k2.5", Parallelism(4, prefill_context=2), "vllm", "for models of text alone"),
        ("deepseek-v3", Parallelism(4, prefill_context=2), "sglang", "sglang is not planned with prefill context parallelism"),
        ("deepseek-v3", Parallelism(2, 2, prefill_context=2), "vllm", "not planned with pipeline stages"),
        (
            "deepseek-v3",
            Parallelism(4, decode_context=2, prefill_context=2),
            "vllm",
            "not planned with decode context parallelism",
        ),
        ("deepseek-v3", Parallelism(2, 1, 2, 8, 1, 2), "vllm", "not planned with replicas that share their experts"),
        ("deepseek-v3", Parallelism(2, expert=2, prefill_context=2), "vllm", "runs EP 4 beside TP 2 × DP 1 × PCP 2"),
    ],
)
def test_what_is_not_split_is_refused_by_rule(model: str, degrees: Parallelism, engine: str, said: str) -> None:
    outcome = priced(model, degrees, "dgx-b200", engine)
    assert isinstance(outcome, Infeasible)
    assert outcome.rule in {"prefill-context", "expert-degree"}
    assert said in outcome.message
