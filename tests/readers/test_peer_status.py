from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.capture import Capture
from planner.errors import BadInput, PlannerError
from planner.readers import clean
from planner.readers.peer_status import READER

MATRIX = """\
 \tGPU0\tGPU1\tGPU2\t
 GPU0\tX\tOK\tCNS\t
 GPU1\tOK\tX\tCNS\t
 GPU2\tNS\tDR\tX\t

Legend:

  X    = Self
  OK   = Status Ok
  CNS  = Chipset not supported
"""
EXPECTED = {(0, 1): "OK", (0, 2): "CNS", (1, 0): "OK", (1, 2): "CNS", (2, 0): "NS", (2, 1): "DR"}
NONE = MATRIX.replace("OK\t", "NS\t").replace("CNS\t", "NS\t").replace("DR", "NS")
CLASSES = """\
\tGPU0\tGPU1\tGPU2\tCPU Affinity\tNUMA Affinity
GPU0\t X \tNV4\tPHB\t0-7\t0
GPU1\tNV4\t X \tPHB\t0-7\t0
GPU2\tPHB\tPHB\t X \t0-7\t0
"""
BARE_CLASSES = "GPU0 GPU1\nGPU0 X PIX\nGPU1 PIX X\n"


def read(text: str, source: str = "paste") -> Capture:
    text = clean(text)
    assert READER.recognises(text)
    return READER.read(text, source)


DIALECTS = {
    "tabs": MATRIX,
    "crlf": MATRIX.replace("\n", "\r\n"),
    "blanks": MATRIX.expandtabs(8),
    "collapsed": "\n".join(" ".join(line.split()) for line in MATRIX.splitlines()),
    "quoted": "".join(f"> {line}\n" for line in MATRIX.splitlines()),
    "log prefix": "".join(f"2026-03-04 10:26:11,402 INFO w.py:88 {line}\n" for line in MATRIX.splitlines()),
    "fused": MATRIX.replace("\t", "").replace(" GPU", "GPU"),
    "underlined header": MATRIX.replace(" \tGPU0", "\x1b[4m \tGPU0").replace("GPU2\t\n", "GPU2\t\x1b[0m\n", 1),
    "markdown": MATRIX.replace("\t", " | "),
    "wrapped": MATRIX.replace("\tCNS\t\n", "\n\tCNS\t\n").replace("GPU1\tGPU2\t\n", "GPU1\nGPU2\n"),
    "double spaced": MATRIX.replace("\n", "\n\n"),
    "no legend": "\n".join(MATRIX.splitlines()[:4]),
    "before a matrix of classes": MATRIX + CLASSES + BARE_CLASSES,
    "after a matrix of classes": CLASSES + BARE_CLASSES + MATRIX,
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_gives_the_same_statuses(name: str) -> None:
    capture = read(DIALECTS[name])
    assert capture.peers == {"read": EXPECTED, "write": EXPECTED}
    assert capture.assumptions == ("the p2p matrix does not say which capability: taken as read and write",)
    assert capture.gpus == ()


@pytest.mark.parametrize(
    ("command", "capability"),
    [
        ("$ nvidia-smi topo -p2p r", "read"),
        ("nvidia-smi topo -p2p w", "write"),
        ("nvidia-smi topo --p2pstatus n", "nvlink"),
        ("root@host:~# nvidia-smi topo -p2p=a", "atomics"),
        ("> nvidia-smi topo -p2p p", "pcie"),
    ],
)
def test_the_command_line_above_says_the_capability(command: str, capability: str) -> None:
    capture = read(f"{command}\n{MATRIX}")
    assert capture.peers == {capability: EXPECTED}
    assert capture.assumptions == ()


def test_each_of_several_matrices_has_its_own_capability() -> None:
    text = f"$ nvidia-smi topo -p2p r\n{MATRIX}$ nvidia-smi topo -p2p w\n{NONE}$ nvidia-smi topo -m\n{CLASSES}"
    capture = read(text)
    assert capture.peers["read"] == EXPECTED
    assert set(capture.peers["write"].values()) == {"NS"}
    shared_answer = read(f"nvidia-smi topo -p2p r\nnvidia-smi topo -p2p w\nboth gave\n{MATRIX}")
    assert shared_answer.peers == {"read": EXPECTED, "write": EXPECTED}
    failed = read(f"$ nvidia-smi topo -p2p r\nno such option\n$ nvidia-smi topo -p2p w\n{MATRIX}")
    assert failed.peers == {"write": EXPECTED}


def test_two_matrices_of_one_capability_that_disagree_are_a_finding() -> None:
    capture = read(MATRIX + NONE)
    assert capture.peers["read"] == EXPECTED
    assert {finding.code for finding in capture.findings} == {"several-peer-matrices"}
    assert read(MATRIX + MATRIX).findings == ()


@pytest.mark.parametrize(
    ("source", "capabilities"),
    [
        ("4x-5060-ti-rw.txt", {"read", "write"}),
        ("captures/box-r.txt", {"read"}),
        ("p2p-n.txt", {"nvlink"}),
        ("host-a.txt", {"read", "write"}),
        ("-", {"read", "write"}),
    ],
)
def test_a_file_name_may_say_the_capability(source: str, capabilities: set[str]) -> None:
    capture = read(MATRIX, source)
    assert set(capture.peers) == capabilities
    assert len(capture.assumptions) == 1


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (MATRIX.replace(" GPU1\tOK\tX\tCNS\t\n", " GPU1\tOK\tX\n"), "line 3", "2 cells"),
        (MATRIX.replace(" GPU1\tOK\tX\tCNS\t\n", ""), "line 3", "GPU1"),
        (MATRIX.replace(" GPU1\tOK\tX\tCNS\t\n", " GPU1\tOK\tX\tCN\n"), "line 3", "'CN'"),
        (MATRIX.replace("OK\tX\tCNS", "OK\tCNS\tX"), "line 3", "own column"),
        (MATRIX.replace("GPU1\tGPU2\t\n", "GPU1\tGPU1\t\n"), "line 1", "twice"),
        (MATRIX.replace(" GPU2\tNS", " GPU7\tNS"), "line 4", "GPU7"),
        (MATRIX.replace(" GPU2\tNS", " GPU1\tNS"), "line 4", "twice"),
        ("\n".join(MATRIX.splitlines()[:2]), "line 2", "GPU1, GPU2"),
    ],
)
def test_a_matrix_that_is_not_whole_is_refused_with_the_line(text: str, line: str, words: str) -> None:
    assert READER.recognises(text)
    with pytest.raises(BadInput) as refusal:
        READER.read(text, "paste")
    assert refusal.value.path == f"paste, {line}"
    assert words in refusal.value.problem
    assert refusal.value.hint


