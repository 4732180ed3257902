"""Gather planner/data/calibration/collectives.yaml from measured collectives.

    python scripts/fit_collectives.py DATA_FOLDER --date YYYY-MM-DD > planner/data/calibration/collectives.yaml
    python scripts/fit_collectives.py DATA_FOLDER --leave-one-out

DATA_FOLDER holds collectives.csv. Three things come out, rows with a flag left out:
anchors     measured all-reduces of an engine's stack on machines whose GPUs are all joined by NVLink: per machine, stack
            and number of GPUs, the newest version, CUDA-graph launch (for NCCL: the newest version), made to rise with
            size where noise or a kernel switch makes a larger message faster than a smaller one;
factors     measured over modelled time of NCCL's own model of an all-reduce, by generation (and of PCIe machines) and
            message size (geometric mean), with the error that is left when a machine of the generation is predicted with the factors;
operations  the same for all-gather, reduce-scatter and all-to-all by number of ranks, at every second power of two, with the
            error left, and the error on machines that were left out of the fit.
With --leave-one-out it says instead how far off predictions are, in sample and fitted on all systems but the graded one.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from planner import api
from planner.core.operation import OPERATIONS, Operation
from planner.cost.accuracy import accuracy
from planner.cost.calibration import Anchor, Calibration, NcclFactors, OperationFit
from planner.cost.collectives import fabric_of
from planner.cost.interconnect import Interconnect
from planner.cost.nccl import Fabric, all_reduce, channels, nvls_head
from planner.cost.operations import Operations, operation_factor
from planner.documents.calibration import load_calibration
from planner.documents.hardware import load_gpu, load_link_rates
from planner.engines.implementations import implementations, written_implementation
from planner.errors import BadInput
from planner.graph.equip import equip
from planner.units import Bytes, BytesPerSecond, Seconds

STACKS = {"vllm-custom-graph": "vllm", "trtllm-custom-graph": "tensorrt-llm", "sglang-custom-graph": "sglang", "nccl": "nccl"}
SYSTEMS = ("a100_sxm", "b200_sxm", "gb200", "h100_sxm")
PCIE_SYSTEMS = ("l40s_a", "l40s_b")
FITTED: tuple[Operation, ...] = ("all_gather", "reduce_scatter", "all_to_all")
SIZES = ((0, 2**18), (2**19, 2**25), (2**26, 2**63))
KNOTS = tuple(Bytes(2.0**power) for power in range(9, 31, 2))
GENERATIONS = {(8, 0): "ampere", (9, 0): "hopper", (10, 0): "blackwell"}
PCIE = "pcie"
EAGER = {"ampere": 44, "blackwell": 20, "hopper": 20, PCIE: 45}
MEASURED_ERROR = 0.14


@dataclass(frozen=True)
class Row:
    """One unflagged measurement, time in µs."""

    system: str
    topology: str
    written: str
    operation: Operation
    ranks: int
    size: int
    time: float


Measured = dict[tuple[str, str, str, int], dict[str, list[tuple[int, float]]]]


def version_key(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def read(folder: Path) -> list[Row]:
    rows = []
    with (folder / "collectives.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            operation = next((one for one in OPERATIONS if one == row["op"]), None)
            if not row["flag"] and operation is not None:
                size, ranks = int(row["message_bytes"]), int(float(row["n_gpus"]))
                rows.append(Row(row["system"], row["topology"], row["impl"], operation, ranks, size, float(row["time_us"])))
    return rows


def reductions(rows: Iterable[Row]) -> Measured:
    """All-reduces on NVLink machines: (system, GPU, stack, ranks) → version → [(bytes, µs)]."""
    measured: Measured = defaultdict(lambda: defaultdict(list))
    for row in rows:
        stack, _, version = row.written.rpartition("-")
        if row.operation == "all_reduce" and row.system in SYSTEMS and stack in STACKS:
            key = row.system, row.topology.split("x", 1)[1], STACKS[stack], row.ranks
            measured[key][version].append((row.size, row.time))
    return measured


def fabric(gpu_name: str, ranks: int) -> Fabric:
    """What NCCL makes of ``ranks`` of these GPUs behind an NVSwitch."""
    gpu = load_gpu(gpu_name)
    assert gpu.peer_links is not None
    assert gpu.compute_capability is not None
    reach = BytesPerSecond(gpu.peer_links.links * load_link_rates().nvlink_link(gpu.compute_capability))
    count, speed = channels(reach, reach, gpu.compute_capability)
    head = nvls_head(reach, ranks, gpu.compute_capability)
    return Fabric(ranks, 1, count, speed, gpu.compute_capability, "nvlink", ranks if ranks > 2 else 0, head)


def newest(versions: dict[str, list[tuple[int, float]]]) -> tuple[str, list[tuple[int, float]]]:
    version = max(versions, key=version_key)
    return version, isotonic(sorted(versions[version]))


def isotonic(rows: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The nearest times (in the logarithm) that never fall with size: neighbours out of order are pooled."""
    pools: list[tuple[float, int]] = []
    for _, time in rows:
        pools.append((math.log(time), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (left, weight), (right, other) = pools[-2:]
            pools[-2:] = [((left * weight + right * other) / (weight + other), weight + other)]
    smooth = [math.exp(value) for value, weight in pools for _ in range(weight)]
    return [(size, time) for (size, _), time in zip(rows, smooth, strict=True)]


def factors(rows: Sequence[Row]) -> dict[str, tuple[list[float], int, float]]:
    """By generation, and of PCIe machines: the three factors, how many rows, and the mean error left."""
    measured = reductions(rows)
    ratios: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        if row.system in PCIE_SYSTEMS and row.operation == "all_reduce" and row.written.startswith("nccl-"):
            group = wires(row.topology).group(range(row.ranks))
            model, _ = all_reduce(Bytes(row.size), fabric_of(group))
            ratios[PCIE].append((row.size, row.time * 1e-6 / model))
    for (_, gpu, stack, ranks), versions in measured.items():
        if stack == "nccl":
            generation = GENERATIONS[load_gpu(gpu).compute_capability or (0, 0)]
            for points in versions.values():
                for size, time in points:
                    model, _ = all_reduce(Bytes(size), fabric(gpu, ranks))
                    ratios[generation].append((size, time * 1e-6 / model))
    result = {}
    for generation, pairs in ratios.items():
        means = []
        for low, high in SIZES:
            logs = [math.log(ratio) for size, ratio in pairs if low <= size <= high]
            means.append(max(1.0, math.exp(sum(logs) / len(logs))))
        left = [abs(means[sum(size > high for _, high in SIZES[:2])] / ratio - 1) for size, ratio in pairs]
        result[generation] = means, len(pairs), sum(left) / len(left)
    return result


@cache
def wires(topology: str) -> Interconnect:
    """The machine of a row, by its graph alone."""
    built = api.load_topology(topology)
    specs = {name: api.load_gpu(name) for name in built.hardware}
    return Interconnect(equip(built, specs, load_link_rates()), specs)


@cache
def modelled(topology: str, operation: Operation, ranks: int, size: int) -> float:
    """Seconds by the model alone; it leans on no constant of the file that is written here."""
    ask = Operations(wires(topology), load_calibration(), implementations()["nccl"])
    return ask.model(operation, tuple(range(ranks)), Bytes(size))[0]


def generation_of_row(row: Row) -> str | None:
    if row.operation not in FITTED or not row.written.startswith("nccl-"):
        return None
    if row.system in PCIE_SYSTEMS:
        return PCIE
    gpu = load_gpu(row.topology.split("x", 1)[1]) if row.system in SYSTEMS else None
    return GENERATIONS[gpu.compute_capability or (0, 0)] if gpu else None


Fits = dict[str, dict[str, tuple[OperationFit, int]]]


def operation_fits(rows: Iterable[Row]) -> Fits:
    """By operation and generation: the factors, and how many rows they come from."""
    ratios: dict[tuple[str, str], list[tuple[int, int, float]]] = defaultdict(list)
    for row in rows:
        if (generation := generation_of_row(row)) is not None:
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


def calibration(rows: Sequence[Row]) -> Calibration:
    """What the shipped constants would be, had only these rows been measured."""
    measured = reductions(rows)
    anchors = []
    for (_, name, stack, ranks), versions in sorted(measured.items()):
        version, points = newest(versions)
        gpu = load_gpu(name)
        assert gpu.peer_links is not None
        assert gpu.compute_capability is not None
        seconds = tuple((Bytes(size), Seconds(time * 1e-6)) for size, time in points)
        anchors.append(Anchor(name, gpu.compute_capability, gpu.peer_links.bandwidth, stack, version, ranks, seconds))
    found = {name: NcclFactors((a, b, c), error) for name, ((a, b, c), _, error) in factors(rows).items()}
    logs = [[math.log(one.factors[place]) for name, one in found.items() if name != PCIE] for place in range(3)]
    a, b, c = (math.exp(sum(column) / len(column)) for column in logs)
    for generation in GENERATIONS.values():  # a generation that nobody measured is as the others are in the mean
        found.setdefault(generation, NcclFactors((a, b, c), 0.0))
    found.setdefault(PCIE, NcclFactors((1.0, 1.0, 1.0), 0.0))  # and then the model is believed
    fits = {name: {key: fit for key, (fit, _) in by.items()} for name, by in operation_fits(rows).items()}
    return replace(load_calibration(), anchors=tuple(anchors), nccl=found, operations=fits)


Pairs = dict[tuple[str, str, str], list[tuple[float, float]]]


def graded(rows: Iterable[Row], constants: Calibration) -> Pairs:
    """(operation, implementation, system) → [(predicted, measured)]."""
    pairs: Pairs = defaultdict(list)
    asked: dict[tuple[str, str], Operations] = {}
    for row in rows:
        try:
            implementation, eager = written_implementation(row.written)
        except BadInput:
            continue
        key = row.topology, implementation.name
        if key not in asked:
            asked[key] = Operations(wires(row.topology), constants, implementation)
        predicted = asked[key].predict(row.operation, range(row.ranks), Bytes(row.size), eager=eager)
        pairs[row.operation, implementation.name, row.system].append((predicted.taken.time * 1e6, row.time))
    return pairs


def left_out(rows: Sequence[Row]) -> Pairs:
    """The pairs of every system, fitted on all the others."""
    pairs: Pairs = {}
    for system in sorted({row.system for row in rows}):
        others = calibration([row for row in rows if row.system != system])
        pairs |= graded([row for row in rows if row.system == system], others)
    return pairs


def report(rows: Sequence[Row]) -> None:
    """Mean, median, bias of in-sample and left-out predictions, as a table."""
    inside, outside = graded(rows, calibration(rows)), left_out(rows)
    title = ("operation", "implementation", "system", "rows", "in sample: mean", "median", "left out: mean", "median", "bias")
    print(" | ".join(title))
    for key in sorted(outside):
        one, other = accuracy(inside[key]), accuracy(outside[key])
        numbers = (one.mape, one.median_ape, other.mape, other.median_ape, other.bias)
        print(" | ".join([*key, str(len(outside[key])), *(f"{number:.3f}" for number in numbers)]))


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
    write_operations(
        operation_fits(rows), left_out(rows), {row.system: generation_of_row(row) for row in rows if row.operation in FITTED}
    )
    out("# what an operation takes at least where kernels are launched one by one\n")
    out(f"eager_floors: {{{', '.join(f'{name}: {floor} us' for name, floor in sorted(EAGER.items()))}}}\n")
    out(
        'eager_source: "floors of eager all-reduces on A100, H100 and B200 machines; PCIe machines 20 to 70 us, the middle of that"\n'
    )
    out(f"measured_error: {MEASURED_ERROR}\n")
    out('measured_error_source: "nine of ten NCCL versions differ by less on one machine and size"\n')
    out("all_reduce_anchors:\n")
    for (system, gpu, stack, ranks), versions in sorted(measured.items()):
        version, points = newest(versions)
        sizes = ", ".join(str(size) for size, _ in points)
        times = ", ".join(f"{time:.2f}" for _, time in points)
        out(f'- {{system: {system}, gpu: {gpu}, stack: {stack}, version: "{version}", ranks: {ranks},\n')
        out(f"   bytes: [{sizes}],\n   microseconds: [{times}]}}\n")


def write_operations(fits: Fits, outside: Pairs, generations: Mapping[str, str | None]) -> None:
    out = sys.stdout.write
    out("# measured over modelled time by number of ranks, at these sizes\n")
    out(f"operation_sizes: [{', '.join(f'{size:.0f}' for size in KNOTS)}]\n")
    out("operations:\n")
    for operation, by_generation in sorted(fits.items()):
        out(f"  {operation}:\n")
        for generation, (fit, count) in sorted(by_generation.items()):
            systems = [system for system, key in generations.items() if key == generation]
            alone = len(systems) < 2  # then nothing of the generation was left to fit on
            pairs = [pair for system in systems for pair in outside.get((operation, "nccl", system), ())]
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
