"""Which rows of a table of served requests are answers to one question: their cells as keys, degrees and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from planner.cost.accuracy import RowAnswer
from planner.documents.tables import LEAST, MOST

QUESTION = ("model", "quant", "engine", "isl", "osl", "load_kind", "system")
"""What rows of one question have in common, besides the kind of GPU."""
RATES = ("output_tokens_per_s", "total_tokens_per_s")
TPOT = "tpot_ms"
TTFT = "ttft_ms"

Degrees = tuple[int, int, int, int]
"""tp, pp, dp, ep."""


def question_of(cells: Mapping[str, str], *, load: bool) -> tuple[str, ...]:
    """What a row asks: model, weights, engine, kind of GPU, lengths, system; ``load`` says whether also how much load."""
    names = (*QUESTION, "load") if load else QUESTION
    return _gpu_kind(cells.get("topology", "")), *(cells.get(name, "").strip() for name in names)


def degrees_of(cells: Mapping[str, str]) -> Degrees | None:
    """tp, pp, dp, ep; those that are empty are 1. ``None`` for a row that is not answered and says no numbers."""
    tensor, stages, data, expert = (number(cells, name, 1.0) for name in ("tp", "pp", "dp", "ep"))
    found = tensor, stages, data, expert
    return (int(tensor), int(stages), int(data), int(expert)) if all(one >= 1 for one in found) else None


def number(cells: Mapping[str, str], name: str, default: float = math.nan) -> float:
    """A number that can have been measured, ``default`` for an empty cell, NaN for anything else: nobody has looked at rows without
    an answer.
    """
    text = cells.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        return math.nan
    return value if LEAST <= value <= MOST else math.nan


def gpus_of(degrees: Degrees) -> int:
    """The GPUs of a layout; experts are spread over them."""
    return degrees[0] * degrees[1] * degrees[2]


def served_rate(cells: Mapping[str, str]) -> float:
    """Output tokens a second that a row has measured, or that its times come to in a closed loop (Little's law); NaN where neither
    is there.

    >>> loop = {"load": "10", "osl": "101", "ttft_ms": "1000", "tpot_ms": "10"}
    >>> served_rate(loop), served_rate({**loop, "output_tokens_per_s": "500"}), served_rate({**loop, "ttft_ms": ""})
    (505.0, 500.0, 1000.0)
    """
    stated = number(cells, "output_tokens_per_s")
    if not math.isnan(stated):
        return stated
    answer, each, first = number(cells, "osl"), number(cells, TPOT), number(cells, TTFT)
    if math.isnan(first):
        return number(cells, "load") / each * 1e3
    return number(cells, "load") * answer / (first + each * (answer - 1)) * 1e3


def rate_name(rows: list[RowAnswer]) -> str | None:
    """The figure by which rows are compared at one load: the rate that all have measured, else the time per output token."""
    return next((name for name in (*RATES, TPOT) if not any(math.isnan(number(one.cells, name)) for one in rows)), None)


def _gpu_kind(topology: str) -> str:
    """A topology without the count it begins with: ``8xL40S`` and ``4xL40S`` are of one kind.

    >>> _gpu_kind("4xA100-SXM4-40GB:nvlink-mesh"), _gpu_kind("dgx-h100")
    ('A100-SXM4-40GB:nvlink-mesh', 'dgx-h100')
    """
    count, by, kind = topology.partition("x")
    return kind if by and count.isdecimal() else topology
