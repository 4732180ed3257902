"""Predictions held against tables of measurements: ``planner validate``. What a table measures is told by its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from planner.cost.accuracy import Figure, Graded, RowAnswer, Validation, graded
from planner.documents.benchmark_results import looks_like_json, parse_result
from planner.documents.calibration import load_calibration
from planner.documents.files import read_text
from planner.documents.tables import Table, TableRow, parse_table
from planner.errors import BadInput, unknown_name
from planner.validation import kernels, memory, serving
from planner.validation.answering import Library
from planner.validation.collectives import CollectiveRows, find_operation, predict_collective, refuse_gpus, wires_of
from planner.validation.ranking import ranking_of


class Rows(Protocol):
    """Predictions of the rows of one table.

    ``figures`` are the columns that are predicted, ``named_by`` the column whose cell says what the figure of a row is, empty where
    it is what its own column says.
    """

    kind: str
    figures: tuple[str, ...]
    named_by: str

    def answer(self, row: TableRow) -> Mapping[str, Figure] | str:
        """Figures by column, or why there are none. Raises ``BadInput`` where the row cannot be read."""
        ...


def validate(path: Path, library: Library, *, by: Sequence[str] = (), include_flagged: bool = False) -> Validation:
    """Predict every row of a table of measurements and say how far off the predictions are, overall and by group.

    Flagged rows are left out unless ``include_flagged``; ``library`` finds models and prices plans. Raises ``BadInput`` where the
    file is no table that is known.
    """
    text = read_text(path)
    if looks_like_json(text):
        told = parse_result(text, str(path)).tool
        raise BadInput(
            f"is a result of {told}, no table", path=str(path), hint="name the plan it was measured on: --plan plan.yaml"
        )
    table = parse_table(text, str(path))
    rows = _rows(table, library)
    if not table.rows:
        raise BadInput("holds no rows", path=table.source)
    for name in by:
        if name not in table.columns:
            raise unknown_name("column", name, table.columns, hint=f"the columns are {', '.join(table.columns)}")
    kept = [row for row in table.rows if include_flagged or not row.flagged]
    answers = tuple(_answer(rows, row) for row in kept)
    grouped: dict[tuple[str, ...], list[RowAnswer]] = {}
    for one in answers:
        grouped.setdefault(tuple(one.cells[name] for name in by), []).append(one)
    kinds = [(dict(zip(by, key, strict=True)), grouped[key]) for key in sorted(grouped)] if by else []
    groups = [_graded(rows, library, of, members) for of, members in kinds]
    reasons = Counter(one.reason for one in answers if one.reason)
    left_out = len(table.rows) - len(kept)
    return Validation(
        rows.kind,
        str(path),
        table.columns,
        rows.figures,
        _graded(rows, library, {}, answers),
        tuple(groups),
        left_out,
        dict(reasons),
        answers,
    )


def _graded(rows: Rows, library: Library, of: Mapping[str, str], answers: Sequence[RowAnswer]) -> Graded:
    """The grades of a group of rows; of served layouts also whether they are in order."""
    found = graded(of, answers)
    return replace(found, ranking=ranking_of(answers, library.kind_of)) if rows.kind == serving.ServingRows.kind else found


def _answer(rows: Rows, row: TableRow) -> RowAnswer:
    outcome = rows.answer(row)
    if isinstance(outcome, str):
        return RowAnswer(row.cells, {}, {}, outcome)
    return RowAnswer(row.cells, outcome, {name: row.word(rows.named_by) for name in outcome} if rows.named_by else {})


def _rows(table: Table, library: Library) -> Rows:
    """The predictor of what a table measures, by its columns; of none that is known, collectives say what is missing."""
    for columns, rows in ((serving.COLUMNS, serving.ServingRows), (memory.COLUMNS, memory.MemoryRows)):
        if set(columns) <= set(table.columns):
            return rows(library)
    kernel = kernels.kind_of(table)
    if kernel is not None:
        return kernels.KernelRows(kernel, load_calibration())
    return CollectiveRows(table, load_calibration())


__all__ = ["Library", "find_operation", "predict_collective", "refuse_gpus", "validate", "wires_of"]
