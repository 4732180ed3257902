"""Texts as nccl-tests, p2pBandwidthLatencyTest and nvbandwidth print them, of numbers made up by a formula."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

RATIOS: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "alltoall": lambda n: (n - 1) / n,
    "gather": lambda n: (n - 1) / n,
    "scatter": lambda n: (n - 1) / n,
    "broadcast": lambda _: 1.0,
    "reduce": lambda _: 1.0,
    "sendrecv": lambda _: 1.0,
}
PARTS = {"all_gather", "reduce_scatter", "alltoall", "gather", "scatter"}
ROOTED = {"broadcast", "reduce", "gather", "scatter"}
REDUCING = {"all_reduce", "reduce_scatter", "reduce", "sendrecv"}
OUT_OF_PLACE_ONLY = {"alltoall", "sendrecv"}
SIZES = tuple(2**power for power in range(3, 31, 3))


def seconds(size: int) -> float:
    """A time for a size: 20 µs, and 100 GB/s."""
    return 20e-6 + size / 100e9


def short(value: float, width: int) -> str:
    """A number as nccl-tests fits it into a column."""
    for digits, most in ((2, 10 ** (width - 3)), (1, 10 ** (width - 2)), (0, 10**width)):
        if value < most:
            return f"{value:{width}.{digits}f}"
    return f"{value:{width}.1e}"


def row(program: str, ranks: int, size: int, *, old: bool = False, checked: bool = True, factor: float | None = None) -> str:
    """A row of a table; ``factor`` instead of the ratio of the program."""
    taken = seconds(size)
    algorithm = size / taken / 1e9
    bus = algorithm * (RATIOS[program](ranks) if factor is None else factor)
    count = size // 4 // (ranks if program in PARTS else 1)
    redop = "sum" if program in REDUCING else "none"
    root = "0" if program in ROOTED else "-1"
    head = f"{size:12d}  {count:12d}  {'float':>8}  {redop:>6}" + ("" if old else f"  {root:>6}")
    numbers = f"  {short(taken * 1e6, 7)}  {short(algorithm, 6)}  {short(bus, 6)}"
    right = ("1e-07" if old else "0") if checked else "N/A"
    return f"{head}{numbers}  {right:>6}{numbers}  {'N/A' if program in OUT_OF_PLACE_ONLY else right:>6}"


def table(
    program: str,
    ranks: int,
    sizes: Sequence[int] = SIZES,
    *,
    old: bool = False,
    checked: bool = True,
    listed: bool = True,
    named: bool = False,
) -> str:
    """A whole table, with the list of devices and the program's name where asked."""
    lines = [f"# Collective test starting: {program}_perf"] if named else []
    lines.append(f"# nThread 1 nGpus {ranks} minBytes 8 maxBytes {max(sizes)} step: 2(factor) warmup iters: 5 iters: 20")
    lines += ["#", "# Using devices"]
    if listed:
        for rank in range(ranks):
            group, bus = ("", f"0x{16 + rank:02x}") if old else ("Group  0 ", f"0000:{16 + rank:02x}:00")
            lines.append(f"#  Rank {rank:2d} {group}Pid  31706 on node1 device {rank:2d} [{bus}] NVIDIA H100 80GB HBM3")
    root, wrong = ("", " error") if old else ("    root", "#wrong")
    half = f"time   algbw   busbw {wrong}"
    lines += ["#", f"#       size         count      type   redop{root}     {half}     {half}"]
    lines.append("#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)")
    lines += [row(program, ranks, size, old=old, checked=checked) for size in sizes]
    lines += ["# Out of bounds values : 0 OK", "# Avg bus bandwidth    : 12.345", "#"]
    if named:
        lines.append(f"# Collective test concluded: {program}_perf")
    return "\n".join(lines) + "\n"


def bandwidth(row: int, column: int) -> float:
    """A bandwidth in GB/s between two GPUs, another for every pair and direction."""
    return 900.0 + row if row == column else 20 + row + column / 10


def matrix(gpus: int, value: Callable[[int, int], float], corner: str = "D\\D") -> str:
    """A matrix of p2pBandwidthLatencyTest."""
    lines = [f"   {corner}  " + " ".join(f"{column:6d}" for column in range(gpus))]
    lines += [f"{row:6d} " + " ".join(f"{value(row, column):6.2f}" for column in range(gpus)) for row in range(gpus)]
    return "\n".join(lines) + "\n"


