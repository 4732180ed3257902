"""planner explain: the tree on a terminal and as a document, and the registry of formulas."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from planner import api
from planner.documents.files import DATA
from support import Planner

ASKED = ("llama-3.1-70b", "-t", "dgx-h100", "--tp", "4", "--pp", "2", "--concurrency", "32")


def check(document: dict[str, Any], name: str) -> None:
    schema = json.loads((DATA / "schemas" / name).read_text("utf-8"))
    assert [f"{one.json_path}: {one.message}" for one in jsonschema.Draft202012Validator(schema).iter_errors(document)] == []


@pytest.mark.parametrize(
    "asked",
    [
        ASKED,
        ("qwen3-235b-a22b-fp8", "-t", "2x-dgx-h100", "--tp", "8", "--dp", "2", "--ep", "16"),
        ("llama-3.1-70b", "-t", "8x-l40s", "--tp", "4", "--pp", "2", "--concurrency", "500"),
        ("llama-3.1-70b", "-t", "8x-l40s", "--tp", "4", "--pp", "2", "--batch", "64", "--prefix-hit-rate", "0.5"),
        ("llama-3.1-70b", "-t", "dgx-h100", "--tp", "4", "--request-rate", "5"),
        ("llama-3.1-70b", "-t", "dgx-h100", "--tp", "4", "--request-rate", "8"),
        ("llama-3.1-70b", "-t", "dgx-h100", "--tp", "4", "--pp", "2"),
        ("deepseek-v3", "-t", "dgx-h200", "--tp", "8", "--speculative", "mtp", "--acceptance-rate", "0.8", "--concurrency", "8"),
        ("llama-3.1-70b", "-t", "8x-l40s", "--tp", "4", "--pp", "2", "--speculative", "ngram", "--acceptance-rate", "0.4"),
        ("llama-3.1-70b", "-t", "dgx-h100", "--tp", "4", "--tpot-ms", "30", "--percentile", "90"),
    ],
)
def test_the_document_keeps_its_schema_and_its_numbers_are_those_of_estimate(planner: Planner, asked: tuple[str, ...]) -> None:
    run = planner("explain", *asked, "--format", "json")
    assert (run.code, run.err) == (0, "")
    document = run.document
    check(document, "explanation.schema.json")
    (plan,) = planner("estimate", *asked, "--format", "json").document["plans"]
    said = {step["name"]: step["value"] for step in document["steps"]}
    assert said["TPOT"] == pytest.approx(plan["estimate"]["tpot_s"])
    assert said["TTFT"] == pytest.approx(plan["estimate"]["ttft_s"])
    assert said["output tokens per second"] == pytest.approx(plan["estimate"]["output_tokens_per_s"])
    assert said["memory per GPU"] == pytest.approx(max(stage["total_bytes"] for stage in plan["memory"]["stages"]), rel=1e-6)
    assert (document["placement"], document["layer_partition"]) == (plan["placement"], plan["layer_partition"])
    for step in every(document["steps"]):
        assert step["formula"] is None or step["formula"] in document["formulas"]
        assert set(step["constants"]) <= set(document["constants"])


def every(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for step in steps for one in (step, *every(step["children"]))]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_tree_fits_the_terminal(planner: Planner, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    run = planner("explain", *ASKED)
    assert run.code == 0
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        out = planner("explain", *ASKED).out
    assert max(map(len, out.splitlines())) <= width
    assert "\u00a0" not in out


def test_the_tree_names_parts_formulas_constants_and_bars(planner: Planner) -> None:
    words = planner("explain", *ASKED).out
    for line in (
        "├─ decode step: ",
        "gemm(m 16, k 8192, n 2560, weight size 2 B) with gemm.bf16, H100-SXM5-80GB",
        "measured on H100-SXM5-80GB",
        "- send: alpha-beta model (Hockney 1994)",
        "- first_token.vllm (data/calibration/engines.yaml): base ",
        "- nine of ten measured kernels of machines left out of the fit",
        "memory per GPU: ",
    ):
        assert line in words


def test_depth_cuts_the_tree_and_says_so(planner: Planner) -> None:
    whole, cut = planner("explain", *ASKED).out, planner("explain", *ASKED, "--depth", "2").out
    assert "├─ decode step: " in cut
    assert "product in bf16" in whole
    assert "product in bf16" not in cut
    assert "gemm" not in cut
    assert any(line.startswith("├─ decode step: ") and line.endswith(" …") for line in cut.splitlines())
    document = planner("explain", *ASKED, "--depth", "2", "--format", "json").document
    check(document, "explanation.schema.json")
    assert all(not child["children"] for step in document["steps"] for child in step["children"])


def test_where_the_terminal_has_no_lines_there_are_none(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    from planner.render import terminal

    monkeypatch.setattr(terminal, "draws_lines", lambda: False)
    out = planner("explain", *ASKED).out
    assert "|- decode step" in out
    assert "├" not in out


def test_what_does_not_fit_is_refused_as_estimate_does(planner: Planner) -> None:
    asked = ("llama-3.1-70b", "-t", "2xRTX-3090", "--tp", "2")
    for form in ("table", "json"):
        run, same = planner("explain", *asked, "--format", form), planner("estimate", *asked, "--format", form)
        assert (run.code, run.out) == (1, same.out)


def test_the_registry_is_listed_whole(planner: Planner) -> None:
    document = planner("explain", "--formulas", "--format", "json").document
    check(document, "formulas.schema.json")
    assert set(document["formulas"]) == {one.name for one in api.formulas()}
    assert {"gemm", "kv_transfer", "shared_rate", "dispatch_bytes"} <= set(document["formulas"])
    run = planner("explain", "--formulas")
    assert run.code == 0
    for name, entry in document["formulas"].items():
        assert f"- {name}: {entry['summary']}" in run.words
        assert " ".join(entry["source"].split()) in run.words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "MODEL: no model"),
        (("llama-3.1-80b", "-t", "dgx-h100"), "the nearest known"),
        (("llama-3.1-70b", "--formulas"), "lists all formulas"),
        (("llama-3.1-70b", "-t", "dgx-h100", "--depth", "0"), "--depth"),
        (("llama-3.1-70b", "-t", "dgx-h100", "--tp", "4", "--engine", "vlm"), "engine"),
    ],
)
def test_bad_input_is_said_in_one_message(planner: Planner, arguments: tuple[str, ...], words: str) -> None:
    run = planner("explain", *arguments)
    assert (run.code, run.out) == (2, "")
    assert words in run.words
