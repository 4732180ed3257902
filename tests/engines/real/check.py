"""Every command of the matrix, given to the engines' own parsers: what was taken, what was refused, what was taken otherwise.

usage: check.py PYTHON [vllm|sglang]      (the interpreter of an environment in which vLLM and SGLang are installed: make test-engines)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine_matrix import ENGINES, Case, cases

# what each parser must refuse of the first command of one GPU, so that its consent means something
WRONG = {
    "vllm": (
        ("--tensor-parallel-size", "3"),
        ("--gpu-memory-utilization", "1.5"),
        ("--max-model-len", "99999999"),
        ("--max-num-batched-tokens", "16"),
        ("--no-such-flag",),
        ("--enable-expert-parallel",),
        ("--nnodes", "2", "--node-rank", "3"),
        ("--numa-bind-nodes", "0"),
    ),
    "sglang": (
        ("--chunked-prefill-size", "many"),
        ("--no-such-flag",),
        ("--nnodes", "3", "--dist-init-addr", "node0:1"),
        ("--dp-size", "2", "--attn-dp-size", "2"),
        ("--kv-cache-dtype", "fp7"),
        ("--attn-dp-size", "3"),
        ("--dcp-size", "0"),
    ),
}
HERE = Path(__file__).parent
SECONDS = 600


def ask(python: str, engine: str, asked: Sequence[Case]) -> list[dict[str, Any]]:
    """What an engine's parser answers to all commands, in order."""
    lines = [
        json.dumps(
            {
                "name": case.name,
                "argv": case.process.argv,
                "environment": dict(case.process.environment),
                "gpu": case.gpu,
                "layers": case.layers,
            }
        )
        for case in asked
    ]
    run = subprocess.run(
        [python, HERE / f"{engine}_parser.py"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    answers = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"name"')]
    if len(answers) != len(asked):
        raise SystemExit(f"{engine}: {len(answers)} answers to {len(asked)} commands\n{run.stderr[-4000:]}")
    return answers


def spoiled(case: Case, engine: str) -> list[Case]:
    """The command with something wrong in it, once for each thing."""
    name = case.name.rpartition(" [")[0]
    return [
        replace(case, name=f"{name}, {' '.join(wrong)}", process=replace(case.process, argv=(*case.process.argv, *wrong)))
        for wrong in WRONG[engine]
    ]


def differences(case: Case, resolved: dict[str, Any]) -> list[str]:
    """Where the engine understood something else than the plan says."""
    found = []
    for what, wanted in case.expected.items():
        choice = wanted if isinstance(wanted, list) and what != "partition" else [wanted]
        if resolved[what] not in choice:
            found.append(f"{what}: the plan says {wanted}, the engine {resolved[what]}")
    return found


def main(python: str, engines: Sequence[str]) -> int:
    """Print what was refused or misunderstood, and the count. 1 if there was any."""
    wrong = 0
    for engine in engines:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            asked = list(cases(Path(folder), engine))
            planned = time.monotonic()
            refusable = spoiled(next(case for case in asked if case.gpu["count"] == 1), engine)
            answers = ask(python, engine, [*asked, *refusable])
        bad = 0
        for case, answer in zip(refusable, answers[len(asked) :], strict=True):
            if "refused" not in answer:
                bad += 1
                print(f"{engine}: {case.name}: taken, and should not be")
        taken = len(asked)
        for case, answer in zip(asked, answers[: len(asked)], strict=True):
            problems = [f"refused: {answer['refused']}"] if "refused" in answer else differences(case, answer["resolved"])
            if problems:
                bad += 1
                taken -= 1
                print(f"{engine}: {case.name}\n  {' '.join(case.process.argv)}")
                print("".join(f"  {problem}\n" for problem in problems), end="")
        kinds = Counter(kind for case in asked for kind in case.kinds)
        plans = len({case.name.rpartition(" [")[0] for case in asked})
        print(
            f"{engine}: {taken} of {len(asked)} commands of {plans} plans taken as the plan says, {len(refusable)} wrong ones tried "
            f"(planned in {planned - start:.0f} s, asked in {time.monotonic() - planned:.0f} s); "
            + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        )
        wrong += bad
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(ENGINES):
        raise SystemExit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:] or ENGINES))
