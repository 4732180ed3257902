"""Captures of real machines, where they lie beside the project."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from planner import api
from planner.core.workload import Workload
from planner.documents.topology import dump_topology, parse_topology
from planner.errors import BadInput
from planner.graph.paths import class_matrix
from support import Planner

# a GPU with as many NVLinks, for captures that do not name theirs
HARDWARE = {
    18: "H100-SXM5-80GB",
    17: "H100-SXM5-80GB",
    12: "A100-SXM4-80GB",
    8: "A800-SXM4-80GB",
    4: "RTX-A6000",
    2: "RTX-2080-Ti",
}


def expected(folder: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((folder / "expected.json").read_text("utf-8"))
    return parsed


def hardware(matrix: list[list[str]]) -> str:
    most = max((int(cell[2:]) for row in matrix for cell in row if cell.startswith("NV")), default=0)
    return HARDWARE.get(most, "H100-SXM5-80GB" if most else "L40S")


def test_captures_read_as_expected_and_can_be_planned(shared: Path) -> None:
    folder = shared / "machines" / "topo-m"
    right, planned, wrong = 0, 0, []
    model = api.load_model("llama-3.1-8b")
    for name, facts in expected(folder).items():
        try:
            topology = api.load_topology(str(folder / name), gpu=hardware(facts["matrix"]))
        except BadInput as error:
            assert "line" in error.path, name
            wrong.append(name)
            continue
        assert class_matrix(topology) == facts["matrix"], name
        right += 1
        planned += bool(api.recommend(model, topology, Workload(), top=1).plans)
    assert right >= 159, wrong
    assert planned >= 159


def test_damaged_captures_are_read_right_or_say_what_is_lost(shared: Path) -> None:
    folder = shared / "machines" / "topo-m-damaged"
    for name, facts in expected(folder).items():
        if facts["matrix"] is not None:
            assert class_matrix(api.load_topology(str(folder / name))) == facts["matrix"], name
            continue
        try:
            topology = api.load_topology(str(folder / name))
        except BadInput as error:
            assert "line" in error.path, name
        else:
            assert {"row-missing", "row-cut"} & {finding.code for finding in topology.findings}, name


@pytest.mark.parametrize("limit", [40])
def test_probe_shows_the_matrix_of_a_capture_on_standard_input(shared: Path, planner: Planner, limit: int) -> None:
    folder = shared / "machines" / "topo-m"
    for name, facts in list(expected(folder).items())[:limit]:
        run = planner("probe", "-", "--format", "json", stdin=(folder / name).read_bytes())
        assert run.code == 0, (name, run.err)
        assert run.document["matrix"] == facts["matrix"], name
        assert len(run.document["gpus"]) == facts["gpus"], name


@pytest.mark.parametrize("kind", ["nvlink-s", "p2p-status", "nccl-xml", "other-vendor"])
def test_other_captures_give_a_checked_graph_or_say_line_and_cause(shared: Path, kind: str) -> None:
    read = 0
    paths = sorted((shared / "machines" / kind).iterdir())
    for path in paths:
        holds = {
            "nvlink-s": "GB/s" in path.read_text("utf-8"),
            "nccl-xml": re.search("<gpu[ >]", path.read_text("utf-8")) is not None,
        }.get(kind, True)
        try:
            topology = api.load_topology(str(path))
        except BadInput as error:
            assert not holds, (path.name, str(error))
            assert "line" in error.path, path.name
            continue
        topology.check()
        assert parse_topology(dump_topology(topology), path.name) == topology, path.name
        read += 1
    assert read, paths


@pytest.mark.parametrize("kind", ["p2p-bandwidth", "nccl-tests"])
def test_measurements_are_told_from_topologies(shared: Path, kind: str) -> None:
    for path in sorted((shared / "machines" / kind).iterdir()):
        with pytest.raises(BadInput, match=r"bandwidth measurement|nccl-tests result|no link matrix") as refusal:
            api.load_topology(str(path))
        assert "line" in refusal.value.path
        assert "nvidia-smi topo -m" in refusal.value.hint
