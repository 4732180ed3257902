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

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median

from collective_rows import Row, read, wires
from residuals import quantile

from planner.core.estimate import Basis
from planner.core.operation import Operation
from planner.cost.accuracy import accuracy
from planner.cost.anchors import interpolate, version_key
from planner.cost.calibration import Anchor, Calibration, CustomAllReduceFit, NcclFactors, OperationFit, generation_of
from planner.cost.collectives import custom_all_reduce, fabric_of, factor_key, nccl_factor
from planner.cost.isotonic import isotonic
from planner.cost.nccl import all_reduce
from planner.cost.operations import Operations, operation_factor
from planner.documents.calibration import load_calibration
from planner.documents.hardware import load_gpu, load_link_rates
from planner.engines.implementations import TORCH, implementations, written_implementation
from planner.errors import BadInput
from planner.units import Bytes, BytesPerSecond, Seconds

STACKS = {"vllm-custom-graph": "vllm", "trtllm-custom-graph": "tensorrt-llm", "sglang-custom-graph": "sglang", "nccl": "nccl"}
FITTED: tuple[Operation, ...] = ("all_gather", "reduce_scatter", "all_to_all")
SIZES = ((0, 2**18), (2**19, 2**25), (2**26, 2**63))
KNOTS = tuple(Bytes(2.0**power) for power in range(9, 31, 2))
GENERATIONS = ("ampere", "blackwell", "hopper")
PCIE = "pcie"
KERNEL_FLOORS = {"ampere": 44, "blackwell": 20, "hopper": 20, PCIE: 45}
LAUNCH_BOUND = 2**19
"""Messages up to which torch.distributed waits for the launch alone."""
WIRE_BOUND = 2**22
"""Messages from which its launch no longer shows."""
SAME = 0.05
KERNELS = {one.stack: one for one in implementations().values()}
LARGE = 2**26
BROKEN = 1.5
LOW, HIGH = 0.05, 0.95
STUDENT = {1: 3.84, 2: 3.84, 3: 1.78, 4: 1.43, 5: 1.30, 6: 1.22, 7: 1.18, 8: 1.15}
"""By number of systems: the 95 % quantile of Student's t with one degree of freedom less, over the normal one (1.645)."""


Measured = dict[tuple[str, str, str, int], dict[str, list[tuple[int, float]]]]


def reductions(rows: Iterable[Row]) -> Measured:
    """All-reduces on machines with an NVSwitch: (system, GPU, stack, ranks) → version → [(bytes, µs)]."""
    measured: Measured = defaultdict(lambda: defaultdict(list))
    for row in rows:
        stack, _, version = row.written.rpartition("-")
        if (
            row.operation == "all_reduce"
            and stack in STACKS
            and version[:1].isdigit()
            and TORCH not in version
            and row.nodes == 1
        ):
            group = wires(row.topology).group(range(row.ranks))
            if group.switched:
                key = row.system, row.topology.split("x", 1)[1], STACKS[stack], row.ranks
                measured[key][version].append((row.size, row.time))
    for (system, gpu, stack, ranks), versions in measured.items():
        plain = mean_points([dict(points) for points in measured.get((system, gpu, "nccl", ranks), {}).values()])
        if stack != "nccl":
            for version in [one for one, points in versions.items() if broken(points, plain)]:
                del versions[version]
    return {key: versions for key, versions in measured.items() if versions}


def broken(points: Iterable[tuple[int, float]], plain: Mapping[int, float]) -> bool:
    """Whether large messages, which an engine leaves to NCCL, took far longer than NCCL's own on the same machine."""
    ratios = [time / plain[size] for size, time in points if size >= LARGE and size in plain]
    return bool(ratios) and median(ratios) > BROKEN


def version_groups(versions: Mapping[str, list[tuple[int, float]]]) -> list[tuple[list[str], list[tuple[int, float]]]]:
    """Versions, oldest first, joined where one is within SAME of the mean of those before it; their mean, made to rise."""
    groups: list[tuple[list[str], list[dict[int, float]]]] = []
    for version in sorted(versions, key=version_key):
        points = dict(versions[version])
        if groups:
            known = mean_points(groups[-1][1])
            apart = [abs(math.log(points[size] / known[size])) for size in points if size in known]
            if apart and sum(apart) / len(apart) <= SAME:
                groups[-1][0].append(version)
                groups[-1][1].append(points)
                continue
        groups.append(([version], [points]))
    return [(names, isotonic(sorted(mean_points(several).items()))) for names, several in groups]


