"""Texts as other machines, programs and people give them: what was found by trying them."""

from __future__ import annotations

import codecs
import json

import pytest

from planner.core.topology import Topology
from planner.errors import BadInput
from planner.graph.paths import class_matrix
from planner.machines import topology_of_text
from planner.readers import clean
from support import read_capture

FOUR = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV12\tNV12\tNV12\t0-23\t0\t\tN/A
GPU1\tNV12\t X \tNV12\tNV12\t0-23\t0\t\tN/A
GPU2\tNV12\tNV12\t X \tNV12\t24-47\t1\t\tN/A
GPU3\tNV12\tNV12\tNV12\t X \t24-47\t1\t\tN/A
"""
REPORT = "Is CUDA available: True\nGPU models and configuration:\nGPU 0: NVIDIA L40S\nGPU 1: NVIDIA L40S\n\nNvidia driver version: 550.54.15\n"
PAIR = "GPU0 GPU1 CPU Affinity\nGPU0 X PIX 0-7\nGPU1 PIX X 0-7\n"


def codes(topology: Topology) -> set[str]:
    return {finding.code for finding in topology.findings}


@pytest.mark.parametrize("card", ["mlx5_bond_0", "bnxt_re0", "irdma0", "rdmap16s27", "efa_0", "roceP1p1s0f0", "hfi1_0", "eth0"])
def test_a_header_that_ends_in_a_card_of_any_make_is_a_header(card: str) -> None:
    text = f"GPU0 GPU1 {card}\nGPU0 X NV4 SYS\nGPU1 NV4 X SYS\n{card} SYS SYS X\n"
    topology = read_capture(text)
    assert class_matrix(topology) == [["X", "NV4"], ["NV4", "X"]]
    assert card in {device.label for device in topology.devices}


def test_gpus_of_one_numa_node_are_in_one_socket() -> None:
    topology = read_capture(FOUR)
    assert sum(device.kind.value == "socket" for device in topology.devices) == 2
    (hidden,) = (finding for finding in topology.findings if finding.code == "pcie-class-hidden")
    assert "different sockets" not in hidden.hint


@pytest.mark.parametrize("width", [29, 31])
def test_a_matrix_whose_right_side_is_cut_off_is_no_smaller_machine(width: int) -> None:
    cut = "\n".join(line[:width] for line in FOUR.expandtabs(8).splitlines())
    with pytest.raises(BadInput, match="row GPU3 has no column") as refusal:
        read_capture(cut)
    assert refusal.value.path == "paste, line 5"


def test_rows_without_a_header_above_a_matrix_are_said() -> None:
    headless = "".join(FOUR.splitlines(keepends=True)[1:])
    topology = read_capture(headless + PAIR)
    assert class_matrix(topology) == [["X", "PIX"], ["PIX", "X"]]
    assert "several-matrices" in codes(topology)


@pytest.mark.parametrize(
    "line", ["INFO: GPU 0: 12 GiB used", "GPU 0: free memory 12 GiB", "[rank0]: GPU 0: OOM", "Device 0: GPU 0: NVIDIA L4"]
)
def test_logs_around_a_report_name_no_gpu(line: str) -> None:
    for text in (f"{REPORT}{PAIR}{line}\n", f"{line}\n{REPORT}{PAIR}"):
        assert [gpu.hardware for gpu in topology_of_text(text, "paste").gpus] == ["L40S", "L40S"]


def test_a_report_within_a_json_string_is_read() -> None:
    assert class_matrix(read_capture(json.dumps(FOUR))) == class_matrix(read_capture(FOUR))
    assert clean("a\\nb\nc") == "a\\nb\nc"


def test_blanks_of_a_web_page_are_blanks() -> None:
    assert class_matrix(read_capture(PAIR.replace(" ", "&nbsp;"))) == [["X", "PIX"], ["PIX", "X"]]


def test_two_parts_of_one_text_that_disagree_are_named() -> None:
    with pytest.raises(
        BadInput, match=r"tells of GPU 2 in one part \(.*\), of 2 GPUs in another|in one part \(environment report\)"
    ):
        read_capture(REPORT.replace("\n\n", "\nGPU 2: NVIDIA L40S\n\n") + PAIR)


def test_a_matrix_of_unknown_peer_statuses_is_no_matrix_of_link_classes() -> None:
    topology = read_capture(" GPU0 GPU1\nGPU0 X U\nGPU1 U X\n")
    assert len(topology.gpus) == 2
    assert "p2p-disabled" not in codes(topology)


def test_a_bridge_between_two_of_four_gpus_is_certain() -> None:
    def listed(index: int, words: str) -> str:
        return f"GPU {index}: NVIDIA GeForce RTX 3090 (UUID: GPU-{index})\n\t Link 0: {words}\n\t Link 1: {words}\n"

    text = "".join(listed(index, "14.062 GB/s" if index in (1, 3) else "<inactive>") for index in range(4))
    (link,) = (link for link in read_capture(text).links if link.kind.value == "nvlink")
    assert (link.a, link.b, link.count) == ("gpu1", "gpu3", 2)


def test_infinity_fabric_is_not_called_nvlink() -> None:
    text = "=== Link Type between two GPUs ===\n GPU0 GPU1\nGPU0 0 XGMI\nGPU1 XGMI 0\n"
    (hidden,) = (finding for finding in read_capture(text).findings if finding.code == "pcie-class-hidden")
    assert "NVLink" not in hidden.message + hidden.hint
    assert "nvidia-smi" not in hidden.hint
    assert "one pair" in hidden.message


def test_a_report_of_sglang_on_amd_names_its_gpus() -> None:
    text = (
        "ROCM available: True\nGPU 0,1: AMD Instinct MI300X OAM AC\nGPU 0,1 Compute Capability: 9.4\nROCM_HOME: /opt/rocm\n"
        "AMD Topology:\n=== Link Type between two GPUs ===\n GPU0 GPU1\nGPU0 0 XGMI\nGPU1 XGMI 0\n"
    )
    topology = topology_of_text(text, "paste")
    assert [gpu.hardware for gpu in topology.gpus] == ["MI300X", "MI300X"]
    assert {gpu.facts.compute_capability for gpu in topology.gpus} & {"9.4"} == set()


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("GPU 0: NVIDIA A40\n\t Link 0, P2P is supported: true\n", "another option than -s", "nvlink -s"),
        ("GPU 0: NVIDIA B200\n\t Link 0: Tx packets: 100\n", "another option than -s", "nvlink -s"),
        ("NVML: Unable to retrieve NVLink information as all links are inActive\n", "no NVLink is up", "topo -m"),
        ("bash: nvidia-smi: command not found\n", "a program is missing", "GPU host"),
        ("zsh: command not found: rocm-smi\n", "a program is missing", "rocm-smi --showtopo"),
        ("Failed to initialize NVML: Driver/library version mismatch\n", "a driver", "bring the driver up"),
        ("GPU: 0\n    BDF: 0000:05:00.0\n", "another command of amd-smi", "amd-smi topology"),
        ("<nvidia_smi_log>\n</nvidia_smi_log>\n", "nvidia-smi -q -x", "without -x"),
        ("0, NVIDIA L4, 23034 MiB\n", "without its header line", "noheader"),
        ("mx-smi version: 2.1.6\nGPU0 GPU1 CPU Affinity\nGPU0 X MX\nGPU1 MX X\n", "mx-smi output", "NVIDIA and AMD"),
        ("| HL-SMI Version: hl-1.15.1 |\n|   0  HL-225   N/A  | 0000:19:00.0 N/A |\n", "HL-SMI output", "NVIDIA and AMD"),
    ],
)
def test_what_is_pasted_instead_is_known_by_name(text: str, words: str, hint: str) -> None:
    with pytest.raises(BadInput) as refusal:
        topology_of_text(text, "paste")
    assert words in refusal.value.problem
    assert hint in refusal.value.hint
    assert "line" in refusal.value.path


def test_a_capture_may_be_called_yaml() -> None:
    assert len(topology_of_text(PAIR, "topo.yaml").gpus) == 2
    with pytest.raises(BadInput, match="YAML"):
        topology_of_text("a: [1,\n", "box.yaml")


def test_what_a_terminal_cannot_show_stays_readable_and_json() -> None:
    from planner.cli import _plain

    codecs.register_error("planner.plain", _plain)
    shown = json.dumps({"cost": "4× 2 µs → …", "name": "naïve \U0001f600"}, ensure_ascii=False).encode("ascii", "planner.plain")
    assert json.loads(shown) == {"cost": "4x 2 us -> ...", "name": "naïve \U0001f600"}


@pytest.mark.parametrize("piece", ["\n", " \n", "<", " ", "GPU 0: A1\n", "Link 0: ", "\t"])
def test_a_long_text_of_nothing_is_refused_in_time(piece: str) -> None:
    with pytest.raises(BadInput):
        read_capture(piece * (400_000 // len(piece)) + "x")


@pytest.mark.parametrize(
    "noise", [":" * 100_000, "GPU " + "9" * 5000 + ": NVIDIA L4", "#: " * 50_000], ids=["colons", "digits", "signs"]
)
def test_a_long_line_of_a_log_beside_a_matrix_takes_no_time_and_names_no_gpu(noise: str) -> None:
    topology = read_capture(f"{noise}\nGPU 1: NVIDIA L4\nGPU0 GPU1 CPU Affinity\nGPU0 X PIX 0-7\nGPU1 PIX X 0-7\n")
    assert [gpu.hardware for gpu in topology.gpus] == [None, "NVIDIA L4"]
