"""Gather planner/data/calibration/collectives.yaml from measured collectives.

    python scripts/fit_collectives.py DATA_FOLDER --date YYYY-MM-DD > planner/data/calibration/collectives.yaml
    python scripts/fit_collectives.py DATA_FOLDER --leave-one-out

DATA_FOLDER holds collectives.csv and nccl_tests.csv. What comes out, rows with a flag left out:
anchors     measured all-reduces of an engine's stack on machines whose GPUs are all joined by NVLink: per machine, stack
            and number of GPUs, versions that agree joined, CUDA-graph launch, made to rise with size where noise or a
            kernel switch makes a larger message faster than a smaller one; runs that are far slower than NCCL on the same
            machine where the engine calls NCCL anyway are left out (a link was down);
factors     measured over modelled time of NCCL's own model of an all-reduce, by generation (and of PCIe machines) and
            message size (geometric mean), with the error that is left when a machine of the generation is predicted with the factors;
operations  the same for all-gather, reduce-scatter and all-to-all by number of ranks, at every second power of two, with the
            error left, and the error on machines that were left out of the fit;
eager       what an all-reduce takes at least where torch.distributed launches it;
intervals   measured over predicted by what a prediction rests on: where nine of ten rows lie, every machine counted alike and
            predicted with constants fitted on all the others; wider the fewer the machines.
With --leave-one-out it says instead how far off predictions are, in sample and fitted on all systems but the graded one, and how
many rows lie inside intervals that were also made without that system.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from collective_fits import (
    KERNEL_FLOORS,
    KNOTS,
    STACKS,
    Fits,
    all_factors,
    calibration,
    factors,
    fitted_key,
    kernel_fits,
    launch_floors,
    operation_fits,
    reductions,
    version_groups,
)
from collective_rows import Row, read, wires
from residuals import grade_or_write, quantile

from planner.core.estimate import Basis
from planner.cost.accuracy import accuracy
from planner.cost.anchors import interpolate
from planner.cost.calibration import Calibration
from planner.cost.operations import Operations
from planner.engines.implementations import TORCH, written_implementation
from planner.errors import BadInput
from planner.units import Bytes, Seconds

LOW, HIGH = 0.05, 0.95
STUDENT = {1: 3.84, 2: 3.84, 3: 1.78, 4: 1.43, 5: 1.30, 6: 1.22, 7: 1.18, 8: 1.15}
"""By number of systems: the 95 % quantile of Student's t with one degree of freedom less, over the normal one (1.645)."""


@dataclass(frozen=True)
class Answer:
    """A row, what was predicted for it in µs, and what that rests on."""

    row: Row
    implementation: str
    predicted: float
    basis: Basis


def answers(rows: Iterable[Row], constants: Calibration) -> list[Answer]:
    """Predictions of all rows whose implementation is known."""
    found = []
    asked: dict[tuple[str, str, str], Operations] = {}
    for row in rows:
        try:
            implementation, eager = written_implementation(row.written)
        except BadInput:
            continue
        key = row.topology, implementation.name, implementation.version
        if key not in asked:
            asked[key] = Operations(wires(row.topology), constants, implementation)
        taken = asked[key].predict(row.operation, range(row.ranks), Bytes(row.size), eager=eager).taken
        found.append(Answer(row, implementation.name, taken.time * 1e6, taken.basis))
    return found


def left_out(rows: Sequence[Row]) -> list[Answer]:
    """Every system predicted with constants fitted on all the others."""
    found = []
    for system in sorted({row.system for row in rows}):
        others = calibration([row for row in rows if row.system != system])
        found += answers([row for row in rows if row.system == system], others)
    return found


def versions_left_out(rows: Sequence[Row]) -> list[Answer]:
    """Every version of a stack on a machine of several predicted by the others: what a measurement of these very GPUs is worth."""
    found = []
    by_version: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        stack, _, version = row.written.rpartition("-")
        if stack in STACKS and row.operation == "all_reduce" and TORCH not in version:
            by_version[row.system, stack][version].append(row)
    for versions in by_version.values():
        for version, graded in versions.items():
            others = [row for other, several in versions.items() if other != version for row in several]
            if others:
                found += [one for one in answers(graded, calibration(others)) if one.basis == "same"]
    return found


