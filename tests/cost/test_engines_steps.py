"""What engines make of a step: small kernels, norms that ranks sum, prompts in steps of their own, static batches, other vendors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner import api
from planner.core.model import Attention, DenseMlp, Indexer, LatentAttention, Layer, LinearAttention, MoeMlp
from planner.core.plan import Parallelism
from planner.core.workload import Workload
from planner.cost.elementwise import small_kernels
from planner.documents.calibration import load_calibration
from planner.engines import engines
from planner.search.rank import Ranked

PLAIN, EXPERTS = Attention(32, 8, 128), MoeMlp(64, 4, 1024)
LATENT = LatentAttention(128, 1536, 512, 64, 128, 128)


def ranked(model: str, topology: str, degrees: Parallelism, workload: Workload, engine: str) -> Ranked:
    answer, tree = api.explain(api.load_model(model), api.load_topology(topology), workload, degrees, engine=engine)
    assert tree is not None
    return answer.plans[0].ranked


@pytest.mark.parametrize(
    ("layer", "kernels"),
    [
        (Layer(PLAIN, DenseMlp(4096)), 5),
        (Layer(PLAIN, EXPERTS), 6),
        (Layer(replace(PLAIN, head_norm=True), EXPERTS), 8),
        (Layer(replace(PLAIN, output_gate=True), EXPERTS), 7),
        (Layer(PLAIN, replace(EXPERTS, shared=DenseMlp(1024))), 8),
        (Layer(PLAIN, replace(EXPERTS, shared=DenseMlp(1024), shared_gate=True)), 9),
        (Layer(LATENT, EXPERTS), 10),
        (Layer(replace(LATENT, indexer=Indexer(64, 128, 2048)), EXPERTS), 15),
        (Layer(LinearAttention(16, 128, 48, 128, 4, 2), EXPERTS), 8),
        (Layer(None, EXPERTS), 3),
        (Layer(PLAIN, None), 3),
    ],
)
def test_small_kernels_are_counted_by_what_a_layer_is_made_of(layer: Layer, kernels: int) -> None:
    assert small_kernels(layer) == kernels


def test_norms_over_all_heads_cost_a_sum_where_ranks_share_them() -> None:
    summed = api.load_model("minimax-m2.5")
    plain = replace(
        summed,
        layers=tuple(
            replace(one, attention=replace(one.attention, summed_norm=False, head_norm=True))  # as many small kernels
            for one in summed.layers
            if isinstance(one.attention, Attention)
        ),
    )
    assert len(plain.layers) == len(summed.layers)
    topology, workload = api.load_topology("8xH200-SXM5-141GB"), Workload()
    for tensor in (2, 4):
        with_sums, without = (
            api.explain(model, topology, workload, Parallelism(tensor), engine="vllm")[0].plans[0].ranked.estimate
            for model in (summed, plain)
        )
        more = with_sums.decode.parts["all_reduce"] - without.decode.parts["all_reduce"]
        assert 0 < more < 62 * 20e-6
        assert with_sums.tpot > without.tpot
    assert not any(layer.sums_norms for layer in plain.layers)


def test_sums_of_norms_are_a_part_of_the_tree_beside_the_others() -> None:
    answer, tree = api.explain(
        api.load_model("minimax-m2.5"), api.load_topology("dgx-h100"), Workload(), Parallelism(4), engine="vllm"
    )
    assert tree is not None
    names = [step.name for root in tree.roots for step in root.walk()]
    assert names.count("all_reduce of norms") == 2  # in a decode step and in the prompt
    assert "all_reduce of norms, beside decoding" in names
    assert answer.plans[0].ranked.estimate == tree.estimate


def test_only_sglang_decodes_nothing_while_it_reads_a_prompt() -> None:
    assert [name for name, one in engines().items() if one.traits.prompts_apart] == ["sglang"]
    workload = Workload(8192, 512, 32)
    for engine in ("sglang", "vllm"):
        _, tree = api.explain(
            api.load_model("llama-3.1-70b"), api.load_topology("dgx-h100"), workload, Parallelism(8), engine=engine
        )
        assert tree is not None
        steps = {step.name: step.value for root in tree.roots for step in root.walk()}
        longer = load_calibration().overheads[engine].interference
        if engine == "sglang":
            assert steps["one prompt between decode steps"] == pytest.approx(longer * steps["one prompt"])
        else:
            assert steps["one prompt beside decoding"] < longer * steps["one prompt"]


def test_a_prompt_holds_up_others_longer_than_its_kernels_take() -> None:
    model, topology = api.load_model("llama-3.1-70b"), api.load_topology("dgx-h100")
    _, tree = api.explain(model, topology, Workload(8192, 512, 32), Parallelism(8), engine="vllm")
    assert tree is not None
    held = next(step for step in tree.roots[0].walk() if step.name == "one prompt beside decoding")
    assert held.times == load_calibration().overheads["vllm"].interference > 1
    assert held.value == pytest.approx(held.times * sum(child.value for child in held.children))
    assert [one.name for one in held.constants] == ["engines.vllm.overhead"]


@pytest.mark.parametrize(("engine", "parts"), [("tensorrt-llm", 4), ("vllm", 1), ("sglang", 1)])
def test_a_static_batch_goes_through_stages_in_turn_or_as_one(engine: str, parts: int) -> None:
    topology, workload = "4xA100-SXM4-40GB:nvlink-mesh", Workload(1024, 1024, 64, load="batch")
    piped = ranked("llama-2-7b", topology, Parallelism(1, 4), workload, engine).estimate
    assert piped.pipeline.decode_micro_batches == parts
    said = [note for note in piped.assumptions if "static batch" in note]
    assert said == [
        f"a static batch goes through the stages {'in 4 parts, one after another' if parts == 4 else 'as one'}: one of them works at a time"
    ]
    assert sum(piped.decode.parts.values()) == pytest.approx(piped.decode.total)
    assert piped.pipeline.idle_ratio == pytest.approx(0.75, abs=0.05)


def test_a_batch_of_one_is_not_cut() -> None:
    alone = ranked(
        "llama-2-7b", "4xA100-SXM4-40GB:nvlink-mesh", Parallelism(1, 4), Workload(512, 64, 1, load="batch"), "tensorrt-llm"
    )
    assert alone.estimate.pipeline.decode_micro_batches == 1


def test_gpus_of_another_vendor_take_as_many_times_as_long_as_runs_took() -> None:
    slower = load_calibration().slower
    assert set(slower) == {"AMD"}
    assert slower["AMD"] > 1
    found = ranked("llama-3.1-70b", "8xMI300X", Parallelism(4), Workload(), "vllm").estimate
    for breakdown in (found.decode, found.prefill):
        gpu = sum(time for part, time in breakdown.parts.items() if part not in {"other_vendor", "step_overhead"})
        assert breakdown.parts["other_vendor"] == pytest.approx((slower["AMD"] - 1) * gpu)
        assert sum(breakdown.parts.values()) == pytest.approx(breakdown.total)
    assert found.uncertainty.tpot[0] <= found.tpot / slower["AMD"]
    assert f"times {slower['AMD']:g}, or as they are at best" in found.uncertainty.basis
    nvidia = ranked("llama-3.1-70b", "8xH100-SXM5-80GB", Parallelism(4), Workload(), "vllm").estimate
    assert "other_vendor" not in nvidia.decode.parts
