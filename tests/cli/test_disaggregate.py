"""planner disaggregate: its answers, exit codes and documents."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from planner.documents.files import DATA
from support import Planner

SCHEMA = json.loads((DATA / "schemas" / "disaggregation.schema.json").read_text("utf-8"))
OTHER = json.loads((DATA / "schemas" / "recommendation.schema.json").read_text("utf-8"))
ASKED = ("disaggregate", "llama-3.1-70b", "-t", "dgx-h100", "--input-tokens", "4096", "--output-tokens", "512")


def check(document: dict[str, Any]) -> None:
    errors = [f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)]
    assert errors == []


def test_what_it_defines_as_others_do_it_defines_alike() -> None:
    both = set(SCHEMA["$defs"]) & set(OTHER["$defs"])
    assert {"gpu", "process", "stage_memory", "rank_place"} <= both
    assert {name: SCHEMA["$defs"][name] for name in both} == {name: OTHER["$defs"][name] for name in both}
    plan, pool = OTHER["$defs"]["plan"]["properties"], SCHEMA["$defs"]["pool"]["properties"]
    for part in ("placement", "limits", "memory", "communication", "ranks"):
        assert pool[part] == plan[part]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
@pytest.mark.parametrize(
    ("model", "machine", "more"),
    [
        ("llama-3.1-70b", "dgx-h100", ()),
        ("llama-3.1-70b", "2x-dgx-h100", ("--ttft-ms", "1000", "--tpot-ms", "30", "--percentile", "90")),
        ("qwen3-30b-a3b", "dgx-h100", ("--prefix-hit-rate", "0.5")),
        ("llama-3.1-8b", "8x-l40s", ("--request-rate", "5", "--ttft-ms", "1000")),
        ("llama-3.1-70b", "2xRTX-3090", ()),
        ("llama-3.1-8b", "2x-l4", ("--request-rate", "1000")),
        ("llama-3.1-8b", "1x-l4", ()),
    ],
)
def test_documents_keep_the_schema(planner: Planner, model: str, machine: str, more: tuple[str, ...], engine: str) -> None:
    run = planner("disaggregate", model, "-t", machine, "--engine", engine, "--format", "json", "--top", "10", *more)
    assert run.err == ""
    document = run.document
    check(document)
    assert run.code == (0 if document["pairs"] else 1)
    assert document["reasons"]
    for number, pair in enumerate(document["pairs"]):
        assert pair["rank"] == number + 1
        assert sum(pair["estimate"]["ttft_parts_s"].values()) == pytest.approx(pair["estimate"]["ttft_s"])
        assert min(pair["estimate"]["allowed_requests_per_s"].values()) == pytest.approx(pair["estimate"]["requests_per_s"])
        assert not set(pair["prefill"]["gpus"]) & set(pair["decode"]["gpus"])


def test_the_terminal_says_what_the_document_says(planner: Planner) -> None:
    document, words = planner(*ASKED, "--format", "json").document, planner(*ASKED).words
    first = document["pairs"][0]
    assert first["transfer"]["limiting_link"] in words
    for reason in document["reasons"]:
        assert " ".join(reason.split()) in words
    for assumption in document["assumptions"]:
        assert assumption in words
    for pool in ("prefill", "decode"):
        for process in first[pool]["launch"]["processes"]:
            assert f"CUDA_VISIBLE_DEVICES={process['environment']['CUDA_VISIBLE_DEVICES']}" in words
    assert "no disaggregated run was measured" in words


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits_the_terminal(planner: Planner, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr("planner.render.terminal.console", _console(width))
    run = planner("disaggregate", "qwen3-30b-a3b", "-t", "dgx-h100")
    assert run.code == 0
    told = run.out.split("start the prefill pool")[0]
    assert max(len(line) for line in told.splitlines()) <= width
    assert "\x1b" not in run.out


def _console(width: int) -> Any:
    from planner.render.terminal import console

    return lambda _=None: console(width)


def test_answers_are_the_same_every_time(planner: Planner) -> None:
    assert planner(*ASKED).out == planner(*ASKED).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("llama-3.1-8b", "-t", "dgx-h100", "--engine", "tgi"), "tgi has no pools for prefill and decode"),
        (("llama-3.1-8b", "-t", "dgx-h100", "--engine", "vlm"), "unknown engine 'vlm'"),
        (("llama-3.1-8b", "-t", "dgx-h1000"), "dgx-h100"),
        (("llama-3.1-8bb", "-t", "dgx-h100"), "llama-3.1-8b"),
        (("llama-3.1-8b", "-t", "dgx-h100", "--percentile", "90"), "is of targets, and there is none"),
        (("llama-3.1-8b", "-t", "dgx-h100", "--percentile", "75", "--ttft-ms", "100"), "must be one of 50, 90, 99"),
        (("llama-3.1-8b", "-t", "dgx-h100", "--request-rate", "-1"), "--request-rate"),
        (("llama-3.1-8b", "-t", "dgx-h100", "--concurrency", "3"), "--concurrency"),
        (("llama-3.1-8b", "-t", "dgx-h100", "--quant", "fp9"), "fp9"),
    ],
)
def test_bad_input_is_said(planner: Planner, arguments: tuple[str, ...], said: str) -> None:
    run = planner("disaggregate", *arguments)
    assert run.code == 2
    assert run.out == ""
    assert said in run.words


def test_nothing_fits_with_numbers(planner: Planner) -> None:
    run = planner("disaggregate", "llama-3.1-70b", "-t", "2xRTX-3090")
    assert run.code == 1
    assert "8× RTX-3090 would hold one pool" in run.words
    assert "16 both" in run.words
