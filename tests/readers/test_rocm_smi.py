from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.capture import Capture
from planner.core.topology import LinkKind
from planner.core.unknown import Unknown
from planner.errors import BadInput, PlannerError
from planner.readers import clean
from planner.readers.rocm_smi import READER
from planner.units import Bytes

HEAD = "============================ ROCm System Management Interface ============================\n"
END = "================================== End of ROCm SMI Log ===================================\n"
TITLES = {
    "weight": "Weight between two GPUs",
    "hops": "Hops between two GPUs",
    "type": "Link Type between two GPUs",
    "bandwidth": "Bandwidth",
}

Cells = Sequence[Sequence[object]]


def table(question: str, cells: Cells) -> str:
    names = [f"GPU{index}" for index in range(len(cells))]
    rows = (f"{name:<6} " + "".join(f"{cell!s:<13}" for cell in row) for name, row in zip(names, cells, strict=True))
    return (
        f"{' ' + TITLES[question] + ' ':=^90}\n       "
        + "".join(f"{name:<13}" for name in names)
        + "\n"
        + "\n".join(rows)
        + "\n\n"
    )


def square(size: int, cell: object) -> list[list[object]]:
    return [[0 if a == b else cell for b in range(size)] for a in range(size)]


def nodes(*numa: int) -> str:
    lines = (f"GPU[{index}]\t\t: (Topology) Numa Node: {node}" for index, node in enumerate(numa))
    return f"{' Numa Nodes ':=^90}\n" + "\n".join(lines) + "\n"


def log(*parts: str) -> str:
    return HEAD + "".join(parts) + END


def read(text: str) -> Capture:
    text = clean(text)
    assert READER.recognises(text)
    return READER.read(text, "box.txt")


def refused(text: str) -> BadInput:
    with pytest.raises(BadInput) as caught:
        READER.read(clean(text), "box.txt")
    return caught.value


def joined(capture: Capture) -> list[tuple[int, int | None]]:
    assert all(link.kind is LinkKind.XGMI for link in capture.links)
    return [(link.a, link.b) for link in capture.links]


def classes(capture: Capture) -> dict[tuple[str, str], str]:
    assert capture.matrix is not None
    return {pair: word for pair, word in capture.matrix.cells.items() if pair[0] < pair[1]}


MESH = log(table("weight", square(4, 15)), table("hops", square(4, 1)), table("type", square(4, "XGMI")), nodes(0, 0, 1, 1))


def test_a_full_mesh_is_six_pairs_and_its_pcie_classes_stay_hidden() -> None:
    capture = read(MESH)
    assert joined(capture) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert classes(capture) == {}
    assert capture.matrix is not None
    assert capture.matrix.names == ("GPU0", "GPU1", "GPU2", "GPU3")
    assert capture.matrix.numa_nodes == {"GPU0": 0, "GPU1": 0, "GPU2": 1, "GPU3": 1}
    assert [sight.numa_node for sight in capture.gpus] == [0, 0, 1, 1]
    assert capture.findings == ()


@pytest.mark.parametrize(
    "text",
    [
        "> " + MESH.replace("\n", "\n> "),
        MESH.replace("\n", "\r\n"),
        "\n".join(f"2025-01-01 INFO   {line}" for line in MESH.split("\n")),
        MESH.replace("XGMI         ", "XGMI\t"),
        MESH.replace("GPU0   0", "\x1b[4mGPU0\x1b[0m   0"),
        MESH.replace("=", ""),
        MESH + MESH,
        MESH.removesuffix(END),
        MESH.replace("15           15           15", "15           15\n15"),
    ],
    ids=["quoted", "carriage returns", "log prefix", "tabs", "colours", "no rulers", "twice", "end cut", "wrapped"],
)
def test_what_terminals_and_forms_do_to_it_does_not_matter(text: str) -> None:
    capture = read(text)
    assert len(joined(capture)) == 6
    assert len(capture.gpus) == 4


@pytest.mark.parametrize(("hops", "weight", "word"), [(2, 40, "NODE"), (3, 72, "SYS"), (3, 52, "SYS")])
def test_pcie_pairs_meet_in_one_cpu_or_in_two(hops: int, weight: int, word: str) -> None:
    capture = read(log(table("weight", square(2, weight)), table("hops", square(2, hops)), table("type", square(2, "PCIE"))))
    assert classes(capture) == {("GPU0", "GPU1"): word}
    assert capture.links == ()


