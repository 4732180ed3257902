"""What changed between two topologies, as text and as JSON. The schema lies in ``data/schemas``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from planner import __version__
from planner.core.topology import Topology
from planner.graph.difference import Change
from planner.render import picture, terminal
from planner.render.json import SCHEMA_VERSION
from planner.render.scene import ranges
from planner.render.text import printable

_SUBJECT = "\0"


def show(before: str, after: str, changes: Sequence[Change]) -> None:
    """One line a change, on standard output, under what the two topologies are called."""
    from rich.text import Text

    console = terminal.console()
    for number, line in enumerate(lines(before, after, changes, console.width, ascii_only=not terminal.draws_lines())):
        console.print(Text(line, style="bold" if number == 0 else ""), soft_wrap=True)


def lines(before: str, after: str, changes: Sequence[Change], width: int = 80, *, ascii_only: bool = False) -> list[str]:
    """How many changes there are, and each of them, wrapped to the width."""
    count = "no difference" if not changes else "1 change" if len(changes) == 1 else f"{len(changes)} changes"
    drawn = []
    for words in (f"{before} → {after}: {count}", *(f"- {message}" for message in _together(changes))):
        indent = "  " if words.startswith("- ") else ""
        drawn += textwrap.wrap(
            printable(words), max(20, width), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    return [picture.plain(line) for line in drawn] if ascii_only else drawn


def _together(changes: Sequence[Change]) -> list[str]:
    """The messages; those that say the same of several subjects once."""
    alike: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        pattern = change.message.replace(change.subject, _SUBJECT)
        alike.setdefault((change.kind, pattern), []).append(change.subject)
    return [pattern.replace(_SUBJECT, ranges(subjects)) for (_, pattern), subjects in alike.items()]


def document(before: Topology, after: Topology, changes: Sequence[Change]) -> dict[str, Any]:
    """The same as a document."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "difference",
        "planner_version": __version__,
        "before": _named(before),
        "after": _named(after),
        "same": not changes,
        "changes": [
            {
                "kind": change.kind,
                "subject": change.subject,
                "before": change.before,
                "after": change.after,
                "message": change.message,
            }
            for change in changes
        ],
    }


def _named(topology: Topology) -> dict[str, str]:
    return {"name": topology.name, "origin": topology.origin.kind, "source": topology.origin.source}
