"""Fit the kernel constants of planner/data/calibration/kernels.yaml from measured tables.

    python scripts/fit_kernels.py DATA_FOLDER --date YYYY-MM-DD > planner/data/calibration/kernels.yaml

DATA_FOLDER holds gemm.csv, attention.csv and moe.csv. Rows with a flag are left out. The fit is deterministic: a
coordinate search that minimises the mean absolute logarithm of predicted over measured. The residual printed beside
each constant is leave-one-system-out: fitted on all other machines, graded on the one left out, averaged over machines.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from planner.core.hardware import GpuSpec
from planner.core.quantization import FORMATS
from planner.documents.hardware import load_gpu

Row = tuple[str, float, tuple[float, ...]]
"""System, measured seconds, features."""

GEMM = {
    "bfloat16": ("bf16", 2.0),
    "fp8": ("fp8", FORMATS["fp8"].bytes_per_weight),
    "fp8_block": ("fp8-block", FORMATS["fp8-block"].bytes_per_weight),
    "sq": ("int8", FORMATS["int8"].bytes_per_weight),
    "nvfp4": ("nvfp4", FORMATS["nvfp4"].bytes_per_weight),
    "int4_wo": ("awq", FORMATS["awq"].bytes_per_weight),
}
MOE = {
    "bfloat16": ("bf16", 2.0),
    "fp8": ("fp8", 1.0),
    "fp8_block": ("fp8-block", FORMATS["fp8-block"].bytes_per_weight),
    "nvfp4": ("nvfp4", FORMATS["nvfp4"].bytes_per_weight),
    "int4_wo": ("awq", FORMATS["awq"].bytes_per_weight),
    "w4a16_mxfp4": ("mxfp4", FORMATS["mxfp4"].bytes_per_weight),
}


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
            features = moved / gpu.memory_bandwidth, 2 * m * n * k / gpu.rate(math_dtype)
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
            feature = 2 * batch * kv_heads * size * seq * element / gpu.memory_bandwidth
        else:
            feature = 2 * batch * heads * size * seq * seq / gpu.half_precision
        rows.append((row["system"], float(row["time_us"]) * 1e-6, (feature,)))
    return rows


def moe_rows(folder: Path, quant: str, math_dtype: str, weight_bytes: float) -> list[Row]:
    rows: list[Row] = []
    for row in read(folder / "moe.csv"):
        if row["quant"] != quant or row["distribution"] != "balanced":
            continue
        gpu: GpuSpec = load_gpu(row["gpu"])
        tokens, hidden, inter, top_k, experts, tp, ep = (
            int(float(row[name])) for name in ("tokens", "hidden", "inter", "topk", "experts", "moe_tp", "moe_ep")
        )
        distinct = experts * (1 - (1 - top_k / experts) ** tokens) / ep
        weights = 3 * hidden * inter / tp
        flop = 2 * tokens * top_k / ep * weights
        features = distinct * weights * weight_bytes / gpu.memory_bandwidth, flop / gpu.rate(math_dtype)
        rows.append((row["system"], float(row["time_us"]) * 1e-6, features))
    return rows


def roofline(parameters: Sequence[float], features: Sequence[float]) -> float:
    """max(memory / e_m, arithmetic / e_c) + l0."""
    return max(features[0] / parameters[1], features[1] / parameters[2]) + parameters[0]


def line(parameters: Sequence[float], features: Sequence[float]) -> float:
    """a0 + work / e."""
    return parameters[0] + features[0] / parameters[1]


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
                got = error(model, trial, rows)
                if got < best - 1e-9:
                    parameters, best, moved = trial, got, True
        if not moved:
            step = math.sqrt(step)
    return parameters


def left_out(model: Callable[..., float], start: list[float], ceilings: list[float], rows: list[Row]) -> float | None:
    systems = sorted({system for system, _, _ in rows})
    if len(systems) < 2:
        return None
    errors = []
    for system in systems:
        parameters = fit(model, start, ceilings, [row for row in rows if row[0] != system])
        errors.append(error(model, parameters, [row for row in rows if row[0] == system]))
    return sum(errors) / len(errors)


def entry(parameters: Sequence[float], names: Sequence[str], rows: list[Row], held: float | None) -> str:
    fields = [f"{names[0]}: {parameters[0] * 1e6:.2f} us"]
    fields += [f"{name}: {value:.3f}" for name, value in zip(names[1:], parameters[1:], strict=True)]
    fields += [f"rows: {len(rows)}", f"systems: {len({row[0] for row in rows})}"]
    fields += [f"left_out_error: {math.exp(held) - 1:.3f}" if held is not None else "left_out_error: null"]
    return "{" + ", ".join(fields) + "}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--date", required=True)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    out = sys.stdout.write
    out("# Written by scripts/fit_kernels.py; do not edit. Times of one kernel; efficiencies are shares of the data sheet.\n")
    out("# left_out_error: mean relative error on a machine that was not in the fit.\n")
    out("schema_version: 1\n")
    out(f'fitted: "{arguments.date}"\n')
    out('source: "kernel tables of NVIDIA\'s aiconfigurator 0.12 (A100, H100, B200, GB200, L40S), unflagged rows"\n')
    roof = ([4e-6, 0.8, 0.6], [1e-3, 0.97, 0.97])
    for title, reader, table in (("gemm", gemm_rows, GEMM), ("moe", moe_rows, MOE)):
        out(f"{title}:\n")
        for quant, (name, weight_bytes) in table.items():
            rows = reader(folder, quant, FORMATS[name].math, weight_bytes)
            parameters = fit(roofline, *roof, rows)
            held = left_out(roofline, *roof, rows)
            out(f"  {name}: {entry(parameters, ('launch', 'memory', 'compute'), rows, held)}\n")
    out("attention:\n")
    straight = ([8e-6, 0.8], [1e-3, 0.97])
    for phase in ("decode", "prefill"):
        rows = attention_rows(folder, phase)
        out(f"  {phase}: {entry(fit(line, *straight, rows), ('launch', 'efficiency'), rows, left_out(line, *straight, rows))}\n")


if __name__ == "__main__":
    main()
