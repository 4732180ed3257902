"""Findings: as a report for a terminal, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from planner import __version__
from planner.core.finding import Finding
from planner.core.topology import Topology
from planner.render import text
from planner.render.table import _console

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = 1
NARROWEST = 20
_INDENT = 2


def document(finding: Finding) -> dict[str, Any]:
    """One finding as JSON."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "message": finding.message,
        "evidence": finding.evidence,
        "cost": finding.cost,
        "remedy": finding.hint,
        "devices": list(finding.devices),
    }


def doctor_document(topology: Topology, findings: Sequence[Finding]) -> dict[str, Any]:
    """What ``planner doctor`` answers, problems first."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "doctor",
        "planner_version": __version__,
        "name": topology.name,
        "findings": [document(finding) for finding in _ordered(findings)],
    }


def doctor(topology: Topology, findings: Sequence[Finding]) -> None:
    """Problems, then notices: what is so, what shows it, what it costs, what to do."""
    console = _console()
    problems = sum(finding.severity == "problem" for finding in findings)
    notices = len(findings) - problems
    counted = [_counted(number, word) for number, word in ((problems, "problem"), (notices, "notice")) if number]
    _wrapped(console, f"{topology.name}: {', '.join(counted) or 'nothing to report'}", bold=len(topology.name))
    for finding in _ordered(findings):
        console.print()
        _wrapped(console, f"{finding.code}: {finding.message}", bold=len(finding.code))
        for word, said in (("seen", finding.evidence), ("cost", finding.cost), ("remedy", finding.hint)):
            if said:
                _wrapped(console, f"{word + ':':<8}{said}", indent=_INDENT, hanging=8)


def _ordered(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.severity != "problem")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number > 1)}"


def _wrapped(console: Console, words: str, *, indent: int = 0, hanging: int = 2, bold: int = 0) -> None:
    """Words wrapped to the terminal; data is never read as markup, the first ``bold`` characters stand out."""
    from rich.text import Text

    words = text.printable(words)
    lines = textwrap.wrap(
        words,
        max(NARROWEST, console.width),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for number, line in enumerate(lines):
        shown = Text(line)
        if number == 0 and bold:
            shown.stylize("bold", 0, bold)
        console.print(shown, soft_wrap=True)