def mean_points(several: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The geometric mean time at every size that any of them has."""
    logs: dict[int, list[float]] = defaultdict(list)
    for points in several:
        for size, time in points.items():
            logs[size].append(math.log(time))
    return {size: math.exp(sum(values) / len(values)) for size, values in logs.items()}


def factors(rows: Sequence[Row]) -> dict[str, tuple[list[float], int, float]]:
    """By generation, and of PCIe machines: the three factors, how many rows, and the mean error left."""
    ratios: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        plain = row.operation == "all_reduce" and row.written.startswith("nccl") and row.nodes == 1
        if not plain or (TORCH in row.written and row.size < WIRE_BOUND):
            continue
        group = wires(row.topology).group(range(row.ranks))
        key = factor_key(group)
        if key == PCIE or group.nvlink_everywhere:
            model, _ = all_reduce(Bytes(row.size), fabric_of(group))
            ratios[key].append((row.size, row.time * 1e-6 / model))
    result = {}
    for generation, pairs in ratios.items():
        found = {}
        for place, (low, high) in enumerate(SIZES):
            logs = [math.log(ratio) for size, ratio in pairs if low <= size <= high]
            if logs:
                found[place] = max(1.0, math.exp(sum(logs) / len(logs)))
        means = [found[min(found, key=lambda one: abs(one - place))] for place in range(len(SIZES))]
        left = [abs(means[sum(size > high for _, high in SIZES[:2])] / ratio - 1) for size, ratio in pairs]
        result[generation] = means, len(pairs), sum(left) / len(left)
    return result


def launch_floors(rows: Iterable[Row], operation: Operation) -> dict[str, float]:
    """By generation, and of PCIe machines: the median time in µs of small messages by torch.distributed."""
    times: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if TORCH in row.written and row.operation == operation and row.nodes == 1 and row.size <= LAUNCH_BOUND:
            group = wires(row.topology).group(range(row.ranks))
            times[generation_of(group.compute_capability) if group.nvlink_everywhere else PCIE].append(row.time)
    found = {key: median(values) for key, values in times.items()}
    rest = math.exp(sum(map(math.log, found.values())) / len(found)) if found else 45.0
    return {key: found.get(key, rest) for key in (*GENERATIONS, PCIE)}


@cache
def modelled(topology: str, operation: Operation, ranks: int, size: int) -> float:
    """Seconds by the model alone; it leans on no constant of the file that is written here."""
    ask = Operations(wires(topology), load_calibration(), implementations()["nccl"])
    return ask.model(operation, tuple(range(ranks)), Bytes(size))[0]


def fitted_key(row: Row) -> str | None:
    """Whose factor of an operation a row of NCCL's goes into."""
    if row.operation not in FITTED or row.nodes > 1 or not row.written.startswith("nccl-") or row.written == "nccl-tests":
        return None
    group = wires(row.topology).group(range(row.ranks))
    key = factor_key(group)
    return key if key == PCIE or group.nvlink_everywhere else None


Fits = dict[str, dict[str, tuple[OperationFit, int]]]


def operation_fits(rows: Iterable[Row]) -> Fits:
    """By operation and generation: the factors, and how many rows they come from."""
    ratios: dict[tuple[str, str], list[tuple[int, int, float]]] = defaultdict(list)
    for row in rows:
        if (generation := fitted_key(row)) is not None:
            ratio = row.time * 1e-6 / modelled(row.topology, row.operation, row.ranks, row.size)
            ratios[row.operation, generation].append((row.ranks, row.size, ratio))
    fits: Fits = defaultdict(dict)
    for (operation, generation), triples in sorted(ratios.items()):
        table = {ranks: smooth([(s, r) for n, s, r in triples if n == ranks]) for ranks in sorted({n for n, _, _ in triples})}
        fit = OperationFit(KNOTS, table, 0.0)
        left = [abs(operation_factor(fit, Bytes(size), ranks) / ratio - 1) for ranks, size, ratio in triples]
        fits[operation][generation] = replace(fit, error=sum(left) / len(left)), len(triples)
    return fits


def smooth(pairs: Sequence[tuple[int, float]]) -> tuple[float, ...]:
    """The factor at every knot: the mean of the logarithms around it, by hats that overlap; the nearest where none is."""
    values: dict[Bytes, float] = {}
    for knot in KNOTS:
        weights = [(max(0.0, 1 - abs(math.log(size / knot, 4))), math.log(ratio)) for size, ratio in pairs]
        total = sum(weight for weight, _ in weights)
        if total > 0:
            values[knot] = math.exp(sum(weight * log for weight, log in weights) / total)
    return tuple(values[min(values, key=lambda one: abs(math.log(one / knot)))] for knot in KNOTS)


def all_factors(rows: Sequence[Row]) -> dict[str, NcclFactors]:
    """The factors of every generation; one that nobody measured is as the others are in the mean, and on PCIe NCCL is believed."""
    found = {name: NcclFactors((a, b, c), error) for name, ((a, b, c), _, error) in factors(rows).items()}
    known = [one.factors for name, one in found.items() if name != PCIE] or [(1.0, 1.0, 1.0)]
    a, b, c = (geometric_mean([one[place] for one in known]) for place in range(3))
    for generation in GENERATIONS:
        found.setdefault(generation, NcclFactors((a, b, c), 0.0))
    found.setdefault(PCIE, NcclFactors((1.0, 1.0, 1.0), 0.0))
    return found


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def as_others(generation: str, others: Mapping[str, OperationFit], reduce: Mapping[str, NcclFactors]) -> OperationFit:
    """An operation on a generation where it was not measured: off as on the others, more or less as the all-reduce is."""

    def factor(ranks: int, place: int) -> float:
        size = KNOTS[place]
        here = nccl_factor(size, reduce[generation].factors)
        return geometric_mean(
            fit.factors[ranks][place] * here / nccl_factor(size, reduce[key].factors) for key, fit in others.items()
        )

    ranks = set.intersection(*(set(fit.factors) for fit in others.values()))
    return OperationFit(KNOTS, {one: tuple(factor(one, place) for place in range(len(KNOTS))) for one in sorted(ranks)}, 0.0)


def kernel_fits(measured: Measured, reduce: Mapping[str, NcclFactors]) -> dict[str, tuple[CustomAllReduceFit, int, float]]:
    """Every engine's own kernel inside its gates: floor, second barrier, efficiency; rows; and the mean error left."""
    found = {}
    for stack in sorted({stack for _, _, stack, _ in measured} - {"nccl"}):
        points = []
        for (_, name, of, ranks), versions in measured.items():
            gpu = load_gpu(name)
            assert gpu.peer_links is not None
            assert gpu.compute_capability is not None
            limit = KERNELS[stack].custom_all_reduce.limit(gpu.compute_capability, ranks)
            rate = gpu.peer_links.links * load_link_rates().nvlink_link(gpu.compute_capability)
            slow = reduce[generation_of(gpu.compute_capability)].factors[0]
            if of == stack:
                inside = [pair for several in versions.values() for pair in several if pair[0] < limit]
                points += [(size, ranks, rate, slow, time * 1e-6) for size, time in inside]
        if points:
            found[stack] = best_kernel(points)
    return found


def best_kernel(points: Sequence[tuple[int, int, float, float, float]]) -> tuple[CustomAllReduceFit, int, float]:
    """One constant after the other moved to where the mean logarithm of predicted over measured is least, until nothing moves.

    ``points`` are (bytes, ranks, link rate in B/s, latency factor, s).
    """

    def error(values: Sequence[float]) -> float:
        floor, barrier, efficiency = values
        logs = (
            math.log(
                custom_all_reduce(
                    Bytes(size),
                    ranks,
                    BytesPerSecond(rate),
                    True,
                    Seconds(floor * 1e-6 * slow),
                    Seconds(barrier * 1e-6 * slow),
                    efficiency,
                )
                / time
            )
            for size, ranks, rate, slow, time in points
        )
        return sum(map(abs, logs)) / len(points)

    steps = (
        [0.5 * 1.05**step for step in range(60)],
        [0.25 * step for step in range(25)],
        [0.05 * step for step in range(6, 21)],
    )
    now = [3.0, 1.5, 0.7]
    least = error(now)
    moved = True
    while moved:
        moved = False
        for place, choices in enumerate(steps):
            for choice in choices:
                tried = [*now[:place], choice, *now[place + 1 :]]
                if (left := error(tried)) < least - 1e-9:
                    now, least, moved = tried, left, True
    return CustomAllReduceFit(Seconds(now[0] * 1e-6), Seconds(now[1] * 1e-6), now[2]), len(points), least


def calibration(rows: Sequence[Row]) -> Calibration:
    """What the shipped constants would be, had only these rows been measured."""
    measured = reductions(rows)
    anchors = []
    for (system, name, stack, ranks), versions in sorted(measured.items()):
        gpu = load_gpu(name)
        assert gpu.peer_links is not None
        assert gpu.compute_capability is not None
        capability, bandwidth = gpu.compute_capability, gpu.peer_links.bandwidth
        for names, points in version_groups(versions):
            seconds = tuple((Bytes(size), Seconds(time * 1e-6)) for size, time in points)
            anchors.append(Anchor(system, name, capability, bandwidth, stack, tuple(names), ranks, seconds))
    found = all_factors(rows)
    fits = {name: {key: fit for key, (fit, _) in by.items()} for name, by in operation_fits(rows).items()}
    for by in fits.values():
        known = {key: fit for key, fit in by.items() if key != PCIE}
        for generation in GENERATIONS:
            if generation not in by and known:
                by[generation] = as_others(generation, known, found)
    floors = {
        "kernel": {name: Seconds(floor * 1e-6) for name, floor in KERNEL_FLOORS.items()},
        "nccl": {name: Seconds(floor * 1e-6) for name, floor in launch_floors(rows, "all_reduce").items()},
        "send": {name: Seconds(floor * 1e-6) for name, floor in launch_floors(rows, "send_recv").items()},
    }
    kernels = dict(load_calibration().custom_all_reduce) | {
        stack: fit for stack, (fit, _, _) in kernel_fits(measured, found).items()
    }
    return replace(
        load_calibration(), anchors=tuple(anchors), nccl=found, operations=fits, eager_floors=floors, custom_all_reduce=kernels
    )


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--date")
    parser.add_argument("--leave-one-out", action="store_true")
    arguments = parser.parse_args()
    rows = read(arguments.folder)
    if arguments.leave_one_out:
        report(rows)
    elif arguments.date is None:
        parser.error("say with --date when the measurements were fitted")
    else:
        write(rows, arguments.date)


if __name__ == "__main__":
    main()
