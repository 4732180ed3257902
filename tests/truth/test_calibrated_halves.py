"""Half of a box's own rows, by message size, predict the other half. Skipped without the measurements."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean

import pytest

from planner import api
from planner.cost.operations import Operations
from planner.documents.calibration import load_calibration
from planner.engines.implementations import written_implementation
from planner.units import Bytes
from planner.validation import find_operation, wires_of

BAR = 0.10
Row = Mapping[str, str]
COLUMNS = ("topology", "impl", "op", "n_gpus", "message_bytes", "time_us", "flag")


def of_system(shared: Path, system: str) -> list[Row]:
    """All rows of a box, flagged ones included."""
    with (shared / "data" / "collectives.csv").open(newline="", encoding="utf-8") as stream:
        return [{name: row[name] for name in COLUMNS} for row in csv.DictReader(stream) if row["system"] == system]


def of_nccl_tests(shared: Path, topology: str) -> list[Row]:
    """The same of the boxes of nccl-tests; operations that planner does not predict, and rows without bytes, left out."""
    with (shared / "data" / "nccl_tests.csv").open(newline="", encoding="utf-8") as stream:
        return [
            {
                "topology": topology,
                "impl": "nccl",
                "op": row["op"],
                "n_gpus": str(int(float(row["n_gpus"]))),
                "message_bytes": row["bytes"],
                "time_us": row["time_us_out_of_place"],
                "flag": row["flag"],
            }
            for row in csv.DictReader(stream)
            if row["topology"] == topology and not row["op"].startswith("reduce") and float(row["bytes"]) > 0
        ]


def halves(rows: Iterable[Row], half: int) -> tuple[list[Row], list[Row]]:
    """Every other message size of an operation over a number of GPUs, and the others."""
    rows = list(rows)
    sizes: dict[tuple[str, str], set[float]] = defaultdict(set)
    for row in rows:
        sizes[row["op"], row["n_gpus"]].add(float(row["message_bytes"]))
    place = {key: {size: number for number, size in enumerate(sorted(found))} for key, found in sizes.items()}
    taken = [place[row["op"], row["n_gpus"]][float(row["message_bytes"])] % 2 == half for row in rows]
    return [row for row, one in zip(rows, taken, strict=True) if one], [
        row for row, one in zip(rows, taken, strict=True) if not one
    ]


Errors = dict[tuple[str, str, int], list[float]]


def errors(rows: list[Row], reference: str, folder: Path) -> Errors:
    """By implementation, operation and number of GPUs: the errors on each half after a calibration on the other."""
    found: Errors = defaultdict(list)
    for half in (0, 1):
        fitted, graded = halves(rows, half)
        path = folder / "half.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(fitted)
        wires = wires_of(api.calibrate(reference, [str(path)]).topology)
        for row in graded:
            implementation, eager = written_implementation(row["impl"])
            ask = Operations(wires, load_calibration(), implementation)
            ranks, size, time = int(float(row["n_gpus"])), Bytes(float(row["message_bytes"])), float(row["time_us"]) * 1e-6
            predicted = ask.predict(find_operation(row["op"]), range(ranks), size, eager=eager).taken.time
            found[row["impl"], row["op"], ranks].append(abs(predicted - time) / time)
    return found


def mean(found: Errors) -> float:
    return fmean(error for several in found.values() for error in several)


@pytest.mark.parametrize("system", ["l40s_a", "l40s_b"])
def test_half_a_box_predicts_the_other_half(shared: Path, tmp_path: Path, system: str) -> None:
    rows = of_system(shared, system)
    assert any(row["flag"] for row in rows)
    assert mean(errors(rows, "8xL40S", tmp_path)) <= BAR
    # one version alone; launched one by one, most of the error of one version is the noise of the rows it is held against
    for implementation in sorted({row["impl"] for row in rows if "eager" not in row["impl"]}):
        own = errors([row for row in rows if row["impl"] == implementation], "8xL40S", tmp_path)
        assert mean(own) <= BAR, implementation


@pytest.mark.parametrize("topology", ["2xRTX-2080-Ti:pcie-host-staged", "8xRTX-A6000"])
def test_half_a_table_of_nccl_tests_predicts_the_other_half(shared: Path, tmp_path: Path, topology: str) -> None:
    found = errors(of_nccl_tests(shared, topology), topology, tmp_path)
    assert found
    for key, several in found.items():
        assert fmean(several) <= BAR, key


def test_rows_of_two_kinds_of_pairs_under_one_name_are_told_and_not_met(shared: Path, tmp_path: Path) -> None:
    """Two of these GPUs have NVLink or have not, and the rows of send/recv do not say which were measured: no curve is both.

    The all-reduce over all four is unequivocal. That over two has one row of 7 µs (flagged as noisy) between rows of 50 µs.
    """
    rows = of_system(shared, "a100_pairwise_nvlink")
    reference = "4xA100-PCIe-80GB:nvlink-pairs"
    found = {key[1:]: fmean(several) for key, several in errors(rows, reference, tmp_path).items()}
    assert found["all_reduce", 4] <= BAR
    path = tmp_path / "all.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    told = [finding.message for finding in api.calibrate(reference, [str(path)]).findings if finding.code == "rows-disagree"]
    assert len(told) == 1
    assert told[0].startswith("send-recv over 2 GPUs")
    sound = [row for row in rows if row["op"] == "all_reduce" and not row["flag"]]
    assert mean(errors(sound, reference, tmp_path)) <= BAR
