"""The JSON documents: what the schemas say, and what schemas cannot say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from planner.documents.files import DATA
from planner.documents.topology import dump_topology
from replay import Scenario, scenarios
from support import Planner, assembled

SCHEMAS = {path.name: json.loads(path.read_text("utf-8")) for path in sorted((DATA / "schemas").glob("*.json"))}


def check(document: dict[str, Any], schema: str) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMAS[schema])
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    assert errors == []


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


def test_what_two_schemas_define_they_define_alike() -> None:
    probe, recommendation = SCHEMAS["probe.schema.json"]["$defs"], SCHEMAS["recommendation.schema.json"]["$defs"]
    both = set(probe) & set(recommendation)
    assert "origin" in both
    assert {name: recommendation[name] for name in both} == {name: probe[name] for name in both}
    shared = recommendation["gpu"]["properties"]
    assert {name: probe["probed_gpu"]["properties"][name] for name in shared} == shared


QUESTIONS = [
    ("llama-3.1-70b", "dgx-h100"),
    ("llama-3.1-70b", "2xRTX-3090"),
    ("qwen3-235b-a22b-fp8", "2x-dgx-h100"),
    ("mixtral-8x7b", "8x-l40s"),
    ("qwen3-8b", "8x-t4"),
    ("llama-3.1-405b", "gb200-nvl72"),
]


def test_a_shared_link_is_named_in_the_document_and_on_the_terminal(planner: Planner) -> None:
    """Four ranks of one socket send to four of the other, over one link."""
    asked = ("estimate", "llama-3.1-70b", "--topology", "8x-l40s", "--tp", "4", "--pp", "2", "--dp", "1")
    document = planner(*asked, "--format", "json").document
    check(document, "recommendation.schema.json")
    (plan,) = document["plans"]
    shared = plan["communication"]["shared_link"]
    assert shared["link"].startswith("socket interconnect socket0–socket1")
    assert shared["carries"] == "4 sends between stages"
    assert shared["bandwidth_slowdown"] == pytest.approx(4)
    words = f"{shared['link']} carries {shared['carries']}: 4 times less bandwidth than alone"
    assert any(one.startswith(words) for one in plan["assumptions"])
    assert words in planner(*asked).words


@pytest.mark.parametrize("engine", ["vllm", "tensorrt-llm"])
@pytest.mark.parametrize(("model", "topology"), QUESTIONS)
def test_recommendations_keep_the_schema(planner: Planner, model: str, topology: str, engine: str) -> None:
    run = planner("recommend", model, "--topology", topology, "--engine", engine, "--format", "json", "--top", "30")
    assert run.err == ""
    document = run.document
    check(document, "recommendation.schema.json")
    assert run.code == (0 if document["plans"] else 1)
    gpus = len(document["topology"]["gpus"])
    for number, plan in enumerate(document["plans"]):
        assert plan["rank"] == number + 1
        degrees = plan["parallelism"]
        tensor, stages, data = (degrees[f"{name}_parallel_size"] for name in ("tensor", "pipeline", "data"))
        placement = plan["placement"]
        assert len(placement) == data
        assert all(len(replica) == stages for replica in placement)
        assert all(len(group) == tensor for replica in placement for group in replica)
        used = [gpu for replica in placement for group in replica for gpu in group]
        assert len(set(used)) == len(used) == tensor * stages * data
        assert set(used) <= set(range(gpus))
        assert len(plan["layer_partition"]) == stages
        assert sum(plan["layer_partition"]) == document["model"]["layers"]
        assert len(plan["memory"]["stages"]) == stages
        for stage in plan["memory"]["stages"]:
            parts = ("weights_bytes", "kv_cache_bytes", "activation_bytes", "overhead_bytes")
            assert stage["total_bytes"] == sum(stage[part] for part in parts) <= stage["capacity_bytes"]
        estimate = plan["estimate"]
        per_gpu = estimate["output_tokens_per_s"] / (tensor * stages * data)
        assert estimate["output_tokens_per_s_per_gpu"] == pytest.approx(per_gpu)


def test_the_visible_devices_are_the_placement(planner: Planner) -> None:
    document = planner("recommend", "llama-3.1-8b", "-t", "8x-a6000", "--format", "json", "--top", "40").document
    for plan in document["plans"]:
        for process in plan["launch"]["processes"]:
            ranks = [gpu for group in plan["placement"][process["replica"]] for gpu in group]
            assert process["environment"]["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, ranks))
            assert process["environment"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_nothing_fits_is_a_document_too(planner: Planner) -> None:
    run = planner("recommend", "llama-3.1-70b", "-t", "2xRTX-3090", "--format", "json")
    assert run.code == 1
    document = run.document
    assert document["plans"] == []
    assert any("7× RTX-3090" in reason for reason in document["reasons"])
    assert {one["rule"] for one in document["infeasible"]} == {"memory"}
    for one in document["infeasible"]:
        assert one["need"] > one["have"]
        assert one["unit"] == "bytes"


def test_estimate_gives_the_same_document_with_one_plan(planner: Planner) -> None:
    question = ("llama-3.1-70b", "-t", "dgx-h100", "--format", "json", "--concurrency", "64")
    many = planner("recommend", *question, "--top", "100").document
    for plan in many["plans"][:6]:
        degrees = plan["parallelism"]
        options = [
            part
            for short in ("tensor", "pipeline", "data", "expert")
            for part in (f"--{short[0]}p", str(degrees[f"{short}_parallel_size"]))
        ]
        one = planner("estimate", *question, *options).document
        check(one, "recommendation.schema.json")
        (alone,) = one["plans"]
        for part in ("parallelism", "placement", "memory", "communication", "pipeline", "estimate", "launch"):
            assert alone[part] == plan[part]


def test_a_model_given_as_a_path_is_launched_as_that_path(planner: Planner, tmp_path: Path) -> None:
    from planner.documents.catalogue import find_model

    (tmp_path / "config.json").write_text(json.dumps(find_model("qwen3-8b").config))
    run = planner("recommend", str(tmp_path), "-t", "2x-l4", "--format", "json")
    document = run.document
    assert document["model"]["name"] == str(tmp_path)
    assert document["plans"][0]["launch"]["processes"][0]["argv"][2] == str(tmp_path)


def test_a_probe_keeps_its_schema(planner: Planner) -> None:
    for topology in ("4x-rtx-3090-bridged", "dgx-1-v100", "2x-dgx-h100"):
        document = planner("probe", topology, "--format", "json").document
        check(document, "probe.schema.json")
        size = len(document["gpus"])
        assert [len(row) for row in document["matrix"]] == [size] * size
        assert all(document["matrix"][number][number] == "X" for number in range(size))


@pytest.mark.parametrize("scenario", [one for one in scenarios() if one.capture().gpus], ids=str)
def test_a_live_probe_keeps_its_schema(planner: Planner, tmp_path: Path, scenario: Scenario) -> None:
    (tmp_path / "box.yaml").write_text(dump_topology(assembled([scenario.capture()])))
    document = planner("probe", str(tmp_path / "box.yaml"), "--format", "json").document
    check(document, "probe.schema.json")
    assert document["hosts"][0]["facts"]


def test_the_order_of_keys_and_the_numbers_do_not_move(planner: Planner) -> None:
    question = ("recommend", "qwen3-32b", "-t", "4x-a6000-pairs", "--format", "json")
    assert planner(*question).out == planner(*question).out
