"""The terminal: how wide it is, what it can show, and a console that writes to it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(width: int | None = None) -> Console:
    """A console on standard output: colour only on a terminal that wants it, no markup in data."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit with 1, which here means that nothing fits

    return Terminal(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width, soft_wrap=False)


def draws_lines() -> bool:
    """Whether standard output takes letters and lines beyond ASCII."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").startswith("utf")
