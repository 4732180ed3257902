"""What the tests of clusters share."""

from __future__ import annotations

from pathlib import Path

MATRIX_OF_TWO = """\
\tGPU0\tGPU1\tmlx5_0\tmlx5_1
GPU0\t X \tNV18\tPIX\tSYS
GPU1\tNV18\t X \tSYS\tPIX
mlx5_0\tPIX\tSYS\t X \tSYS
mlx5_1\tSYS\tPIX\tSYS\t X
"""
"""``nvidia-smi topo -m`` of a host with two GPUs, each with a network card beside it; written by hand."""


def program(folder: Path, name: str, script: str) -> None:
    """A shell script that stands in for a program."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
