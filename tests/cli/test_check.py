"""Whether a saved plan still stands."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from planner.documents.catalogue import find_model
from planner.documents.files import DATA
from support import Planner

SCHEMA = json.loads((DATA / "schemas" / "check.schema.json").read_text("utf-8"))


@pytest.fixture
def plan(planner: Planner, tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    assert planner("recommend", "llama-3.1-8b", "-t", "4x-rtx-3090-bridged", "-o", str(path)).code == 0
    return path


def test_the_best_plan_stands_where_it_was_made(planner: Planner, plan: Path) -> None:
    run = planner("check", str(plan))
    assert (run.code, run.err) == (0, "")
    assert ": stands" in run.words
    document = planner("check", str(plan), "--format", "json").document
    jsonschema.validate(document, SCHEMA)
    assert document["stands"] is True
    for name, planned in document["expected"].items():
        assert document["now"][name] == pytest.approx(planned, rel=1e-4)
    assert planner("check", "-", stdin=plan.read_text()).out == run.out


def test_a_worse_plan_does_not_stand_and_the_better_is_named(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    assert planner("estimate", "llama-3.1-8b", "-t", "4x-rtx-3090-bridged", "-o", str(path)).code == 0
    run = planner("check", str(path))
    assert run.code == 1
    assert "does not stand" in run.words
    assert "% worse" in run.words
    assert "best now" in run.words


def test_the_same_degrees_on_worse_gpus_do_not_stand(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    question = ("llama-3.1-70b", "-t", "4x-rtx-3090-bridged", "--quant", "awq", "--concurrency", "32")
    assert planner("recommend", *question, "-o", str(path)).code == 0
    text = path.read_text()
    ranks = text[text.index("ranks:") : text.index("expected:")]
    path.write_text(text.replace(ranks, "").replace("- - [0, 2]\n  - [1, 3]", "- - [0, 1]\n  - [2, 3]"))
    run = planner("check", str(path))
    assert run.code == 1
    assert "other GPUs for the same degrees are better" in run.words


def test_a_machine_that_changed(planner: Planner, plan: Path, tmp_path: Path) -> None:
    gone = planner("check", str(plan), "--topology", "2xRTX-3090", "--format", "json")
    assert gone.code == 1
    jsonschema.validate(gone.document, SCHEMA)
    assert any("does not have" in problem for problem in gone.document["problems"])
    assert any("gone" in change for change in gone.document["changes"])
    same = planner("check", str(plan), "--topology", "4x-rtx-3090-bridged")
    assert same.code == 0
    assert "changed" not in same.out


def test_a_plan_that_does_not_fit_any_more_says_why(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    assert planner("estimate", "qwen3-32b", "-t", "4x-a6000-pairs", "--tp", "4", "-o", str(path)).code == 0
    run = planner("check", str(path), "--topology", "4xRTX-4060-Ti-16GB")
    assert run.code == 1
    assert "GiB" in run.words


def test_targets_that_are_missed(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    assert planner("estimate", "llama-3.1-8b", "-t", "2x-l4", "--tp", "2", "--ttft-ms", "1", "-o", str(path)).code == 0
    run = planner("check", str(path))
    assert run.code == 1
    assert "the target 1 ms" in run.words


def test_a_longest_request_that_the_cache_does_not_hold(planner: Planner, plan: Path) -> None:
    text = plan.read_text()
    tokens = next(line for line in text.splitlines() if "max_model_tokens" in line)
    plan.write_text(text.replace(tokens, "  max_model_tokens: 9000000"))
    run = planner("check", str(plan))
    assert run.code == 1
    assert "fewer than the longest request may have (9000000)" in run.words


def test_bad_input(planner: Planner, plan: Path) -> None:
    assert planner("check", str(plan), "--topology", "nowhere").code == 2
    assert planner("check", "gone.yaml").code == 2


def test_a_model_whose_config_changed_does_not_stand(planner: Planner, tmp_path: Path) -> None:
    folder, path = tmp_path / "mine", tmp_path / "plan.yaml"
    folder.mkdir()
    config = dict(find_model("llama-3.1-8b").config)
    (folder / "config.json").write_text(json.dumps(config))
    assert planner("recommend", str(folder), "-t", "4x-rtx-3090-bridged", "-o", str(path)).code == 0
    assert planner("check", str(path)).code == 0
    changed = config | {"num_hidden_layers": 40, "max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps(changed))
    run = planner("check", str(path))
    assert run.code == 1
    assert "is not the model that was planned: 40 layers, planned 32, max positions 8192, planned 131072" in run.words
    document = planner("check", str(path), "--format", "json").document
    jsonschema.validate(document, SCHEMA)
    assert document["stands"] is False
    quantised = config | {"quantization_config": {"quant_method": "fp8"}}
    (folder / "config.json").write_text(json.dumps(quantised))
    assert "checkpoint format fp8, planned bf16" in planner("check", str(path)).words
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "many"}))
    unreadable = planner("check", str(path))
    assert unreadable.code == 1
    assert "many" in unreadable.words


def test_a_model_that_is_gone_is_taken_as_it_was_planned(planner: Planner, tmp_path: Path) -> None:
    folder, path = tmp_path / "mine", tmp_path / "plan.yaml"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(find_model("llama-3.1-8b").config))
    assert planner("recommend", str(folder), "-t", "4x-rtx-3090-bridged", "-o", str(path)).code == 0
    (folder / "config.json").unlink()
    run = planner("check", str(path))
    assert run.code == 0
    assert "config.json is not there, the model is taken as it was planned" in run.words


@pytest.mark.parametrize("quant", ["fp8", "awq"])
def test_weights_in_another_format_than_the_checkpoint_are_no_change(planner: Planner, tmp_path: Path, quant: str) -> None:
    path = tmp_path / "plan.yaml"
    assert planner("recommend", "llama-3.1-8b", "-t", "4x-rtx-6000-ada", "--quant", quant, "-o", str(path)).code == 0
    assert planner("check", str(path)).code == 0
