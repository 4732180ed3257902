"""planner topology merge"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.cluster_options import NetworkSpec, Output, Strict
from planner.cli.deliver import STDOUT, deliver, refuse_missing
from planner.cli.guard import guarded
from planner.cli.options import Format, FormatOption, Gpu


@guarded
def merge(
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="TOPOLOGY...",
            help="Topology YAML files, captures, library names or short specs: a host each, or clusters whose hosts come in.",
            show_default=False,
        ),
    ],
    network: NetworkSpec = None,
    gpu: Gpu = None,
    output: Output = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="What the cluster is called; else as the output file.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output file.")] = False,
    strict: Strict = False,
    form: FormatOption = Format.table,
) -> None:
    """Put hosts together into one cluster, joined by a network.

    A host that cannot be read is left out and said, as a finding; exit code 2 where none is left, 1 with --strict where
    one is missing.
    """
    from planner.clusters import merge_topologies

    called = name or (Path(output).stem if output and output != STDOUT else "cluster")
    topology = merge_topologies(references, network=network, name=called, gpu=gpu)
    deliver(topology, output, force=force, form=form)
    refuse_missing(topology, strict=strict)
