from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from measured_support import bandwidth, matrix, peer_test
from planner.core.measured import MeasuredCopies, TableDevice
from planner.errors import BadInput
from planner.readers.measurements import read_measurements


def read(text: str) -> list[MeasuredCopies]:
    return [one for one in read_measurements(text, "paste") if isinstance(one, MeasuredCopies)]


def between(gpus: int) -> list[tuple[int, int]]:
    return [(one, other) for one in range(gpus) for other in range(gpus) if one != other]


@pytest.mark.parametrize("gpus", [2, 8])
def test_a_run_gives_every_combination(gpus: int) -> None:
    found = read(peer_test(gpus))
    assert [(copies.direction, copies.peer_to_peer) for copies in found] == [
        ("one-way", False),
        ("one-way", True),
        ("both-ways", False),
        ("both-ways", True),
    ]
    for copies, times, more in zip(found, (1, 1, 2, 2), (0, 5, 0, 5), strict=True):
        assert sorted(copies.bandwidth) == between(gpus)
        for pair, rate in copies.bandwidth.items():
            assert rate == pytest.approx(times * (bandwidth(*pair) + more) * 1e9)
        assert copies.access == dict.fromkeys(between(gpus), True)
        assert copies.devices[1] == TableDevice(1, bus_id="0000:b1:00.0", model="NVIDIA RTX A6000")
    assert [len(copies.latency) for copies in found] == [len(between(gpus))] * 2 + [0, 0]
    assert found[0].latency[1, 0] == pytest.approx(11e-6)
    assert found[1].latency[1, 0] == pytest.approx(2e-6)


def test_no_access_is_known() -> None:
    assert read(peer_test(3, access=False))[0].access == dict.fromkeys(between(3), False)


