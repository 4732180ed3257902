"""The commands put together."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.calibrate import calibrate
from planner.cli.check import check
from planner.cli.collective import collective
from planner.cli.disaggregate import disaggregate
from planner.cli.doctor import doctor
from planner.cli.emit import emit
from planner.cli.estimate import estimate
from planner.cli.explain import explain
from planner.cli.import_ import import_
from planner.cli.probe import probe
from planner.cli.recommend import recommend
from planner.cli.topology import topology_app
from planner.cli.validate import validate

app = typer.Typer(
    help="Plan LLM inference by the wires: read a machine's topology, place every rank, write the launch command.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(probe)
app.command()(doctor)
app.command()(recommend)
app.command()(estimate)
app.command()(explain)
app.command()(disaggregate)
app.command()(emit)
app.command()(check)
app.command("import")(import_)
app.command()(collective)
app.command()(validate)
app.command()(calibrate)
app.add_typer(topology_app, name="topology")


def _version(asked: bool) -> None:
    if asked:
        from planner import __version__

        typer.echo(f"planner {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    del version
