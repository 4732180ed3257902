"""Plans to launch, programs that stand in for the engines and record how they were started, and what runs of scripts recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from cluster_support import program
from planner import api
from planner.core.engine import LaunchProcess
from planner.core.plan import Parallelism
from planner.core.saved import SavedPlan
from planner.core.workload import Workload
from planner.deploy.target import Job, Output

PLANS = {
    "bridged": ("llama-3.1-70b", "4x-rtx-3090-bridged", Parallelism(2, 2), "awq"),
    "replicas": ("llama-3.1-8b", "8x-a6000", Parallelism(2, 1, 4), None),
    "part": ("llama-3.1-8b", "4xL40S", Parallelism(2), None),
    "pipeline": ("llama-3.1-70b", "2x-dgx-h100", Parallelism(8, 2), None),
    "replicas of a node": ("llama-3.1-70b", "2x-dgx-h100", Parallelism(8, 1, 2), None),
    "replicas of two nodes": ("llama-3.1-405b", "4x8xH100-SXM5-80GB@8x400", Parallelism(8, 2, 2), None),
    "shared experts": ("qwen3-235b-a22b", "2x-dgx-h100", Parallelism(4, 1, 4, 16), None),
    "replicas across each other": ("llama-3.1-70b", "3x2xA100-SXM4-80GB@1x200", Parallelism(1, 3, 2), None),
    "shared experts of a node": ("qwen3-30b-a3b", "dgx-h100", Parallelism(1, 1, 4, 4), None),
    "shared cache": ("qwen3-235b-a22b-fp8", "dgx-h100", Parallelism(8, 1, 1, 8, 2), None),
    "shared latents": ("deepseek-v3", "dgx-h200", Parallelism(8, 1, 1, 8, 4), None),
    "split prompts": ("deepseek-v3", "2x-dgx-h100", Parallelism(8, 1, 1, 16, 1, 2), None),
    "uneven": ("llama-3.1-8b", "4xL40S", Parallelism(1, 3), None),
}
"""By name: model, topology, degrees, weight format."""

ENGINES = ("vllm", "sglang", "tensorrt-llm", "tgi")
ON_ONE_HOST = ("replicas", "part", "replicas of a node")
NOT_RUN = {
    ("shared experts", "tensorrt-llm"),
    *((name, engine) for name in ("shared cache", "split prompts") for engine in ENGINES if engine != "vllm"),
    ("shared latents", "tensorrt-llm"),
    *((name, "tgi") for name in PLANS if name not in ON_ONE_HOST),
}
"""An engine that does not run the degrees."""
EVERYWHERE = frozenset({"vllm", "tgi"})
"""Engines that listen on all addresses unless they are told."""
CASES = [(name, engine) for name in PLANS for engine in ENGINES if (name, engine) not in NOT_RUN]
IMAGE = "registry.example/llm:1"
PROGRAMS = ("vllm", "python3", "trtllm-serve", "text-generation-launcher", "ray")


@cache
def saved(name: str, *, engine: str = "vllm", model: str | None = None) -> SavedPlan:
    """A plan of :data:`PLANS`; ``model`` launches it under another name, as weights on disk."""
    reference, machine, degrees, quant = PLANS[name]
    topology = api.load_topology(machine)
    answer = api.estimate(api.load_model(reference, quant=quant), topology, Workload(), degrees, engine=engine)
    plan = api.plan_of(answer, topology, model=reference, reference=machine)
    return plan if model is None else replace(plan, model=replace(plan.model, name=model), local_model=True)


def emitted(plan: SavedPlan, target: str) -> tuple[Job, Output]:
    """The job and its files; with an image, that some engines have none of."""
    return api.emit_plan(plan, target, image=IMAGE)


@dataclass(frozen=True)
class Started:
    """How a program was started."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    folder: str


_RECORDER = """\
import json, os, sys
place = os.path.join(os.environ["RECORDS"], str(os.getpid()))
with open(place, "w") as stream:
    json.dump({"argv": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}, stream)
"""


class Bench:
    """A folder with stand-ins on ``PATH``; runs scripts with a real ``sh``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "records"
        self._tools = folder / "tools"
        self._tools.mkdir()
        recorder = folder / "recorder.py"
        recorder.write_text(_RECORDER)
        for name in PROGRAMS:
            program(self._tools, name, f'exec {sys.executable} {recorder} {name} "$@"')
        # a step is run here, with what comes after srun's own options; the allocation is the plan's nodes
        until = 'for word in "$@"; do case "$word" in env) break;; esac; shift; done'
        program(self._tools, "srun", f'{sys.executable} {recorder} srun "$@"; {until}; exec "$@"')
        program(self._tools, "trtllm-llmapi-launch", 'exec "$@"')
        program(self._tools, "scontrol", 'printf "%s\\n" $NODES')

    def write(self, output: Output) -> Path:
        """The files of an output in a folder with a blank in its name."""
        home = self.folder / "the files"
        home.mkdir()
        for name, text in output.files.items():
            (home / name).write_text(text)
        return home

    def run(self, script: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """How a script ended, started from elsewhere with only what is named in its environment."""
        self.records.mkdir(exist_ok=True)
        base = {"PATH": f"{self._tools}{os.pathsep}{os.defpath}", "RECORDS": str(self.records), "HOME": str(self.folder)}
        started = ["sh", str(script)]
        return subprocess.run(
            started, capture_output=True, text=True, env=base | environment, cwd=self.folder, check=False, timeout=60
        )

    def started(self, program_name: str | None = None) -> list[Started]:
        """What was recorded, by argument vector."""
        found = []
        for path in self.records.iterdir():
            one = json.loads(path.read_text())
            if program_name is None or one["argv"][0] == program_name:
                found.append(Started(tuple(one["argv"]), one["environment"], one["folder"]))
        return sorted(found, key=lambda one: one.argv)


def is_as_planned(started: Started, process: LaunchProcess) -> bool:
    """Whether a program got exactly the arguments and the environment of a process."""
    return started.argv == process.argv and process.environment.items() <= started.environment.items()
