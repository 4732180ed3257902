"""How long whole commands take and how much memory they hold, each the best and the middle of several runs.

    python scripts/benchmark.py [RUNS]

Prints, asserts nothing: a time belongs to the machine it was taken on.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

COMMANDS = (
    ("--help",),
    ("probe", "dgx-1-v100"),
    ("recommend", "llama-3.1-70b", "--topology", "dgx-h100"),
    ("recommend", "llama-3.1-70b", "--topology", "4x-rtx-3090-bridged", "--quant", "awq"),
    ("recommend", "qwen3-235b-a22b-fp8", "--topology", "2x-dgx-h100"),
    ("recommend", "llama-3.1-70b", "--topology", "dgx-1-v100", "--quant", "gptq"),
    ("recommend", "llama-3.1-405b", "--topology", "gb200-nvl72"),
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


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"{'best':>7} {'median':>7} {'peak':>8}  command ({runs} runs each)")
    for arguments in COMMANDS:
        once(arguments)  # compiled files and the disk cache, as for every later user
        results = [once(arguments) for _ in range(runs)]
        times = sorted(seconds for seconds, _ in results)
        peak = max(memory for _, memory in results)
        print(f"{times[0]:6.2f}s {statistics.median(times):6.2f}s {peak:5.0f} MB  planner {' '.join(arguments)}")


if __name__ == "__main__":
    main()
