from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from planner import api
from planner.core.unknown import Unknown
from planner.errors import Unavailable
from planner.graph.paths import class_matrix
from planner.readers.nvml import read_gpus

RECORDED = """\
\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV12\t0-23\t0\t\tN/A
GPU1\tNV12\t X \t24-47\t1\t\tN/A
"""


def stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that answers as recorded."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_host_is_probed_by_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answer").write_text(RECORDED)
    names = "GPU 0: NVIDIA A100 80GB PCIe (UUID: GPU-0)\\nGPU 1: NVIDIA A100 80GB PCIe (UUID: GPU-1)\\n"
    stand_in(tmp_path, f"if [ \"$1\" = topo ]; then cat {tmp_path}/answer; else printf '{names}'; fi", monkeypatch)
    topology = api.probe()
    assert topology.origin.kind == "probed"
    assert class_matrix(topology) == [["X", "NV12"], ["NV12", "X"]]
    assert [gpu.hardware for gpu in topology.gpus] == ["A100-PCIe-80GB", "A100-PCIe-80GB"]


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


class Recording:
    """NVML as it answered on a host with two GPUs; ``broken`` names the calls that failed there."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.open = 0

    def _answer(self, call: str, value: Any) -> Any:
        if call in self.broken:
            raise RuntimeError("Unknown Error")
        return value

    def nvmlInit(self) -> None:  # noqa: N802
        self._answer("init", None)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return int(self._answer("count", 2))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return int(self._answer(f"handle {index}", index))

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        return bytes(self._answer(f"name {handle}", b"NVIDIA H100 80GB HBM3"))

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=self._answer(f"memory {handle}", 85520809984))


def test_nvml_tells_names_and_memory() -> None:
    recording = Recording()
    facts = read_gpus(recording)
    assert isinstance(facts, list)
    assert [(one.name, one.memory) for one in facts] == [("NVIDIA H100 80GB HBM3", 85520809984.0)] * 2
    assert recording.open == 0


@pytest.mark.parametrize("call", ["name 1", "memory 1", "handle 1"])
def test_a_call_that_fails_is_unknown_with_its_reason_and_never_zero(call: str) -> None:
    recording = Recording(call)
    facts = read_gpus(recording)
    assert isinstance(facts, list)
    assert facts[0].name == "NVIDIA H100 80GB HBM3"
    unknown = [value for value in (facts[1].name, facts[1].memory) if isinstance(value, Unknown)]
    assert unknown
    assert "Unknown Error" in unknown[0].reason
    assert recording.open == 0


@pytest.mark.parametrize("call", ["init", "count"])
def test_a_driver_that_is_not_there_is_unknown(call: str) -> None:
    assert isinstance(read_gpus(Recording(call)), Unknown)


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU here")
def test_a_real_host_is_probed_saved_and_read_again(tmp_path: Path) -> None:
    topology = api.probe()
    api.save_topology(topology, tmp_path / "box.yaml")
    assert api.load_topology(str(tmp_path / "box.yaml")).gpus == topology.gpus
