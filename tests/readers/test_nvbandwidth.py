from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from measured_support import bandwidth, json_test, nvbandwidth, nvbandwidth_json, peer_test, table
from planner.core.measured import MeasuredCopies, MeasuredTable, TableDevice
from planner.errors import BadInput
from planner.readers import _MEASURING
from planner.readers.measurements import read_all_measured, read_measurements

READ, WRITE = "device_to_device_memcpy_read_ce", "device_to_device_memcpy_write_sm"
BOTH = "device_to_device_bidirectional_memcpy_write_ce"
HOST = """\
Running host_to_device_memcpy_ce.
memcpy CE CPU(row) -> GPU(column) bandwidth (GB/s)
           0         1
 0     55.63     55.64

SUM host_to_device_memcpy_ce 111.27

"""
HEAD = """\
nvbandwidth Version: v0.8
Built from Git version: v0.8

Device 0: NVIDIA H100 80GB HBM3 (00000000:19:00)
Device 1: NVIDIA H100 80GB HBM3 (00000000:3b:00)

"""


def read(text: str) -> list[MeasuredCopies]:
    return [one for one in read_measurements(text, "paste") if isinstance(one, MeasuredCopies)]


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("arrow", "turned"), [("->", False), ("<-", True)])
def test_the_arrow_says_the_direction(arrow: str, *, turned: bool, zeros: bool) -> None:
    (found,) = read(f"{HEAD}Running {READ}.\n{nvbandwidth(2, READ, arrow, zeros=zeros)}")
    assert (found.direction, found.peer_to_peer) == ("one-way", True)
    pair = (0, 1) if turned else (1, 0)
    assert found.bandwidth[pair] == pytest.approx(bandwidth(1, 0) * 1e9)
    assert found.access == {(0, 1): True, (1, 0): True}
    assert found.devices[1] == TableDevice(1, bus_id="0000:3b:00.0", model="NVIDIA H100 80GB HBM3")


def test_of_both_ways_the_total_is_read() -> None:
    parts = "".join(nvbandwidth(3, BOTH, "<->", part) for part in ("Write1", "Write2", "Total"))
    (found,) = read(f"Running {BOTH}.\n{parts}")
    assert found.direction == "both-ways"
    assert len(found.bandwidth) == 6


def test_both_ways_without_a_total_are_left_out() -> None:
    with pytest.raises(BadInput, match="without its total"):
        read(f"Running {BOTH}.\n{nvbandwidth(3, BOTH, '<->')}")


def test_the_host_is_left_out_by_name() -> None:
    reading = read_all_measured(f"{HOST}Running {WRITE}.\n{nvbandwidth(2, WRITE, '<-')}{HOST}", "paste")
    assert len(reading.measured) == 1
    assert reading.left_out == ("host_to_device_memcpy_ce (line 1)", "host_to_device_memcpy_ce (line 16)")
    with pytest.raises(BadInput, match="only host_to_device_memcpy_ce"):
        read(HOST)


def test_a_matrix_without_its_test_is_read_by_its_arrow() -> None:
    assert len(read(nvbandwidth(4))[0].bandwidth) == 12


def test_pairs_without_access_are_no_copies() -> None:
    text = nvbandwidth(2).replace(f"{bandwidth(0, 1):.2f}", "N/A").split("SUM")[0]
    (found,) = read(text)
    assert list(found.bandwidth) == [(1, 0)]
    assert found.access == {(0, 1): False, (1, 0): True}


def test_json_says_what_the_text_does() -> None:
    tests = (json_test(3, READ), json_test(3, BOTH, "<->", parts=3), json_test(3, "host_to_device_memcpy_ce"))
    text = f"me@box:~$ nvbandwidth -j\n{nvbandwidth_json(*tests)}\nme@box:~$ "
    reading = read_all_measured(text, "paste")
    one, both = (copies for copies in reading.measured if isinstance(copies, MeasuredCopies))
    (as_text,) = read(nvbandwidth(3, READ))
    assert (one.bandwidth, one.access, one.direction) == (as_text.bandwidth, as_text.access, "one-way")
    assert (len(both.bandwidth), both.direction) == (6, "both-ways")
    assert reading.left_out == ("host_to_device_memcpy_ce",)
    assert READ in text.split("\n")[one.line - 1]


