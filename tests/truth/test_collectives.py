"""Measured collectives against predictions for machines no constant was fitted on. Skipped without the measurements."""

from __future__ import annotations

import csv
import importlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from planner import api
from planner.cost.accuracy import Accuracy, accuracy
from planner.cost.collectives import Collectives
from planner.cost.interconnect import Interconnect
from planner.cost.operations import Operations
from planner.documents.calibration import load_calibration
from planner.documents.hardware import load_link_rates
from planner.engines import engines
from planner.engines.implementations import implementations
from planner.errors import BadInput
from planner.graph.equip import equip
from planner.units import Bytes
from planner.validation import find_operation

LARGE = 1 << 20


def ratio_of(reference: str, rows: list[tuple[float, float]]) -> float:
    """Median of predicted over measured for (bytes, seconds)."""
    topology = api.load_topology(reference)
    specs = {name: api.load_gpu(name) for name in topology.hardware}
    wires = Interconnect(equip(topology, specs, load_link_rates()), specs)
    group = wires.group(range(len(topology.gpus)))
    ask = Collectives(load_calibration(), engines()["vllm"].traits)
    return median(ask.nccl_all_reduce(group, Bytes(size)) / time for size, time in rows)


def measured(path: Path, reference: str) -> list[tuple[float, float]]:
    table = csv.DictReader(path.read_text("utf-8").splitlines())
    mine = [row for row in table if (row["topology"], row["op"], row["flag"]) == (reference, "all_reduce", "")]
    rows = [(float(row["bytes"]), float(row["time_us_out_of_place"]) * 1e-6) for row in mine]
    return [row for row in rows if row[0] >= LARGE]


@pytest.mark.parametrize("reference", ["2xRTX-2080-Ti:pcie-host-staged", "8xRTX-A6000"])
def test_pcie_boxes_are_within_the_bar_of_links_nobody_measured(shared: Path, reference: str) -> None:
    """They are said to be unsure by 60 %; public tools are four to fourteen times too optimistic there."""
    rows = measured(shared / "data" / "nccl_tests.csv", reference)
    if not rows:
        pytest.skip(f"no rows of {reference}")
    unsure = load_calibration().uncertainty.unmeasured_links
    assert 1 / (1 + unsure) <= ratio_of(reference, rows) <= 1 + unsure


LARGE_ENOUGH_FOR_BANDWIDTH = 32 << 20
NVLINK_SYSTEMS = {"a100_sxm", "b200_sxm", "gb200", "h100_sxm"}
PCIE_BOXES = ["l40s_a", "l40s_b", "a100_pairwise_nvlink", "nccl-tests 001", "nccl-tests 029"]
"""The last two are two RTX 2080 Ti without peer-to-peer and eight RTX A6000."""


