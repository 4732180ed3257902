"""Fit the kernel constants of planner/data/calibration/kernels.yaml from measured tables.

    python scripts/fit_kernels.py DATA_FOLDER --date YYYY-MM-DD > planner/data/calibration/kernels.yaml

DATA_FOLDER holds gemm.csv, attention.csv, moe.csv and moe_a2a.csv. Rows with a flag are left out. The fit is deterministic: a
coordinate search that minimises the mean absolute logarithm of predicted over measured. What is printed beside the constants is
leave-one-system-out: fitted on all other machines, graded on the one left out; ``left_out_error`` averages over machines,
``low`` and ``high`` are measured over predicted, where nine of ten rows lie with every machine counted alike.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from residuals import quantile

from planner.core.hardware import GpuSpec
from planner.core.quantization import FORMATS
from planner.cost.exchanges import exchange_name, exchanged_bytes
from planner.cost.gemm import smooth
from planner.cost.moe import distinct_experts, expert_imbalance, routed_bytes
from planner.documents.hardware import load_gpu

Row = tuple[str, float, tuple[float, ...]]
"""System, measured seconds, features."""

GEMM = {
    "bf16": (("bfloat16", "float16"), 2.0),
    "fp8": (("fp8",), FORMATS["fp8"].bytes_per_weight),
    "fp8-block": (("fp8_block",), FORMATS["fp8-block"].bytes_per_weight),
    "int8": (("sq",), FORMATS["int8"].bytes_per_weight),
    "nvfp4": (("nvfp4",), FORMATS["nvfp4"].bytes_per_weight),
    "awq": (("int4_wo",), FORMATS["awq"].bytes_per_weight),
}
MOE = {
    "bf16": (("bfloat16",), 2.0),
    "fp8": (("fp8",), 1.0),
    "fp8-block": (("fp8_block",), FORMATS["fp8-block"].bytes_per_weight),
    "nvfp4": (("nvfp4",), FORMATS["nvfp4"].bytes_per_weight),
    "awq": (("int4_wo",), FORMATS["awq"].bytes_per_weight),
    "mxfp4": (("w4a16_mxfp4", "w4a8_mxfp4_mxfp8"), FORMATS["mxfp4"].bytes_per_weight),
}
"""By weight format: what the tables call it, and bytes a weight."""
DEQUANTISING = {
    ("w4a16_mxfp4", "sglang_fused_moe_triton"),
    ("w4a16_mxfp4", "vllm_mxfp4_moe"),
    ("w4a16_mxfp4", "moe_torch_flow"),
}
"""Kernels that unpack weights first, two to ten times slower, where engines have had better ones since: left out."""
SKEW = 0.85
SHARPNESS, BLUNTEST = 3, 0.8
"""The place of the sharpness among the constants of experts, and the least it may be: below, times would more than add up."""
OUTPUTS = 4
"""Bytes in and out of attention for every element of the queries, 16 bit each way."""
UNITS = {"launch": (1e6, "us"), "loop": (1e9, "ns")}


OTHER_VENDORS = {"b60"}
"""Systems whose kernels are not CUDA's: left out."""


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if not row.get("flag") and row["system"] not in OTHER_VENDORS]


def gemm_rows(folder: Path, quant: str, math_dtype: str, weight_bytes: float) -> list[Row]:
    rows: list[Row] = []
    for row in read(folder / "gemm.csv"):
        if row["quant"] == quant:
            gpu = load_gpu(row["gpu"])
            m, n, k = (int(row[name]) for name in ("m", "n", "k"))
            moved = weight_bytes * n * k + 2 * m * (n + k)
            features = moved / gpu.memory_bandwidth, 2 * m * n * k / gpu.rate(math_dtype), k
            rows.append((row["system"], float(row["time_us"]) * 1e-6, features))
    return rows


def attention_rows(folder: Path, phase: str) -> list[Row]:
    rows: list[Row] = []
    for row in read(folder / "attention.csv"):
        if row["phase"] != phase or row["dtype"] != "bfloat16":
            continue
        gpu = load_gpu(row["gpu"])
        batch, seq, heads, kv_heads, size = (
            int(float(row[name])) for name in ("batch", "seq", "n_heads", "n_kv_heads", "head_dim")
        )
        if phase == "decode":
            element = 1 if row["kv_dtype"] == "fp8" else 2
            features: tuple[float, ...] = (2 * batch * kv_heads * size * seq * element / gpu.memory_bandwidth,)
        else:
            work = 2 * batch * heads * size * seq * seq / gpu.half_precision
            features = work, batch * seq * heads * size * OUTPUTS / gpu.memory_bandwidth
        rows.append((row["system"], float(row["time_us"]) * 1e-6, features))
    return rows


