"""Shell scripts, one a node; and the quoting that every other target of the shell uses.

The only place where arguments become one string.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.core.engine import LaunchProcess
from planner.deploy.header import comment, header
from planner.deploy.router import router
from planner.deploy.target import Job, Output, Target, by_node, file_stem, reachable, servers

_STARTS = frozenset({"env", "trtllm-llmapi-launch"})
"""Programs that start the rest of the line."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HOW_TO_SIGN_IN = "is not set: a read token of huggingface.co, or HF_HUB_OFFLINE=1 where the weights are in the cache already"


@dataclass(frozen=True, slots=True)
class Variable:
    """A shell variable inside a word."""

    name: str


Word = str | tuple[str | Variable, ...]
"""An argument: literal text, or text with variables in it."""


def quote(word: Word) -> str:
    """A word that a POSIX shell reads as exactly this argument.

    >>> quote("a b"), quote((Variable("NODE0"), ":29500"))
    ("'a b'", '"${NODE0}":29500')
    """
    if isinstance(word, str):
        return shlex.quote(word)
    parts = (f'"${{{_name(part.name)}}}"' if isinstance(part, Variable) else shlex.quote(part) if part else "" for part in word)
    return "".join(parts)


def _name(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a variable")
    return name


def assignments(environment: Mapping[str, str]) -> list[str]:
    """``NAME=value`` words, quoted; a value that begins with ``=`` too, which some would take for a comparison."""
    return [
        f"{_name(name)}={shlex.quote(value) if not value.startswith('=') else _in_quotes(value)}"
        for name, value in environment.items()
    ]


def _in_quotes(value: str) -> str:
    quoted = shlex.quote(value)
    return quoted if quoted != value else f"'{value}'"


def command_line(process: LaunchProcess) -> str:
    """The process with its environment before it, quoted.

    >>> command_line(LaunchProcess("node0", 0, ("vllm", "serve", "a b"), {"CUDA_VISIBLE_DEVICES": "0,2"}))
    "CUDA_VISIBLE_DEVICES=0,2 vllm serve 'a b'"
    """
    return " ".join([*assignments(process.environment), shlex.join(process.argv)])


def command(words: Sequence[Word], environment: Mapping[str, str] | None = None) -> str:
    r"""A command over several lines, an option on each.

    >>> print(command(["vllm", "serve", "m", "--port", "8000"]))
    vllm serve m \
        --port 8000
    """
    lines = [[*assignments(environment or {})]]
    for word in words:
        quoted = quote(word)
        if (quoted.startswith("--") or word in _STARTS) and lines[-1]:
            lines.append([quoted])
        else:
            lines[-1].append(quoted)
    return " \\\n    ".join(" ".join(line) for line in lines if line)


def prologue(job: Job, notes: Sequence[str] = ()) -> str:
    """The first lines of a script: header, options, and the token where weights come from the hub."""
    return f"#!/bin/sh\n{header(job, notes)}set -eu\n"


def token(job: Job) -> str:
    """Lines that pass a token on, and stop where there is none; nothing for weights on disk."""
    if job.saved.local_model:
        return ""
    return f'if [ "${{HF_HUB_OFFLINE:-0}}" != 1 ]; then\n    export HF_TOKEN="${{HF_TOKEN:?{HOW_TO_SIGN_IN}}}"\nfi\n'


def together(commands: Sequence[tuple[str, str]]) -> str:
    """Lines that start commands (each after a comment) side by side, stop them all on a signal, and end as the worst of them."""
    variables = [f"process{number}" for number in range(len(commands))]
    running = " ".join(f'${{{variable}:+"${variable}"}}' for variable in variables)
    lines = ["".join(f"{variable}=\n" for variable in variables)]
    lines.append(f"trap 'trap - INT TERM; kill {running} 2>/dev/null || :; wait; exit 143' INT TERM\n")
    for variable, (what, line) in zip(variables, commands, strict=True):
        lines.append(f"{comment([what])}{line} &\n{variable}=$!\n")
    lines.append("status=0\n")
    lines += [f'wait "${variable}" || status=$?\n' for variable in variables]
    return "".join([*lines, 'exit "$status"\n'])


def script(job: Job, processes: Sequence[LaunchProcess]) -> str:
    """The script that starts processes of one node, from the folder it lies in."""
    top = f'{prologue(job)}cd -- "$(dirname -- "$0")"\n{token(job)}'
    if len(processes) == 1:
        (process,) = processes
        exports = "".join(f"export {one}\n" for one in assignments(process.environment))
        return f"{top}{exports}exec {command(reachable(job, process))}\n"
    lines = [(f"replica {process.replica}", command(reachable(job, process), process.environment)) for process in processes]
    return top + together(lines)


def _write(job: Job) -> Output:
    files: dict[str, str] = {}
    run = []
    nodes = by_node(job)
    for node, processes in nodes.items():
        name = f"start-{file_stem(node)}.sh" if len(nodes) > 1 else "start.sh"
        files[name] = script(job, processes)
        run.append(f"sh {name}" if len(nodes) == 1 else f"on {node}: sh {name}")
    routed = router(job)
    return Output(
        {**files, **job.launch.files, **routed.files},
        (*run, *routed.run),
        address=routed.address or _first(job),
    )


def _first(job: Job) -> str:
    process, port = servers(job)[0]
    host = "127.0.0.1" if len(by_node(job)) == 1 else process.node
    return f"http://{host}:{port}"


TARGET = Target("shell", "scripts for a POSIX shell, one a node", _write)
