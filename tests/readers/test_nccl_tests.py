from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from measured_support import RATIOS, SIZES, row, seconds, table
from planner.core.measured import MeasuredTable
from planner.errors import BadInput
from planner.readers.measurements import read_all_measured, read_measurements

OPERATIONS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "broadcast": "broadcast",
    "sendrecv": "send_recv",
}
UNUSED = sorted(set(RATIOS) - set(OPERATIONS))


def read(text: str) -> list[MeasuredTable]:
    found = read_measurements(text, "paste")
    return [one for one in found if isinstance(one, MeasuredTable)]


def one(text: str) -> MeasuredTable:
    (found,) = read(text)
    return found


def assert_points(found: MeasuredTable, sizes: tuple[int, ...] = SIZES) -> None:
    assert tuple(float(size) for size, _ in found.points) == sizes
    for size, taken in found.points:
        assert taken == pytest.approx(seconds(int(size)), rel=2e-3)


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
@pytest.mark.parametrize("ranks", [3, 8, 16])
@pytest.mark.parametrize("program", ["all_reduce", "reduce_scatter", "sendrecv"])
def test_the_numbers_say_which_operation_it_was_and_on_how_many_ranks(program: str, ranks: int, *, old: bool) -> None:
    found = one(table(program, ranks, old=old))
    assert (found.operation, found.candidates, found.ranks) == (OPERATIONS[program], (OPERATIONS[program],), ranks)
    assert_points(found)
    assert [device.bus_id for device in found.devices] == [f"0000:{16 + rank:02x}:00.0" for rank in range(ranks)]
    assert {(device.host, device.model) for device in found.devices} == {("node1", "NVIDIA H100 80GB HBM3")}


@pytest.mark.parametrize("program", OPERATIONS)
@pytest.mark.parametrize("ranks", [2, 4])
def test_columns_and_counts_tell_apart_what_the_ratio_does_not(program: str, ranks: int) -> None:
    assert one(table(program, ranks)).operation == OPERATIONS[program]


@pytest.mark.parametrize("ranks", [2, 7, 8])
def test_ranks_come_from_the_ratio_without_a_list_of_devices(ranks: int) -> None:
    found = one(table("all_reduce", ranks, listed=False).replace(f"nGpus {ranks}", "nGpus 1"))
    assert (found.operation, found.ranks, found.devices) == ("all_reduce", ranks, ())


def test_an_operation_that_nothing_tells_has_its_candidates() -> None:
    found = one(table("all_gather", 2, checked=False))
    assert found.operation is None
    assert found.candidates == ("all_gather", "all_to_all")
    assert found.ranks == 2


@pytest.mark.parametrize("program", ["all_gather", "alltoall"])
@pytest.mark.parametrize(
    "call",
    ["./build/{}_perf -b 8 -e 1G -f 2 -g 2", "mpirun -np 2 --bind-to none ./{}_perf -b 8", "# Collective test starting: {}_perf"],
)
def test_a_name_beside_the_table_tells(program: str, call: str) -> None:
    found = one(f"$ {call.format(program)}\n" + table(program, 2, checked=False, listed=False))
    assert (found.operation, found.ranks) == (OPERATIONS[program], 2)


def test_several_tables_each_have_their_own_name_and_devices() -> None:
    text = (
        table("all_gather", 2, checked=False, named=True) + "user@host:~$ ls\n" + table("alltoall", 4, checked=False, named=True)
    )
    text += table("all_reduce", 8, old=True)
    found = read(text)
    assert [(table.operation, table.ranks, len(table.devices)) for table in found] == [
        ("all_gather", 2, 2),
        ("all_to_all", 4, 4),
        ("all_reduce", 8, 8),
    ]
    assert [text.split("\n")[table.line - 1].split()[1] for table in found] == ["size"] * 3


def test_rows_alone_are_a_table() -> None:
    found = one("\n".join(row("all_reduce", 8, size) for size in SIZES))
    assert (found.operation, found.ranks, found.line) == ("all_reduce", 8, 1)


