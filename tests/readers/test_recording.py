"""A machine that was recorded answers as it did."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from planner.core.capture import Capture
from replay import ReplayedFiles, ReplayedLibrary, Scenario, scenarios


@pytest.fixture(scope="module")
def recorder(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("record_nvml", root / "scripts" / "record_nvml.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_names(capture: Capture) -> Capture:
    """What is left of a capture once the recorder has left out what it leaves out."""
    gpus = []
    for gpu in capture.gpus:
        cluster = gpu.facts.fabric_cluster
        facts = replace(gpu.facts, uuid="…", fabric_cluster="…" if isinstance(cluster, str) else cluster)
        gpus.append(replace(gpu, facts=facts))
    return replace(capture, gpus=tuple(gpus), hostname=None)


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_a_recorded_machine_answers_as_it_did(scenario: Scenario, recorder: ModuleType) -> None:
    text = recorder.record("as before", scenario.library, scenario.files, scenario.environment)
    again = Scenario("again", text.split("\n")[0], yaml.safe_load(text))
    assert again.comment == "# as before"
    assert without_names(again.capture()) == without_names(scenario.capture())


def test_what_tells_a_machine_from_all_others_is_left_out(recorder: ModuleType) -> None:
    library = ReplayedLibrary(
        {
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetUUID 0": "GPU-5baec991-de63-c196-1766-04c38407e133",
            "nvmlDeviceGetGpuFabricInfoV 0": {"clusterUuid": [0x5B] * 16, "status": 0, "cliqueId": 0, "state": 3},
        }
    )
    files = ReplayedFiles(
        {
            "/proc/sys/kernel/hostname": "secret-host",
            "/proc/cmdline": "root=UUID=secret-disk iommu=pt",
            "/proc/cpuinfo": "vendor_id : GenuineIntel\nSerial : secret-serial\nflags : fpu secret-flag",
            "/proc/812/comm": "secret-process",
            "/proc/1/cgroup": "0::/docker/0123456789abcdef0123456789abcdef",
        }
    )
    text = recorder.record("odd", library, files, {"SECRET_TOKEN": "x"})
    for word in ("secret", "SECRET", "5baec991", "0123456789abcdef", "91, 91"):
        assert word not in text
    assert "iommu=pt" in text
    assert "docker" in text
