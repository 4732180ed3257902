"""Saved plans: what is written is read back, whatever was changed by hand is refused with its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch_support import PLANS, saved
from planner import api
from planner.core.plan import Parallelism
from planner.core.saved import SavedPlan
from planner.core.speculation import Speculation
from planner.core.workload import Workload
from planner.documents import strict_yaml
from planner.documents.catalogue import model_names
from planner.documents.files import DATA
from planner.documents.model_facts import facts_of, model_of
from planner.documents.plan import dump_plan, parse_plan, plan_digest
from planner.errors import BadInput, PlannerError
from planner.units import Seconds

SCHEMA = json.loads((DATA / "schemas" / "plan.schema.json").read_text("utf-8"))


def read(text: str) -> SavedPlan:
    return parse_plan(text, "plan.yaml", api.load_topology)


def with_inline(plan: SavedPlan) -> SavedPlan:
    return replace(plan, topology_reference=None)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("engine", ["vllm", "tensorrt-llm", "sglang"])
@pytest.mark.parametrize("name", ["bridged", "replicas", "pipeline", "uneven"])
def test_what_is_written_is_read_back(name: str, engine: str, *, inline: bool) -> None:
    plan = saved(name, engine=engine)
    plan = with_inline(plan) if inline else plan
    text = dump_plan(plan)
    jsonschema.validate(strict_yaml.load(text, "plan.yaml"), SCHEMA)
    again = read(text)
    assert again == plan
    assert dump_plan(again) == text
    assert plan_digest(again) == plan_digest(plan)


@pytest.mark.parametrize(
    "traffic",
    [
        Workload(load="full", tpot_target=Seconds(0.04), percentile=99),
        Workload(load="request-rate", request_rate=1.25, cached_share=0.3),
        Workload(load="batch", concurrency=7, speculation=Speculation("ngram", 4, 0.5)),
        Workload(speculation=Speculation("eagle3", 2, 0.75, "some/head")),
    ],
    ids=str,
)
def test_traffic_is_read_back_and_the_plan_guesses_as_it_says(traffic: Workload) -> None:
    plan = saved("bridged")
    plan = replace(plan, workload=traffic, plan=replace(plan.plan, speculation=traffic.speculation))
    text = dump_plan(plan)
    jsonschema.validate(strict_yaml.load(text, "plan.yaml"), SCHEMA)
    assert read(text) == plan
    assert dump_plan(read(text)) == text


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("draft_tokens: 2", "draft_tokens: 17", "speculation.draft_tokens"),
        ("method: eagle3", "method: ngram", "speculation.checkpoint"),
        ("acceptance_rate: 0.75", "acceptance_rate: 1.5", "speculation.acceptance_rate"),
        ("checkpoint: some/head", "checkpoint: --rm", "speculation.checkpoint"),
    ],
)
def test_guesses_that_are_none_are_refused_with_their_place(old: str, new: str, place: str) -> None:
    plan = saved("bridged")
    text = dump_plan(replace(plan, workload=Workload(speculation=Speculation("eagle3", 2, 0.75, "some/head"))))
    assert old in text
    with pytest.raises(BadInput) as raised:
        read(text.replace(old, new))
    assert place in str(raised.value)


def test_shared_out_caches_are_kept_and_others_not_spoken_of() -> None:
    text = dump_plan(saved("shared cache"))
    jsonschema.validate(strict_yaml.load(text, "plan.yaml"), SCHEMA)
    assert read(text) == saved("shared cache")
    assert "decode_context" not in dump_plan(saved("bridged"))
    with pytest.raises(BadInput, match="TP 8 is not divisible by DCP 3") as raised:
        read(text.replace("decode_context: 2", "decode_context: 3"))
    assert "$.parallelism.decode_context" in str(raised.value)


def test_split_prompts_are_kept_and_the_groups_of_a_stage_counted() -> None:
    text = dump_plan(saved("split prompts"))
    jsonschema.validate(strict_yaml.load(text, "plan.yaml"), SCHEMA)
    assert read(text) == saved("split prompts")
    assert "prefill_context" not in dump_plan(saved("shared cache"))
    with pytest.raises(BadInput, match="holds 16 GPUs; the tensor degree is 8, over 4 groups"):
        read(text.replace("prefill_context: 2", "prefill_context: 4"))


@pytest.mark.parametrize("name", model_names())
def test_the_facts_of_every_known_model_are_read_back(name: str) -> None:
    model = api.load_model(name)
    again = model_of(json.loads(json.dumps(facts_of(model))), model.name, "$")
    assert again == model
    assert (again.parameters, again.active_parameters) == (model.parameters, model.active_parameters)
    assert len({id(layer) for layer in again.layers}) <= len({id(layer) for layer in model.layers})


def test_targets_are_read_back_exactly() -> None:
    topology = api.load_topology("dgx-h100")
    for milliseconds in (200.0, 33.3, 0.001, 12.345678901234567):
        workload = Workload(100, 10, 4, Seconds(milliseconds * 1e-3), None)
        answer = api.estimate(api.load_model("llama-3.1-8b"), topology, workload, Parallelism(2), objective="latency")
        plan = api.plan_of(answer, topology, model="llama-3.1-8b", reference="dgx-h100")
        assert read(dump_plan(plan)) == plan


def test_the_digest_is_of_the_plan_not_of_its_layout() -> None:
    text = dump_plan(saved("bridged"))
    digest = plan_digest(saved("bridged"))
    assert plan_digest(read("# a comment\n" + text)) == digest
    assert plan_digest(read(text.replace("planner_version: ", "planner_version: 9"))) == digest
    assert plan_digest(read(text.replace("memory_fraction: 0.92", "memory_fraction: 0.9"))) != digest


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("kind: plan", "kind: topology", "plan.yaml", "no saved plan"),
        ("schema_version: 1", "schema_version: 2", "$.schema_version", "this release reads 1"),
        ("  tensor: 2", "  tensor: 4", "$.placement[0][0]", "tensor degree is 4"),
        ("  tensor: 2", "  tensor: 0", "$.parallelism.tensor", "greater than or equal to 1"),
        ("  data: 1", "  data: 2", "$.placement", "data degree is 2"),
        ("- - [0, 2]", "- - [0, 4]", "$.placement[0][0]", "there is no GPU 4"),
        ("- - [0, 2]", "- - [0, -1]", "$.placement[0][0]", "there is no GPU -1"),
        ("- - [0, 2]", "- - [0, 1]", "$.placement[0][1]", "placed twice"),
        ("- - [0, 2]", "- - [2, 0]", "$.ranks", "do not follow"),
        ("layer_partition: [40, 40]", "layer_partition: [40, 41]", "$.layer_partition", "80 layers"),
        ("  max_sequences: 256", "  max_sequences: many", "$.limits.max_sequences", "many"),
        ("  max_sequences: 256", "  max_sequence: 256", "$.limits.max_sequence", "is"),
        ("memory_fraction: 0.92", "memory_fraction: 1.5", "$.limits.memory_fraction", "1.5"),
        ("  ttft: ", "  ttft: 5 #", "$.expected.ttft", "no unit"),
        ("  name: meta-llama/Llama-3.1-70B-Instruct", "  name: -x", "$.model.name", "option"),
        ("  name: meta-llama/Llama-3.1-70B-Instruct", '  name: "a\\nb"', "$.model.name", "control"),
        ("  name: meta-llama/Llama-3.1-70B-Instruct", '  name: "a\\e[31m"', "$.model.name", "control"),
        ("  name: meta-llama/Llama-3.1-70B-Instruct", '  name: " "', "$.model.name", "empty"),
        ("        query_heads: 64", "        query_heads: 32", "$.model.digest", "not of these facts"),
        ("        query_heads: 64", "        query_heads: x", "$.model.facts.layer_kinds[0].attention.query_heads", "'x'"),
        ("        kind: DenseMlp", "        kind: System", "$.model.facts.layer_kinds[0].mlp.kind", "System"),
        ("    - [0, 80]", "    - [1, 80]", "$.model.facts.layers[0][0]", "no kind of layer 1"),
        ("    - [0, 80]", "    - [0, 1000000000]", "$.model.facts.layers[0][1]", "layers"),
        ("  reference: 4x-rtx-3090-bridged", "  reference: dgx-h100", "$.topology.digest", "not the one"),
        ("  reference: 4x-rtx-3090-bridged", "  reference: 4x-rtx-3090-bridge", "$.topology.reference", "unknown topology"),
        ("  reference: 4x-rtx-3090-bridged\n", "", "$.topology", "either"),
        ("workload:", "workload: &a", "line", "anchors"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place(old: str, new: str, place: str, words: str) -> None:
    text = dump_plan(saved("bridged"))
    assert old in text
    with pytest.raises(BadInput) as refused:
        read(text.replace(old, new, 1))
    assert place in refused.value.path
    assert words in str(refused.value)


def test_facts_changed_on_purpose_are_taken_without_their_digest() -> None:
    text = dump_plan(saved("bridged")).replace("max_positions: 131072", "max_positions: 8192")
    lines = text.splitlines(keepends=True)
    digest = next(number for number, line in enumerate(lines) if line.startswith("  digest: "))
    assert read("".join(lines[:digest] + lines[digest + 1 :])).model.max_positions == 8192


def test_a_topology_of_the_user_travels_with_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    api.save_topology(api.load_topology("4x-rtx-3090-bridged"), path)
    topology = api.load_topology(str(path))
    answer = api.recommend(api.load_model("llama-3.1-8b"), topology, Workload())
    plan = api.plan_of(answer, topology, model="llama-3.1-8b", reference=str(path))
    path.unlink()
    assert read(dump_plan(plan)).topology == topology


def test_a_path_of_a_model_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from planner.documents.catalogue import find_model

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(find_model("qwen3-8b").config))
    monkeypatch.chdir(tmp_path)
    topology = api.load_topology("2x-l4")
    answer = api.recommend(api.load_model("mine"), topology, Workload())
    plan = api.plan_of(answer, topology, model="mine", reference="2x-l4")
    assert (plan.model.name, plan.local_model) == (str(tmp_path / "mine"), True)
    (tmp_path / "mine" / "config.json").unlink()
    assert api.emit_plan(read(dump_plan(plan)))[0].launch.processes[0].argv[2] == str(tmp_path / "mine")


@given(st.data())
def test_any_change_of_a_line_is_a_plan_or_an_explained_refusal(data: st.DataObject) -> None:
    lines = dump_plan(saved(data.draw(st.sampled_from(sorted(PLANS)[:3])))).splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    keep = data.draw(st.integers(0, len(lines[place])))
    lines[place] = lines[place][:keep] + data.draw(st.text(max_size=20))
    try:
        plan = read("\n".join(lines) + "\n")
    except PlannerError as error:
        assert error.path
    else:
        assert read(dump_plan(plan)) == plan
