"""Saving plans and writing the files that start them, as somebody at a terminal does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

from planner import api
from planner.deploy import targets
from planner.documents import strict_yaml
from planner.documents.files import DATA
from support import Planner

FLAGSHIP = ("recommend", "llama-3.1-70b", "-t", "4x-rtx-3090-bridged", "--quant", "awq", "--concurrency", "32")
SCHEMA = json.loads((DATA / "schemas" / "plan.schema.json").read_text("utf-8"))


@pytest.fixture
def plan(planner: Planner, tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    assert planner(*FLAGSHIP, "-o", str(path)).code == 0
    return path


def test_a_saved_plan_keeps_its_schema_and_the_answer_is_shown_too(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    run = planner(*FLAGSHIP, "-o", str(path), "--top", "1")
    assert (run.code, run.err) == (0, f"wrote {path}\n")
    assert run.out == planner(*FLAGSHIP, "--top", "1").out
    document = strict_yaml.load(path.read_text(), "plan.yaml")
    jsonschema.validate(document, SCHEMA)
    assert document["placement"] == [[[0, 2], [1, 3]]]
    assert document["topology"]["reference"] == "4x-rtx-3090-bridged"
    assert document["model"]["facts"]["weight_format"] == "awq"


def test_on_standard_output_it_is_alone_and_the_same(planner: Planner, plan: Path) -> None:
    run = planner(*FLAGSHIP, "-o", "-")
    assert (run.out, run.err) == (plan.read_text(), "")
    one = planner("estimate", *FLAGSHIP[1:], "--tp", "2", "--pp", "2", "-o", "-")
    assert one.out == plan.read_text()


def test_inline_keeps_the_topology(planner: Planner, plan: Path) -> None:
    document = strict_yaml.load(planner(*FLAGSHIP, "-o", "-", "--inline").out, "plan.yaml")
    jsonschema.validate(document, SCHEMA)
    assert document["topology"]["document"]["hosts"][0]["name"] == "node0"
    named = strict_yaml.load(plan.read_text(), "plan.yaml")
    assert document["topology"]["digest"] == named["topology"]["digest"]


def test_a_capture_and_a_named_gpu_are_kept_whole(planner: Planner, tmp_path: Path) -> None:
    text = "\tGPU0\tGPU1\nGPU0\t X \tNV4\nGPU1\tNV4\t X \n"
    run = planner("recommend", "llama-3.1-8b", "-t", "-", "--gpu", "RTX-3090", "-o", "-", stdin=text)
    assert "document" in strict_yaml.load(run.out, "plan.yaml")["topology"]
    assert planner("emit", "-", stdin=run.out).code == 0


def test_nothing_is_overwritten_without_force(planner: Planner, plan: Path, tmp_path: Path) -> None:
    before = plan.read_text()
    run = planner(*FLAGSHIP, "--concurrency", "8", "-o", str(plan))
    assert (run.code, run.out) == (2, "")
    assert "--force" in run.err
    assert plan.read_text() == before
    assert planner(*FLAGSHIP, "--concurrency", "8", "-o", str(plan), "--force").code == 0
    assert plan.read_text() != before
    out = tmp_path / "out"
    assert planner("emit", str(plan), "-o", str(out)).code == 0
    again = planner("emit", str(plan), "-o", str(out))
    assert (again.code, again.out) == (2, "")
    assert "start.sh" in again.err
    assert planner("emit", str(plan), "-o", str(out), "--force").code == 0


def test_nothing_fits_and_nothing_is_saved(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    run = planner("recommend", "llama-3.1-70b", "-t", "2xRTX-3090", "-o", str(path), "--emit", str(tmp_path / "out"))
    assert run.code == 1
    assert "nothing fits" in run.words
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["table", "json"])
def test_where_a_plan_should_go_to_standard_output_a_no_does_not(planner: Planner, form: str) -> None:
    run = planner("recommend", "llama-3.1-70b", "-t", "2xRTX-3090", "-o", "-", "--format", form)
    assert (run.code, run.out) == (1, "")
    assert "no plan fits" in run.words


@pytest.mark.parametrize("target", sorted(set(targets()) - {"ray"}))
def test_every_target_says_which_plan_it_is_of_and_gives_the_same_bytes(
    planner: Planner, plan: Path, tmp_path: Path, target: str
) -> None:
    first = planner("emit", str(plan), "--target", target, "-o", str(tmp_path / "a"))
    second = planner("emit", str(plan), "--target", target, "-o", str(tmp_path / "b"))
    assert first.code == second.code == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    shown = planner("emit", str(plan), "--target", target).out
    for name in names:
        text = (tmp_path / "a" / name).read_text()
        assert text == (tmp_path / "b" / name).read_text()
        assert text in shown
        assert "sha256:" in text
        if name.endswith(".json"):
            continue
        for words in ("written by planner", "assumed: PCIe slots", "TP 2 × PP 2 × DP 1", "node   GPU  bus id"):
            assert words in text
    if target == "ranks":
        assert first.out == ""
    else:
        assert first.out.startswith(f"# run in {tmp_path / 'a'}\n")
        assert "vllm bench serve --model meta-llama/Llama-3.1-70B-Instruct" in first.out
        assert "--random-input-len 1024 --random-output-len 256" in first.out
        assert "--max-concurrency 32" in first.out


def test_recommend_emits_what_emit_does(planner: Planner, plan: Path, tmp_path: Path) -> None:
    run = planner(*FLAGSHIP, "--emit", str(tmp_path / "a"), "--target", "compose", "--name", "llama", "--format", "json")
    assert run.code == 0
    assert run.document["plans"]
    assert "docker compose -f compose.yaml up -d" in run.err
    assert planner("emit", str(plan), "--target", "compose", "--name", "llama", "-o", str(tmp_path / "b")).code == 0
    assert (tmp_path / "a" / "compose.yaml").read_text() == (tmp_path / "b" / "compose.yaml").read_text()


def test_another_engine_gets_limits_of_its_own(planner: Planner, plan: Path) -> None:
    run = planner("emit", str(plan), "--engine", "sglang")
    assert run.code == 0
    assert "sglang.launch_server" in run.out
    assert "worked out anew for sglang: planned for vllm" in run.out
    assert "CUDA_VISIBLE_DEVICES=0,2,1,3" in run.out


def test_tgi_takes_no_pipeline_and_starts_replicas_of_one_host(planner: Planner, plan: Path, tmp_path: Path) -> None:
    run = planner("emit", str(plan), "--engine", "tgi")
    assert run.code == 2
    assert "tgi cannot run this plan: tgi has no pipeline parallelism, PP 2 was asked for" in run.words
    path = tmp_path / "two.yaml"
    assert planner("estimate", "llama-3.1-8b", "-t", "8x-a6000", "--tp", "2", "--dp", "2", "-o", str(path)).code == 0
    run = planner("emit", str(path), "--engine", "tgi")
    assert run.code == 0
    assert run.out.count("text-generation-launcher") == 2
    assert "its own parser has not seen them" in run.words
    assert "nothing of TGI was measured" in run.words


def test_a_plan_for_tgi_is_kept_emitted_and_read_back(planner: Planner, tmp_path: Path) -> None:
    first, again = tmp_path / "plan.yaml", tmp_path / "again.yaml"
    question = ("llama-3.1-8b", "-t", "8x-a6000", "--engine", "tgi", "--tp", "2", "--dp", "2")
    assert planner("estimate", *question, "-o", str(first)).code == 0
    assert planner("emit", str(first), "-o", str(tmp_path / "out")).code == 0
    run = planner("import", str(tmp_path / "out" / "start.sh"), "-t", "8x-a6000", "-o", str(again))
    assert run.code in {0, 1}, run.err  # 1: there may be a better one
    written, read = (api.load_plan(str(path)).plan for path in (first, again))
    assert read == written


def test_an_engine_that_cannot_run_the_plan_says_why(planner: Planner, tmp_path: Path) -> None:
    degrees = ("--tp", "4", "--dp", "4", "--ep", "16")
    path = tmp_path / "plan.yaml"
    assert planner("estimate", "qwen3-235b-a22b", "-t", "2x-dgx-h100", *degrees, "-o", str(path)).code == 0
    run = planner("emit", str(path), "--engine", "tensorrt-llm")
    assert run.code == 2
    assert "tensorrt-llm cannot run this plan" in run.words
    assert "EP" in run.words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target", "kubernets"), ("unknown target", "kubernetes")),
        (("--engine", "vlm"), ("unknown engine", "vllm")),
        (("--target", "ray"), ("--target", "needs no Ray")),
        (("--target", "kubernetes", "--name", "A_b"), ("--name", "lower-case")),
        (("--target", "kubernetes", "--namespace", "A"), ("--namespace",)),
        (("--image", "a b"), ("--image",)),
    ],
)
def test_a_slip_is_explained(planner: Planner, plan: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    run = planner("emit", str(plan), *arguments)
    assert (run.code, run.out) == (2, "")
    for word in words:
        assert word in run.words
    assert "Traceback" not in run.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ("is empty",)),
        ("schema_version: 1\nname: box\n", ("no saved plan",)),
        ("- a\n", ("expected a mapping",)),
        ("{", ("not valid YAML",)),
        ("kind: plan\nschema_version: 9\n", ("schema_version",)),
        ("kind: plan\nschema_version: 1\n", ("is missing",)),
    ],
)
def test_a_file_that_is_no_plan(planner: Planner, tmp_path: Path, content: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(content)
    run = planner("emit", str(path))
    assert (run.code, run.out) == (2, "")
    for word in ("plan.yaml", *words):
        assert word in run.words


@pytest.mark.parametrize(
    "arguments", [("--target", "compose"), ("--name", "a"), ("--namespace", "a"), ("--image", "a"), ("--inline",)]
)
def test_options_that_would_do_nothing_are_refused(planner: Planner, arguments: tuple[str, ...]) -> None:
    run = planner(*FLAGSHIP, *arguments)
    assert (run.code, run.out) == (2, "")
    assert arguments[0] in run.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_made(planner: Planner, plan: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert planner("emit", str(plan), "-o", str(tmp_path / "locked" / "out")).code == 3


def test_a_file_where_the_folder_should_be(planner: Planner, plan: Path) -> None:
    run = planner("emit", str(plan), "-o", str(plan))
    assert run.code == 2
    assert "directory" in run.words


def test_ranks_are_shown_and_are_in_the_document(planner: Planner) -> None:
    run = planner(*FLAGSHIP, "--ranks", "--top", "1")
    rows = [line.split() for line in run.out.splitlines() if line.startswith("node0 ")]
    assert [row[1] for row in rows] == ["0", "2", "1", "3"]
    document = planner(*FLAGSHIP, "--format", "json", "--top", "1").document
    ranks = document["plans"][0]["ranks"]
    assert [(one["gpu"], one["stage"], one["tensor_rank"]) for one in ranks] == [(0, 0, 0), (2, 0, 1), (1, 1, 0), (3, 1, 1)]
    cluster = planner("estimate", "llama-3.1-70b", "-t", "2x-dgx-h100", "--tp", "8", "--pp", "2", "--format", "json").document
    last = cluster["plans"][0]["ranks"][-1]
    assert (last["node"], last["gpu"], last["host_index"], last["numa_node"], last["nic"]) == ("node1", 15, 7, 1, "nic7")
