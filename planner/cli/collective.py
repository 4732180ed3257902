"""planner collective"""

from __future__ import annotations

import math
import re
import sys
from enum import StrEnum
from typing import Annotated

import typer

from planner.cli.guard import guarded
from planner.cli.options import Gpu, TopologyReference
from planner.errors import BadInput

_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_RANGE = re.compile(r"\s*(?P<first>[0-9]+)\s*-\s*(?P<last>[0-9]+)\s*")
LARGEST = 2**40
MOST_GPUS = 100_000
MAX_ROWS = 1000


class TableFormat(StrEnum):
    """How the answer is written."""

    table = "table"
    json = "json"
    csv = "csv"


def size_of(words: str, option: str) -> int:
    """A number of bytes as nccl-tests reads it: K, M and G are powers of 1024. Raises ``BadInput``.

    >>> size_of("256M", "-e"), size_of("8", "-b"), size_of("1.5k", "-b")
    (268435456, 8, 1536)
    """
    match = _SIZE.fullmatch(words.strip())
    size = float(match["number"]) * _UNITS[match["unit"].upper()] if match else 0.0
    if not 1 <= size <= LARGEST or size != int(size):
        raise BadInput(f"{words!r} is not a size", path=option, hint="write bytes, or K, M or G for powers of 1024: 8, 64K, 256M")
    return int(size)


def sizes_of(begin: str, end: str, factor: float) -> list[int]:
    """The sizes from ``begin`` to ``end``, each ``factor`` times the last. Raises ``BadInput``.

    >>> sizes_of("1K", "16K", 4)
    [1024, 4096, 16384]
    """
    first, last = size_of(begin, "-b"), size_of(end, "-e")
    if first > last:
        raise BadInput(f"begins at {first} bytes and ends at {last}", path="-b, -e", hint="the first size is the smallest")
    if not math.isfinite(factor) or factor <= 1:
        raise BadInput(f"a factor of {factor:g} never ends", path="-f", hint="it is above 1, usually 2")
    sizes = [first]
    while (following := max(int(sizes[-1] * factor), sizes[-1] + 1)) <= last:
        sizes.append(following)
        if len(sizes) > MAX_ROWS:
            raise BadInput(f"more than {MAX_ROWS} sizes", path="-f", hint="take a larger factor")
    return sizes


def gpus_of(words: str | None) -> list[int] | None:
    """The numbers of ``0,1,2,3``, where ``0-3`` stands for all from 0 to 3. Raises ``BadInput``.

    >>> gpus_of("0-2,5"), gpus_of("3-1")
    ([0, 1, 2, 5], [3, 2, 1])
    """
    if words is None:
        return None
    return [gpu for word in words.split(",") for gpu in _range_of(word, words)]


def _range_of(word: str, words: str) -> list[int]:
    """The numbers of one word of ``words``: of ``2``, or of ``0-3``."""
    try:
        match = _RANGE.fullmatch(word)
        if match is None:
            return [int(word)]
        first, last = int(match["first"]), int(match["last"])
    except ValueError:
        hint = "write their numbers, for example 0,1,2,3 or 0-3"
        raise BadInput(f"{words!r} does not name GPUs", path="--gpus", hint=hint) from None
    if abs(last - first) >= MOST_GPUS:
        raise BadInput(f"{word!r} are more than {MOST_GPUS} GPUs", path="--gpus", hint="write the numbers of GPUs that are there")
    step = 1 if first <= last else -1
    return list(range(first, last + step, step))


@guarded
def collective(
    operation: Annotated[
        str,
        typer.Argument(
            metavar="OP",
            help="all-reduce, all-gather, reduce-scatter, all-to-all, broadcast or send-recv.",
            show_default=False,
        ),
    ],
    topology: TopologyReference = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus", help="Which GPUs, in the order of their ranks: 0,1,2,3 or 0-3. Without it: all.", show_default=False
        ),
    ] = None,
    begin: Annotated[str, typer.Option("-b", "--begin", help="The smallest message; K, M and G are powers of 1024.")] = "8",
    end: Annotated[str, typer.Option("-e", "--end", help="The largest message.")] = "256M",
    factor: Annotated[float, typer.Option("-f", "--factor", help="Each message is so many times the last.")] = 2.0,
    implementation: Annotated[
        str, typer.Option("--impl", help="nccl, an engine (vllm, tensorrt-llm, sglang), or auto: the fastest of them.")
    ] = "auto",
    eager: Annotated[bool, typer.Option("--eager", help="Without CUDA graphs: every launch has a price.")] = False,
    gpu: Gpu = None,
    form: Annotated[TableFormat, typer.Option("--format", help="How to write the answer.")] = TableFormat.table,
) -> None:
    """Predict what a collective takes on any GPUs of a machine, as nccl-tests would print it.

    Sizes are those of nccl-tests: of all-gather, reduce-scatter and all-to-all the whole buffer, all shares together.
    """
    from planner import api
    from planner.render import collective as render

    sizes = sizes_of(begin, end, factor)
    chosen = gpus_of(gpus)
    machine = api.find_topology(topology, gpu=gpu)
    table = api.predict_collective(machine, operation, sizes, gpus=chosen, implementation=implementation, eager=eager)
    if form is TableFormat.json:
        from planner.render import json

        sys.stdout.write(json.write(render.collective_document(table)))
    elif form is TableFormat.csv:
        sys.stdout.write(render.collective_csv(table))
    else:
        render.collective(table)
