"""What probe and merge share: a topology to the terminal, and to a file or standard output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from planner.cli.options import Format
from planner.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from planner.core.topology import Topology

STDOUT = "-"
HOST = "{host}"


def deliver(topology: Topology, output: str | None, *, force: bool, form: Format) -> None:
    """Write the document where ``output`` says, and show the topology; with ``-`` the document is all that is shown."""
    from planner import api

    if output == STDOUT:
        from planner.documents.topology import dump_topology

        sys.stdout.write(dump_topology(topology))
        return
    if output is not None:
        output = place_of(topology, output)
        api.save_topology(topology, Path(output), force=force)
    shown = api.equipped_for_display(topology)
    if form is Format.json:
        from planner.render import json

        sys.stdout.write(json.write(json.probe(shown)))
    else:
        from planner.render import table

        table.probe(shown, topology)
    if output is not None:
        sys.stderr.write(f"wrote {output}\n")


def place_of(topology: Topology, output: str) -> str:
    """``output`` with the host's name for ``{host}``."""
    if HOST not in output:
        return output
    if len(topology.hosts) != 1:
        raise BadInput(f"{HOST} is for one host, not for {len(topology.hosts)}", path="--output")
    return output.replace(HOST, topology.hosts[0].name)


def refuse_missing(topology: Topology, *, strict: bool) -> None:
    """End with 1 where ``strict`` is asked and a node is missing."""
    from planner.graph.merge import NODE_MISSING

    if strict and any(finding.code == NODE_MISSING for finding in topology.findings):
        sys.stdout.flush()
        raise typer.Exit(ExitCode.NO)
