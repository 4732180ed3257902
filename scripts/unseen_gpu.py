"""Constants that a GPU has no part in: kernels fitted without its tables, no all-reduce that was measured on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from fit_kernels import Section, fits, sections
from kernel_rows import read

from planner.cost.calibration import AttentionFit, Calibration, KernelFit
from planner.documents.calibration import load_calibration

Kernel = TypeVar("Kernel", KernelFit, AttentionFit)
TABLES = ("gemm.csv", "attention.csv", "moe.csv")
FLOP_OF_FILL = 1e9
"""The script that fits kernels counts ``fill`` in GFLOP."""


def without(folder: Path, gpu: str) -> Calibration:
    """The constants that ship, but for those that ``gpu`` is in: its kernels and all-reduces are predicted from others'.

    What is left of it: factors of NCCL's model and of other operations, and that 4-bit experts are served faster than timed.
    """
    known = load_calibration()
    systems = {row["system"] for name in TABLES for row in read(folder / name) if row["gpu"] == gpu}
    found = _fitted(sections(folder), systems)
    return replace(
        known,
        gemm=_instead(known.gemm, found["gemm"]),
        moe=_instead(known.moe, found["moe"]),
        attention=_instead(known.attention, found["attention"]),
        anchors=tuple(one for one in known.anchors if one.gpu != gpu),
    )


def _instead(known: Mapping[str, Kernel], fitted: Mapping[str, Mapping[str, Any]]) -> dict[str, Kernel]:
    return {name: replace(one, **fitted.get(name, {})) for name, one in known.items()}


def _fitted(forms: Sequence[Section], systems: set[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """The constants of every entry by kind of kernel, fitted on all but ``systems``."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for title, named in forms:
        entries = found.setdefault(title, {})
        for name, form, rows in named:
            rest = [row for row in rows if row.system not in systems]
            for own, parameters in (fits(form, rest) if rest else {}).items():
                for what, fields in form.entries(parameters).items():
                    scaled = {"fill": fields["fill"] * FLOP_OF_FILL} if "fill" in fields else {}
                    entries[name + own + what] = {**fields, **scaled}
    return found
