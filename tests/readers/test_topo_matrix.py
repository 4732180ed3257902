from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import BadInput, PlannerError
from planner.graph.paths import class_matrix
from support import read_capture

BRIDGED = """\
        GPU0    GPU1    GPU2    GPU3    CPU Affinity    NUMA Affinity   GPU NUMA ID
GPU0     X      PHB     NV4     NODE    0-23    0               N/A
GPU1    PHB      X      NODE    NV4     0-23    0               N/A
GPU2    NV4     NODE     X      PHB     0-23    0               N/A
GPU3    NODE    NV4     PHB      X      0-23    0               N/A

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NV#  = Connection traversing a bonded set of # NVLinks
"""
MATRIX = [["X", "PHB", "NV4", "NODE"], ["PHB", "X", "NODE", "NV4"], ["NV4", "NODE", "X", "PHB"], ["NODE", "NV4", "PHB", "X"]]


def matrix(text: str) -> list[list[str]]:
    topology = read_capture(text)
    topology.check()
    return class_matrix(topology)


DIALECTS = {
    "plain": BRIDGED,
    "tabs": "\n".join("\t".join(line.split()) if line.startswith("GPU") else line for line in BRIDGED.splitlines()),
    "crlf": BRIDGED.replace("\n", "\r\n"),
    "underlined header": BRIDGED.replace("        GPU0", "\x1b[4m\tGPU0").replace("GPU NUMA ID\n", "GPU NUMA ID\x1b[0m\n"),
    "underlined, escape lost": BRIDGED.replace("        GPU0", "[4m\tGPU0").replace("GPU NUMA ID\n", "GPU NUMA ID[0m\n"),
    "hard blanks": BRIDGED.replace(" ", "\u00a0"),
    "in a table": "\n".join(
        f"| {' | '.join(line.split())} |" if line.startswith("GPU") else line for line in BRIDGED.splitlines()
    ),
    "broken at 56 columns": "\n".join(line[:56] + ("\n" + line[56:] if len(line) > 56 else "") for line in BRIDGED.splitlines()),
    "quoted": "\n".join(f"> {line}" for line in BRIDGED.splitlines()),
    "log prefix": "\n".join(f"2026-03-04 10:26:11,402 INFO worker.py:88 {line}" for line in BRIDGED.splitlines()),
    "collapsed": "\n".join(" ".join(line.split()) for line in BRIDGED.splitlines()),
    "fused": BRIDGED.replace("NODE    NV4     0-23", "NODENV4     0-23").replace("PHB      X      NODE", "PHBX NODE"),
    "fenced": f"```\n{BRIDGED}```\n",
    "no affinity": "\n".join(line[:40] for line in BRIDGED.splitlines()[:5]),
    "old words": BRIDGED.replace("NODE", "SOC").replace("PHB", "SOC"),
    "inside a report": f"Collecting environment information...\nGPU models and configuration:\nGPU 0: NVIDIA GeForce RTX 3090\n\n{BRIDGED}",
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_gives_the_same_matrix(name: str) -> None:
    expected = MATRIX
    if name == "old words":
        expected = [["SYS" if cell in {"NODE", "PHB"} else cell for cell in row] for row in MATRIX]
    assert matrix(DIALECTS[name]) == expected


def test_a_header_broken_by_a_terminal_is_put_together_and_said() -> None:
    wide = "\n".join(line.replace("    ", "            ") for line in BRIDGED.splitlines()[:5])
    broken = "\n".join(line[at : at + 50] for line in wide.splitlines() for at in range(0, len(line), 50))
    topology = read_capture(broken)
    assert class_matrix(topology) == MATRIX
    assert "wrapped" in {finding.code for finding in topology.findings}


def test_models_named_in_a_report_are_taken() -> None:
    text = "GPU 0: NVIDIA GeForce RTX 3090 (UUID: GPU-1)\nGPU 1: NVIDIA L4\n" + BRIDGED
    topology = read_capture(text)
    assert [gpu.hardware for gpu in topology.gpus] == ["NVIDIA GeForce RTX 3090", "NVIDIA L4", None, None]
    together = "GPU 0,1,2,3: NVIDIA GeForce RTX 3090\nGPU 0,1,2,3 Compute Capability: 8.6\n" + BRIDGED
    assert {gpu.hardware for gpu in read_capture(together).gpus} == {"NVIDIA GeForce RTX 3090"}


def test_numa_nodes_and_nics_place_gpus_that_nvlink_hides() -> None:
    text = """\
        GPU0    GPU1    GPU2    NIC0    CPU Affinity    NUMA Affinity   GPU NUMA ID
GPU0     X      NV12    NV12    PIX     0-23    0               N/A
GPU1    NV12     X      NV12    NODE    0-23    0               N/A
GPU2    NV12    NV12     X      SYS     24-47   1               N/A
NIC0    PIX     NODE    SYS      X

NIC Legend:

  NIC0: mlx5_3
"""
    topology = read_capture(text)
    from planner.graph.paths import PathKind, Paths

    paths = Paths(topology)
    assert paths.pcie_kind("gpu0", "gpu1") is PathKind.NODE  # the card is PIX to one and NODE to the other
    assert paths.pcie_kind("gpu0", "gpu2") is PathKind.SYS
    assert topology.nics("localhost")[0].label == "mlx5_3"
    assert not topology.findings


def test_what_nobody_tells_is_a_finding_and_not_pix() -> None:
    text = "        GPU0    GPU1    CPU Affinity    NUMA Affinity\nGPU0     X      NV12    0-7     0\nGPU1    NV12     X      0-7     0\n"
    topology = read_capture(text)
    assert [finding.code for finding in topology.findings] == ["pcie-class-hidden"]
    from planner.graph.paths import PathKind, Paths

    assert Paths(topology).pcie_kind("gpu0", "gpu1") is PathKind.NODE


def test_more_links_than_a_gpu_has_mean_a_switch() -> None:
    size = 8
    rows = "\n".join(f"GPU{i}  " + "  ".join("X" if i == j else "NV18" for j in range(size)) + "  0-7  0" for i in range(size))
    text = "  ".join(f"GPU{i}" for i in range(size)) + "  CPU Affinity  NUMA Affinity\n" + rows + "\n"
    topology = read_capture(text)
    assert sum(device.kind == "nvswitch" for device in topology.devices) == 1
    assert {link.count for link in topology.links if link.kind == "nvlink"} == {18}


def test_a_direct_quad_is_no_switch_and_a_link_down_is_a_finding() -> None:
    quad = "GPU0 GPU1 GPU2 GPU3 CPU Affinity\n" + "".join(
        f"GPU{i} " + " ".join("X" if i == j else "NV6" for j in range(4)) + " 0-7\n" for i in range(4)
    )
    assert not any(device.kind == "nvswitch" for device in read_capture(quad).devices)
    rows = [["X" if i == j else "NV17" if 3 in (i, j) else "NV18" for j in range(4)] for i in range(4)]
    down = "GPU0 GPU1 GPU2 GPU3 CPU Affinity\n" + "".join(f"GPU{i} {' '.join(row)} 0-7\n" for i, row in enumerate(rows))
    topology = read_capture(down)
    assert "nvlink-down" in [finding.code for finding in topology.findings]
    assert class_matrix(topology) == rows


def test_an_asymmetric_matrix_keeps_the_captures_word() -> None:
    text = "GPU0 GPU1 CPU Affinity\nGPU0 X PIX 0-7\nGPU1 SYS X 0-7\n"
    topology = read_capture(text)
    assert class_matrix(topology) == [["X", "PIX"], ["SYS", "X"]]
    assert {"asymmetric", "not-a-tree"} <= {finding.code for finding in topology.findings}


def test_one_missing_row_is_taken_from_the_others_and_said() -> None:
    lines = BRIDGED.splitlines()
    topology = read_capture("\n".join(lines[:4] + lines[5:]))
    assert class_matrix(topology) == MATRIX
    assert "row-missing" in [finding.code for finding in topology.findings]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("\n".join(BRIDGED.splitlines()[:3]), "line 3", "rows of GPU2, GPU3 are missing"),
        ("\n".join(BRIDGED.splitlines()[:3]) + "\nGPU2    NV4     NO", "line 4", "row GPU2 has 1 of 4 cells"),
        ("\n".join(BRIDGED.splitlines()[1:5]), "line 1", "header line"),
        ("hello\nworld\n", "line 1", "no link matrix"),
        ("GPU0 GPU0 CPU Affinity\nGPU0 X PIX\n", "line 1", "names a device twice"),
        ("GPU0 GPU1 CPU Affinity\nGPU0 PIX X\nGPU1 X PIX\n", "line 2", "X in its own column"),
        ("| npu-smi 23.0 |\n NPU0 HCCS", "line 1", "npu-smi"),
        ('<?xml version="1.0"?>\n<system version="1">', "line 2", "XML"),
        ("P2P Connectivity Matrix\n     D\\D     0     1\n", "line 1", "bandwidth measurement"),
        ("GPU topology: Could not collect\n", "line 1", "Could not collect"),
    ],
)
def test_what_is_not_a_whole_matrix_is_refused_with_the_line(text: str, line: str, words: str) -> None:
    with pytest.raises(BadInput) as refusal:
        read_capture(text)
    assert refusal.value.path.endswith(line)
    assert words in refusal.value.problem
    assert refusal.value.hint


