"""``planner probe --measure`` on a host whose programs are stand-ins."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from measured_support import peer_test, table
from planner.core.capture import Capture
from planner.core.topology import Topology
from planner.documents.topology import parse_topology
from planner.readers import benchmarks
from support import Planner

MATRIX = """\
\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity
GPU0\t X \tPHB\t0-23\t0
GPU1\tPHB\t X \t0-23\t0
"""


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


@pytest.fixture
def here(planner: Planner, tools: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """The command line on a host with two RTX A6000 and nothing that measures."""
    (tools / "matrix").write_text(MATRIX)
    program(tools, "nvidia-smi", f'case "$1 $2" in "topo -m") cat {tools}/matrix;; *) exit 3;; esac')
    program(tools, "python3", "exit 3")
    monkeypatch.setattr(sys, "executable", str(tools / "python3"))
    monkeypatch.setattr(benchmarks, "FOLDERS", ())
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("NCCL_TESTS_HOME", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("planner.readers.live.capture", lambda: Capture(source="here", format="NVML", hostname="box"))
    return planner


def measuring(tools: Path) -> None:
    """Programs that measure 20 to 25 GB/s."""
    for name in ("all_reduce", "all_gather", "alltoall"):
        (tools / f"{name}.txt").write_text(table(name, 2, (8, 4096, 1 << 20)).replace("H100 80GB HBM3", "RTX A6000"))
        program(tools, f"{name}_perf", f"cat {tools}/{name}.txt")
    (tools / "peer.txt").write_text(peer_test(2, access=False))
    program(tools, "p2pBandwidthLatencyTest", f"cat {tools}/peer.txt")


def saved(path: Path) -> Topology:
    return parse_topology(path.read_text("utf-8"), path.name)


def codes(topology: Topology) -> list[str]:
    return [finding.code for finding in topology.findings if finding.code.startswith("measure-")]


def test_a_measured_topology_is_saved(here: Planner, tools: Path, tmp_path: Path) -> None:
    measuring(tools)
    path = tmp_path / "box.yaml"
    run = here("probe", "--measure", "--gpu", "RTX-A6000", "-o", str(path))
    assert (run.code, run.err) == (0, f"wrote {path}\n")
    topology = saved(path)
    assert codes(topology) == []
    assert {curve.operation for curve in topology.measurements} == {"all_reduce", "all_gather", "all_to_all"}
    assert any(link.measured is not None for link in topology.links)
    assert "how far off predictions are" in run.out


def test_standard_output_holds_the_document_alone(here: Planner, tools: Path) -> None:
    measuring(tools)
    run = here("probe", "--measure", "--gpu", "RTX-A6000", "-o", "-")
    assert (run.code, run.err) == (0, "")
    assert parse_topology(run.out, "-").measurements
    shown = here("probe", "--measure", "--gpu", "RTX-A6000", "--format", "json")
    assert (shown.code, shown.err) == (0, "")
    assert isinstance(shown.document, dict)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 1", "ended with exit code 1"),
        ("sleep 600", "did not finish within 1 s"),
        ("echo rubbish", "printed what cannot be used"),
        ("exec /nonexistent", "ended with exit code"),
    ],
)
def test_what_goes_wrong_costs_a_finding_not_the_topology(
    here: Planner, tools: Path, tmp_path: Path, script: str, said: str
) -> None:
    program(tools, "all_reduce_perf", script)
    path = tmp_path / "box.yaml"
    run = here("probe", "--measure", "--measure-seconds", "1", "--gpu", "RTX-A6000", "-o", str(path))
    assert run.code == 0
    assert codes(saved(path)) == ["measure-failed"]
    assert said in run.words
    assert len(saved(path).gpus) == 2


def test_nothing_to_measure_with_is_a_notice(here: Planner, tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    run = here("probe", "--measure", "-o", str(path))
    assert run.code == 0
    assert codes(saved(path)) == ["measure-unavailable"]
    assert "NCCL_TESTS_HOME" in run.words


def test_numbers_of_another_machine_are_not_used(here: Planner, tools: Path, tmp_path: Path) -> None:
    (tools / "four.txt").write_text(table("all_reduce", 4))
    program(tools, "all_reduce_perf", f"cat {tools}/four.txt")
    path = tmp_path / "box.yaml"
    run = here("probe", "--measure", "--gpu", "RTX-A6000", "-o", str(path))
    assert run.code == 0
    assert codes(saved(path)) == ["measure-unavailable", "measure-unused"]
    assert saved(path).measurements == ()


def test_one_program_that_measured_another_machine_does_not_spoil_the_others(here: Planner, tools: Path, tmp_path: Path) -> None:
    measuring(tools)
    (tools / "all_gather.txt").write_text(table("all_gather", 4))
    path = tmp_path / "box.yaml"
    assert here("probe", "--measure", "--gpu", "RTX-A6000", "-o", str(path)).code == 0
    assert codes(saved(path)) == ["measure-unused"]
    assert {curve.operation for curve in saved(path).measurements} == {"all_reduce", "all_to_all"}


def test_a_gpu_without_a_name_costs_a_finding(here: Planner, tools: Path, tmp_path: Path) -> None:
    measuring(tools)
    path = tmp_path / "box.yaml"
    assert here("probe", "--measure", "-o", str(path)).code == 0
    assert codes(saved(path)) == ["measure-unused"]


def test_the_probe_is_kept_when_measuring_is_interrupted(here: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmarks, "measure", interrupted)
    path = tmp_path / "box.yaml"
    run = here("probe", "--measure", "-o", str(path))
    assert (run.code, run.err) == (130, "planner: interrupted\n")
    assert len(saved(path).gpus) == 2


def test_a_file_that_is_there_is_refused_before_anything_runs(here: Planner, tools: Path, tmp_path: Path) -> None:
    program(tools, "all_reduce_perf", f"touch {tools}/ran")
    path = tmp_path / "box.yaml"
    path.write_text("mine")
    run = here("probe", "--measure", "-o", str(path))
    assert run.code == 2
    assert "--force" in run.err
    assert path.read_text() == "mine"
    assert not (tools / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--measure", "box.yaml"), "measures this host, not a file"),
        (("--measure", "--hostfile", "hosts"), "measures this host, not others"),
        (("--measure", "--ray"), "measures this host, not others"),
        (("--measure-seconds", "5"), "--measure-seconds: is for --measure"),
        (("--measure", "--measure-seconds", "0"), "--measure-seconds"),
        (("--measure", "--measure-seconds", "x"), "--measure-seconds"),
        (("--measure", "--measure-seconds", "nan"), "--measure-seconds"),
    ],
)
def test_measuring_is_for_this_host(here: Planner, arguments: tuple[str, ...], said: str) -> None:
    run = here("probe", *arguments)
    assert run.code == 2
    assert said in run.err
