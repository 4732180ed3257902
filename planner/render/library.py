"""The library of machines as a table and as JSON. The schema lies in ``data/schemas``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner import __version__
from planner.core.topology import PEER_LINKS, DeviceKind, LinkKind, Topology
from planner.render import picture, terminal
from planner.render.json import SCHEMA_VERSION
from planner.render.scene import counted
from planner.render.text import printable

SHOWN_ALIASES = 3
MOST_COLUMNS = (26, 24, 15)
"""Widths of the columns; a longer cell pushes the next one to the right."""
COLUMNS = ("name", "GPUs", "fabric", "also called")


def show(machines: Sequence[Topology]) -> None:
    """One line a machine on standard output."""
    from rich.text import Text

    console = terminal.console()
    for number, line in enumerate(lines(machines, console.width, ascii_only=not terminal.draws_lines())):
        console.print(Text(line, style="dim" if number == 0 else ""), soft_wrap=True)


def lines(machines: Sequence[Topology], width: int = 80, *, ascii_only: bool = False) -> list[str]:
    """The table; other names stand in the last column as far as they fit, else on a line of their own."""
    rows = [COLUMNS[:3], *((one.name, counted(one), fabric(one)) for one in machines)]
    aliases = [COLUMNS[3], *(_aliases(one.aliases) for one in machines)]
    widths = [min(most, max(len(row[column]) for row in rows) + 2) for column, most in enumerate(MOST_COLUMNS)]
    drawn = []
    for row, also in zip(rows, aliases, strict=True):
        line = "".join(f"{cell}  ".ljust(size) for cell, size in zip(row, widths, strict=True))
        if len(line.rstrip()) > width:  # a narrow terminal: what does not fit goes below
            drawn += [row[0], f"  {row[1]}, {row[2]}", *([f"  {also}"] if also else [])]
        elif not also or len(line) + len(also) <= width:
            drawn.append((line + also).rstrip())
        else:
            drawn += [line.rstrip(), f"  {also}"]
    drawn = [printable(line) for line in drawn]
    return [picture.plain(line) for line in drawn] if ascii_only else drawn


def _aliases(names: Sequence[str]) -> str:
    more = f" +{len(names) - SHOWN_ALIASES}" if len(names) > SHOWN_ALIASES else ""
    return ", ".join(names[:SHOWN_ALIASES]) + more


def fabric(topology: Topology) -> str:
    """What joins the GPUs, in a word or two."""
    links = [link for link in topology.links if link.kind in PEER_LINKS]
    gpus = topology.gpus
    if not links:
        return "C2C" if any(link.kind is LinkKind.C2C for link in topology.links) else "PCIe" if len(gpus) > 1 else "one GPU"
    word = "NVLink" if links[0].kind is LinkKind.NVLINK else "xGMI"
    if any(device.kind is DeviceKind.NVSWITCH for device in topology.devices):
        return "NVSwitch"
    neighbours: dict[str, set[str]] = {}
    for link in links:
        neighbours.setdefault(link.a, set()).add(link.b)
        neighbours.setdefault(link.b, set()).add(link.a)
    degrees = {len(found) for found in neighbours.values()}
    if degrees == {1}:
        return f"{word} pairs" if len(gpus) > 2 else f"{word} bridge"
    if degrees == {len(gpus) - 1} and len(neighbours) == len(gpus):
        return f"{word} mesh"
    return f"{word} hybrid"


def document(machines: Sequence[Topology]) -> dict[str, Any]:
    """The same as a document."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "library",
        "planner_version": __version__,
        "machines": [
            {
                "name": one.name,
                "hosts": len(one.hosts),
                "gpus": len(one.gpus),
                "hardware": list(one.hardware),
                "fabric": fabric(one),
                "aliases": list(one.aliases),
                "description": one.description,
                "source": one.origin.source,
            }
            for one in machines
        ],
    }