def without_cell(test: dict[str, object], cell: object) -> dict[str, object]:
    rows = json.loads(json.dumps(test["bandwidth_matrix"]))
    rows[0][1] = cell
    return test | {"bandwidth_matrix": rows}


NONSENSE = {
    "other sum": (nvbandwidth(2).replace(f"{bandwidth(0, 1):.2f}", "99.99"), "add up to"),
    "other sum in JSON": (nvbandwidth_json(without_cell(json_test(2), "99.99")), "add up to"),
    "missing row": ("\n".join(nvbandwidth(4).splitlines()[:5]), "row 3 is missing in a matrix of 4 columns"),
    "row between": ("\n".join(line for line in nvbandwidth(4).splitlines() if not line.startswith(" 2")), "row 2 is missing"),
    "short row": (nvbandwidth(2).replace(f"{bandwidth(0, 1):10.2f}", ""), "row 0 has 1 numbers below a header of 2"),
    "below zero": (nvbandwidth(2).split("SUM")[0].replace(f"{bandwidth(0, 1):.2f}", "-20.1"), "is -20.1 GB/s"),
    "no number in JSON": (nvbandwidth_json(without_cell(json_test(2), "fast")), "holds fast, which is no number"),
    "no matrix below": ("memcpy CE GPU(row) <- GPU(column) bandwidth (GB/s)\n", "has no matrix below it"),
    "cut JSON": (nvbandwidth_json(json_test(4))[:-40], "cannot be read"),
    "odd rows": (nvbandwidth_json(json_test(4) | {"bandwidth_matrix": [["1", "2"], ["3"]]}), "not one of equal rows"),
    "not square": (nvbandwidth_json(json_test(4) | {"bandwidth_matrix": [["1", "2"]] * 3}), "3 rows and 2 columns"),
    "an error": ('{"nvbandwidth": {"error": "no CUDA device"}}', "no CUDA device"),
    "waived": (nvbandwidth_json({"name": READ, "status": "Waived"}), "has no matrix (Waived)"),
    "nothing copied": (nvbandwidth_json(json_test(1)), "no GPU copies to another"),
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_what_is_cut_or_cannot_be_is_refused(name: str) -> None:
    text, reason = NONSENSE[name]
    with pytest.raises(BadInput) as refusal:
        read(text)
    assert reason in refusal.value.problem
    assert refusal.value.path.startswith("paste")


def test_one_text_may_hold_all_kinds() -> None:
    text = f"# all I have\n{table('all_reduce', 4)}\n{peer_test(4)}\n{HEAD}Running {READ}.\n{nvbandwidth(4, READ)}"
    found = read_measurements(text, "paste")
    assert [type(one) for one in found] == [MeasuredTable, *[MeasuredCopies] * 5]
    assert len({one.line for one in found}) == 6


@pytest.mark.parametrize("text", ["", "hello", "GPU0 GPU1\nGPU0 X NV4", "algbw", "P2P", "{}"])
def test_what_measures_nothing_is_refused_with_what_to_run(text: str) -> None:
    with pytest.raises(BadInput) as refusal:
        read_measurements(text, "paste")
    assert refusal.value.hint


def test_a_text_too_long_is_refused() -> None:
    with pytest.raises(BadInput, match="longer than 2 million"):
        read_measurements("8 2 float sum\n" * 200_000, "paste")


def test_real_outputs_are_read_or_left_out_by_name(shared: Path) -> None:
    read_files, left_out = {}, {}
    for path in sorted((shared / "machines/p2p-bandwidth").glob("*.txt")):
        if "memcpy" in (text := path.read_text("utf-8")):
            reading = read_all_measured(text, path.name)
            read_files[path.name[:3]] = len(reading.measured)
            left_out[path.name[:3]] = len(reading.left_out)
    assert {number for number, count in read_files.items() if count} == {"015"}
    assert all(
        left_out[number] == text_count for number, text_count in (("001", 4), ("011", 4), ("012", 4), ("013", 2), ("014", 4))
    )


def test_who_reads_a_capture_does_not_wait_for_the_readers_of_measurements() -> None:
    script = "import sys; from planner.readers import _MEASURING, readers; readers(); print(*(n for n in _MEASURING if 'planner.readers.' + n in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"
    assert all(find_spec(f"planner.readers.{name}") for name in _MEASURING)
