"""planner topology: show, diff, list, check, merge"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from planner.cli.guard import guarded
from planner.cli.merge import merge
from planner.cli.options import Format, FormatOption, Gpu
from planner.errors import BadInput, ExitCode

HELP = "A topology YAML, a capture of a host, a library name (dgx-h100) or a short spec (8xH100-SXM5-80GB); - for stdin."

topology_app = typer.Typer(
    help="Look at topologies: draw them, compare them, list and check them, put them together.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Picture(StrEnum):
    """How a topology is shown."""

    text = "text"
    svg = "svg"
    dot = "dot"
    yaml = "yaml"
    json = "json"
    topo_m = "topo-m"


class TextOrJson(StrEnum):
    """How an answer in words is written."""

    text = "text"
    json = "json"


Reference = Annotated[str, typer.Argument(metavar="TOPOLOGY", help=HELP, show_default=False)]


@topology_app.command()
@guarded
def show(
    topology: Reference,
    form: Annotated[
        Picture, typer.Option("--format", help="A picture (text, svg, dot), a document, or what 'nvidia-smi topo -m' prints.")
    ] = Picture.text,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to this file instead of standard output.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output file.")] = False,
    ascii_only: Annotated[
        bool, typer.Option("--ascii", help="Draw with ASCII alone; by itself where the terminal needs it.")
    ] = False,
    gpu: Gpu = None,
) -> None:
    """Draw a topology: sockets, switches, GPUs and cards, every link with its class and bandwidth, problems marked."""
    from planner import api

    loaded = api.load_topology(topology, gpu=gpu)
    filled = api.equipped_for_display(loaded)
    if form is Picture.text and output is None:
        from planner.render.show import show as draw

        draw(loaded, filled, filled.findings, ascii_only=ascii_only)
        return
    if form is Picture.text:
        from planner.render.show import text

        written = text(loaded, filled, filled.findings, ascii_only=ascii_only)
    elif form in {Picture.svg, Picture.dot}:
        from planner.render.scene import scene_of

        scene = scene_of(loaded, filled, filled.findings)
        if form is Picture.svg:
            from planner.render.svg import svg

            written = svg(scene)
        else:
            from planner.render.dot import dot

            written = dot(scene)
    elif form is Picture.json:
        from planner.render import json

        written = json.write(json.probe(filled))
    else:
        written = api.topology_yaml(loaded) if form is Picture.yaml else api.topology_matrix(filled)
    if output is None:
        sys.stdout.write(written)
    else:
        api.save_text(written, output, force=force)
        sys.stderr.write(f"wrote {output}\n")


@topology_app.command()
@guarded
def diff(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help=HELP, show_default=False)],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The same machine, later.", show_default=False)],
    form: Annotated[TextOrJson, typer.Option("--format", help="How to write the answer.")] = TextOrJson.text,
) -> None:
    """Explain what changed between two probes of one machine: GPUs, links, widths, drivers, peer-to-peer.

    What changes by itself (free memory, performance state, the generation of an idle link) is no difference, nor is what
    only one of the two knows. Exit code 0 if nothing changed, 1 if something did.
    """
    from planner import api
    from planner.render import difference

    old, new = api.load_topology(before), api.load_topology(after)
    changes = api.compare(old, new)
    if form is TextOrJson.json:
        from planner.render import json

        sys.stdout.write(json.write(difference.document(old, new, changes)))
    else:
        difference.show(before, after, changes)
    if changes:
        sys.stdout.flush()
        raise typer.Exit(ExitCode.NO)


@topology_app.command("list")
@guarded
def list_(form: FormatOption = Format.table) -> None:
    """List the machines of the library: their GPUs, what joins them, and what clouds call them."""
    from planner import api
    from planner.render import library

    machines = [api.load_topology(name) for name in api.topology_names()]
    if form is Format.json:
        from planner.render import json

        sys.stdout.write(json.write(library.document(machines)))
    else:
        library.show(machines)


@topology_app.command()
@guarded
def check(
    topologies: Annotated[list[str], typer.Argument(metavar="TOPOLOGY...", help=HELP, show_default=False)],
) -> None:
    """Check that topologies can be read and are whole: PCIe a tree, every end of a link a device, hosts that are joined.

    Exit code 0 if all are, 1 if one is not, 2 if one is not there.
    """
    from planner import api
    from planner.render.text import printable

    for reference in topologies:
        api.refuse_absent(reference)
    failed = False
    for reference in topologies:
        try:
            api.load_topology(reference)
        except BadInput as error:
            failed = True
            sys.stdout.write(printable(f"failed {reference}: {error}") + "\n")
        else:
            sys.stdout.write(printable(f"ok {reference}") + "\n")
    if failed:
        sys.stdout.flush()
        raise typer.Exit(ExitCode.NO)


topology_app.command()(merge)
