from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from planner import api
from planner.documents.files import DATA
from support import Planner

PAIR = "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\nGPU0\t X \tNV4\t0-7\t0\t\tN/A\nGPU1\tNV4\t X \t0-7\t0\t\tN/A\n"
BROKEN = """\
schema_version: 1
name: broken
origin: {kind: written, source: a test}
hosts:
- name: node0
  devices:
  - {id: socket0, kind: socket}
  - {id: gpu0, kind: gpu, index: 0, gpu: L4}
  links:
  - {between: [socket0, gpu9], kind: pcie}
"""


def keeps(document: dict[str, Any], schema: str) -> None:
    jsonschema.validate(document, json.loads((DATA / "schemas" / schema).read_text("utf-8")))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch, planner: Planner) -> Planner:
    monkeypatch.setenv("COLUMNS", "80")
    return planner


def test_show_draws_a_machine(narrow: Planner) -> None:
    run = narrow("topology", "show", "dgx-h100")
    assert (run.code, run.err) == (0, "")
    assert max(map(len, run.out.splitlines())) <= 80
    assert "┌─ socket0 · NUMA 0 ────┐ ┌─ socket1 · NUMA 1 ────┐" in run.out
    assert "nvswitch0: gpu0-7, NV18 each, 450 GB/s one way" in run.out
    assert "assumed" in run.out
    assert "\x1b" not in run.out


def test_show_in_ascii(narrow: Planner) -> None:
    run = narrow("topology", "show", "4x-rtx-3090-bridged", "--ascii")
    assert run.out.isascii()
    assert "| + gpu0" in run.out


def test_a_terminal_without_unicode_gets_ascii_by_itself() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "planner", "topology", "show", "2x-l4"],
        capture_output=True,
        check=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": "/nowhere"},
    )
    assert run.stdout.isascii()
    assert b"+- socket0" in run.stdout
    assert b"\\u" not in run.stdout


@pytest.mark.parametrize(
    ("form", "start"),
    [
        ("svg", "<svg xmlns="),
        ("dot", "graph topology {"),
        ("yaml", "schema_version: 1\n"),
        ("json", "{\n"),
        ("topo-m", "\tGPU0\tGPU1"),
        ("text", "2x-l4: 2× L4\n"),
    ],
)
def test_every_format_goes_to_standard_output_or_a_file(planner: Planner, tmp_path: Path, form: str, start: str) -> None:
    shown = planner("topology", "show", "2x-l4", "--format", form)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(start)
    path = tmp_path / "picture"
    written = planner("topology", "show", "2x-l4", "--format", form, "-o", str(path))
    assert (written.code, written.out, written.err) == (0, "", f"wrote {path}\n")
    assert path.read_text("utf-8").startswith(start)
    refused = planner("topology", "show", "2x-l4", "--format", form, "-o", str(path))
    assert refused.code == 2
    assert "--force" in refused.err
    assert planner("topology", "show", "2x-l4", "--format", form, "-o", str(path), "--force").code == 0


def test_what_it_writes_it_reads(planner: Planner) -> None:
    for form in ("yaml", "topo-m"):
        text = planner("topology", "show", "dgx-1-v100", "--format", form).out
        again = planner("topology", "show", "-", "--format", "topo-m", stdin=text)
        assert (
            again.out.split("\nLegend")[0]
            == planner("topology", "show", "dgx-1-v100", "--format", "topo-m").out.split("\nLegend")[0]
        )
    assert planner("topology", "show", "2x-dgx-h100", "--format", "topo-m").out.startswith("# node0\n\tGPU0")


def test_infinity_fabric_is_shown_as_its_own_program_does(planner: Planner) -> None:
    run = planner("topology", "show", "azure-nd96isr-mi300x-v5", "--format", "topo-m")
    assert run.code == 0
    assert "GPU0   0            XGMI" in run.out


def test_a_capture_that_does_not_name_its_gpus(planner: Planner) -> None:
    run = planner("topology", "show", "-", stdin=PAIR)
    assert run.code == 0
    assert "2 GPUs, model not stated" in run.out
    assert "gpu0–gpu1 (×4)" in run.out
    assert "48 GB/s" in planner("topology", "show", "-", "--gpu", "RTX-3090", stdin=PAIR).out