def halves_left_out(rows: Iterable[Row]) -> list[Answer]:
    """Every other message size of a table interpolated from the rest: what a measurement of this very machine is worth."""
    tables: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        tables[row.system, row.written, row.operation, row.topology].append(row)
    found = []
    for several in tables.values():
        ordered = sorted({row.size: row for row in several}.values(), key=lambda row: row.size)
        for start in (0, 1):
            points = tuple((Bytes(row.size), Seconds(row.time)) for row in ordered[start::2])
            if len(points) > 1:
                found += [
                    Answer(row, row.written, interpolate(points, Bytes(row.size)), "here") for row in ordered[1 - start :: 2]
                ]
    return found


def intervals(answered: Iterable[Answer]) -> dict[str, tuple[float, float, int, int]]:
    """By basis: between which ratios of measured over predicted nine of ten rows lie, every system counted alike; rows, systems.

    A few systems say little of the next one: the logarithms grow as Student's t does against the normal distribution.
    """
    ratios: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in answered:
        ratios[one.basis][one.row.system].append(one.row.time / one.predicted)
    found = {}
    for basis, systems in ratios.items():
        weighed = sorted((ratio, 1 / len(values)) for values in systems.values() for ratio in values)
        wider = STUDENT.get(len(systems), 1.0 + 1.2 / len(systems))
        low, high = quantile(weighed, LOW) ** wider, quantile(weighed, HIGH) ** wider
        found[basis] = min(1.0, low), max(1.0, high), len(weighed), len(systems)
    return found


def report(rows: Sequence[Row]) -> None:
    """Mean, median, bias of in-sample and left-out predictions, and how many lie inside intervals of other systems, as a table."""
    inside = {id(one.row): one for one in answers(rows, calibration(rows))}
    outside = left_out(rows)
    apart = [*outside, *versions_left_out(rows)]
    bars = {system: intervals(one for one in apart if one.row.system != system) for system in {row.system for row in rows}}
    groups: dict[tuple[str, ...], list[Answer]] = defaultdict(list)
    for one in outside:
        groups[one.row.operation, one.implementation, one.row.system, one.basis].append(one)
        groups[one.row.operation, one.implementation].append(one)
    title = (
        "operation",
        "implementation",
        "system",
        "basis",
        "rows",
        "in sample: mean",
        "median",
        "left out: mean",
        "median",
        "bias",
        "inside",
    )
    print(" | ".join(title))
    for key, several in sorted(groups.items()):
        known = accuracy((inside[id(one.row)].predicted, one.row.time) for one in several)
        other = accuracy((one.predicted, one.row.time) for one in several)
        numbers = (known.mape, known.median_ape, other.mape, other.median_ape, other.bias, covered(several, bars))
        shown = (*key, "all", "all")[:4]
        print(" | ".join([*shown, str(len(several)), *(f"{number:.3f}" for number in numbers)]))


def covered(several: Sequence[Answer], bars: Mapping[str, Mapping[str, tuple[float, float, int, int]]]) -> float:
    """The share of rows inside the intervals of their basis, made without their system; without any interval a row is outside."""
    held = 0
    for one in several:
        low, high, _, _ = bars[one.row.system].get(one.basis, (1.0, 1.0, 0, 0))
        held += low * one.predicted <= one.row.time <= high * one.predicted
    return held / len(several)


