from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects import spoilt
from planner.core.capture import Capture, GpuSight
from planner.core.unknown import NOT_STATED, Unknown
from planner.errors import BadInput, PlannerError
from planner.readers import Reader, clean
from planner.readers.refusals import refuse
from planner.readers.smi_csv import READER as CSV
from planner.readers.smi_query import READER as QUERY
from planner.readers.smi_table import READER as TABLE

MIB = 2.0**20
FIRST = "GPU-1f0e8a8c-9a5b-4f6e-8f3b-0d9f6c1c2b3a"
LOG = f"""\
==============NVSMI LOG==============

Timestamp                                 : Fri Feb 23 11:51:29 2024
Driver Version                            : 545.23.08
CUDA Version                              : 12.3

Attached GPUs                             : 2
GPU 00000000:19:00.0
    Product Name                          : NVIDIA H100 80GB HBM3
    MIG Mode
        Current                           : Enabled
        Pending                           : Disabled
    MIG Device
        Index                             : 0
        FB Memory Usage
            Total                         : 40192 MiB
            Used                          : 31 MiB
            Free                          : 40161 MiB
    Driver Model
        Current                           : N/A
    GPU UUID                              : {FIRST}
    GPU C2C Mode                          : Disabled
    PCI
        Bus Id                            : 00000000:19:00.0
        GPU Link Info
            PCIe Generation
                Max                       : 4
                Current                   : 1
                Device Current            : 1
                Device Max                : 5
                Host Max                  : 4
            Link Width
                Max                       : 16x
                Current                   : 8x
    Performance State                     : P0
    FB Memory Usage
        Total                             : 81559 MiB
        Reserved                          : 328 MiB
        Used                              : 2 MiB
        Free                              : 81227 MiB
    BAR1 Memory Usage
        Total                             : 131072 MiB
    ECC Mode
        Current                           : Enabled
    Fabric
        State                             : Completed
        Status                            : Success
        CliqueId                          : 7
        ClusterUUID                       : 5a6b7c8d-0000-1111-2222-333344445555
        Health
            Bandwidth                     : N/A
    Processes                             : None

GPU 00000000:5D:00.0
    Product Name                          : GPU is lost
    MIG Mode
        Current                           : N/A
    PCI
        GPU Link Info
            PCIe Generation
                Max                       : N/A
            Link Width
                Current                   : Unknown Error
    FB Memory Usage
        Total                             : N/A
    Fabric
        State                             : Completed
        Status                            : Insufficient Resources
        ClusterUUID                       : 00000000-0000-0000-0000-000000000000
"""
STATUS = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 555.42.02              Driver Version: 555.42.02      CUDA Version: 12.5     |
|-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA A100-PCIE-40GB          Off |   00000000:12:00.0 Off |                    0 |
| N/A   38C    P8             32W /  250W |       1MiB /  40960MiB |      0%      Default |
|                                         |                        |             Disabled |
+-----------------------------------------+------------------------+----------------------+
|   1  Tesla V100-SXM2...  Off  | 0000:8A:00.0 Off |                    0 |
|ERR!  ERR!  ERR!    ERR! / ERR! |  N/A / N/A |      0%      Default |
|                               |                      |                  N/A |
+-------------------------------+----------------------+----------------------+
| Processes:                                                                              |
|  GPU   GI   CI        PID   Type   Process name                              GPU Memory |
|    0   N/A  N/A      1234      C   python                                       500MiB  |
"""
COMMA = f"""\
$ nvidia-smi --query-gpu=index,name,uuid,pci.bus_id,memory.total,pcie.link.gen.max,compute_cap,driver_version --format=csv
index, name, uuid, pci.bus_id, memory.total [MiB], pcie.link.gen.max, compute_cap, driver_version, power.draw [W]
0, NVIDIA L4, {FIRST}, 00000000:19:00.0, 23034 MiB, 4, 8.9, 550.54.15, 31.20 W
1, NVIDIA L4, [N/A], 00000001:5D:00.0, [GPU is lost], [Unknown Error], 8.9, 550.54.15, [N/A]
$ nvidia-smi topo -m
"""


def read(reader: Reader, text: str) -> Capture:
    text = clean(text)
    assert reader.recognises(text)
    return reader.read(text, "paste")


def known(gpu: GpuSight) -> dict[str, object]:
    facts = {name: getattr(gpu.facts, name) for name in type(gpu.facts).__slots__}
    return {name: value for name, value in facts.items() if not isinstance(value, Unknown)}


LOGGED = spoilt(LOG) | {"log prefix": "".join(f"2026-03-04 10:26:11,402 INFO w.py:88 {line}\n" for line in LOG.splitlines())}


@pytest.mark.parametrize("name", LOGGED)
def test_a_log_of_all_facts(name: str) -> None:
    capture = read(QUERY, LOGGED[name])
    first, second = capture.gpus
    assert (first.index, first.model, first.bus_id, first.memory) == (0, "NVIDIA H100 80GB HBM3", "0000:19:00.0", 81559 * MIB)
    assert not first.c2c
    assert known(first) == {
        "uuid": FIRST,
        "memory_used": 2 * MIB,
        "memory_free": 81227 * MIB,
        "performance_state": 0,
        "pcie_generation": 1,
        "pcie_generation_possible": 4,
        "pcie_generation_gpu": 5,
        "pcie_width": 8,
        "pcie_width_possible": 16,
        "multi_instance": "enabled",
        "fabric": "completed",
        "fabric_clique": 7,
        "fabric_cluster": "5a6b7c8d-0000-1111-2222-333344445555",
    }
    assert (second.index, second.model, second.bus_id, second.memory) == (1, None, "0000:5d:00.0", None)
    assert known(second) == {"fabric": "failed: Insufficient Resources"}
    assert second.facts.pcie_width == Unknown("nvidia-smi: Unknown Error")
    assert second.facts.multi_instance == Unknown("MIG: N/A")
    assert second.facts.fabric_clique == NOT_STATED
    assert (capture.host.driver, capture.host.cuda) == ("545.23.08", "12.3")
    assert [finding.code for finding in capture.findings] == ["gpu-lost"]


def test_a_log_of_some_gpus_is_counted_in_its_order_and_says_so() -> None:
    capture = read(
        QUERY, LOG.replace("Attached GPUs                             : 2", "Attached GPUs                             : 8")
    )
    assert [gpu.index for gpu in capture.gpus] == [0, 1]
    assert "8 GPUs are attached" in next(one.message for one in capture.findings if one.code == "index-by-order")


def test_sections_of_one_gpu_are_joined_by_its_bus_id() -> None:
    memory = "GPU 00000000:19:00.0\n    FB Memory Usage\n        Total   : 81559 MiB\n"
    capture = read(QUERY, memory + "GPU 00000000:19:00.0\n    Performance State : P8\n")
    (gpu,) = capture.gpus
    assert (gpu.memory, gpu.facts.performance_state) == (81559 * MIB, 8)


def test_newer_words_for_driver_and_cuda_and_other_states() -> None:
    text = """\
