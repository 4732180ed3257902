"""Constants of collectives from measured rows: anchors, factors of NCCL's model, engines' kernels, floors of eager launch.

``fit_collectives.py`` says what each is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from statistics import median

from collective_rows import Row, wires

from planner.core.operation import Operation
from planner.cost.anchors import version_key
from planner.cost.calibration import Anchor, Calibration, CustomAllReduceFit, NcclFactors, OperationFit, generation_of
from planner.cost.collectives import custom_all_reduce, fabric_of, factor_key, nccl_factor
from planner.cost.isotonic import isotonic
from planner.cost.nccl import all_reduce
from planner.cost.operations import Operations, operation_factor
from planner.documents.calibration import load_calibration
from planner.documents.hardware import load_gpu, load_link_rates
from planner.engines.implementations import TORCH, implementations
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
