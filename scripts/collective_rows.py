"""Measured collectives as rows: those of collectives.csv, and the tables of nccl-tests in nccl_tests.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from planner import api
from planner.core.operation import Operation
from planner.cost.interconnect import Interconnect
from planner.documents.hardware import load_link_rates
from planner.errors import BadInput
from planner.graph.equip import equip
from planner.validation import find_operation

TWO_KINDS_OF_PAIRS = ("a100_pairwise_nvlink", "send_recv")
"""Bridged and unbridged pairs stand under one name there: every size twice, 30 times apart."""
ONE_THREAD = 2**20
"""On one node, smaller messages of nccl-tests measure its single thread, which starts one GPU after the other (4 µs each)."""


@dataclass(frozen=True)
class Row:
    """One unflagged measurement, time in µs; ``written`` is the implementation as the table names it."""

    system: str
    topology: str
    written: str
    operation: Operation
    ranks: int
    nodes: int
    size: int
    time: float


def read(folder: Path) -> list[Row]:
    """The unflagged rows of both tables, the smallest systems' included."""
    return [*_collectives(folder / "collectives.csv"), *_nccl_tests(folder / "nccl_tests.csv")]


def _collectives(path: Path) -> Iterable[Row]:
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            size, ranks = int(row["message_bytes"]), int(float(row["n_gpus"]))
            if not row["flag"] and (row["system"], row["op"]) != TWO_KINDS_OF_PAIRS:
                yield Row(
                    row["system"],
                    row["topology"],
                    row["impl"],
                    find_operation(row["op"]),
                    ranks,
                    int(float(row["n_nodes"])),
                    size,
                    float(row["time_us"]),
                )


def _nccl_tests(path: Path) -> Iterable[Row]:
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            try:
                operation = find_operation(row["op"])
            except BadInput:
                continue  # reduce, and the like
            size = int(row["bytes"])
            if not row["flag"] and size > 0:
                nodes, ranks = int(float(row["n_nodes"])), int(float(row["n_gpus"]))
                if nodes == 1 and size < ONE_THREAD:
                    continue
                name = f"nccl-tests {row['file'].split('-')[0]}"
                yield Row(name, row["topology"], "nccl-tests", operation, ranks, nodes, size, float(row["time_us_out_of_place"]))


@cache
def wires(topology: str) -> Interconnect:
    """The machine of a row, by its graph alone."""
    built = api.load_topology(topology)
    specs = {name: api.load_gpu(name) for name in built.hardware}
    return Interconnect(equip(built, specs, load_link_rates()), specs)