@pytest.mark.parametrize(
    "text", [CLASSES, BARE_CLASSES, "GPU0 OK\n", "GPU0 GPU1\nGPU0 X\n", "GPU0 X U\n", "X = Self\nOK = Status Ok\n", ""]
)
def test_other_texts_are_not_recognised(text: str) -> None:
    assert not READER.recognises(text)
    with pytest.raises(BadInput):
        READER.read(text, "paste")


def test_more_gpus_than_a_host_has_are_refused() -> None:
    names = " ".join(f"GPU{index}" for index in range(300))
    with pytest.raises(BadInput, match="256"):
        READER.read(f"{names}\nGPU0 X {'OK ' * 299}\n", "paste")


def test_shared_captures_are_read(shared: Path) -> None:
    words = {"001": "OK", "002": "CNS", "003": "NS", "004": "OK", "005": "OK"}
    for path in sorted((shared / "machines" / "p2p-status").glob("*.txt")):
        capture = read(path.read_text(encoding="utf-8"), path.name)
        for statuses in capture.peers.values():
            assert set(statuses.values()) == {words[path.name[:3]]}
        assert ("write" in capture.peers) == (not path.name.endswith("-r.txt"))


def test_matrices_of_classes_are_not_taken_for_statuses(shared: Path) -> None:
    for folder in ("topo-m", "topo-m-damaged", "nvlink-s", "p2p-bandwidth", "other-vendor"):
        for path in sorted((shared / "machines" / folder).glob("*.txt")):
            assert not READER.recognises(clean(path.read_text(encoding="utf-8", errors="replace"))), path.name


ANYTHING = st.lists(
    st.sampled_from([*MATRIX.splitlines(), *CLASSES.splitlines(), "nvidia-smi topo -p2p w", "\tCNS", "GPU3", ""])
    | st.text(max_size=30),
    max_size=20,
).map("\n".join)


@given(ANYTHING)
def test_any_text_gives_a_capture_or_a_refusal(text: str) -> None:
    if READER.recognises(text):
        try:
            assert READER.read(text, "paste").peers
        except PlannerError as problem:
            assert problem.path


def test_a_line_longer_than_any_matrix_has_is_passed_over() -> None:
    header = " ".join(f"GPU{gpu % 8}" for gpu in range(2000))
    assert not READER.recognises(f"{header}\nGPU0 X OK\n")
