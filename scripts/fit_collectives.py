"""Gather planner/data/calibration/collectives.yaml from measured collectives.

    python scripts/fit_collectives.py DATA_FOLDER --date YYYY-MM-DD > planner/data/calibration/collectives.yaml

DATA_FOLDER holds collectives.csv. Two things come out, rows with a flag left out:
anchors   measured all-reduces of an engine's stack on machines whose GPUs are all joined by NVLink: per machine, stack
          and number of GPUs, the newest version, CUDA-graph launch (for NCCL: the newest version), made to rise with
          size where noise or a kernel switch makes a larger message faster than a smaller one;
factors   measured over modelled time of NCCL's own model, by generation and message size (geometric mean), with the
          error that is left when a machine of the generation is predicted with the factors.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
from collections import defaultdict
from pathlib import Path

from planner.cost.nccl import Fabric, all_reduce, channels, nvls_head
from planner.documents.hardware import load_gpu, load_link_rates
from planner.units import Bytes, BytesPerSecond

STACKS = {"vllm-custom-graph": "vllm", "trtllm-custom-graph": "tensorrt-llm", "nccl": "nccl"}
SYSTEMS = ("a100_sxm", "b200_sxm", "gb200", "h100_sxm")
SIZES = ((0, 2**18), (2**19, 2**25), (2**26, 2**63))
GENERATIONS = {(8, 0): "ampere", (9, 0): "hopper", (10, 0): "blackwell"}

Measured = dict[tuple[str, str, str, int], dict[str, list[tuple[int, float]]]]


def version_key(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def read(folder: Path) -> Measured:
    """(system, GPU, stack, ranks) → version → [(bytes, µs)]."""
    measured: Measured = defaultdict(lambda: defaultdict(list))
    with (folder / "collectives.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["flag"] or row["op"] != "all_reduce" or row["system"] not in SYSTEMS:
                continue
            stack, _, version = row["impl"].rpartition("-")
            if stack in STACKS:
                key = row["system"], row["topology"].split("x", 1)[1], STACKS[stack], int(float(row["n_gpus"]))
                measured[key][version].append((int(row["message_bytes"]), float(row["time_us"])))
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


def factors(measured: Measured) -> dict[str, tuple[list[float], int, float]]:
    """By generation: the three factors, how many rows, and the mean error left."""
    ratios: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for (_, gpu, stack, ranks), versions in measured.items():
        if stack == "nccl":
            generation = GENERATIONS[load_gpu(gpu).compute_capability or (0, 0)]
            for rows in versions.values():
                for size, time in rows:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--date", required=True)
    arguments = parser.parse_args()
    measured = read(arguments.folder)
    out = sys.stdout.write
    out("# Written by scripts/fit_collectives.py; do not edit.\n")
    out("schema_version: 1\n")
    out(f'fitted: "{arguments.date}"\n')
    out('source: "all-reduce tables of NVIDIA\'s aiconfigurator 0.12, unflagged rows, CUDA-graph launch"\n')
    out("# measured over modelled time of NCCL's own model: up to 256 KiB, 512 KiB to 32 MiB, 64 MiB and more\n")
    out("nccl_factors:\n")
    for generation, (means, count, left) in sorted(factors(measured).items()):
        numbers = ", ".join(f"{mean:.3f}" for mean in means)
        out(f"  {generation}: {{factors: [{numbers}], rows: {count}, error: {left:.3f}}}\n")
    out("all_reduce_anchors:\n")
    for (system, gpu, stack, ranks), versions in sorted(measured.items()):
        version, rows = newest(versions)
        sizes = ", ".join(str(size) for size, _ in rows)
        times = ", ".join(f"{time:.2f}" for _, time in rows)
        out(f'- {{system: {system}, gpu: {gpu}, stack: {stack}, version: "{version}", ranks: {ranks},\n')
        out(f"   bytes: [{sizes}],\n   microseconds: [{times}]}}\n")


if __name__ == "__main__":
    main()