KMD Version                               : 610.43.02
CUDA UMD Version                          : Not Found
Attached GPUs                             : 1
GPU 00000009:01:00.0
    Product Name                          : NVIDIA GB200
    GPU C2C Mode                          : Enabled
    GPU Virtualization Mode
        Virtualization Mode               : Pass-Through
    Fabric
        State                             : In Progress
        Status                            : N/A
        ClusterUUID                       : 00000000-0000-0000-0000-000000000000
"""
    capture = read(QUERY, text)
    assert (capture.host.driver, capture.host.cuda) == ("610.43.02", Unknown("nvidia-smi: Not Found"))
    (gpu,) = capture.gpus
    assert gpu.c2c
    assert gpu.bus_id == "0009:01:00.0"
    assert gpu.facts.fabric == "in-progress"
    assert isinstance(gpu.facts.fabric_cluster, Unknown)
    assert [finding.code for finding in capture.findings] == ["virtual-machine"]


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("    Performance State : P99", "performance_state", "'P99'"),
        ("    Performance State : [Not Supported]", "performance_state", "Not Supported"),
        ("    FB Memory Usage\n    Used : lots", "memory_used", "'lots'"),
        ("    Link Width\n    Current : 0x", "pcie_width", "0"),
        ("    MIG Mode\n    Current : maybe", "multi_instance", "'maybe'"),
        ("    GPU UUID : GPU-xxxx", "uuid", "redacted"),
        ("    Fabric\n    State : N/A", "fabric", "N/A"),
        ("    Fabric\n    State : Odd", "fabric", "'Odd'"),
    ],
)
def test_what_nvidia_smi_cannot_say_is_unknown_in_its_words(line: str, field: str, value: str) -> None:
    (gpu,) = read(QUERY, f"GPU 00000000:19:00.0\n{line}\n").gpus
    answer = getattr(gpu.facts, field)
    assert isinstance(answer, Unknown)
    assert value in answer.reason


def test_a_fabric_that_is_not_there_is_an_answer() -> None:
    (gpu,) = read(QUERY, "GPU 00000000:19:00.0\n    Fabric\n        State : Not Supported\n").gpus
    assert gpu.facts.fabric == "not-supported"


@pytest.mark.parametrize("name", spoilt(STATUS))
def test_the_status_table(name: str) -> None:
    capture = read(TABLE, spoilt(STATUS)[name])
    first, second = capture.gpus
    assert (first.index, first.model, first.bus_id, first.memory) == (0, "NVIDIA A100-PCIE-40GB", "0000:12:00.0", 40960 * MIB)
    assert known(first) == {"memory_used": MIB, "performance_state": 8, "multi_instance": "disabled"}
    assert (second.index, second.model, second.bus_id, second.memory) == (1, None, "0000:8a:00.0", None)
    assert known(second) == {}
    assert second.facts.memory_used == Unknown("nvidia-smi: N/A")
    assert (capture.host.driver, capture.host.cuda) == ("555.42.02", "12.5")


def test_the_newer_head_of_the_status_table_and_a_lost_gpu() -> None:
    text = STATUS.replace("Driver Version", "KMD Version").replace("CUDA Version", "CUDA UMD Version")
    capture = read(TABLE, text.replace("1MiB /", "ERR! /"))
    assert (capture.host.driver, capture.host.cuda) == ("555.42.02", "12.5")
    assert [finding.code for finding in capture.findings] == ["gpu-lost"]


@pytest.mark.parametrize("name", spoilt(COMMA))
def test_comma_separated_values(name: str) -> None:
    capture = read(CSV, spoilt(COMMA)[name])
    first, second = capture.gpus
    assert (first.index, first.model, first.bus_id, first.memory) == (0, "NVIDIA L4", "0000:19:00.0", 23034 * MIB)
    assert known(first) == {"uuid": FIRST, "compute_capability": "8.9", "pcie_generation_possible": 4}
    assert (second.index, second.bus_id, second.memory) == (1, "0001:5d:00.0", None)
    assert second.facts.pcie_generation_possible == Unknown("nvidia-smi: Unknown Error")
    assert (capture.host.driver, capture.assumptions) == ("550.54.15", ())
    assert [finding.code for finding in capture.findings] == ["gpu-lost"]


def test_values_without_units_or_index() -> None:
    capture = read(CSV, "name, memory.total [MiB], pstate\nTesla T4, 15360, P8\nTesla T4, 15360, P0\n\nTesla T4, 1, P1\n")
    assert [(gpu.index, gpu.memory, gpu.facts.performance_state) for gpu in capture.gpus] == [
        (0, 15360 * MIB, 8),
        (1, 15360 * MIB, 0),
    ]
    assert len(capture.assumptions) == 1
    alone = read(CSV, "$ nvidia-smi --query-gpu=name --format=csv\nname\nTesla T4\n$ exit\n")
    assert [gpu.model for gpu in alone.gpus] == ["Tesla T4"]


@pytest.mark.parametrize(
    "text",
    [
        "index, name, value\n0, a, b\n",
        "name\nTesla T4\n",
        "gpu_uuid, pid, used_gpu_memory [MiB]\nGPU-1, 12, 3 MiB\n",
        "nvidia-smi --query-gpu=index,name,memory.total --format=csv\n",
        "memory.total [MiB]\nnothing\n",
        "index, name, memory.total [MiB]\n",
    ],
)
def test_other_tables_are_not_taken(text: str) -> None:
    assert not CSV.recognises(text)
    with pytest.raises(BadInput):
        CSV.read(text, "paste")


def test_a_driver_that_does_not_reach_a_gpu_is_named() -> None:
    text = "Unable to determine the device handle for GPU 0000:04:00.0: Unknown Error\n"
    assert not any(reader.recognises(text) for reader in READERS)
    assert "does not reach" in refuse(text, "paste").problem


READERS = (QUERY, TABLE, CSV)
SAMPLES = {QUERY: LOG, TABLE: STATUS, CSV: COMMA}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_each_reader_takes_its_own_format_only(reader: Reader) -> None:
    for owner, text in SAMPLES.items():
        assert reader.recognises(text) == (reader is owner)
    whole = "\n".join(SAMPLES.values())
    assert reader.recognises(whole)
    assert reader.read(whole, "paste").format == reader.name
    with pytest.raises(BadInput) as refusal:
        reader.read("", "paste")
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (
            QUERY,
            "".join(f"GPU 00000000:{bus:02X}:{device:02X}.0\nProduct Name : x\n" for bus in range(99) for device in range(4)),
        ),
        (TABLE, "".join(f"|   {index}  A  Off | 0000:12:00.0 Off | 0 |\n" for index in range(300))),
        (CSV, "index, pstate, driver_version\n" + "".join(f"{index}, P0, 1\n" for index in range(300))),
    ],
)
def test_more_gpus_than_a_host_has_are_refused(reader: Reader, text: str) -> None:
    with pytest.raises(BadInput, match="256"):
        read(reader, text)


def test_other_captures_are_not_taken_for_reports(shared: Path) -> None:
    for folder in ("topo-m", "topo-m-damaged", "nvlink-s", "p2p-status", "nccl-xml", "p2p-bandwidth", "nccl-tests"):
        for path in sorted((shared / "machines" / folder).glob("*.[tx]*")):
            text = clean(path.read_text(encoding="utf-8", errors="replace"))
            assert not any(reader.recognises(text) for reader in READERS), path.name


PIECES = [line for text in SAMPLES.values() for line in text.splitlines()]
ANYTHING = st.lists(st.sampled_from(PIECES) | st.text(max_size=30), max_size=30).map("\n".join)


@given(ANYTHING)
def test_any_text_gives_a_capture_or_a_refusal(text: str) -> None:
    for reader in READERS:
        if reader.recognises(text):
            try:
                assert reader.read(text, "paste").format == reader.name
            except PlannerError as problem:
                assert problem.path