def write(rows: Sequence[Row], date: str) -> None:
    measured = reductions(rows)
    out = sys.stdout.write
    out("# Written by scripts/fit_collectives.py; do not edit.\n")
    out("schema_version: 1\n")
    out(f'fitted: "{date}"\n')
    out('source: "collective tables of NVIDIA\'s aiconfigurator 0.12, unflagged rows, CUDA-graph launch"\n')
    out("# measured over modelled time of NCCL's own model: up to 256 KiB, 512 KiB to 32 MiB, 64 MiB and more\n")
    out("nccl_factors:\n")
    for generation, (means, count, left) in sorted(factors(rows).items()):
        numbers = ", ".join(f"{mean:.3f}" for mean in means)
        out(f"  {generation}: {{factors: [{numbers}], rows: {count}, error: {left:.3f}}}\n")
    outside = left_out(rows)
    write_operations(operation_fits(rows), outside, rows)
    out("# what an operation takes at least where it is launched without CUDA graphs\n")
    out("eager_floors:\n")
    for who, floors in (
        ("kernel", KERNEL_FLOORS),
        ("nccl", launch_floors(rows, "all_reduce")),
        ("send", launch_floors(rows, "send_recv")),
    ):
        out(f"  {who}: {{{', '.join(f'{name}: {floor:.3g} us' for name, floor in sorted(floors.items()))}}}\n")
    out(
        'eager_source: "kernel: floors of eager all-reduces of engines on A100, H100 and B200 machines, PCIe machines 20 to 70 us and'
        ' the middle of that; nccl, send: median of small all-reduces and sends by torch.distributed"\n'
    )
    out("# an engine's own kernel on NVLinks where nothing was measured; latencies grow by NCCL's factor of small messages\n")
    out("kernels:\n")
    for stack, (fit, count, left) in kernel_fits(measured, all_factors(rows)).items():
        floor, barrier = fit.floor * 1e6, fit.second_barrier * 1e6
        out(f"  {stack}: {{floor: {floor:.2f} us, second_barrier: {barrier:.2f} us, efficiency: {fit.efficiency:.2f}, ")
        out(f"rows: {count}, error: {left:.3f}}}\n")
    out(
        "# measured over predicted: where nine of ten rows lie, every machine counted alike and left out of what it is predicted with\n"
    )
    out("intervals:\n")
    for basis, (low, high, count, systems) in sorted(
        intervals([*outside, *versions_left_out(rows), *halves_left_out(rows)]).items()
    ):
        out(f"  {basis}: {{low: {low:.3f}, high: {high:.3f}, rows: {count}, systems: {systems}}}\n")
    out(
        'intervals_source: "leaving out the machine; same: leaving out the version; here: leaving out every other message size"\n'
    )
    out("all_reduce_anchors:\n")
    for (system, gpu, stack, ranks), versions in sorted(measured.items()):
        for names, points in version_groups(versions):
            sizes = ", ".join(str(size) for size, _ in points)
            times = ", ".join(f"{time:.2f}" for _, time in points)
            quoted = ", ".join(f'"{name}"' for name in names)
            out(f"- {{system: {system}, gpu: {gpu}, stack: {stack}, versions: [{quoted}], ranks: {ranks},\n")
            out(f"   bytes: [{sizes}],\n   microseconds: [{times}]}}\n")


def write_operations(fits: Fits, outside: Sequence[Answer], rows: Sequence[Row]) -> None:
    out = sys.stdout.write
    out("# measured over modelled time by number of ranks, at these sizes\n")
    out(f"operation_sizes: [{', '.join(f'{size:.0f}' for size in KNOTS)}]\n")
    out("operations:\n")
    for operation, by_generation in sorted(fits.items()):
        out(f"  {operation}:\n")
        for generation, (fit, count) in sorted(by_generation.items()):
            systems = {row.system for row in rows if fitted_key(row) == generation}
            alone = len(systems) < 2  # then nothing of the generation was left to fit on
            of_it = [one for one in outside if one.row.operation == operation and one.row.system in systems]
            pairs = [(one.predicted, one.row.time) for one in of_it if fitted_key(one.row) == generation]
            left = "null" if alone or not pairs else f"{accuracy(pairs).mape:.3f}"
            out(
                f"    {generation}:\n      rows: {count}\n      error: {fit.error:.3f}\n      left_out_error: {left}\n      factors:\n"
            )
            for ranks, row in fit.factors.items():
                out(f"        {ranks}: [{', '.join(f'{factor:.3f}' for factor in row)}]\n")


if __name__ == "__main__":
    grade_or_write(__doc__, read, report, write)
