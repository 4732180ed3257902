"""Programs on this host that measure its links, found, run one after the other, and read as saved text is.

Collectives over all GPUs by nccl-tests, copies between every two by ``p2pBandwidthLatencyTest`` or ``nvbandwidth``; what is
missing by :mod:`planner.readers.torch_benchmark`, which a Python with torch runs. Nothing that a program does is an error here: it is a finding.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.core.finding import Finding
from planner.core.measured import MeasuredCopies, MeasuredTable
from planner.errors import BadInput
from planner.readers.bounded_run import run_bounded
from planner.readers.measurements import read_measurements

FOLDERS = ("/opt/nccl-tests/build", "/opt/nccl_tests/build", "/usr/local/bin")
"""Where nccl-tests are looked for beside PATH and ``$NCCL_TESTS_HOME/build``."""
COLLECTIVES = ("all_reduce", "all_gather", "alltoall")
COPIES = "copies"
_NCCL_TESTS = ("-b", "8", "-e", "128M", "-f", "4", "-w", "5", "-n", "20")
_NVBANDWIDTH = ("-t", "device_to_device_memcpy_read_ce", "device_to_device_bidirectional_memcpy_read_ce")
_TORCH = "import sys, torch; sys.exit(0 if torch.cuda.is_available() and torch.cuda.device_count() > 1 else 3)"
_TORCH_SECONDS = 60.0
_SCRIPT = Path(__file__).with_name("torch_benchmark.py")
_HOW_TO_GET = (
    "install nccl-tests (set NCCL_TESTS_HOME to its folder) or nvbandwidth, or put a Python with torch and CUDA first in PATH"
)

Report = Callable[[str, int, int], None]
"""Told what runs now, how many programs are done and how many there are."""


@dataclass(frozen=True, slots=True)
class Benchmarked:
    """What was measured on this host, and what went wrong with it."""

    measured: tuple[MeasuredTable | MeasuredCopies, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """A program to run; ``tells`` are the collectives it measures, or :data:`COPIES`."""

    label: str
    argv: tuple[str, ...]
    tells: tuple[str, ...]


def measure(gpus: int, seconds: float, report: Report = lambda *_: None) -> Benchmarked:
    """Measure the links between the ``gpus`` GPUs of this host, for at most ``seconds`` in all.

    ``CUDA_VISIBLE_DEVICES`` is heeded; GPUs are numbered as ``nvidia-smi`` does. Never raises for what programs do.
    """
    environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        gpus = min(gpus, len([name for name in visible.split(",") if name.strip()]))
    if gpus < 2:
        why = f"{'one GPU' if gpus == 1 else 'no GPU'} to measure with: there is no link between two"
        return Benchmarked((), (Finding("measure-nothing", why, "nothing to do", "notice"),))
    run = _Running(environment, time.monotonic() + seconds, report)
    run.all_of(list(_own_programs(gpus, environment)))
    missing = run.missing()
    if missing and run.left() > 0 and (python := _torch(run)) is not None:
        run.all_of(list(_by_torch(python, missing)))
        missing = run.missing()
    if missing and not run.findings:
        run.findings.append(
            Finding("measure-unavailable", f"no program here measures {', '.join(missing)}", _HOW_TO_GET, "notice")
        )
    return Benchmarked(tuple(run.measured), tuple(run.findings))


class _Running:
    """The programs that run, and what came of them."""

    def __init__(self, environment: Mapping[str, str], end: float, report: Report) -> None:
        self.environment = environment
        self.measured: list[MeasuredTable | MeasuredCopies] = []
        self.findings: list[Finding] = []
        self._told: set[str] = set()
        self._end = end
        self._report = report
        self._done = 0

    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def missing(self) -> list[str]:
        """What no program has measured yet."""
        return [name for name in (*COLLECTIVES, COPIES) if name not in self._told]

    def text(self, label: str, argv: Sequence[str], seconds: float, total: int) -> tuple[str, str]:
        """What a program prints, and what was wrong with it."""

        def tick() -> None:
            self._report(label, self._done, total)

        tick()
        ended = run_bounded(argv, seconds, self.environment, tick)
        self._done += 1
        self._report(label, self._done, total)
        return ended.out, ended.problem

    def all_of(self, steps: Sequence[_Step]) -> None:
        """Run programs one after the other; each has an equal share of the time that is left."""
        total = self._done + len(steps)
        for place, step in enumerate(steps):
            left = self.left()
            if left <= 0:
                self._failed(step, "was not started: the time was up")
                continue
            out, problem = self.text(step.label, step.argv, left / (len(steps) - place), total)
            try:
                # the command says which operation a table is of
                found = (
                    read_measurements(f"$ {shlex.join(step.argv)}\n{out}", f"{step.label} on this host") if not problem else ()
                )
            except BadInput as error:
                found, problem = (), f"printed what cannot be used: {error.path.rpartition(', ')[2]}: {error.problem}"
            if problem:
                self._failed(step, problem)
            else:
                self.measured.extend(found)
                self._told.update(step.tells)

    def _failed(self, step: _Step, problem: str) -> None:
        hint = f"run it by hand: CUDA_DEVICE_ORDER=PCI_BUS_ID {shlex.join(step.argv)}"
        if "the time was up" in problem or "did not finish" in problem:
            hint = f"allow more with --measure-seconds; or {hint}"
        self.findings.append(Finding("measure-failed", f"{step.label} {problem}", hint))


def _own_programs(gpus: int, environment: Mapping[str, str]) -> Iterator[_Step]:
    for name in COLLECTIVES:
        if path := _find(f"{name}_perf", environment):
            yield _Step(f"{name}_perf", (path, *_NCCL_TESTS, "-g", str(gpus)), (name,))
    if path := _find("p2pBandwidthLatencyTest", environment):
        yield _Step("p2pBandwidthLatencyTest", (path,), (COPIES,))
    elif path := _find("nvbandwidth", environment):
        yield _Step("nvbandwidth", (path, *_NVBANDWIDTH), (COPIES,))


def _find(name: str, environment: Mapping[str, str]) -> str | None:
    """A program by name, where people put it."""
    home = environment.get("NCCL_TESTS_HOME")
    folders = [f"{home}/build", home] if home else []
    search = os.pathsep.join([*folders, environment.get("PATH", ""), *FOLDERS])
    found = shutil.which(name, path=search)
    return None if found is None else str(Path(found).absolute())


def _torch(run: _Running) -> str | None:
    """A Python that has torch and sees more than one GPU: ours, or the first in PATH."""
    candidates = dict.fromkeys(path for path in (sys.executable, shutil.which("python3")) if path)
    for path in candidates:
        _, problem = run.text("looking for torch", (path, "-c", _TORCH), min(_TORCH_SECONDS, run.left() / 2), len(candidates))
        if not problem:
            return path
    return None


def _by_torch(python: str, missing: Sequence[str]) -> Iterator[_Step]:
    collectives = tuple(name for name in missing if name != COPIES)
    if collectives:
        yield _Step("NCCL by torch", (python, str(_SCRIPT), "collectives", *collectives), collectives)
    if COPIES in missing:
        yield _Step("copies by torch", (python, str(_SCRIPT), COPIES), (COPIES,))
