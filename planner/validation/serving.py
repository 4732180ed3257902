"""Rows of a table of measured serving: closed loops at a concurrency, static batches, and the most that an engine serves."""

from __future__ import annotations

from collections.abc import Mapping

from planner.core.estimate import Estimate
from planner.core.plan import Infeasible
from planner.core.workload import Load, Workload
from planner.cost.accuracy import Figure
from planner.documents.tables import TableRow
from planner.engines import engines
from planner.errors import BadInput
from planner.validation.answering import Library, degrees_of, engine_of

COLUMNS = ("topology", "model", "engine", "isl", "osl", "load_kind", "load")
FIGURES = ("ttft_ms", "tpot_ms", "output_tokens_per_s", "total_tokens_per_s", "e2e_latency_s")
LOADS: Mapping[str, Load] = {"concurrency": "concurrency", "batch": "batch", "max_throughput": "full"}
"""By how a table calls it."""


class ServingRows:
    """What an engine served, end to end."""

    kind = "serving"
    named_by = ""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.figures: tuple[str, ...] = FIGURES
        self._known: dict[tuple[object, ...], Estimate | str] = {}

    def answer(self, row: TableRow) -> Mapping[str, Figure] | str:
        """Figures by column, or why there are none."""
        engine = engine_of(row.word("engine"))
        if engine is None or engine not in engines():
            return f"engine {row.word('engine')!r} is not planned for"
        kind = row.word("load_kind")
        degrees = degrees_of(row)
        if not row.word("isl") or not row.word("osl"):
            return "says nothing of the lengths of prompts and answers"
        tokens = round(row.number("isl")), round(row.number("osl"))
        if kind not in LOADS:
            return f"load kind {kind!r} is not predicted"
        load = row.count("load") if row.word("load") else 1
        key = (*(row.word(name) for name in ("topology", "model", "quant", "engine")), degrees, tokens, kind, load)
        if key not in self._known:
            self._known[key] = self._estimate(row, Workload(*tokens, load, load=LOADS[kind]))
        found = self._known[key]
        return found if isinstance(found, str) else _figures(found, row, *tokens, batch=load if kind == "batch" else 0)

    def _estimate(self, row: TableRow, workload: Workload) -> Estimate | str:
        model = self._library.model(row.word("model"), row.word("quant"))
        if isinstance(model, str):
            return model
        topology = self._library.machine(row.word("topology"))
        if isinstance(topology, str):
            return topology
        try:
            found = self._library.estimate(model, topology, workload, degrees_of(row), row.word("engine"))
        except BadInput as error:
            return error.problem
        return f"does not fit by this estimate: {found.rule}" if isinstance(found, Infeasible) else found.estimate


def _figures(found: Estimate, row: TableRow, prompt: int, answer: int, batch: int) -> Mapping[str, Figure]:
    """What is said of a row; a static ``batch`` lasts until the last of its requests is answered."""
    unsure = found.uncertainty
    rate, (slowest, fastest) = found.output_tokens_per_second, unsure.output_tokens_per_second
    steps, both = answer - 1, (prompt + answer) / answer
    lasting = tuple(
        first + each * steps for first, each in zip((found.ttft, *unsure.ttft), (found.tpot, *unsure.tpot), strict=True)
    )
    if batch:
        lasting = tuple(batch * answer / served for served in (rate, fastest, slowest))
    values = {
        "ttft_ms": (found.ttft * 1e3, *(time * 1e3 for time in unsure.ttft)),
        "tpot_ms": (found.tpot * 1e3, *(time * 1e3 for time in unsure.tpot)),
        "output_tokens_per_s": (rate, slowest, fastest),
        "total_tokens_per_s": (rate * both, slowest * both, fastest * both),
        "e2e_latency_s": lasting,
    }
    return {
        name: Figure(said, low, high, row.number(name) if row.word(name) else None) for name, (said, low, high) in values.items()
    }
