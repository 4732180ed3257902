"""A program for a Python that has torch: it measures collectives and copies, and prints them as nccl-tests and p2pBandwidthLatencyTest do.

    python torch_benchmark.py collectives all_reduce all_gather alltoall
    python torch_benchmark.py copies

It is run as a file and knows nothing of planner, which never imports torch. Times of small messages hold what torch takes to
launch them, so there are none below 4 KiB, and no latencies of copies.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

SMALLEST, LARGEST, FACTOR = 4 * 1024, 128 * 1024 * 1024, 4
WARM_UP, TIMES = 5, 20
LONGEST_SECONDS = 2.0
"""A size that took longer is the last."""
COPY_BYTES, COPY_TIMES = 64 * 1024 * 1024, 8
RATIOS = {"all_reduce": 2.0, "all_gather": 1.0, "alltoall": 1.0}
"""Bus over algorithm bandwidth, times n / (n - 1)."""


def main(arguments: list[str]) -> int:
    """Do what is asked; the exit code is 0 where all was measured."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - as sys.path has it
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]  # noqa: PTH100
    if arguments[:1] == ["collectives"]:
        return collectives(arguments[1:])
    if arguments[:1] == ["worker"]:
        worker(int(arguments[1]), int(arguments[2]), arguments[3], arguments[4:])
    else:
        copies()
    return 0


def say(line: str) -> None:
    """Print at once: who reads may stop us at any time."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def bus_id(device: int) -> tuple[int, int, int]:
    """PCI domain, bus and device of a GPU; zeros where the driver does not say."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        name = ctypes.create_string_buffer(32)
        handle = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(handle), device) or driver.cuDeviceGetPCIBusId(name, 32, handle):
            return 0, 0, 0
        domain, bus, rest = name.value.decode().split(":")
        return int(domain, 16), int(bus, 16), int(rest.split(".")[0], 16)
    except (OSError, ValueError, AttributeError):
        return 0, 0, 0


def collectives(names: list[str]) -> int:
    """Start a worker for each GPU; the first that fails ends all."""
    import torch

    ranks = torch.cuda.device_count()
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            subprocess.Popen(  # noqa: S603 - this file, run by the Python that runs it
                [sys.executable, os.path.abspath(__file__), "worker", str(rank), str(ranks), f"file://{folder}/store", *names],  # noqa: PTH100
                stdout=None if rank == 0 else subprocess.DEVNULL,
            )
            for rank in range(ranks)
        ]
        while any(worker.poll() is None for worker in workers):
            if any(worker.poll() for worker in workers):
                for worker in workers:
                    worker.kill()
            time.sleep(0.05)
    return max((abs(worker.returncode) for worker in workers), default=1)


