"""A launch that somebody has, judged at a terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jsonschema
import pytest

from planner.deploy.found import found_in
from planner.documents import strict_yaml
from planner.documents.files import DATA
from planner.errors import PlannerError
from support import Planner

SCHEMAS = {name: json.loads((DATA / "schemas" / f"{name}.schema.json").read_text("utf-8")) for name in ("import", "plan")}
BRIDGED = ("-t", "4x-rtx-3090-bridged", "--quant", "awq")
LLAMA = "meta-llama/Llama-3.1-70B-Instruct"


def test_the_order_of_gpus_is_judged(planner: Planner) -> None:
    launch = ("vllm", "serve", LLAMA, "-tp", "2", "-pp", "2", "--max-model-len", "8192")
    good = planner("import", *BRIDGED, "--", "CUDA_VISIBLE_DEVICES=0,2,1,3", *launch)
    assert (good.code, good.err) == (0, "")
    assert "stands" in good.words
    assert "{0,2} → {1,3}" in good.words
    bad = planner("import", *BRIDGED, "--", *launch)
    assert bad.code == 1
    assert "{0,1} → {2,3}" in bad.words
    assert "best: TP 2 × PP 2 × DP 1 on GPUs {0,2} → {1,3}" in bad.words


def test_what_is_wrong_is_said(planner: Planner) -> None:
    launch = ("vllm", "serve", "Qwen/Qwen3-32B", "-tp", "8", "--swap-space", "4", "--max-model-len", "9000000")
    run = planner("import", "-t", "8x-a6000", "--format", "json", "--", *launch)
    assert run.code == 1
    jsonschema.validate(run.document, SCHEMAS["import"])
    assert any("crosses sockets" in note for note in run.document["notes"])
    assert any("--swap-space" in note for note in run.document["notes"])
    assert any("fewer than the longest request" in problem for problem in run.document["problems"])
    assert run.document["best"]["parallelism"] != "TP 8 × PP 1 × DP 1"


def test_what_does_not_fit_is_answered_with_by_how_much(planner: Planner) -> None:
    run = planner("import", "-t", "2x-l4", "--", "sglang", "serve", "--model", LLAMA, "--tp", "2")
    assert run.code == 1
    assert "GiB" in run.words
    assert planner("import", "-t", "2x-l4", "-o", "-", "--", "sglang", "serve", "--model", LLAMA, "--tp", "2").code == 2


@pytest.mark.parametrize(
    ("model", "degrees", "words"),
    [
        ("Qwen/Qwen3-235B-A22B-FP8", ("-tp", "8"), "192, no multiple of fp8-block's block of 128"),
        ("Qwen/Qwen3-32B", ("-tp", "6"), "64 attention heads are not divisible by TP 6"),
        ("Qwen/Qwen3-235B-A22B-FP8", ("-tp", "8", "-ep", "-dcp", "4"), "holds 4 KV heads 2 times"),
    ],
)
def test_what_an_engine_refuses_at_load_does_not_stand(
    planner: Planner, model: str, degrees: tuple[str, ...], words: str
) -> None:
    run = planner("import", "-t", "dgx-h200", "--", "vllm", "serve", model, *degrees)
    assert run.code == 1
    assert "does not stand" in run.words
    assert words in run.words
    assert "best: " in run.words


def test_a_launch_becomes_a_plan_that_is_emitted_again(planner: Planner, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    assert planner("recommend", "llama-3.1-70b", *BRIDGED, "--concurrency", "32", "-o", str(plan)).code == 0
    assert planner("emit", str(plan), "-o", str(tmp_path / "out")).code == 0
    again = tmp_path / "again.yaml"
    run = planner("import", str(tmp_path / "out" / "start.sh"), *BRIDGED, "-o", str(again))
    assert run.code == 0, run.err
    assert f"wrote {again}" in run.err
    before, after = (strict_yaml.load(path.read_text(), path.name) for path in (plan, again))
    jsonschema.validate(after, SCHEMAS["plan"])
    for part in ("parallelism", "placement", "layer_partition", "limits", "engine", "workload", "topology", "ranks", "expected"):
        assert after[part] == before[part], part
    assert after["model"]["facts"] == before["model"]["facts"]
    script = (tmp_path / "out" / "start.sh").read_text()
    emitted = planner("emit", str(again)).out
    commands = [[line for line in text.splitlines() if not line.startswith("#")] for text in (script, emitted)]
    assert commands[0] == commands[1]


def test_a_model_of_another_name_is_said(planner: Planner, tmp_path: Path) -> None:
    launch = ("--", "vllm", "serve", "/models/mine", "-tp", "2")
    run = planner("import", "-t", "2x-l4", *launch)
    assert run.code == 2
    assert "--model" in run.words
    run = planner("import", "-t", "2x-l4", "--model", "qwen3-8b", "-o", "-", *launch)
    assert run.code in {0, 1}
    model = strict_yaml.load(run.out, "plan.yaml")["model"]
    assert (model["name"], model["reference"], model["local"]) == ("/models/mine", "qwen3-8b", True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("hello there\n", "starts no server"),
        ("vllm serve 'm\n", "no closing quotation"),
        ("services: {a: &b {command: vllm serve m}}\n", "anchors"),
        ("kind: Pod\nspec: {containers: 7}\n", "starts no server"),
        ("services: {a: {command: vllm serve m, deploy: {resources: {reservations: {devices: 7}}}}}\n", "unknown model"),
        ("vllm serve $MODEL\n", "unknown model"),
        ('vllm serve "a\x1b[31m"\n', "control characters"),
    ],
)
def test_a_file_that_is_no_launch(planner: Planner, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "launch"
    path.write_text(text)
    run = planner("import", str(path), "-t", "2x-l4")
    assert (run.code, run.out) == (2, "")
    assert words in run.words
    assert "Traceback" not in run.err
    assert "\x1b" not in run.err


@pytest.mark.parametrize(
    "unit",
    [
        "vllm serve m ",
        "vllm serve\n",
        "export A=b ",
        "export A=b\n",
        "ExecStart=vllm serve m\n",
        "kind: Pod\n---\n",
        "\\\n",
        "' ",
    ],
)
def test_a_long_text_is_read_soon(unit: str) -> None:
    text = unit * (2_000_000 // len(unit))
    start = time.process_time()
    try:
        found_in(text, "launch")
    except PlannerError as error:
        assert error.problem
    assert time.process_time() - start < 20
