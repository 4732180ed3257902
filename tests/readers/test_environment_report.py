from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects import spoilt
from planner.core.capture import Capture
from planner.core.facts import HostFacts
from planner.core.unknown import NOT_STATED, Unknown
from planner.errors import BadInput, PlannerError
from planner.readers import Reader, clean
from planner.readers.environment_report import READER as REPORT
from planner.readers.processor import READER as PROCESSOR

VLLM = """\
PyTorch version: 2.4.0
Is CUDA available: True
CUDA runtime version: 12.4.131
GPU models and configuration:
GPU 0: NVIDIA H100 80GB HBM3
  MIG 3g.40gb     Device  0:
GPU 1: NVIDIA H100 80GB HBM3

Nvidia driver version: 550.54.15
cuDNN version: Could not collect
"""
CPU = """\
Architecture:                       x86_64
Vendor ID:                          AuthenticAMD
BIOS Vendor ID:                     Advanced Micro Devices, Inc.
Model name:                         AMD EPYC 9654 96-Core Processor
BIOS Model name:                    AMD EPYC 9654 96-Core Processor CPU @ 2.4GHz
CPU family:                         25
Model:                              17
Thread(s) per core:                 2
Hypervisor vendor:                  KVM
L1d cache:                          6 MiB (192 instances)
NUMA node0 CPU(s):                  0-95
"""


def read(reader: Reader, text: str) -> Capture:
    text = clean(text)
    assert reader.recognises(text)
    return reader.read(text, "paste")


FOLDED = {
    "folded": " ".join((VLLM.replace("  MIG 3g.40gb     Device  0:\n", "") + CPU).split()),
    "padded": VLLM.replace("configuration:", "configuration : ").replace("version:", "version        :"),
}


@pytest.mark.parametrize("name", spoilt(VLLM) | FOLDED)
def test_an_environment_report(name: str) -> None:
    capture = read(REPORT, (spoilt(VLLM) | FOLDED)[name])
    assert [(gpu.index, gpu.model) for gpu in capture.gpus] == [(0, "NVIDIA H100 80GB HBM3"), (1, "NVIDIA H100 80GB HBM3")]
    assert capture.host.driver == "550.54.15"
    if name != "folded":
        assert capture.gpus[0].facts.multi_instance == "enabled"
    assert capture.gpus[1].facts.multi_instance == NOT_STATED


def test_a_report_of_one_gpu_in_one_line_and_one_that_groups_them() -> None:
    (gpu,) = read(REPORT, "GPU models and configuration: GPU 0: NVIDIA L4\nNvidia driver version: Could not collect\n").gpus
    assert gpu.model == "NVIDIA L4"
    text = "CUDA available: True\nGPU 0,1: NVIDIA B200\nGPU 2: NVIDIA L4\nGPU 0,1 Compute Capability: 10.0\nCUDA Driver Version: 580.95.05\n"
    capture = read(REPORT, text)
    assert [gpu.model for gpu in capture.gpus] == ["NVIDIA B200", "NVIDIA B200", "NVIDIA L4"]
    assert [gpu.facts.compute_capability for gpu in capture.gpus] == ["10.0", "10.0", NOT_STATED]
    assert capture.host.driver == "580.95.05"


def test_what_a_report_could_not_collect_is_unknown() -> None:
    text = "GPU models and configuration: GPU 0: NVIDIA L4\nNvidia driver version: Could not collect\n"
    driver = read(REPORT, text).host.driver
    assert isinstance(driver, Unknown)
    assert "could not collect" in driver.reason
    assert not REPORT.recognises("GPU models and configuration: Could not collect\n")


@pytest.mark.parametrize("name", spoilt(CPU) | FOLDED)
def test_the_processor(name: str) -> None:
    text = spoilt(CPU).get(name) or FOLDED["folded"]
    capture = read(PROCESSOR, text)
    assert capture.host == HostFacts(
        cpu_name="AMD EPYC 9654 96-Core Processor",
        cpu_vendor="AuthenticAMD",
        cpu_family=25,
        cpu_model=17,
        virtual_machine="KVM",
    )


def test_a_machine_is_real_only_where_a_guest_would_know() -> None:
    real = CPU.replace("Hypervisor vendor:                  KVM\n", "")
    assert read(PROCESSOR, real).host.virtual_machine == "none"
    assert read(PROCESSOR, real.replace("x86_64", "aarch64")).host.virtual_machine == NOT_STATED
    assert read(PROCESSOR, real.replace("NUMA node0 CPU(s)", "")).host.virtual_machine == NOT_STATED


def test_more_gpus_than_a_host_has_are_refused() -> None:
    with pytest.raises(BadInput, match="256"):
        read(REPORT, "GPU models and configuration:\n" + "".join(f"GPU {index}: A\n" for index in range(300)))


def test_each_reader_takes_its_own_part_only() -> None:
    assert not REPORT.recognises(CPU)
    assert not PROCESSOR.recognises(VLLM)
    for reader in (REPORT, PROCESSOR):
        assert read(reader, VLLM + CPU).format == reader.name
        with pytest.raises(BadInput) as refusal:
            reader.read("", "paste")
        assert refusal.value.hint


def test_other_captures_are_not_taken_for_reports(shared: Path) -> None:
    for folder in ("topo-m", "topo-m-damaged", "nvlink-s", "p2p-status", "nccl-xml", "p2p-bandwidth", "nccl-tests"):
        for path in sorted((shared / "machines" / folder).glob("*.[tx]*")):
            text = clean(path.read_text(encoding="utf-8", errors="replace"))
            assert not REPORT.recognises(text), path.name
            assert not PROCESSOR.recognises(text), path.name


PIECES = [*VLLM.splitlines(), *CPU.splitlines(), "GPU 0,1: NVIDIA B200", "CUDA available: True"]
ANYTHING = st.lists(st.sampled_from(PIECES) | st.text(max_size=30), max_size=30).map("\n".join)


@given(ANYTHING)
def test_any_text_gives_a_capture_or_a_refusal(text: str) -> None:
    for reader in (REPORT, PROCESSOR):
        if reader.recognises(text):
            try:
                assert reader.read(text, "paste").format == reader.name
            except PlannerError as problem:
                assert problem.path
