"""Options of the commands that save plans and write the files that start them."""

from __future__ import annotations

from typing import Annotated

import typer

STDOUT = "-"
TARGETS = "shell, compose, kubernetes, slurm, ray, systemd, or ranks (the map alone)"

SavePlan = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Also save the first plan to this YAML file, for 'planner emit'. With - it goes to standard output, and nothing else.",
        show_default=False,
    ),
]
Inline = Annotated[bool, typer.Option("--inline", help="Keep the whole topology in the saved plan, not its name and digest.")]
EmitInto = Annotated[
    str | None,
    typer.Option("--emit", metavar="DIR", help="Also write the files that start the first plan into DIR.", show_default=False),
]
TargetOption = Annotated[str, typer.Option("--target", help=f"What starts it: {TARGETS}.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")]
Ranks = Annotated[bool, typer.Option("--ranks", help="Show which GPU is which rank of the first plan.")]
Name = Annotated[
    str | None,
    typer.Option("--name", help="What jobs and Kubernetes objects are called; else as the model.", show_default=False),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", help="The Kubernetes namespace.", show_default=False),
]
Image = Annotated[
    str | None,
    typer.Option("--image", help="The container image; else the engine's own of the release planned for.", show_default=False),
]
