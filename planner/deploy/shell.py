"""A launch process as a line to paste into a POSIX shell. The only place where arguments become one string."""

from __future__ import annotations

import shlex

from planner.core.engine import LaunchProcess


def command_line(process: LaunchProcess) -> str:
    """The process with its environment before it, quoted.

    >>> command_line(LaunchProcess("node0", 0, ("vllm", "serve", "a b"), {"CUDA_VISIBLE_DEVICES": "0,2"}))
    "CUDA_VISIBLE_DEVICES=0,2 vllm serve 'a b'"
    """
    environment = [f"{name}={shlex.quote(value)}" for name, value in process.environment.items()]
    return " ".join([*environment, shlex.join(process.argv)])
