"""How long whole commands take and how much memory they hold, each the best and the middle of several runs; before that, what
one all-reduce costs to predict on irregular machines, and one estimate of a plan that is placed.

    python scripts/benchmark.py [RUNS]

Prints, asserts nothing: a time belongs to the machine it was taken on.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import combinations

from planner import api
from planner.answering import prepare
from planner.core.hardware import GpuSpec
from planner.core.plan import Infeasible, Parallelism
from planner.core.topology import Topology
from planner.core.workload import Workload
from planner.cost.collectives import Collectives
from planner.cost.interconnect import Interconnect
from planner.documents.calibration import load_calibration
from planner.documents.hardware import load_link_rates
from planner.engines import engines
from planner.graph.equip import equip
from planner.units import Bytes

COMMANDS = (
    ("--help",),
    ("probe", "dgx-1-v100"),
    ("recommend", "llama-3.1-70b", "--topology", "dgx-h100"),
    ("recommend", "llama-3.1-70b", "--topology", "4x-rtx-3090-bridged", "--quant", "awq"),
    ("recommend", "qwen3-235b-a22b-fp8", "--topology", "2x-dgx-h100"),
    ("recommend", "llama-3.1-70b", "--topology", "dgx-1-v100", "--quant", "gptq"),
    ("recommend", "llama-3.1-405b", "--topology", "gb200-nvl72"),
)

IRREGULAR = ("dgx-1-v100", "8x-a800-pcie-pairs", "8x-l40s", "azure-nd96isr-mi300x-v5", "10x-l40s", "dgx-h100")
"""Machines with eight GPUs and more: a hybrid mesh, pairs, four switches on two sockets, a full mesh, odd, one switch."""
GROUP = 8
PLACED = (
    ("llama-3.1-70b", "dgx-h100", Parallelism(8)),
    ("llama-3.1-70b", "8x-l40s", Parallelism(2, 4)),
    ("deepseek-v3", "dgx-h200", Parallelism(8, 1, 1, 8)),
    ("nemotron-h-56b", "dgx-h100", Parallelism(4, 2)),
)


def once(arguments: tuple[str, ...]) -> tuple[float, float]:
    """Seconds and peak memory in MB of one run of ``planner``, from start to exit."""
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.execv(sys.executable, [sys.executable, "-m", "planner", *arguments])  # noqa: S606 - the program under test
    _, status, usage = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        sys.exit(f"planner {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, usage.ru_maxrss / 1000


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def predictions(runs: int) -> None:
    """An all-reduce of eight GPUs that nobody asked for before, the same once more, and all groups of a machine's first eight."""
    print(f"{'first':>8} {'again':>9} {'all groups':>11} {'packed':>7}  all-reduces of {GROUP} GPUs ({runs} runs each)")
    calibration, traits, rates = load_calibration(), engines()["vllm"].traits, load_link_rates()

    def fresh(topology: Topology, specs: dict[str, GpuSpec]) -> tuple[Interconnect, Callable[[tuple[int, ...]], object]]:
        wires, ask = Interconnect(topology, specs), Collectives(calibration, traits)
        return wires, lambda group: ask.all_reduce(wires.group(group), Bytes(2.0**20))

    for name in IRREGULAR:
        topology = api.load_topology(name)
        specs = {gpu: api.load_gpu(gpu) for gpu in topology.hardware}
        equipped, whole = equip(topology, specs, rates), tuple(range(GROUP))
        first, again, every = [], [], []
        for _ in range(runs):
            _, predict = fresh(equipped, specs)
            first.append(seconds(lambda: predict(whole)))  # noqa: B023 - called at once
            again.append(seconds(lambda: predict(whole)))  # noqa: B023 - called at once
            wires, predict = fresh(equipped, specs)
            groups = [group for count in range(2, GROUP + 1) for group in combinations(whole, count)]
            every.append(seconds(lambda: [predict(group) for group in groups]))  # noqa: B023 - called at once
        packed = f"{wires.rings.classes}/{len(groups)}"
        times = f"{min(first) * 1e3:6.1f}ms {min(again) * 1e6:7.1f}us {min(every) * 1e3:9.1f}ms"
        print(f"{times} {packed:>7}  {name}")
    print()


def estimates(runs: int) -> None:
    """One plan priced once more: its links are known by then, its work, memory and times are not."""
    print(f"{'best':>8} {'median':>8}  one estimate, its machine known ({20 * runs} runs each)")
    for name, machine, degrees in PLACED:
        _, search, _, _ = prepare(api.load_model(name), api.load_topology(machine), Workload(), "vllm", "throughput")
        found = search.one(degrees)
        assert not isinstance(found, Infeasible), found.message
        plan = found.plan
        times = sorted(
            seconds(lambda: search.pricer.estimate(degrees, plan.layer_partition, plan.limits, plan.placement))  # noqa: B023
            for _ in range(20 * runs)
        )
        print(f"{times[0] * 1e3:6.2f}ms {statistics.median(times) * 1e3:6.2f}ms  {name} on {machine}: {degrees}")
    print()


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    predictions(runs)
    estimates(runs)
    print(f"{'best':>7} {'median':>7} {'peak':>8}  command ({runs} runs each)")
    for arguments in COMMANDS:
        once(arguments)  # compiled files and the disk cache, as for every later user
        results = [once(arguments) for _ in range(runs)]
        times = sorted(seconds for seconds, _ in results)
        peak = max(memory for _, memory in results)
        print(f"{times[0]:6.2f}s {statistics.median(times):6.2f}s {peak:5.0f} MB  planner {' '.join(arguments)}")


if __name__ == "__main__":
    main()