@pytest.fixture(scope="module")
def fitting(root: Path) -> Iterator[Any]:
    """The script that fits the constants."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "scripts"))
        yield importlib.import_module("fit_collectives")


@pytest.fixture(scope="module")
def rows(shared: Path, fitting: Any) -> Any:
    """Every unflagged row."""
    return fitting.read(shared / "data")


@pytest.fixture(scope="module")
def left_out(rows: Any, fitting: Any) -> Any:
    """Every system predicted with constants fitted on all the others."""
    return fitting.left_out(rows)


@pytest.fixture(scope="module")
def nccl_tests(shared: Path) -> dict[tuple[str, str], list[tuple[float, float, float]]]:
    """(topology, operation) → [(bytes, predicted, measured)] of tables that nothing was fitted on."""
    asked: dict[str, Operations] = {}
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for row in csv.DictReader((shared / "data" / "nccl_tests.csv").read_text("utf-8").splitlines()):
        size, time = float(row["bytes"]), float(row["time_us_out_of_place"])
        try:
            operation = find_operation(row["op"])
        except BadInput:
            continue  # reduce is not predicted
        if row["flag"] or min(size, time) <= 0:
            continue
        reference = row["topology"]
        if reference not in asked:
            topology = api.load_topology(reference)
            specs = {name: api.load_gpu(name) for name in topology.hardware}
            wires = Interconnect(equip(topology, specs, load_link_rates()), specs)
            asked[reference] = Operations(wires, load_calibration(), implementations()["nccl"])
        predicted = asked[reference].predict(operation, range(int(float(row["n_gpus"]))), Bytes(size))
        found[reference, operation].append((size, predicted.taken.time * 1e6, time))
    return found


def graded(answers: Any, operation: str, systems: Collection[str], implementation: str | None = None) -> Accuracy:
    pairs = [
        (one.predicted, one.row.time)
        for one in answers
        if one.row.operation == operation and one.row.system in systems and implementation in {None, one.implementation}
    ]
    if not pairs:
        pytest.skip(f"no rows of {operation} on {', '.join(sorted(systems))}")
    return accuracy(pairs)


@pytest.mark.parametrize("implementation", ["nccl", "tensorrt-llm"])
def test_all_reduces_on_nvlink_machines_left_out(left_out: Any, implementation: str) -> None:
    """Of vLLM and SGLang see the README: the two GB200 machines measured differ by 40 % with one and the same kernel."""
    grade = graded(left_out, "all_reduce", NVLINK_SYSTEMS, implementation)
    assert grade.mape <= 0.12
    assert grade.median_ape <= 0.08


@pytest.mark.parametrize("operation", ["all_gather", "reduce_scatter", "all_to_all"])
def test_other_operations_on_nvlink_machines_left_out(left_out: Any, operation: str) -> None:
    assert graded(left_out, operation, NVLINK_SYSTEMS).mape <= 0.15


@pytest.mark.parametrize("system", PCIE_BOXES)
def test_all_reduces_on_pcie_boxes_left_out(left_out: Any, system: str) -> None:
    assert graded(left_out, "all_reduce", [system]).median_ape <= 0.40


@pytest.mark.parametrize("system", PCIE_BOXES)
def test_pcie_boxes_lie_inside_intervals_made_without_them(left_out: Any, rows: Any, fitting: Any, system: str) -> None:
    apart = [*left_out, *fitting.versions_left_out(rows)]
    bars = {system: fitting.intervals(one for one in apart if one.row.system != system)}
    mine = [one for one in left_out if one.row.system == system and one.row.operation == "all_reduce"]
    if not mine:
        pytest.skip(f"no rows of {system}")
    assert fitting.covered(mine, bars) >= 0.85


def test_published_tables_from_the_topology_alone(
    nccl_tests: dict[tuple[str, str], list[tuple[float, float, float]]],
) -> None:
    rows = [row for several in nccl_tests.values() for row in several if row[0] >= LARGE]
    assert accuracy((predicted, time) for _, predicted, time in rows).mape <= 0.35


@pytest.mark.parametrize("ranks", [2, 4])
def test_bridged_pairs_inside_a_bridge_and_across(left_out: Any, ranks: int) -> None:
    """186 and 24 GB/s of bus bandwidth were measured."""
    mine = [
        one.predicted / one.row.time
        for one in left_out
        if (one.row.system, one.row.operation, one.row.ranks) == ("a100_pairwise_nvlink", "all_reduce", ranks)
        and one.row.size >= LARGE_ENOUGH_FOR_BANDWIDTH
    ]
    if not mine:
        pytest.skip("no rows of bridged pairs")
    assert all(abs(ratio - 1) <= 0.20 for ratio in mine)


def test_fitting_again_gives_the_constants_that_ship(
    rows: Any, root: Path, fitting: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = (root / "planner" / "data" / "calibration" / "collectives.yaml").read_text("utf-8")
    date = next(line for line in shipped.splitlines() if line.startswith("fitted:")).split('"')[1]
    fitting.write(rows, date)
    assert capsys.readouterr().out == shipped
