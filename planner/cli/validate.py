"""planner validate"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from planner.cli.deliver import STDOUT
from planner.cli.guard import guarded
from planner.cli.options import Format, FormatOption
from planner.errors import BadInput


@guarded
def validate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Measurements, one a row; the columns tell of what. Collectives: topology, impl, op, n_gpus, message_bytes, time_us. "
            "Served requests: topology, model, engine, isl, osl, load_kind, load. Memory: topology, engine, model, metric, value. "
            "Kernels: gpu, time_us and their sizes. And flag, if any. With --plan: the result of a serving benchmark, JSON.",
            show_default=False,
        ),
    ],
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan",
            metavar="PLAN",
            help="The saved plan that FILE was measured on: what vllm bench serve, sglang.bench_serving, trtllm-bench or AIPerf wrote.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="COLUMN,...", help="Report by the values of these columns too.", show_default=False),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="OUT.csv",
            help="Write the rows with columns predicted_... and their bars; - for standard output, and nothing else.",
            show_default=False,
        ),
    ] = None,
    include_flagged: Annotated[bool, typer.Option("--include-flagged", help="Count rows with something in flag too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of predictions.")] = False,
    form: FormatOption = Format.table,
) -> None:
    """Predict every row of a table of measurements and say how far off the predictions are; of served requests also whether layouts
    are in the measured order. With --plan: hold a benchmark against what the plan expected, and flag communication above 20 % of the
    time per token and speed below 70 % of predicted.

    Exit code 0 however far off they are; 2 where the file cannot be read as such.
    """
    if plan is not None:
        _refuse_beside_plan({"--by": by, "--predictions": predictions, "--include-flagged": include_flagged, "--force": force})
        _benchmark(file, plan, form)
        return
    from planner import api
    from planner.render import validation as render

    columns = [name.strip() for name in by.split(",")] if by is not None else []
    answer = api.validate(file, by=columns, include_flagged=include_flagged)
    if predictions == Path(STDOUT):
        sys.stdout.write(render.predictions_csv(answer))
        return
    if predictions is not None:
        _refuse_same(file, predictions)
        api.save_text(render.predictions_csv(answer), predictions, force=force)
        sys.stderr.write(f"wrote {predictions}\n")
    if form is Format.json:
        from planner.render import json

        sys.stdout.write(json.write(render.validation_document(answer)))
    else:
        render.validation(answer)


def _refuse_same(file: Path, predictions: Path) -> None:
    """Raise ``BadInput`` where the predictions would be written over the measurements."""
    if file.exists() and predictions.exists() and file.samefile(predictions):
        hint = "name another file: the measurements would be lost"
        raise BadInput("is the file of the measurements", path=f"--predictions {predictions}", hint=hint)


def _refuse_beside_plan(given: Mapping[str, object]) -> None:
    """Raise ``BadInput`` for options that are of tables."""
    for name, value in given.items():
        if value:
            raise BadInput("is for tables of measurements, not with --plan", path=name)


def _benchmark(file: Path, plan: str, form: Format) -> None:
    """A benchmark held against a plan."""
    from planner import api
    from planner.render import benchmark

    saved = api.load_plan(plan)
    answer = api.validate_benchmark(file, saved)
    if form is Format.json:
        from planner.launching import digest
        from planner.render import json

        sys.stdout.write(json.write(benchmark.document(saved, digest(saved), answer)))
    else:
        benchmark.show(saved, answer)
