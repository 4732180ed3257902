"""planner probe"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from planner.cli.guard import guarded
from planner.cli.options import Format, FormatOption, Gpu


@guarded
def probe(
    files: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time
        typer.Argument(
            metavar="[FILE|-]...",
            help="The saved text of 'nvidia-smi topo -m', or several captures of one host (topo -m, topo -p2p, nvlink -s, -q, "
            "NCCL XML, rocm-smi), a topology YAML, a library name or a short spec; - for stdin. Without it: this host.",
            show_default=False,
        ),
    ] = None,
    gpu: Gpu = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="Also write the topology to this YAML file.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output file.")] = False,
    form: FormatOption = Format.table,
) -> None:
    """Read a machine's links and draw them.

    Reads what 'nvidia-smi topo -m' printed, or runs it where there is one.
    """
    from planner import api

    topology = api.probe(files or (), gpu=gpu)
    if output is not None:
        api.save_topology(topology, output, force=force)
    shown = api.equipped_for_display(topology)
    if form is Format.json:
        from planner.render import json

        sys.stdout.write(json.write(json.probe(shown)))
    else:
        from planner.render import table

        table.probe(shown)
    if output is not None:
        sys.stderr.write(f"wrote {output}\n")
