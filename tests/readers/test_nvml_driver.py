"""The real pynvml over a library that is none: what ctypes brings back becomes plain values."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from planner.core.unknown import Unknown
from planner.readers.nvml import Driver, Refused, asked
from planner.readers.nvml_gpus import read_gpus

pynvml = pytest.importorskip("pynvml")
OK, NOT_SUPPORTED = 0, 3


class Shared:
    """libnvidia-ml of a host with two GPUs, in so far as anybody asks. A function is made for every name."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.asked.append(name)
            answer: Callable[..., int | None] | None = ANSWERS.get(name)
            return NOT_SUPPORTED if answer is None else answer(*arguments) or OK

        return call


def fill(**parts: Any) -> Callable[..., None]:
    """What a function writes where its last argument points: a value, or parts of a structure."""

    def write(*arguments: Any) -> None:
        target = arguments[-1]._obj
        for name, value in parts.items():
            if name == "cluster":
                target.clusterUuid[:] = value
            else:
                setattr(target, name, value)

    return write


def field_values(_: Any, count: Any, values: Any) -> None:
    one = values._obj[0]
    assert count.value == 1
    if one.fieldId == 164:
        one.valueType, one.value.uiVal = 1, 26562 + one.scopeId
    elif one.fieldId == 170:
        one.valueType, one.value.ullVal = 3, 2**40
    else:
        one.nvmlReturn = NOT_SUPPORTED


def affinity(_: Any, words: int, mask: Any) -> None:
    assert words == len(mask._obj)
    mask._obj[0], mask._obj[1] = 0b1011, 1


ANSWERS: dict[str, Callable[..., Any]] = {
    "nvmlInitWithFlags": lambda _: OK,
    "nvmlShutdown": lambda: OK,
    "nvmlDeviceGetCount_v2": fill(value=2),
    "nvmlDeviceGetHandleByIndex_v2": lambda index, _: 15 if getattr(index, "value", index) == 1 else OK,
    "nvmlSystemGetCudaDriverVersion_v2": fill(value=12040),
    "nvmlDeviceGetMemoryInfo": fill(total=85520809984, free=1, used=2),
    "nvmlDeviceGetPciInfo_v3": fill(busId=b"00000000:1B:00.0", domain=0),
    "nvmlDeviceGetGpuFabricInfoV": fill(state=3, status=0, cliqueId=7, cluster=range(1, 17)),
    "nvmlDeviceGetCudaComputeCapability": lambda _, major, minor: (fill(value=9)(major), fill(value=0)(minor)) and OK,
    "nvmlDeviceGetMigMode": lambda _, now, later: (fill(value=1)(now), fill(value=0)(later)) and OK,
    "nvmlDeviceGetCpuAffinity": affinity,
    "nvmlDeviceGetFieldValues": field_values,
    "nvmlDeviceGetNvLinkState": lambda _, link, up: fill(value=1)(up) if link < 2 else 2,
    "nvmlDeviceGetNvLinkRemoteDeviceType": fill(value=2),
    "nvmlDeviceGetNvLinkRemotePciInfo_v2": fill(busId=b"00000000:07:00.0"),
}


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Shared:
    library = Shared()
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlLib_refcount", 1)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return library


def test_structures_arrays_and_fields_come_back_as_plain_values(shared: Shared) -> None:
    sight = read_gpus(Driver())
    gpu = sight.gpus[0]
    assert (sight.cuda, gpu.memory, gpu.bus_id) == ("12.4", 85520809984.0, "0000:1b:00.0")
    facts = gpu.facts
    assert (facts.compute_capability, facts.multi_instance, facts.cpu_affinity) == ("9.0", "enabled", "0-1,3,64")
    if hasattr(pynvml, "nvmlDeviceGetGpuFabricInfoV"):  # not in nvidia-ml-py 12.535
        assert (facts.fabric, facts.fabric_clique) == ("completed", 7)
        assert facts.fabric_cluster == "01020304-0506-0708-090a-0b0c0d0e0f10"
    assert not isinstance(facts.nvlinks, Unknown)
    assert [(link.link, link.remote, link.bandwidth) for link in facts.nvlinks] == [
        (0, "switch", 26562e6),
        (1, "switch", 26563e6),
    ]
    assert facts.performance_state == Unknown("NVML: Not Supported")


def test_a_gpu_without_a_handle_is_lost_and_the_other_one_told(shared: Shared) -> None:
    sight = read_gpus(Driver())
    assert sight.gpus[1].facts.uuid == Unknown("NVML: GPU is lost")
    assert [finding.devices for finding in sight.findings] == [("gpu1",)]


def test_nothing_is_ever_set(shared: Shared) -> None:
    read_gpus(Driver())
    assert len(shared.asked) > 50
    assert [
        name for name in shared.asked if not name.startswith(("nvmlDeviceGet", "nvmlSystemGet", "nvmlInit", "nvmlShutdown"))
    ] == []


def test_a_call_that_an_old_pynvml_lacks_is_refused_by_name() -> None:
    old = SimpleNamespace(nvmlDeviceGetHandleByIndex=lambda index: index, nvmlDeviceGetGpuFabricInfo=lambda *_: 0)
    with pytest.raises(Refused, match="pynvml too old: it has no nvmlDeviceGetGpuFabricInfoV"):
        Driver(old).ask("nvmlDeviceGetGpuFabricInfoV", 0)
    with pytest.raises(Refused, match="pynvml too old: it has no c_nvmlGpuFabricInfo_t"):
        Driver(old).ask("nvmlDeviceGetGpuFabricInfo", 0)


def test_a_binding_that_breaks_in_its_own_way_is_refused_too() -> None:
    broken = SimpleNamespace(nvmlSystemGetDriverVersion=lambda: 1 / 0)
    assert asked(Driver(broken), "nvmlSystemGetDriverVersion") == Unknown("NVML: division by zero")


def test_without_pynvml_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    silent = read_gpus(Driver()).silent
    assert silent is not None
    assert "pynvml cannot be imported" in silent.reason