def peer_test(gpus: int = 2, *, access: bool = True) -> str:
    """The output of p2pBandwidthLatencyTest."""
    pairs = [(one, other) for one in range(gpus) for other in range(gpus) if one != other]
    text = "[P2P (Peer-to-Peer) GPU Bandwidth Latency Test]\n"
    text += "".join(
        f"Device: {gpu}, NVIDIA RTX A6000, pciBusID: {0xB0 + gpu:x}, pciDeviceID: 0, pciDomainID:0\n" for gpu in range(gpus)
    )
    text += "".join(f"Device={one} {'CAN' if access else 'CANNOT'} Access Peer Device={other}\n" for one, other in pairs)
    text += "\n***NOTE: In case a device doesn't have P2P access to other one, it falls back to normal memcopy procedure.\n\n"
    lines = matrix(gpus, lambda one, other: float(access or one == other)).replace(".00", "")
    text += f"P2P Connectivity Matrix\n{lines}"
    for way, times in (("Uni", 1), ("Bi", 2)):
        for state, more in (("Disabled", 0), ("Enabled", 5)):
            writes = " (P2P Writes)" if way == "Uni" and state == "Enabled" else ""
            numbers = matrix(gpus, lambda one, other, times=times, more=more: times * (bandwidth(one, other) + more))  # type: ignore[misc]
            text += f"{way}directional P2P={state} Bandwidth{writes} Matrix (GB/s)\n{numbers}"
    for state, base in (("Disabled", 10.0), ("Enabled", 1.0)):
        for corner in ("GPU", "CPU"):
            title = (
                f"P2P={state} Latency{' (P2P Writes)' if state == 'Enabled' else ''} Matrix (us)\n" if corner == "GPU" else "\n"
            )
            less = 0.0 if corner == "GPU" else 0.5
            text += title + matrix(gpus, lambda one, other, base=base, less=less: base + one + other / 10 - less, corner)  # type: ignore[misc]
    return text + "\nNOTE: The CUDA Samples are not meant for performance measurements.\n"


def _cell(one: int, other: int, *, zeros: bool) -> str:
    return ("0.00" if zeros else "N/A") if one == other else f"{bandwidth(one, other):.2f}"


def nvbandwidth(
    gpus: int = 2, name: str = "device_to_device_memcpy_read_ce", arrow: str = "->", part: str = "", *, zeros: bool = False
) -> str:
    """One test of nvbandwidth, as text."""
    lines = [f"memcpy CE GPU(row) {arrow} GPU(column) {part + ' ' if part else ''}bandwidth (GB/s)"]
    lines.append(" " + "".join(f"{column:10d}" for column in range(gpus)))
    cells = [[_cell(one, other, zeros=zeros) for other in range(gpus)] for one in range(gpus)]
    lines += [f"{one:2d}" + "".join(f"{cell:>10}" for cell in cells[one]) for one in range(gpus)]
    total = sum(bandwidth(one, other) for one in range(gpus) for other in range(gpus) if one != other)
    suffix = f"_{part.lower()}" if part else ""
    return "\n".join([*lines, "", f"SUM {name}{suffix} {total:.2f}", "", ""])


def nvbandwidth_json(*tests: dict[str, Any]) -> str:
    """The document of ``nvbandwidth -j``."""
    head = {"CUDA Runtime Version": 12080, "Driver Version": "570.124.06", "git_version": "v0.8", "version": "v0.8"}
    return json.dumps({"nvbandwidth": head | {"testcases": list(tests)}}, indent=3)


def json_test(gpus: int = 2, name: str = "device_to_device_memcpy_read_ce", arrow: str = "->", parts: int = 1) -> dict[str, Any]:
    """One test of the document; of three parts where it is of both ways."""
    rows = [[_cell(one, other, zeros=False) for other in range(gpus)] for one in range(gpus)]
    total = sum(bandwidth(one, other) for one in range(gpus) for other in range(gpus) if one != other)
    return {
        "name": name,
        "status": "Passed",
        "bandwidth_description": f"memcpy CE GPU(row) {arrow} GPU(column) {'Total ' if parts == 3 else ''}bandwidth (GB/s)",
        "bandwidth_matrix": rows * parts,
        "sum": total,
    }
