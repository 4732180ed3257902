"""Options of the commands that make clusters."""

from __future__ import annotations

from typing import Annotated

import typer

NetworkSpec = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="SPEC",
        help="What joins the hosts: NICSxGBPS a host (8x400), with ,leaf=16 hosts a leaf switch, ,rail for rail-optimised, "
        ",oversubscription=2; or the path of Slurm's topology.conf or topology.yaml (8x400,tree=PATH); or none. "
        "Without it: the cards that were seen, on one flat network.",
        show_default=False,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Also write the topology to this YAML file; {host} in its name is this host's name. "
        "With - the document goes to standard output, and nothing else.",
        show_default=False,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit code 1 where a node is missing.")]