DIALECTS: dict[str, Callable[[str], str]] = {
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "quoted": lambda text: "".join(f"> {line}\n" for line in text.splitlines()),
    "tagged": lambda text: "".join(f"[1,0]<stdout>:{line}\n" for line in text.splitlines()),
    "rank prefix": lambda text: "".join(f"0: {line}\n" for line in text.splitlines()),
    "log prefix": lambda text: "".join(f"2026-03-04 10:26:11,402 INFO worker.py:88 {line}\n" for line in text.splitlines()),
    "coloured": lambda text: text.replace("sum", "\x1b[32msum\x1b[0m"),
    "log lines between": lambda text: text.replace("\n", "\nnode1:3442:3442 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P\n"),
    "prompt": lambda text: f"me@node1:~$ ./all_reduce_perf -g 8\n{text}me@node1:~$ ",
    "without hashes": lambda text: text.replace("#", " ").replace(" wrong", "#wrong"),
    "Markdown": lambda text: "".join(
        f"| {' | '.join(line.split())} |\n" if "float" in line else f"{line}\n" for line in text.splitlines()
    ),
    "timestamps": lambda text: "".join(
        f"{line}  2026-03-04 10:26:11\n" if "float" in line else f"{line}\n" for line in text.splitlines()
    ),
    "cut in place": lambda text: "".join(f"{line[:88]}\n" for line in text.splitlines()),
    "tail of another": lambda text: f"# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 1.5\n{text}",
    "empty rows": lambda text: text.replace(
        "           8             2",
        "           0             0     float     sum      -1     0.30    0.00    0.00      0     0.26    0.00    0.00      0\n           8             2",
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_gives_the_same_table(name: str) -> None:
    found = one(DIALECTS[name](table("all_reduce", 8)))
    assert (found.operation, found.ranks) == ("all_reduce", 8)
    assert_points(found)


@pytest.mark.parametrize("program", UNUSED)
def test_an_operation_that_planner_does_not_know_is_left_out_by_name(program: str) -> None:
    with pytest.raises(BadInput, match=rf"only {program} \(line") as refusal:
        read(table(program, 4, named=True))
    assert "nccl-tests" in refusal.value.hint
    reading = read_all_measured(table(program, 4) + table("all_reduce", 4), "paste")
    assert len(reading.measured) == 1
    assert program in reading.left_out[0]


def test_a_table_of_one_gpu_is_left_out() -> None:
    with pytest.raises(BadInput, match="of one GPU"):
        read(table("all_reduce", 1))


def test_groups_that_ran_at_once_are_left_out() -> None:
    text = table("all_reduce", 4)
    text = text.replace("Rank  2 Group  0", "Rank  2 Group  1").replace("Rank  3 Group  0", "Rank  3 Group  1")
    with pytest.raises(BadInput, match="2 groups of GPUs at once"):
        read(text)


def test_a_list_of_devices_that_is_cut_tells_nothing() -> None:
    text = "\n".join(line for line in table("all_reduce", 8).splitlines() if "Rank  3" not in line)
    found = one(text)
    assert (found.ranks, found.devices) == (8, ())


def test_a_bus_id_that_two_gpus_share_is_none() -> None:
    text = table("all_reduce", 4, old=True)
    for rank in range(4):
        text = text.replace(f"[0x{16 + rank:02x}]", "[0x10]")
    assert [device.bus_id for device in one(text).devices] == [None] * 4


def test_the_median_of_a_size_measured_again_is_taken() -> None:
    lines = table("all_reduce", 8, SIZES[:3]).splitlines()
    again = row("all_reduce", 8, SIZES[0]).replace("20.00", "30.00")
    text = "\n".join([*lines[:-3], again, again, *lines[-3:]])
    size, taken = one(text).points[0]
    assert (size, taken) == pytest.approx((8, 30e-6))


def without_columns(text: str, *names: str) -> str:
    """The table without its columns of text or roots, as releases up to 2020 print those that say nothing."""
    lines = []
    for line in text.splitlines():
        if "float" in line or "busbw" in line:
            words = line.split()
            places = [text.split("busbw", maxsplit=1)[0].splitlines()[-1].split().index(name) for name in names]
            shift = 0 if "busbw" in line else 1
            lines.append(" ".join(word for place, word in enumerate(words) if place + shift not in places))
        else:
            lines.append(line)
    return "\n".join(lines)


def test_old_releases_leave_out_columns_that_say_nothing() -> None:
    found = one(without_columns(table("broadcast", 4), "redop"))
    assert (found.operation, found.ranks) == ("broadcast", 4)
    assert_points(found)


def test_old_releases_give_the_bus_bandwidth_of_a_gather_twice() -> None:
    lines = without_columns(table("all_gather", 4), "redop", "root").splitlines()
    for place, line in enumerate(lines):
        if "float" in line:
            words = line.split()
            words[4] = words[5]
            lines[place] = " ".join(words)
    found = one("\n".join(lines))
    assert (found.operation, found.ranks) == ("all_gather", 4)
    assert_points(found)


def test_a_table_without_columns_in_place_or_of_errors_is_read() -> None:
    lines = table("all_reduce", 8).splitlines()
    lines = [
        " ".join(line.split()[: 9 if "busbw" in line else 8]) if "busbw" in line or "float" in line else line for line in lines
    ]
    found = one("\n".join(lines))
    assert (found.operation, found.ranks) == ("all_reduce", 8)
    assert_points(found)


def edited(old: str, new: str, text: str = table("all_reduce", 8)) -> str:
    assert old in text
    return text.replace(old, new, 1)


def place(text: str, what: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if what in line)


LARGEST = row("all_reduce", 8, SIZES[-1])
HALVED = LARGEST.replace(LARGEST.split()[5], f"{float(LARGEST.split()[5]) / 2:.0f}", 1)
NONSENSE = {
    "algorithm bandwidth": (edited(LARGEST, HALVED), LARGEST[:26], "algorithm bandwidth is given as"),
    "ratio": (edited(LARGEST, row("all_reduce", 8, SIZES[-1], factor=1.4)), LARGEST[:26], "the ratio is 1.4; those of operations over 8 GPUs are 1.75, 1, 0.875"),
    "ratio of the name": (edited(LARGEST, row("all_reduce", 8, SIZES[-1], factor=1.0), table("all_reduce", 8, named=True)), LARGEST[:26], "that of all_reduce over 8 GPUs is 1.75"),
    "ratio of nothing": (edited(LARGEST, row("all_reduce", 8, SIZES[-1], factor=2.5), table("all_reduce", 8, listed=False)), LARGEST[:26], "none of any operation"),
    "rows disagree": (edited(LARGEST, row("all_reduce", 4, SIZES[-1]), table("all_reduce", 8, listed=False)), LARGEST[:26], "does not go with the rows before it"),
    "zero time": (edited("    20.00 ", "     0.00 "), " float ", "above zero"),
    "negative time": (edited("    20.00 ", "   -20.00 "), " float ", "above zero"),
    "time is no number": (edited("    20.00 ", "      nan "), " float ", "nan for 8 bytes is no number"),
    "size is no number": (edited("           8  ", "        eight  "), " float ", "'eight' is not a number of bytes"),
    "size below zero": (edited("           8  ", "          -8  "), " float ", "'-8' is not a number of bytes"),
    "wrong answers": (edited(LARGEST, LARGEST.replace("     0", "     7", 1)), LARGEST[:26], "7 wrong values: the run was broken"),
    "out of bounds": (edited("values : 0 OK", "values : 12 FAILED"), "Out of bounds", "12 values out of bounds: the run was broken"),
    "no rows": ("\n".join(line for line in table("all_reduce", 8).splitlines() if "float" not in line), "algbw", "without rows"),
    "placeholders": (edited(LARGEST, LARGEST[:48] + "XXXXX  XXX.XX  XXX.XX    N/A"), LARGEST[:26], "ends before its bandwidths"),
    "cut row": (edited(LARGEST, LARGEST[:64]), LARGEST[:26], "ends before its bandwidths"),
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_what_cannot_be_is_refused_with_the_line_the_numbers_and_the_reason(name: str) -> None:
    text, at, reason = NONSENSE[name]
    with pytest.raises(BadInput) as refusal:
        read(text)
    assert reason in refusal.value.problem
    assert refusal.value.path == f"paste, line {place(text, at)}"
    assert refusal.value.hint


def test_numbers_too_small_to_prove_anything_are_not_held_against_a_table() -> None:
    found = one(table("all_reduce", 8, (8, 16, 32)))
    assert found.operation is None or found.operation == "all_reduce"
    assert "all_reduce" in found.candidates
    assert found.ranks == 8


EDITED = {"027-ai-infrastructure-on-azure-skill.txt"}
"""Its largest row has a ratio that goes with no number of ranks its other row allows."""


def test_real_tables_give_the_numbers_that_others_read_from_them(shared: Path) -> None:
    wanted: dict[tuple[str, str | None], list[tuple[float, float]]] = defaultdict(list)
    ranks: dict[tuple[str, str | None], str] = {}
    with (shared / "data/nccl_tests.csv").open() as rows:
        for line in csv.DictReader(rows):
            if float(line["bytes"]) > 0 and line["file"] not in EDITED and line["op"] in OPERATIONS:
                key: tuple[str, str | None] = (line["file"], OPERATIONS[line["op"]])
                wanted[key].append((float(line["bytes"]), float(line["time_us_out_of_place"]) * 1e-6))
                ranks[key] = line["n_gpus"]
    found: dict[tuple[str, str | None], MeasuredTable] = {}
    for path in sorted((shared / "machines/nccl-tests").glob("*.txt")):
        if path.name not in EDITED:
            for table in read_measurements(path.read_text("utf-8"), path.name):
                assert isinstance(table, MeasuredTable)
                found[path.name, table.operation] = table
    assert set(found) == set(wanted)
    for where, table in found.items():
        assert [size for size, _ in table.points] == [size for size, _ in sorted(wanted[where])]
        assert [taken for _, taken in table.points] == pytest.approx([taken for _, taken in sorted(wanted[where])], rel=1e-12)
        assert table.ranks == (int(float(ranks[where])) if ranks[where] else table.ranks)


def test_an_edited_capture_is_refused_with_its_numbers(shared: Path) -> None:
    (name,) = EDITED
    with pytest.raises(BadInput, match=r"bus bandwidth of 936\.93 GB/s at 939\.6 GB/s"):
        read_measurements((shared / "machines/nccl-tests" / name).read_text("utf-8"), name)