def test_of_several_matrices_the_first_is_read_and_the_others_are_a_finding() -> None:
    broken_second = "\n".join(BRIDGED.splitlines()[:3])
    for text in (BRIDGED + BRIDGED, BRIDGED + broken_second, BRIDGED + "\n".join(BRIDGED.splitlines()[1:5])):
        topology = read_capture(text)
        assert class_matrix(topology) == MATRIX
        assert "several-matrices" in [finding.code for finding in topology.findings]


def test_a_row_with_more_cells_than_columns_is_refused() -> None:
    with pytest.raises(BadInput, match="more cells than"):
        read_capture("GPU0 GPU1 CPU Affinity\nGPU0 X PIX SYS 0-7\nGPU1 PIX X SYS 0-7\n")


def test_prose_about_gpus_before_the_matrix_does_not_mislead() -> None:
    assert matrix("GPU0 seems slow\nwe swapped GPU0 GPU1\n" + BRIDGED) == MATRIX


words = st.sampled_from(
    [
        "GPU0",
        "GPU1",
        "GPU2",
        "NIC0",
        "X",
        "PIX",
        "SYS",
        "NODE",
        "NV4",
        "NV18",
        "CPU Affinity",
        "0-7",
        "\t",
        "\n",
        "\x1b[4m",
        "N/A",
        "0",
    ]
)


