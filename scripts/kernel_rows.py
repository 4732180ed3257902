"""Rows of measured kernels as what their times depend on, for scripts/fit_kernels.py."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from planner.core.hardware import GpuSpec
from planner.core.quantization import FORMATS, W8A16, integers
from planner.cost.attention import causal_attention_work, kv_bytes_per_token, last_tile_work
from planner.cost.exchanges import exchange_name, exchange_rate, exchanged_bytes
from planner.cost.gemm import ACTIVATION_BYTES, gemm_bytes, gemm_work
from planner.cost.moe import distinct_experts, expert_imbalance, routed_bytes
from planner.documents.hardware import load_gpu


class Row(NamedTuple):
    """One measured kernel. ``entry`` says which constants it is predicted with: nothing, or ``@`` and what they are for."""

    system: str
    entry: str
    seconds: float
    features: tuple[float, ...]


GEMM = {
    "bf16": ("bfloat16", "float16"),
    "fp8": ("fp8",),
    "fp8-block": ("fp8_block",),
    "int8": ("sq",),
    "nvfp4": ("nvfp4",),
    "awq": ("int4_wo",),
    W8A16: ("int8_wo",),
}
MOE = {
    "bf16": ("bfloat16",),
    "fp8": ("fp8",),
    "fp8-block": ("fp8_block",),
    "nvfp4": ("nvfp4",),
    "awq": ("int4_wo",),
    "mxfp4": ("w4a16_mxfp4", "w4a8_mxfp4_mxfp8"),
    "mxfp4@blackwell": ("w4a16_mxfp4",),
    "mxfp4@blackwell@8-bit": ("w4a8_mxfp4_mxfp8",),
}
"""What the tables call weight formats; of some, kernels of a generation by what their inputs are rounded to."""
LEFT_OUT = {
    # launched by the host: 140 to 330 us at any size below 4096 tokens, as the flagged rows of the same kernel
    ("fp8_block", "vllm"),
    # weights are unpacked first, two to ten times slower, where engines have had better kernels since
    ("w4a16_mxfp4", "sglang_fused_moe_triton"),
    ("w4a16_mxfp4", "vllm_mxfp4_moe"),
    ("w4a16_mxfp4", "moe_torch_flow"),
    # four times as slow as the same machine's other kernels at every size: not tuned for the machine
    ("fp8", "vllm_modeloptfp8moe_flashinfer_cutlass_flashinferexperts"),
    ("int4_wo", "vllm_marlin_int4_moe"),
}
"""Kernels that no engine would use twice, by what the tables call their weights."""
OTHER_VENDORS = {"b60"}
"""Systems whose kernels are not CUDA's: left out."""
STACKS = {"trtllm": "tensorrt-llm", "sglang": "sglang", "vllm": "vllm"}
POPULARITY = 6.0
"""Variance of experts' loads, the mean being 1, under the power laws of the tables."""


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if not row.get("flag") and row["system"] not in OTHER_VENDORS]


def stack_of(row: dict[str, str]) -> str:
    return STACKS.get(row["engine"].split("-")[0], "")


def numbers(row: dict[str, str], *names: str) -> list[int]:
    return [int(float(row[name])) for name in names]


def gemm_rows(folder: Path, name: str, *, apart: bool = False) -> list[Row]:
    """Memory, arithmetic, inputs of one row, bytes of all inputs, rate, and whether in TensorRT-LLM if engines are told ``apart``;
    a clock cycle.
    """
    rows: list[Row] = []
    for row in read(folder / "gemm.csv"):
        stack = stack_of(row)
        if row["quant"] not in GEMM[name] or (row["quant"], stack) in LEFT_OUT:
            continue
        gpu, (m, n, k) = load_gpu(row["gpu"]), numbers(row, "m", "n", "k")
        weights = FORMATS.get(name) or integers(name, 8, None, zeros=False)
        memory, rate = gpu.memory_bandwidth, gpu.rate(weights.math)
        moved, work = gemm_bytes(m, n, k, weights.bytes_per_weight), gemm_work(m, n, k)
        own = apart and stack == "tensorrt-llm"
        features = moved / memory, work / rate, k, ACTIVATION_BYTES * m * k / memory, rate, float(own), gpu.cycle
        rows.append(Row(row["system"], f"@{stack}" if apart else "", float(row["time_us"]) * 1e-6, features))
    return rows


def family(gpu: GpuSpec) -> str:
    """The generation whose attention kernels are written for it."""
    return {9: "@hopper", 10: "@blackwell"}.get(gpu.compute_capability[0], "") if gpu.compute_capability else ""


