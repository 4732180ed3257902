"""planner emit"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from planner.cli.guard import guarded
from planner.cli.launch_options import STDOUT, Force, Image, Name, Namespace, TargetOption

if TYPE_CHECKING:
    from planner.deploy.target import Job, Output


@guarded
def emit(
    plan: Annotated[
        str,
        typer.Argument(
            metavar="PLAN",
            help="A plan that 'planner recommend … -o FILE' saved; - for stdin.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="DIR", help="Write the files into this directory; - for standard output."),
    ] = STDOUT,
    target: TargetOption = "shell",
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="vllm, sglang, tensorrt-llm or tgi; else the one planned for.", show_default=False),
    ] = None,
    name: Name = None,
    namespace: Namespace = None,
    image: Image = None,
    force: Force = False,
) -> None:
    """Write the files that start a saved plan, and say what to run.

    The plan file is all that is needed. The same plan gives the same bytes. Every file says at its top which plan it is of, what
    was assumed, and which GPU is which rank.
    """
    from planner import api

    saved = api.load_plan(plan)
    job, written = api.emit_plan(saved, target, engine=engine, name=name, namespace=namespace, image=image)
    if output == STDOUT:
        sys.stdout.write(one_text(written))
        say(job, written, sys.stderr)
        return
    put(written, output, force=force)
    say(job, written, sys.stdout, output)


def put(written: Output, output: str, *, force: bool) -> None:
    """Write the files into a directory, and say so."""
    from planner.launching import write_files
    from planner.render.text import printable

    write_files(written.files, Path(output), force=force)
    for file in written.files:
        sys.stderr.write(printable(f"wrote {Path(output) / file}") + "\n")


def one_text(written: Output) -> str:
    """All files in one: alone as it is, several each after a line with its name, which is a comment in all of them."""
    if len(written.files) == 1:
        return next(iter(written.files.values()))
    return "".join(f"# --- file: {name}\n{text}" for name, text in written.files.items())


def say(job: Job, written: Output, stream: TextIO, folder: str = "") -> None:
    """What to run, how to measure it, and what to know."""
    from planner.deploy.benchmark import result_file
    from planner.launching import benchmark_line
    from planner.render.text import printable

    if not written.run:  # nothing to start
        return
    lines = [f"# run in {folder}" if folder else "# run", *written.run]
    lines += ["# then measure what was predicted", benchmark_line(job, written.address)]
    lines.append(f"# and hold it against the plan: planner validate {result_file(job.engine)} --plan PLAN")
    lines += [f"# {note}" for note in (*job.launch.notes, *written.notes)]
    stream.writelines(printable(line) + "\n" for line in lines)
