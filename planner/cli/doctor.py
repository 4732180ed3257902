"""planner doctor"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from planner.cli.guard import guarded
from planner.cli.options import Format, FormatOption, Gpu
from planner.errors import ExitCode


@guarded
def doctor(
    topologies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPOLOGY]...",
            help="What planner probe takes: captures of one host, a topology YAML (a saved probe), a library name, a short spec; "
            "- for stdin. Without it: this host.",
            show_default=False,
        ),
    ] = None,
    gpu: Gpu = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if there is a problem; notices do not count.")] = False,
    form: FormatOption = Format.table,
) -> None:
    """Say what makes a machine slower or smaller than it could be: what shows it, what it costs, what to do.

    A saved probe is judged as the machine itself would be. Exit code 0 whatever is found, unless --strict.
    """
    from planner import api
    from planner.render import findings as render

    topology = api.probe(topologies or (), gpu=gpu)
    found = api.diagnose(topology)
    if form is Format.json:
        from planner.render import json

        sys.stdout.write(json.write(render.doctor_document(topology, found)))
    else:
        render.doctor(topology, found)
    if strict and any(finding.severity == "problem" for finding in found):
        sys.stdout.flush()
        raise typer.Exit(ExitCode.NO)