def moe_rows(folder: Path, quant: str, math_dtype: str, weight_bytes: float) -> list[Row]:
    rows: list[Row] = []
    for row in read(folder / "moe.csv"):
        if row["quant"] != quant or (quant, row["kernel"]) in DEQUANTISING:
            continue
        gpu: GpuSpec = load_gpu(row["gpu"])
        tokens, hidden, inter, top_k, experts, tp, ep = (
            int(float(row[name])) for name in ("tokens", "hidden", "inter", "topk", "experts", "moe_tp", "moe_ep")
        )
        skewed = row["distribution"] != "balanced"
        uneven = expert_imbalance(experts, top_k, tokens, ep)
        touched = distinct_experts(experts, top_k, tokens * (SKEW if skewed else 1.0)) / ep
        weights = 3 * hidden * inter / tp
        features = (
            min(experts / ep, touched * uneven) * weights * weight_bytes / gpu.memory_bandwidth,
            2 * tokens * top_k / ep * uneven * weights / gpu.rate(math_dtype),
            routed_bytes(tokens, top_k, ep, hidden) / gpu.memory_bandwidth,
        )
        rows.append((row["system"], float(row["time_us"]) * 1e-6, features))
    return rows


def exchange_rows(folder: Path) -> dict[str, list[Row]]:
    """Dispatches and combines by library, phase and dtype: the bytes that leave a rank over its NVLinks' line rate."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in read(folder / "moe_a2a.csv"):
        gpu = load_gpu(row["gpu"])
        if row["n_nodes"] != "1" or gpu.peer_links is None:
            continue
        size = exchanged_bytes(*(int(row[name]) for name in ("tokens_per_rank", "topk", "ep", "hidden")))
        name = exchange_name(row["impl"], row["phase"], row["dtype"])
        found[name].append((row["system"], float(row["time_us"]) * 1e-6, (size / gpu.peer_links.bandwidth,)))
    return found


def product(parameters: Sequence[float], features: Sequence[float]) -> float:
    """The smooth roofline of a matrix product: launch, memory, compute, sharpness, and what each input costs."""
    launch, memory, compute, sharpness, loop = parameters
    return launch + loop * features[2] + smooth(features[0] / memory, features[1] / compute, sharpness)


def grouped(parameters: Sequence[float], features: Sequence[float]) -> float:
    """The same of experts: beside it what routed tokens take to go in and out of memory."""
    launch, memory, compute, sharpness, traffic = parameters
    return launch + traffic * features[2] + smooth(features[0] / memory, features[1] / compute, sharpness)


def line(parameters: Sequence[float], features: Sequence[float]) -> float:
    """a0 + work / e."""
    return parameters[0] + features[0] / parameters[1]


def prompt(parameters: Sequence[float], features: Sequence[float]) -> float:
    """Launch and memory traffic against arithmetic, smoothly."""
    launch, efficiency, sharpness, traffic = parameters
    return smooth(launch + traffic * features[1], features[0] / efficiency, sharpness)


def error(model: Callable[..., float], parameters: Sequence[float], rows: list[Row]) -> float:
    return sum(abs(math.log(model(parameters, features) / time)) for _, time, features in rows) / len(rows)


def fit(model: Callable[..., float], start: list[float], ceilings: list[float], rows: list[Row]) -> list[float]:
    parameters, best, step = list(start), error(model, start, rows), 1.3
    while step > 1.004:
        moved = False
        for place in range(len(parameters)):
            for factor in (step, 1 / step):
                trial = list(parameters)
                trial[place] = min(trial[place] * factor, ceilings[place])
                if place == SHARPNESS and model is grouped:
                    trial[place] = max(trial[place], BLUNTEST)
                got = error(model, trial, rows)
                if got < best - 1e-9:
                    parameters, best, moved = trial, got, True
        if not moved:
            step = math.sqrt(step)
    return parameters


def ratios_left_out(
    model: Callable[..., float], start: list[float], ceilings: list[float], rows: list[Row]
) -> dict[str, list[float]]:
    """Measured over predicted by system, every system predicted with constants fitted on the others."""
    systems = sorted({system for system, _, _ in rows})
    found: dict[str, list[float]] = {}
    for system in systems if len(systems) > 1 else ():
        parameters = fit(model, start, ceilings, [row for row in rows if row[0] != system])
        found[system] = [time / model(parameters, features) for name, time, features in rows if name == system]
    return found


def entry(parameters: Sequence[float], names: Sequence[str], rows: list[Row], apart: Mapping[str, Sequence[float]]) -> str:
    fields = []
    for name, value in zip(names, parameters, strict=True):
        unit = UNITS.get(name)
        fields.append(f"{name}: {value * unit[0]:.3g} {unit[1]}" if unit else f"{name}: {value:.3f}")
    fields += [f"rows: {len(rows)}", f"systems: {len({row[0] for row in rows})}"]
    if apart:
        errors = [sum(abs(1 / ratio - 1) for ratio in ratios) / len(ratios) for ratios in apart.values()]
        weighed = sorted((ratio, 1 / len(ratios)) for ratios in apart.values() for ratio in ratios)
        low, high = quantile(weighed, 0.05), quantile(weighed, 0.95)
        fields += [f"left_out_error: {sum(errors) / len(errors):.3f}", f"low: {min(1, low):.3f}", f"high: {max(1, high):.3f}"]
    else:
        fields += ["left_out_error: null", "low: 0.5", "high: 2.0"]
    return "{" + ", ".join(fields) + "}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--date", required=True)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    out = sys.stdout.write
    out("# Written by scripts/fit_kernels.py; do not edit. Times of one kernel; efficiencies are shares of the data sheet.\n")
    out(
        "# left_out_error: mean relative error on a machine that was not in the fit; low, high: where nine of ten rows of it lay.\n"
    )
    out("schema_version: 1\n")
    out(f'fitted: "{arguments.date}"\n')
    out('source: "kernel tables of NVIDIA\'s aiconfigurator 0.12 and of Vidur (A100, H100, B200, GB200, L40S), unflagged rows"\n')
    out(
        f"# tokens whose choice of experts is as if independent, of those that the skewed routings of the tables send\nskew: {SKEW}\n"
    )
    products = (product, [4e-6, 0.8, 0.6, 2.5, 2e-10], [1e-3, 0.97, 0.97, 8.0, 1e-8])
    experts = (grouped, [2e-5, 0.8, 0.3, 1.5, 1.0], [1e-3, 0.97, 0.97, 8.0, 10.0])
    for title, reader, table, how, names in (
        ("gemm", gemm_rows, GEMM, products, ("launch", "memory", "compute", "sharpness", "loop")),
        ("moe", moe_rows, MOE, experts, ("launch", "memory", "compute", "sharpness", "traffic")),
    ):
        out(f"{title}:\n")
        for name, (quants, weight_bytes) in table.items():
            rows = [row for quant in quants for row in reader(folder, quant, FORMATS[name].math, weight_bytes)]
            out(f"  {name}: {entry(fit(*how, rows), names, rows, ratios_left_out(*how, rows))}\n")
    out("attention:\n")
    straight = (line, [8e-6, 0.8], [1e-3, 0.97])
    smoothly = (prompt, [1e-5, 0.6, 0.6, 0.5], [1e-3, 0.97, 4.0, 20.0])
    for phase, kind, called in (
        ("decode", straight, ("launch", "efficiency")),
        ("prefill", smoothly, ("launch", "efficiency", "sharpness", "traffic")),
    ):
        rows = attention_rows(folder, phase)
        out(f"  {phase}: {entry(fit(*kind, rows), called, rows, ratios_left_out(*kind, rows))}\n")
    out(
        "# dispatch and combine of experts on one node: launch, and the share of the NVLinks' line rate that 16-bit tokens reach\n"
    )
    out("exchanges:\n")
    sends = (line, [5e-5, 0.5], [1e-2, 20.0])
    for name, rows in sorted(exchange_rows(folder).items()):
        out(f"  {name}: {entry(fit(*sends, rows), ('launch', 'efficiency'), rows, ratios_left_out(*sends, rows))}\n")


if __name__ == "__main__":
    main()