def test_two_hives_are_joined_over_pcie() -> None:
    kinds = [[0, "PCIE", "XGMI"], ["PCIE", 0, "PCIE"], ["XGMI", "PCIE", 0]]
    hops = [[0, 2, 1], [2, 0, 3], [1, 3, 0]]
    capture = read(log(table("hops", hops), table("type", kinds)))
    assert joined(capture) == [(0, 2)]
    assert classes(capture) == {("GPU0", "GPU1"): "NODE", ("GPU1", "GPU2"): "SYS"}


def test_a_weight_of_thirty_leads_over_a_third_gpu() -> None:
    weights = [[0, 15, 30], [15, 0, 15], [30, 15, 0]]
    capture = read(log(table("weight", weights), table("hops", square(3, 1)), table("type", square(3, "XGMI"))))
    assert joined(capture) == [(0, 1), (1, 2)]
    (finding,) = capture.findings
    assert (finding.code, finding.devices) == ("xgmi-partial-mesh", ("gpu0", "gpu2"))
    assert "GPU0-GPU2" in finding.message


def test_types_alone_are_taken_as_joined_directly_and_that_is_said() -> None:
    capture = read(log(table("type", square(8, "XGMI"))))
    assert len(capture.links) == 28
    assert any("no weights" in text for text in capture.assumptions)
    assert {link.count for link in capture.links} == {1}
    assert any("counted as one" in text for text in capture.assumptions)


@pytest.mark.parametrize(
    ("question", "cell", "expected"),
    [
        ("weight", 15, "XGMI"),
        ("weight", 40, "NODE"),
        ("weight", 72, "SYS"),
        ("hops", 1, "XGMI"),
        ("hops", 2, "NODE"),
        ("hops", 3, "SYS"),
    ],
)
def test_weights_or_hops_alone_tell_the_kind(question: str, cell: int, expected: str) -> None:
    capture = read(log(table(question, square(2, cell))))
    if expected == "XGMI":
        assert joined(capture) == [(0, 1)]
    else:
        assert classes(capture) == {("GPU0", "GPU1"): expected}
    assert any("no link types" in text for text in capture.assumptions)


def test_a_weight_that_may_be_either_is_left_open() -> None:
    assert [finding.code for finding in read(log(table("weight", square(2, 60)))).findings] == ["link-type-unknown"]


@pytest.mark.parametrize("word", ["N/A", "XXXX", "0", "UNKNOWN"])
def test_what_a_virtual_function_hides_is_a_finding(word: str) -> None:
    capture = read(log(table("type", square(2, word))))
    assert capture.links == ()
    assert classes(capture) == {}
    assert [finding.code for finding in capture.findings] == ["link-type-unknown"]


def test_the_worse_way_counts_where_the_two_differ() -> None:
    capture = read(log(table("type", [[0, "XGMI"], ["PCIE", 0]]), table("hops", [[0, 1], [3, 0]])))
    assert capture.links == ()
    assert classes(capture) == {("GPU0", "GPU1"): "SYS"}
    assert [finding.code for finding in capture.findings] == ["asymmetric"]


def test_the_bandwidth_table_counts_links() -> None:
    bandwidth = [["N/A", "50000-200000"], ["50000-200000", "N/A"]]
    capture = read(log(table("type", square(2, "XGMI")), table("weight", square(2, 15)), table("bandwidth", bandwidth)))
    assert [link.count for link in capture.links] == [4]
    assert capture.assumptions == ()


def test_one_gpu_is_a_machine() -> None:
    capture = read(log(table("weight", [[0]]), table("hops", [[0]]), table("type", [[0]]), nodes(1)))
    assert [(sight.index, sight.numa_node) for sight in capture.gpus] == [(0, 1)]
    assert capture.links == ()


@pytest.mark.parametrize("node", ["-1", "4294967295", "N/A"])
def test_no_numa_node_is_not_node_zero(node: str) -> None:
    assert read(f"GPU[0]\t\t: (Topology) Numa Node: {node}\n").gpus[0].numa_node is None