def worker(rank: int, ranks: int, store: str, names: list[str]) -> None:
    """One rank of all tables; the first one prints them."""
    import torch
    import torch.distributed as group

    torch.cuda.set_device(rank)
    group.init_process_group("nccl", init_method=store, rank=rank, world_size=ranks)
    domain, bus, device = bus_id(rank)
    mine = f"Pid {os.getpid():6d} on {socket.gethostname()} device {rank:2d} [{domain:04x}:{bus:02x}:{device:02x}]"
    devices: list[Any] = [None] * ranks
    group.all_gather_object(devices, f"{mine} {torch.cuda.get_device_name(rank)}")
    for name in names:
        if rank == 0:
            head(name, ranks, devices)
        size = SMALLEST
        while size <= LARGEST:
            count = max(1, size // 4 // ranks)
            seconds = collective_seconds(torch, group, name, count, ranks)
            if rank == 0:
                row(name, count * 4 * ranks, count * (ranks if name == "all_reduce" else 1), seconds, ranks)
            if seconds * TIMES > LONGEST_SECONDS:
                break
            size *= FACTOR
        if rank == 0:
            say(f"# Collective test concluded: {name}_perf")
    group.destroy_process_group()


def collective_seconds(torch: Any, group: Any, name: str, count: int, ranks: int) -> float:
    """Seconds of one operation on the slowest rank; ``count`` floats a rank, all together ``count * ranks``."""
    whole = torch.zeros(count * ranks, device="cuda")
    part = torch.zeros(count * (ranks if name == "alltoall" else 1), device="cuda")

    def once() -> None:
        if name == "all_reduce":
            group.all_reduce(whole)
        elif name == "all_gather":
            group.all_gather_into_tensor(whole, part)
        else:
            group.all_to_all_single(whole, part)

    for _ in range(WARM_UP):
        once()
    torch.cuda.synchronize()
    group.barrier()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(TIMES):
        once()
    torch.cuda.synchronize()
    slowest = torch.tensor([(time.perf_counter() - start) / TIMES], dtype=torch.float64, device="cuda")
    group.all_reduce(slowest, op=group.ReduceOp.MAX)
    return float(slowest.item())


def head(name: str, ranks: int, devices: list[Any]) -> None:
    """What stands above a table."""
    say(f"# Collective test starting: {name}_perf")
    say(
        f"# nThread 1 nGpus 1 minBytes {SMALLEST} maxBytes {LARGEST} step: {FACTOR}(factor) warmup iters: {WARM_UP} iters: {TIMES}"
    )
    say("# Using devices")
    for rank in range(ranks):
        say(f"#  Rank {rank:2d} Group  0 {devices[rank]}")
    say("#       size         count      type   redop    root     time   algbw   busbw #wrong")
    say("#        (B)    (elements)                               (us)  (GB/s)  (GB/s)")


def row(name: str, size: int, count: int, seconds: float, ranks: int) -> None:
    """One row; the operations of torch have no separate form out of place."""
    algorithm = size / seconds / 1e9
    bus = algorithm * RATIOS[name] * (ranks - 1) / ranks
    redop = "sum" if name == "all_reduce" else "none"
    say(f"{size:12d}  {count:12d}     float  {redop:>6}      -1  {seconds * 1e6:.2f}  {algorithm:.2f}  {bus:.2f}    N/A")


def copies() -> None:
    """Copies between every two GPUs, one way and both ways, the driver's way: direct where it allows that."""
    import torch

    gpus = range(torch.cuda.device_count())
    say("[P2P (Peer-to-Peer) GPU Bandwidth Latency Test]")
    for gpu in gpus:
        domain, bus, device = bus_id(gpu)
        say(
            f"Device: {gpu}, {torch.cuda.get_device_name(gpu)}, pciBusID: {bus:x}, pciDeviceID: {device:x}, pciDomainID:{domain:x}"
        )
    for one in gpus:
        for other in gpus:
            if one != other:
                can = "CAN" if torch.cuda.can_device_access_peer(one, other) else "CANNOT"
                say(f"Device={one} {can} Access Peer Device={other}")
    buffers = [[torch.zeros(COPY_BYTES, dtype=torch.uint8, device=f"cuda:{gpu}") for _ in range(4)] for gpu in gpus]
    streams = [[torch.cuda.Stream(device=gpu) for _ in range(2)] for gpu in gpus]
    for title, both in (
        ("Unidirectional P2P=Enabled Bandwidth (P2P Writes)", False),
        ("Bidirectional P2P=Enabled Bandwidth", True),
    ):
        say(f"{title} Matrix (GB/s)")
        say("   D\\D " + " ".join(f"{gpu:6d}" for gpu in gpus))
        for one in gpus:
            rates = [copy_bandwidth(torch, buffers, streams, one, other, both=both) for other in gpus]
            say(f"{one:6d} " + " ".join(f"{rate / 1e9:6.2f}" for rate in rates))


def copy_bandwidth(torch: Any, buffers: list[Any], streams: list[Any], one: int, other: int, *, both: bool) -> float:
    """Bytes a second from one GPU to another, both directions together where ``both``."""

    def copy(source: int, target: int, lane: int) -> None:
        # a copy waits for the current streams of both GPUs: each direction has its own pair
        with torch.cuda.stream(streams[source][lane]), torch.cuda.stream(streams[target][lane]):
            buffers[target][2 * lane + 1].copy_(buffers[source][2 * lane], non_blocking=True)

    def several(times: int) -> float:
        for gpu in (one, other):
            torch.cuda.synchronize(gpu)
        start = time.perf_counter()
        for _ in range(times):
            copy(one, other, 0)
            if both:
                copy(other, one, 1)
        for gpu in (one, other):
            torch.cuda.synchronize(gpu)
        return time.perf_counter() - start

    several(1)
    return COPY_TIMES * COPY_BYTES * (2 if both else 1) / several(COPY_TIMES)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
