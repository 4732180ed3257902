"""A topology for people: the picture, its problems, what was assumed. On a terminal, or as text for a file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from planner.core.finding import Finding
from planner.core.topology import Topology
from planner.render import picture, terminal
from planner.render.scene import Scene, scene_of
from planner.render.text import group, printable

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 80
SHOWN_GROUPS = 8
_MARK = r"! [^│|,;)]*"


def show(topology: Topology, filled: Topology, findings: Sequence[Finding], *, ascii_only: bool = False) -> None:
    """Draw the topology on standard output, as wide as the terminal; ``filled`` has the bandwidths its hardware implies.

    In ASCII alone where it is asked for or standard output takes nothing else.
    """
    console = terminal.console()
    ascii_only = ascii_only or not terminal.draws_lines()
    scene = scene_of(topology, filled, findings)
    for style, line in _styled(scene, topology, console.width, ascii_only=ascii_only):
        _print(console, line, style)


def text(topology: Topology, filled: Topology, findings: Sequence[Finding], *, ascii_only: bool = False) -> str:
    """The same for a file, 80 columns wide."""
    scene = scene_of(topology, filled, findings)
    return "".join(f"{line}\n" for _, line in _styled(scene, topology, FILE_WIDTH, ascii_only=ascii_only))


def draw(scene: Scene, console: Console) -> None:
    """Only the picture, for a command that says the rest itself."""
    for line in picture.lines(scene, console.width, ascii_only=not terminal.draws_lines()):
        _print(console, line)


def _print(console: Console, line: str, style: str = "") -> None:
    """A line, its problems in red."""
    from rich.text import Text

    written = Text(line, style=style)
    if not style:
        written.highlight_regex(_MARK, "bold red")
    console.print(written, soft_wrap=True)


def _styled(scene: Scene, topology: Topology, width: int, *, ascii_only: bool) -> Iterator[tuple[str, str]]:
    """Lines with the style each is written in."""
    said = [
        *(("bold", line) for line in _wrapped(scene.title, width)),
        *(("dim", line) for line in _wrapped(f"{topology.origin.kind}: {topology.origin.source}", width)),
        ("", ""),
        *(("", line) for line in picture.lines(scene, width)),
    ]
    if scene.problems:
        said += [("", ""), ("bold", "problems")]
        for finding in scene.problems:
            hint = f" ({finding.hint})" if finding.hint else ""
            said += [("", line) for line in _wrapped(f"! {finding.code}: {finding.message}{hint}", width)]
    if topology.measurements:
        said += [("", ""), ("bold", "measured")]
        for words in _shortened(_measured(topology)):
            said += [("", line) for line in _wrapped(f"- {words}", width)]
    if scene.assumptions:
        said += [("", ""), ("bold", "assumed")]
        for assumption in scene.assumptions:
            said += [("", line) for line in _wrapped(f"- {assumption}", width)]
    for style, line in said:
        yield style, picture.plain(line) if ascii_only else line


def _measured(topology: Topology) -> list[str]:
    """The collectives that were measured on a machine, those over the same GPUs in one line."""
    place = {gpu.id: number for number, gpu in enumerate(topology.gpus)}
    found: dict[tuple[int, ...], list[str]] = {}
    for curve in topology.measurements:
        named = f"{curve.operation.replace('_', '-')} by {curve.stack}"
        found.setdefault(tuple(place[gpu] for gpu in curve.gpus), []).append(named)
    return [f"{group(gpus)}: {', '.join(named)}" for gpus, named in found.items()]


def _shortened(lines: list[str]) -> list[str]:
    """At most eight, and how many more there are."""
    more = len(lines) - SHOWN_GROUPS
    return lines if more <= 0 else [*lines[:SHOWN_GROUPS], f"{more} more groups of GPUs"]


def _wrapped(words: str, width: int) -> list[str]:
    indent = "  " if words[:2] in ("- ", "! ") else ""
    return textwrap.wrap(
        printable(words), max(20, width), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
