"""planner check"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from planner.cli.guard import guarded
from planner.cli.options import Format, FormatOption, Gpu
from planner.errors import ExitCode


@guarded
def check(
    plan: Annotated[
        str,
        typer.Argument(metavar="PLAN", help="A plan that 'planner recommend … -o FILE' saved; - for stdin.", show_default=False),
    ],
    topology: Annotated[
        str | None,
        typer.Option(
            "--topology",
            "-t",
            help="The machine as it is now: what 'planner probe' takes. Without it: as the plan has it.",
            show_default=False,
        ),
    ] = None,
    gpu: Gpu = None,
    form: FormatOption = Format.table,
) -> None:
    """Say whether a saved plan still stands: it fits, meets its targets, and nothing is better by more than 5 %.

    Exit code 0 if it stands, 1 with the reason if not, 2 for bad input.
    """
    from planner import api
    from planner.render import judgement

    saved = api.load_plan(plan)
    now = None if topology is None else api.load_topology(topology, gpu=gpu)
    found = api.check_plan(saved, now)
    if form is Format.json:
        from planner.launching import digest
        from planner.render import json

        sys.stdout.write(json.write(judgement.document(saved, digest(saved), found)))
    else:
        judgement.show(saved.model, saved.plan, saved.engine, found, expected=saved.expected, notes=found.notes)
    if not found.stands:
        sys.stdout.flush()
        raise typer.Exit(ExitCode.NO)
