"""Predicted collectives in the layout of nccl-tests, and predictions held against measurements."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from typing import Any

from planner import __version__
from planner.core.implementation import CollectiveTable, Prediction
from planner.render import text

SCHEMA_VERSION = 1
ELEMENT_BYTES = 4
"""nccl-tests counts in floats unless it is told otherwise."""

_COUNTED_BY_RANK = {"all_gather", "reduce_scatter", "all_to_all"}

_MICRO = 1e-6
_GIGA = 1e9


def collective_document(table: CollectiveTable) -> dict[str, Any]:
    """What ``planner collective`` answers."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "collective",
        "planner_version": __version__,
        "topology": table.topology.name,
        "gpus": list(table.gpus),
        "operation": table.operation,
        "asked_implementation": table.asked,
        "launch": "eager" if table.eager else "cuda-graph",
        "predictions": [_prediction(one) for one in table.predictions],
    }


def _prediction(one: Prediction) -> dict[str, Any]:
    taken = one.taken
    return {
        "size_bytes": int(one.size),
        "time_s": taken.time,
        "time_low_s": one.low,
        "time_high_s": one.high,
        "algorithm_bandwidth_bytes_per_s": one.algorithm_bandwidth,
        "bus_bandwidth_bytes_per_s": one.bus_bandwidth,
        "implementation": one.implementation,
        "algorithm": taken.algorithm,
        "limiting_link": taken.limiting_link,
        "confidence": taken.confidence,
        "source": taken.source,
    }


def collective_csv(table: CollectiveTable) -> str:
    """The same as CSV: one row a size, units in the names of the columns."""
    stream = io.StringIO()
    rows = [_prediction(one) for one in table.predictions]
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def collective(table: CollectiveTable) -> None:
    """The table of nccl-tests, then what it stands on and how sure it is."""
    names = [f"{one.implementation}: {one.taken.algorithm}" for one in table.predictions]
    wide = max(map(len, names))
    shares = len(table.gpus) if table.operation in _COUNTED_BY_RANK else 1
    launched = "launched one by one" if table.eager else "CUDA graph"
    out = [
        f"# {table.operation} on GPUs {text.group(table.gpus)} of {table.topology.name}, predicted, {launched}",
        f"#{'size':>12} {'count':>12} {'type':>7} {'time':>10} {'algbw':>8} {'busbw':>8}  {'algorithm':<{wide}}  limited by",
        f"#{'(B)':>12} {'(elements)':>12} {'':>7} {'(us)':>10} {'(GB/s)':>8} {'(GB/s)':>8}",
    ]
    for one, who in zip(table.predictions, names, strict=True):
        count = int(one.size) // (ELEMENT_BYTES * shares)
        time, algorithm, bus = one.taken.time / _MICRO, one.algorithm_bandwidth / _GIGA, one.bus_bandwidth / _GIGA
        out.append(
            f" {int(one.size):>12} {count:>12} {'float':>7} {time:>10.2f} {algorithm:>8.2f} {bus:>8.2f}  {who:<{wide}}  {one.taken.limiting_link or '-'}"
        )
    for word, said in (
        ("from", [one.taken.source for one in table.predictions]),
        ("error bars", [_sure(one) for one in table.predictions]),
    ):
        out += [f"# {word}: {line}" for line in _ranges(table.predictions, said)]
    if len(table.gpus) == 1:
        out[3 + len(names) :] = ["# one GPU has nobody to talk to: no time"]
    sys.stdout.write("".join(text.printable(line) + "\n" for line in out))


def _sure(one: Prediction) -> str:
    advice = "; nothing like these links was measured: measure them" if one.taken.confidence == "low" else ""
    if one.taken.time <= 0:
        return ""
    low, high = one.low / one.taken.time, one.high / one.taken.time
    return f"{one.taken.confidence} confidence, nine of ten measured from {low:.2g} to {high:.2g} times this{advice}"


def _ranges(predictions: Sequence[Prediction], said: Sequence[str]) -> list[str]:
    """What is said of the sizes, once for those that follow each other."""
    found: list[tuple[str, float, float]] = []
    for one, words in zip(predictions, said, strict=True):
        if found and found[-1][0] == words:
            found[-1] = (words, found[-1][1], one.size)
        else:
            found.append((words, one.size, one.size))
    if len(found) == 1:
        return [words for words, _, _ in found if words]
    return [f"{words} ({int(low)} to {int(high)} B)" for words, low, high in found if words]