@given(st.lists(words, max_size=60).map(" ".join))
def test_any_shuffle_of_the_vocabulary_gives_a_checked_graph_or_an_explained_refusal(text: str) -> None:
    try:
        read_capture(text).check()
    except PlannerError as error:
        assert error.path.startswith("paste")


@given(st.text(max_size=300))
def test_any_text_is_refused_or_read(text: str) -> None:
    try:
        read_capture(text).check()
    except PlannerError as error:
        assert error.problem


@given(st.integers(0, len(BRIDGED)), st.integers(0, 40), st.text(max_size=5))
def test_a_damaged_matrix_never_gives_a_wrong_one_silently(start: int, length: int, put: str) -> None:
    damaged = BRIDGED[:start] + put + BRIDGED[start + length :]
    try:
        topology = read_capture(damaged)
    except PlannerError:
        return
    topology.check()
    found = class_matrix(topology)
    if found != MATRIX and not topology.findings:
        # a cell was replaced by another legal cell on both sides, or columns were renamed: nothing in the text shows it
        assert len(found) != 4 or found == [list(row) for row in zip(*found, strict=True)]


def test_a_long_line_is_read_in_time() -> None:
    noise = "GPU0 " + "a1" * 200_000 + "!\n"
    with pytest.raises(BadInput):
        read_capture(noise * 4)