DIALECTS: dict[str, Callable[[str], str]] = {
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "quoted": lambda text: "".join(f"> {line}\n" for line in text.splitlines()),
    "log prefix": lambda text: "".join(f"2026-03-04 10:26:11,402 INFO worker.py:88 {line}\n" for line in text.splitlines()),
    "double spaced": lambda text: text.replace("\n", "\n\n"),
    "tabs": lambda text: text.replace("   ", "\t"),
    "prompt": lambda text: f"me@box:~$ ./p2pBandwidthLatencyTest\n{text}me@box:~$ ",
    "log lines between": lambda text: text.replace("\n", "\n[Thu Mar  4] kernel: nothing to see\n"),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_gives_the_same_copies(name: str) -> None:
    plain, found = read(peer_test(4)), read(DIALECTS[name](peer_test(4)))
    assert [copies.bandwidth for copies in found] == [copies.bandwidth for copies in plain]
    assert [copies.latency for copies in found] == [copies.latency for copies in plain]
    assert [copies.devices for copies in found] == [copies.devices for copies in plain]


def test_reads_go_from_the_column_to_the_row() -> None:
    title = "Unidirectional P2P=Enabled Bandwidth ({}) Matrix (GB/s)\n"
    (writes,) = read(title.format("P2P Writes") + matrix(3, bandwidth))
    (reads,) = read(title.format("P2P Reads") + matrix(3, bandwidth))
    assert writes.bandwidth[2, 0] == pytest.approx(bandwidth(2, 0) * 1e9)
    assert reads.bandwidth[0, 2] == pytest.approx(bandwidth(2, 0) * 1e9)


def test_latencies_alone_are_copies_without_bandwidths() -> None:
    (found,) = read("P2P=Enabled Latency (P2P Writes) Matrix (us)\n" + matrix(4, bandwidth, "GPU"))
    assert found.peer_to_peer is True
    assert not found.bandwidth
    assert len(found.latency) == 12


def test_a_cut_matrix_that_stands_alone_is_read_as_far_as_it_goes() -> None:
    lines = matrix(8, bandwidth).splitlines()[:3]
    (found,) = read("Unidirectional P2P=Disabled Bandwidth Matrix (GB/s)\n" + "\n".join(lines))
    assert sorted({one for one, _ in found.bandwidth}) == [0, 1]


def test_a_title_in_prose_is_no_matrix() -> None:
    prose = "Check `Bidirectional P2P=Enabled Bandwidth Matrix (GB/s)` and `P2P=Enabled Latency (P2P Writes) Matrix (us)` of the output.\n"
    assert len(read(prose + peer_test(2))) == 4


def test_two_runs_are_two_runs() -> None:
    found = read(peer_test(2) + peer_test(3))
    assert [len(copies.bandwidth) for copies in found] == [2] * 4 + [6] * 4
    assert [len(copies.devices) for copies in found] == [2] * 4 + [3] * 4


def without(text: str, title: str, row: int) -> str:
    lines = text.splitlines()
    del lines[next(place for place, line in enumerate(lines) if title in line) + 2 + row]
    return "\n".join(lines)


def changed(title: str, row: int, change: str) -> str:
    lines = peer_test(4).splitlines()
    at = next(place for place, line in enumerate(lines) if title in line) + 2 + row
    cells = lines[at].split()
    lines[at] = {"short": " ".join(cells[:-1]), "zero": " ".join([*cells[:-1], "0.00"]), "nan": " ".join([*cells[:-1], "nan"])}[
        change
    ]
    return "\n".join(lines)


NONSENSE = {
    "missing row": (without(peer_test(4), "Bidirectional P2P=Disabled", 2), "row 2 is missing: after row 1 comes row 3"),
    "missing first row": (without(peer_test(4), "Bidirectional P2P=Disabled", 0), "row 0 is missing"),
    "missing last row": (without(peer_test(4), "Bidirectional P2P=Disabled", 3), "row 3 is missing in a matrix of 4 columns"),
    "cut row": (changed("Unidirectional P2P=Enabled", 2, "short"), "row 2 has 3 numbers below a header of 4"),
    "zero": (changed("Unidirectional P2P=Enabled", 2, "zero"), "the bandwidth in GB/s from 2 to 3 is 0"),
    "zero latency": (changed("P2P=Enabled Latency", 2, "zero"), "the latency in µs from 2 to 3 is 0"),
    "no number": (changed("Unidirectional P2P=Enabled", 2, "nan"), "row 2 holds nan"),
    "cut header": (peer_test(4).replace("D\\D       0      1      2      3", "D\\D       0      1      2"), "row 0 has 4 numbers below a header of 3"),
    "cut after a title": (peer_test(4).split("   D\\D")[0] + "Unidirectional P2P=Disabled Bandwidth Matrix (GB/s)\n", "has no matrix below it"),
    "no rows": ("P2P=Enabled Latency Matrix (us)\n   GPU     0      1\n", "has a header but no rows"),
    "an extra row": (peer_test(2).replace("Bidirectional P2P=Dis", "     2  22.23  22.23\nBidirectional P2P=Dis"), "row 2 stands below a header of 2 columns"),
    "another machine": (peer_test(2).split("Bidirectional")[0] + "Bidirectional P2P=Enabled Bandwidth Matrix (GB/s)\n" + matrix(3, bandwidth), "a matrix of 3 GPUs after one of 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_what_is_cut_or_cannot_be_is_refused_with_the_line(name: str) -> None:
    text, reason = NONSENSE[name]
    with pytest.raises(BadInput) as refusal:
        read(text)
    assert reason in refusal.value.problem
    assert refusal.value.path.startswith("paste, line ")


@pytest.mark.parametrize("text", [peer_test(2).split("P2P Connectivity")[0], peer_test(1)], ids=["no matrix", "one GPU"])
def test_what_copies_nothing_between_two_gpus_is_left_out(text: str) -> None:
    with pytest.raises(BadInput, match="without a bandwidth"):
        read(text)


def test_real_outputs_are_read(shared: Path) -> None:
    found = {}
    for path in sorted((shared / "machines/p2p-bandwidth").glob("*.txt")):
        if "P2P=" in (text := path.read_text("utf-8")):
            found[path.name[:3]] = read(text)
    combinations = {number: [(copies.direction, copies.peer_to_peer) for copies in all_of] for number, all_of in found.items()}
    whole = [("one-way", False), ("one-way", True), ("both-ways", False), ("both-ways", True)]
    assert combinations == {
        **{number: [("one-way", True)] for number in ("002", "003", "004", "009", "010")},
        **dict.fromkeys(("005", "006", "007"), whole),
        "008": [("one-way", True), ("both-ways", True)],
    }
    assert found["007"][0].bandwidth[0, 1] == pytest.approx(5.71e9)
    assert found["007"][0].access == {(0, 1): False, (1, 0): False}
    assert found["007"][1].latency[1, 0] == pytest.approx(13.63e-6)
    assert found["005"][0].devices[3].bus_id == "0000:e1:00.0"
    assert found["008"][1].bandwidth[3, 5] == pytest.approx(99.43e9)
    assert sorted({one for one, _ in found["010"][0].latency}) == [0, 1]