def test_diff_explains_and_ends_with_one(planner: Planner, tmp_path: Path) -> None:
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    text = api.topology_yaml(api.load_topology("dgx-h100"))
    before.write_text(text)
    after.write_text(text.replace("[gpu3, nvswitch0], kind: nvlink, count: 18", "[gpu3, nvswitch0], kind: nvlink, count: 17"))
    run = planner("topology", "diff", str(before), str(after))
    assert (run.code, run.err) == (1, "")
    assert run.words.startswith(f"{before} → {after}: 1 change - gpu3–nvswitch0: 18 → 17 links, 5.6 % less bandwidth")
    same = planner("topology", "diff", str(before), "dgx-h100")
    assert (same.code, same.err) == (0, "")
    assert "no difference" in same.out


def test_diff_says_once_what_is_so_of_many(planner: Planner) -> None:
    run = planner("topology", "diff", "dgx-h100", "dgx-h200")
    assert run.out == "dgx-h100 → dgx-h200: 8 changes\n- gpu0-7: H100-SXM5-80GB → H200-SXM5-141GB\n"


def test_diff_as_a_document(planner: Planner) -> None:
    run = planner("topology", "diff", "dgx-h100", "8x-l40s", "--format", "json")
    assert run.code == 1
    keeps(run.document, "difference.schema.json")
    assert run.document["same"] is False
    kinds = {change["kind"] for change in run.document["changes"]}
    assert kinds == {"switch-gone", "nic-gone", "gpu-model"}
    same = planner("topology", "diff", "dgx-h100", "dgx-h100", "--format", "json")
    assert same.code == 0
    keeps(same.document, "difference.schema.json")
    assert (same.document["same"], same.document["changes"]) == (True, [])


def test_diff_of_what_is_not_there(planner: Planner) -> None:
    assert planner("topology", "diff", "dgx-h100", "/no/such.yaml").code == 2


@pytest.mark.parametrize("width", [40, 60, 80])
def test_list_fits_and_names_every_machine(planner: Planner, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    run = planner("topology", "list")
    assert (run.code, run.err) == (0, "")
    assert max(len(line) for line in run.out.splitlines() if " " in line.strip()) <= max(width, 49)
    for name in api.topology_names():
        assert f"\n{name}" in run.out


def test_list_says_what_joins_the_gpus(narrow: Planner) -> None:
    lines = {line.split()[0]: " ".join(line.split()) for line in narrow("topology", "list").out.splitlines()}
    assert lines["dgx-h100"] == "dgx-h100 8× H100-SXM5-80GB NVSwitch"
    assert lines["aws-p4d-24xlarge"] == "aws-p4d-24xlarge 8× A100-SXM4-40GB NVSwitch p4d.24xlarge"
    assert lines["4x-rtx-3090-bridged"].endswith("NVLink pairs")
    assert lines["dgx-1-v100"].endswith("NVLink hybrid")
    assert lines["8x-l40s"].endswith("PCIe")
    assert lines["1x-gh200"].endswith("C2C")


def test_list_as_a_document(planner: Planner) -> None:
    document = planner("topology", "list", "--format", "json").document
    keeps(document, "library.schema.json")
    machines = {machine["name"]: machine for machine in document["machines"]}
    assert set(machines) == set(api.topology_names())
    assert machines["gb200-nvl72"]["hosts"] == 18
    assert "p4d.24xlarge" in machines["aws-p4d-24xlarge"]["aliases"]


def test_check_says_ok_or_what_is_wrong(planner: Planner, tmp_path: Path) -> None:
    run = planner("topology", "check", "dgx-h100", "8xL40S")
    assert (run.code, run.out, run.err) == (0, "ok dgx-h100\nok 8xL40S\n", "")
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    broken = planner("topology", "check", str(path), "dgx-h100")
    assert (broken.code, broken.err) == (1, "")
    assert broken.out.startswith(f"failed {path}: ")
    assert "gpu9" in broken.out
    assert broken.out.endswith("ok dgx-h100\n")


def test_check_of_what_is_not_there_is_bad_input(planner: Planner) -> None:
    run = planner("topology", "check", "dgx-h100", "/no/such.yaml")
    assert (run.code, run.out) == (2, "")
    assert "no such file" in run.err


def test_help_names_every_command(planner: Planner) -> None:
    text = planner("topology", "--help").out
    for command in ("show", "diff", "list", "check", "merge"):
        assert command in text
        assert planner("topology", command, "--help").code == 0