def test_numa_nodes_alone_make_no_matrix() -> None:
    capture = read(log(nodes(0, 1)))
    assert capture.matrix is None
    assert [sight.numa_node for sight in capture.gpus] == [0, 1]


@pytest.mark.parametrize("label", ["Card Series", "Card series"])
def test_product_names_memory_and_bus_ids_are_read(label: str) -> None:
    capture = read(
        log(
            f"GPU[0]\t\t: {label}: \t\tAMD Instinct MI300X OAM\nGPU[0]\t\t: Card Model: \t\t0x74a1\n",
            "GPU[0]\t\t: GFX Version: \t\tgfx942\nGPU[0]\t\t: PCI Bus: 0000:0C:00.0\n",
            "GPU[0]\t\t: VRAM Total Memory (B): 206141652992\nGPU[0]\t\t: VRAM Total Used Memory (B): 141652992\n",
        )
    )
    (sight,) = capture.gpus
    assert (sight.model, sight.bus_id) == ("AMD Instinct MI300X", "0000:0c:00.0")
    assert sight.memory == Bytes(206141652992)
    assert (sight.facts.compute_capability, sight.facts.memory_free) == ("gfx942", Bytes(206000000000))
    assert capture.matrix is None


def test_a_card_without_a_name_is_named_by_its_device_id() -> None:
    assert read(log("GPU[0] : Card Series: N/A\nGPU[0] : Card Model: 0x74a1\n")).gpus[0].model == "MI300X"
    subsystem = "GPU[0] : Device ID: 0x740f\nGPU[0] : Card series: \t N/A\nGPU[0] : Card model: 0x0c34\n"
    assert read(log(subsystem)).gpus[0].model == "MI210"
    assert read(log("GPU[0] : Card series: N/A\n")).gpus[0].model is None


def test_the_concise_table_counts_and_names_gpus() -> None:
    text = log(
        "===== Concise Info =====\n",
        "Device  Node  IDs              Temp    Power     Partitions\n",
        "              (DID,     GUID)  (Edge)  (Socket)\n=====\n",
        "0       2     0x74a1,   28851  40.0°C  146.0W    NPS1, SPX, 0\n",
        "1       3     0x66a1,   33535  47.0°C  19.0W     N/A, N/A, 0\n=====\n",
    )
    assert [(sight.index, sight.model) for sight in read(text).gpus] == [(0, "MI300X"), (1, None)]
    old = log(
        "=== Concise Info ===\nGPU  Temp (DieEdge)  AvgPwr\n0    35.0c           77.0W   1725Mhz\n1    31.0c  N/A\n2    N/A     20.0W\n"
    )
    assert [sight.index for sight in read(old).gpus] == [0, 1, 2]


REPORT = "GPU models and configuration: AMD Instinct MI300X (gfx942:sramecc+:xnack-)\n"


def test_a_report_names_all_gpus_of_the_table() -> None:
    capture = read(REPORT + "GPU Topology:\n" + MESH)
    assert {sight.model for sight in capture.gpus} == {"AMD Instinct MI300X"}
    assert {sight.facts.compute_capability for sight in capture.gpus} == {"gfx942"}
    assert any("taken for the same" in text for text in capture.assumptions)


def test_a_report_alone_names_one_gpu_and_says_that_there_may_be_more() -> None:
    capture = read(REPORT)
    assert [sight.index for sight in capture.gpus] == [0]
    assert [finding.code for finding in capture.findings] == ["gpu-count-unknown"]
    assert read("GPU models and configuration : (gfx942:sramecc+:xnack-)").gpus[0].model is None


AMD_SMI = """\
ACCESS TABLE:
             0000:0C:00.0 0000:15:00.0
0000:0C:00.0 ENABLED      ENABLED
0000:15:00.0 ENABLED      ENABLED

WEIGHT TABLE:
             0000:0C:00.0 0000:15:00.0
0000:0C:00.0 0            15
0000:15:00.0 15           0

LINK TYPE TABLE:
             0000:0C:00.0 0000:15:00.0
0000:0C:00.0 SELF         XGMI
0000:15:00.0 XGMI         SELF

NUMA BW TABLE:
             0000:0C:00.0 0000:15:00.0
0000:0C:00.0 N/A          50000-50000
0000:15:00.0 50000-50000  N/A
"""


