"""The command line: parse, one call of the api, one of render, an exit code. The only room that knows typer."""

from __future__ import annotations

import codecs
import contextlib
import gc
import sys

_PLAIN = {"×": "x", "…": "...", "µ": "u", "→": "->", "←": "<-", "–": "-", "·": ",", "°": " ", "≥": ">=", "≤": "<="}

_SELDOM = 200_000
"""New objects between two looks for cycles: a command is over before they would fill any memory."""


def main() -> int:
    """Run the command line; the exit code is that of :class:`planner.errors.ExitCode`."""
    gc.set_threshold(_SELDOM)
    codecs.register_error("planner.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="planner.plain")  # type: ignore[union-attr] # a replaced stdout may lack it
    from planner.cli.app import app
    from planner.errors import ExitCode

    try:
        app(prog_name="planner")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ExitCode.BAD_INPUT
    return ExitCode.ANSWERED


def _plain(error: UnicodeError) -> tuple[str, int]:
    r"""What stands for characters that the terminal cannot show; the others as JSON escapes them, so that JSON stays JSON.

    >>> codecs.register_error("planner.plain", _plain)
    >>> "4× L4 … é".encode("ascii", "planner.plain")
    b'4x L4 ... \\u00e9'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    import json

    characters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or json.dumps(one)[1:-1] for one in characters), error.end
