"""``planner doctor``: what a machine lacks, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from planner.documents.files import DATA
from support import Planner

HALF_A_SLOT = """\
schema_version: 1
name: "[bold]box[/bold]"
origin: {kind: probed, source: a test}
hosts:
- name: node0
  devices:
  - {id: socket0, kind: socket}
  - {id: bridge0, kind: host-bridge}
  - {id: gpu0, kind: gpu, index: 0, gpu: L40S}
  - {id: gpu1, kind: gpu, index: 1, gpu: L40S, facts: {unknown: {memory_used: "[red]no permission"}}}
  links:
  - {between: [socket0, bridge0], kind: pcie}
  - {between: [bridge0, gpu0], kind: pcie, generation: 4, count: 16}
  - {between: [bridge0, gpu1], kind: pcie, generation: 4, count: 8, possible_count: 16}
"""


def check(document: dict[str, Any], schema: str) -> None:
    validator = jsonschema.Draft202012Validator(json.loads((DATA / "schemas" / schema).read_text("utf-8")))
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []


def test_a_machine_that_is_well(planner: Planner) -> None:
    run = planner("doctor", "dgx-h100")
    assert (run.code, run.out, run.err) == (0, "dgx-h100: nothing to report\n", "")
    assert planner("doctor", "dgx-h100", "--strict").code == 0


def test_problems_first_each_with_what_shows_it_what_it_costs_and_what_to_do(planner: Planner) -> None:
    run = planner("doctor", "-", stdin=HALF_A_SLOT)
    assert (run.code, run.err) == (0, "")
    assert run.words.startswith("[bold]box[/bold]: 1 problem, 1 notice pcie-width: PCIe x8 instead of x16 on GPU1 seen: ")
    assert "cost: x8 carries 12 GB/s instead of 24 GB/s each way remedy: reseat" in run.words
    assert "memory in use of GPU1: [red]no permission" in run.words
    assert run.words.index("pcie-width:") < run.words.index("facts-unknown:")


def test_a_narrow_terminal_gets_narrow_lines(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = planner("doctor", "4x-rtx-3090-bridged").out.splitlines()
    assert max(map(len, lines)) <= 60
    assert any(line.startswith("  remedy: ") for line in lines)
    hanging = lines[lines.index(next(line for line in lines if line.startswith("  remedy: "))) + 1]
    assert hanging.startswith(" " * 10)


def test_strict_is_about_problems_and_not_about_notices(planner: Planner) -> None:
    assert planner("doctor", "-", "--strict", stdin=HALF_A_SLOT).code == 1
    assert planner("doctor", "8x-rtx-4090").words.startswith("8x-rtx-4090: 1 notice ")
    assert planner("doctor", "8x-rtx-4090", "--strict").code == 0


@pytest.mark.parametrize("reference", ["dgx-h100", "8x-rtx-4090", "4x-rtx-3090-bridged", "-"])
def test_the_json_keeps_its_schema(planner: Planner, reference: str) -> None:
    run = planner("doctor", reference, "--format", "json", stdin=HALF_A_SLOT)
    check(run.document, "doctor.schema.json")
    severities = [finding["severity"] for finding in run.document["findings"]]
    assert severities == sorted(severities, reverse=True)


def test_the_probe_says_the_same(planner: Planner) -> None:
    doctor = planner("doctor", "-", "--format", "json", stdin=HALF_A_SLOT).document["findings"]
    document = planner("probe", "-", "--format", "json", stdin=HALF_A_SLOT).document
    check(document, "probe.schema.json")
    assert [finding.pop("hint") for finding in document["findings"]] == [finding["remedy"] for finding in doctor]
    assert document["findings"] == doctor
    words = planner("probe", "-", stdin=HALF_A_SLOT).words
    assert "findings - pcie-width: PCIe x8 instead of x16 on GPU1 (reseat" in words


def test_what_is_concluded_is_not_written_into_a_saved_probe(planner: Planner, tmp_path: Path) -> None:
    saved = tmp_path / "box.yaml"
    assert planner("probe", "-", "-o", str(saved), stdin=HALF_A_SLOT).code == 0
    assert "pcie-width" not in saved.read_text("utf-8")
    assert planner("doctor", str(saved)).out == planner("doctor", "-", stdin=HALF_A_SLOT).out


def test_a_recommendation_warns_of_problems_and_not_of_notices(planner: Planner) -> None:
    question = ("recommend", "llama-3.1-8b", "--format", "json", "--topology")
    assert "pcie-width: PCIe x8 instead of x16 on GPU1" in planner(*question, "-", stdin=HALF_A_SLOT).document["warnings"]
    assert planner(*question, "8x-rtx-4090").document["warnings"] == []


def test_gpus_that_a_capture_does_not_name_are_named_by_the_option(planner: Planner) -> None:
    capture = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tPHB\t0-7\nGPU1\tPHB\t X \t0-7\n"
    assert planner("doctor", "-", stdin=capture).words == "capture: nothing to report"
    assert "p2p-disabled" in planner("doctor", "-", "--gpu", "RTX-4090", stdin=capture).words


def test_a_host_without_a_gpu_says_what_to_pass(planner: Planner) -> None:
    run = planner("doctor")
    assert run.code == 3
    assert "hint:" in run.err
