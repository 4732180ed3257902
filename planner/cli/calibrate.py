"""planner calibrate"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.collective import gpus_of
from planner.cli.deliver import STDOUT
from planner.cli.guard import guarded
from planner.cli.options import Format, FormatOption, Gpu, TopologyReference
from planner.errors import BadInput

if TYPE_CHECKING:
    from planner.core.calibrated import CalibrationAnswer

_COMMENT = re.compile(r"""(?:[^'"#]{0,200}\s)?#""")
HOW_TO_WRITE = "say where with -o FILE, or look first with --dry-run"


@guarded
def calibrate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="What was measured on this machine: the output of nccl-tests, nvbandwidth (text or JSON) or "
            "p2pBandwidthLatencyTest, or a CSV as for 'planner validate'; - for stdin.",
            show_default=False,
        ),
    ],
    topology: TopologyReference = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the topology to this YAML file instead of back to --topology; - for standard output, and nothing else.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the output file, or a topology whose comments would be lost.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    operation: Annotated[
        str | None,
        typer.Option("--operation", metavar="OP", help="Which operation a table is of that does not say.", show_default=False),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus",
            help="Which GPUs the files are of, in the order of their ranks: 0,1. Without it: as they say.",
            show_default=False,
        ),
    ] = None,
    gpu: Gpu = None,
    form: FormatOption = Format.table,
) -> None:
    """Fit a machine's links to what was measured on it, and write them into its topology with their origin.

    Measured collectives are kept beside the links, and predict themselves from then on. Shown is how far predictions were off
    before and are after. What cannot have been measured on this machine is refused, and then nothing is written.
    """
    from planner import api
    from planner.render import calibration as render

    place = None if dry_run and output != STDOUT else _place(topology, output, force=force)
    answer = api.calibrate(topology, files, gpu=gpu, operation=operation, gpus=gpus_of(gpus))
    if place == STDOUT:
        sys.stdout.write(api.topology_yaml(answer.topology))
        return
    if place is not None:
        api.save_topology(answer.topology, Path(place), force=force or output is None)
    if form is Format.json:
        from planner.render import json

        sys.stdout.write(json.write(render.document(answer, place)))
    else:
        render.show(answer, place)
    _say(answer, place, dry_run=dry_run)


def _place(reference: str | None, output: str | None, *, force: bool) -> str:
    """Where the topology goes: ``output``, else back into the document it came from. Raises ``BadInput`` before anything is read."""
    if output is not None:
        if reference is not None and output != STDOUT and Path(output).exists() and not force:
            hint = f"leave -o out to update {reference}" if _same(output, reference) else "name another file, or add --force"
            raise BadInput("is there already", path=output, hint=hint)
        return output
    from planner import api

    if reference is not None:
        api.refuse_absent(reference)
    if reference is None or reference == STDOUT or not Path(reference).exists():
        raise BadInput("is no file to write the measurements into", path=reference or "this host", hint=HOW_TO_WRITE)
    text = api.document_text(reference)
    if text is None:
        raise BadInput("is a capture, not a topology document; it is not written over", path=reference, hint=HOW_TO_WRITE)
    if not force and any(_COMMENT.match(line) for line in text.splitlines()):
        hint = "add --force to write it without them, or -o FILE to keep it as it is"
        raise BadInput("holds comments, which would be lost", path=reference, hint=hint)
    return reference


def _same(one: str, other: str) -> bool:
    return Path(other).exists() and Path(one).samefile(other)


def _say(answer: CalibrationAnswer, place: str | None, *, dry_run: bool) -> None:
    if place is not None:
        sys.stderr.write(f"wrote {place}\n")
    elif dry_run:
        sys.stderr.write(f"nothing written (--dry-run): {answer.target} is as it was\n")
