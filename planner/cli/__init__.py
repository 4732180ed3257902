"""The command line: parse, one call of the api, one of render, an exit code. The only room that knows typer."""

from __future__ import annotations

import contextlib
import sys


def main() -> int:
    """Run the command line; the exit code is that of :class:`planner.errors.ExitCode`."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a replaced stdout may lack it
    from planner.cli.app import app
    from planner.errors import ExitCode

    try:
        app(prog_name="planner")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ExitCode.BAD_INPUT
    return ExitCode.ANSWERED
