"""Words on a terminal: paragraphs that fit it, lists under a title, lines to copy."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner.render import text

if TYPE_CHECKING:
    from rich.console import Console


def paragraph(console: Console, words: str, *, indent: int = 0, style: str = "") -> None:
    """Words wrapped to the terminal, indented; a list item hangs under its dash."""
    from rich.text import Text

    margin = " " * indent
    hanging = margin + ("  " if words.startswith("- ") else "")
    lines = textwrap.wrap(
        text.printable(words),
        max(20, console.width),
        initial_indent=margin,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        console.print(Text(line, style=style), soft_wrap=True)


def notes(console: Console, title: str, lines: Sequence[str]) -> None:
    """A list under a title; nothing where it is empty."""
    if lines:
        console.print()
        paragraph(console, title, style="bold")
        for line in lines:
            paragraph(console, f"- {line}")


def verbatim(words: str) -> None:
    """A line to copy: never wrapped, never styled."""
    sys.stdout.write(text.printable(words) + "\n")