def decode_rows(folder: Path) -> list[Row]:
    """Memory, context, and whether the cache is in 8 bits, and in SGLang; a clock cycle."""
    rows: list[Row] = []
    for row in attention_table(folder, "decode"):
        gpu, eight = load_gpu(row["gpu"]), row["kv_dtype"] == "fp8"
        batch, seq, kv_heads, size = numbers(row, "batch", "seq", "n_kv_heads", "head_dim")
        moved = batch * seq * kv_bytes_per_token(kv_heads, size, 1 if eight else 2)
        own = eight and stack_of(row) == "sglang"
        entry = family(gpu) if family(gpu) == "@blackwell" else ""
        entry += "@sglang@8-bit" if own else "@8-bit" if eight else ""
        features = moved / gpu.memory_bandwidth, seq, float(eight), float(own), gpu.cycle
        rows.append(Row(row["system"], entry, float(row["time_us"]) * 1e-6, features))
    return rows


def prefill_rows(folder: Path) -> list[Row]:
    """Arithmetic, millions of elements, length, whether in TensorRT-LLM, whether products are in 8 bits, or only the cache is; the last
    tile on one multiprocessor, a clock cycle.
    """
    rows: list[Row] = []
    for row in attention_table(folder, "prefill"):
        gpu, eight, own = load_gpu(row["gpu"]), row["kv_dtype"] == "fp8", stack_of(row) == "tensorrt-llm"
        batch, seq, heads, size = numbers(row, "batch", "seq", "n_heads", "head_dim")
        products = eight and own and family(gpu) != ""
        entry = f"{family(gpu)}@tensorrt-llm@8-bit" if products else "@tensorrt-llm" if own else "@8-bit" if eight else ""
        work = batch * causal_attention_work(heads, size, seq) / gpu.half_precision
        kinds = float(own), float(products), float(eight and not own)
        last = last_tile_work(size, seq) / gpu.one_multiprocessor
        features = work, batch * seq * heads * size * 1e-6, seq, *kinds, last, gpu.cycle
        rows.append(Row(row["system"], entry, float(row["time_us"]) * 1e-6, features))
    return rows


def attention_table(folder: Path, phase: str) -> list[dict[str, str]]:
    return [row for row in read(folder / "attention.csv") if row["phase"] == phase and row["dtype"] == "bfloat16"]


def moe_rows(folder: Path, name: str) -> list[Row]:
    """Memory, arithmetic, and the bytes of routed tokens over the memory's rate; a clock cycle."""
    rows: list[Row] = []
    weight_format, _, generation = name.partition("@")
    for row in read(folder / "moe.csv"):
        if row["quant"] not in MOE[name] or (row["quant"], row["kernel"]) in LEFT_OUT:
            continue
        gpu = load_gpu(row["gpu"])
        if generation and family(gpu) != f"@{generation.split('@')[0]}":
            continue
        tokens, hidden, inter, top_k, experts = numbers(row, "tokens", "hidden", "inter", "topk", "experts")
        tp, ep = numbers(row, "moe_tp", "moe_ep")
        if row["distribution"] == "balanced":
            uneven, visited = 1.0, min(float(experts), tokens * top_k)
        else:
            uneven, visited = expert_imbalance(experts, top_k, tokens, ep, POPULARITY), distinct_experts(experts, top_k, tokens)
        weights = 3 * hidden * inter / tp
        features = (
            visited / ep * weights * FORMATS[weight_format].bytes_per_weight / gpu.memory_bandwidth,
            2 * tokens * top_k / ep * uneven * weights / gpu.rate(FORMATS[weight_format].math),
            routed_bytes(tokens, top_k, hidden) / gpu.memory_bandwidth,
            gpu.cycle,
        )
        rows.append(Row(row["system"], "", float(row["time_us"]) * 1e-6, features))
    return rows


def exchange_rows(folder: Path) -> dict[str, list[Row]]:
    """Dispatches and combines by library, phase and dtype: the bytes that leave a rank over the rate of its NVLinks, or of its copies."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in read(folder / "moe_a2a.csv"):
        gpu = load_gpu(row["gpu"])
        if row["n_nodes"] != "1" or gpu.peer_links is None:
            continue
        size = exchanged_bytes(*(int(row[name]) for name in ("tokens_per_rank", "topk", "ep", "hidden")))
        name = exchange_name(row["impl"], row["phase"], row["dtype"])
        found[name].append(
            Row(row["system"], "", float(row["time_us"]) * 1e-6, (size / exchange_rate(name, gpu.peer_links.bandwidth),))
        )
    return found
