from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner import api
from planner.core.capture import Capture
from planner.core.facts import GpuFacts
from planner.core.unknown import NOT_STATED, Unknown
from planner.documents.topology import dump_topology, parse_topology
from planner.errors import Unavailable
from planner.graph.assemble import assemble
from planner.graph.paths import class_matrix
from planner.readers import live
from replay import ReplayedFiles, ReplayedLibrary, Scenario, looked_up, scenarios

RECORDED = """\
\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV12\t0-23\t0\t\tN/A
GPU1\tNV12\t X \t24-47\t1\t\tN/A
"""
ALL = scenarios()
every_scenario = pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)


def stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that answers as recorded."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_host_is_probed_by_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answer").write_text(RECORDED)
    stand_in(tmp_path, f"cat {tmp_path}/answer", monkeypatch)
    told = Capture(source="this host", format=live.FORMAT)
    monkeypatch.setattr(live, "capture", lambda *_, **__: told)
    topology = api.probe()
    assert topology.origin.kind == "probed"
    assert class_matrix(topology) == [["X", "NV12"], ["NV12", "X"]]


def test_a_driver_that_fails_is_the_environments_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(
        tmp_path, "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.' >&2; exit 9", monkeypatch
    )
    with pytest.raises(Unavailable, match="could not communicate"):
        api.probe()


def test_a_host_without_gpus_says_how_to_name_a_topology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no nvidia-smi") as refusal:
        api.find_topology(None)
    assert "--topology" in refusal.value.hint


@every_scenario
def test_a_machine_on_record_is_told_as_somebody_who_knows_it_would(scenario: Scenario) -> None:
    capture = scenario.capture()
    expected = scenario.document["expected"]
    assert {path: looked_up(capture, path) for path in expected} == expected
    assert [finding.code for finding in capture.findings] == scenario.document["findings"]


@every_scenario
def test_every_machine_on_record_says_first_what_is_odd_about_it(scenario: Scenario) -> None:
    assert scenario.comment.startswith("# ")
    assert len(scenario.comment) > 40


@every_scenario
def test_the_driver_is_let_go(scenario: Scenario) -> None:
    library = scenario.library
    live.capture(library, scenario.files, ())
    assert library.open == 0


def told(thing: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a capture with its place."""
    if isinstance(thing, Unknown):
        yield place, thing
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for part in dataclasses.fields(thing):
            yield from told(getattr(thing, part.name), f"{place}.{part.name}")
    elif isinstance(thing, tuple):
        for number, item in enumerate(thing):
            yield from told(item, f"{place}.{number}")
    else:
        yield place, thing


def lost(before: Capture, after: Capture) -> set[str]:
    """The places that were told and are not any longer, or differ."""
    new = dict(told(after))
    return {place for place, value in told(before) if new.get(place) != value}


@every_scenario
def test_every_call_may_fail_on_its_own_and_costs_only_what_it_tells(scenario: Scenario) -> None:
    whole = scenario.library
    before = live.capture(whole, scenario.files, scenario.environment)
    for call in sorted({key.split(" ")[0] for key in whole.asked} - {"nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount"}):
        after = live.capture(replace(scenario.library, broken=frozenset({call})), scenario.files, scenario.environment)
        assert len(after.gpus) == len(before.gpus), call
        for place in lost(before, after):
            if ".facts." in place and call != "nvmlErrorString":  # the number stays
                value = dict(told(after)).get(place)
                assert value is None or isinstance(value, Unknown), (call, place, value)


@every_scenario
def test_every_file_may_be_unreadable_on_its_own(scenario: Scenario) -> None:
    whole = scenario.files
    live.capture(scenario.library, whole, scenario.environment)
    for path in sorted(set(whole.asked)):
        files = replace(scenario.files, broken=frozenset({path}))
        capture = live.capture(scenario.library, files, scenario.environment)
        assert len(capture.gpus) == looked_up(scenario.capture(), "gpus.#"), path


@every_scenario
def test_nobody_asked_and_nobody_answered_are_different_things(scenario: Scenario) -> None:
    for gpu in scenario.capture().gpus:
        silent = [part.name for part in dataclasses.fields(GpuFacts) if getattr(gpu.facts, part.name) == NOT_STATED]
        assert silent == []


def test_a_machine_that_tells_nothing_is_all_unknown() -> None:
    capture = live.capture(ReplayedLibrary({}, broken=frozenset({"nvmlInit"})), ReplayedFiles(), ())
    assert capture.gpus == ()
    assert capture.hostname is None
    assert [value for place, value in told(capture.host) if not isinstance(value, Unknown)] == []
    assert NOT_STATED not in dict(told(capture.host)).values()


@pytest.mark.parametrize("scenario", [one for one in ALL if one.capture().gpus], ids=str)
def test_what_is_told_builds_a_topology_that_is_saved_and_read_again(scenario: Scenario) -> None:
    topology = assemble(scenario.capture(), scenario.name, "probed", lambda _: None)
    topology.check()
    assert parse_topology(dump_topology(topology), "saved") == topology


def test_the_link_of_an_idle_gpu_is_taken_as_under_load_and_its_width_as_it_is() -> None:
    scenario = next(one for one in ALL if one.name == "4x-3090-bridged-idle")
    topology = assemble(scenario.capture(), "rig", "probed", lambda _: None)
    links = {link.b: link for link in topology.links if link.b.startswith("gpu") and str(link.kind) == "pcie"}
    assert [(links[f"gpu{gpu}"].generation, links[f"gpu{gpu}"].count) for gpu in range(4)] == [(4, 16), (4, 16), (4, 8), (1, 16)]


def test_this_very_machine_is_told_whatever_it_is() -> None:
    capture = live.capture()
    assert capture.format == live.FORMAT
    assert capture.host.cpu_vendor != NOT_STATED


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU here")
def test_a_real_host_is_probed_saved_and_read_again(tmp_path: Path) -> None:
    topology = api.probe()
    api.save_topology(topology, tmp_path / "box.yaml")
    assert api.load_topology(str(tmp_path / "box.yaml")) == topology