def test_amd_smi_names_gpus_by_bus_id() -> None:
    capture = read(AMD_SMI)
    assert [sight.bus_id for sight in capture.gpus] == ["0000:0c:00.0", "0000:15:00.0"]
    assert [(link.a, link.b, link.count) for link in capture.links] == [(0, 1, 1)]
    assert capture.assumptions == ()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (MESH.replace("GPU3   15           15           15           0            \n", ""), 6, "GPU3 are missing"),
        (
            MESH.replace("GPU2   15           15           0            15           ", "GPU2   15           15"),
            6,
            "2 of 4 cells",
        ),
        (MESH.replace("XGMI         XGMI         XGMI", "XGMI XGMI XGMI XGMI", 1), 18, "5 of 4 cells"),
        (MESH.replace("15           15           15", "15  ??  15", 1), 4, "no weight"),
        (MESH[: MESH.index("Link Type") + 40], 16, "header line"),
        (MESH.replace("GPU0         GPU1         GPU2         GPU3", "GPU0 GPU0 GPU2 GPU3", 1), 3, "each GPU once"),
        (MESH + log(table("hops", square(4, 2))), 30, "two different tables"),
        (log(table("hops", square(2, 1)), table("type", square(4, "XGMI"))), 7, "4 GPUs, another 2"),
        (MESH.replace("GPU1   15", "GPU0   15"), 5, "twice"),
        (HEAD + "ERROR: no GPU\n" + END, 1, "no links, names or memory"),
        ("GPU[300] : Card Series: x\n", 1, "256"),
    ],
)
def test_damage_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    error = refused(text)
    assert words in error.problem
    assert error.path == f"box.txt, line {line}"


def test_two_hundred_and_fifty_seven_gpus_are_too_many() -> None:
    assert "256" in refused("Hops between two GPUs\n" + " ".join(f"GPU{one}" for one in range(257))).problem
    assert "lines" in refused("\n" * 300_000).problem


@pytest.mark.parametrize(
    "text", ["", "GPU0 X NV18", "GPU models and configuration: GPU 0: NVIDIA H100 80GB HBM3", "npu-smi info", "Bandwidth"]
)
def test_other_text_is_not_ours(text: str) -> None:
    assert not READER.recognises(text)


WORDS = [
    "GPU0",
    "GPU1",
    "XGMI",
    "PCIE",
    "0",
    "15",
    "30",
    "40",
    "N/A",
    "\n",
    "\n",
    " ",
    "=====",
    "GPU[0] : ",
    "Card Series: ",
    "Concise Info",
]
PIECES = st.lists(st.sampled_from([*WORDS, *TITLES.values(), "(Topology) Numa Node: 0", "LINK TYPE TABLE:", "0000:01:00.0"]))


@given(st.one_of(st.text(), PIECES.map(" ".join), st.text(max_size=20).map(lambda text: MESH.replace("15", text, 3))))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert READER.recognises(text) in {True, False}
    try:
        assert READER.read(text, "any").gpus
    except PlannerError as error:
        assert error.path.startswith("any")


@given(st.integers(1, 8), st.sampled_from(["XGMI", "PCIE"]))
def test_links_and_classes_cover_every_pair_once(size: int, word: str) -> None:
    capture = read(log(table("type", square(size, word)), table("hops", square(size, 1 if word == "XGMI" else 3))))
    assert capture.matrix is not None
    assert len(capture.links) + sum(a != b for a, b in capture.matrix.cells) // 2 == size * (size - 1) // 2


def test_every_published_output_is_read(shared: Path) -> None:
    pairs = {}
    for path in sorted((shared / "machines" / "other-vendor").glob("*rocm-smi*.txt")):
        capture = read(path.read_text("utf-8"))
        assert capture.matrix is not None
        pairs[path.name[:3]] = (len(capture.gpus), len(capture.links))
        assert all(isinstance(sight.facts.uuid, Unknown) for sight in capture.gpus)
    expected = {"001": (8, 28), "005": (8, 28), "009": (8, 12), "013": (2, 0), "017": (1, 0), "021": (4, 6), "025": (8, 12)}
    assert {number: pairs[number] for number in expected} == expected
