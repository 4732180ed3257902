"""Predictions held against measurements."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from planner import __version__
from planner.cost.accuracy import ENOUGH_ROWS, Grade, Graded, RowAnswer, Validation, poorest
from planner.documents.tables import write_table
from planner.render import ranking, terminal, text

SCHEMA_VERSION = 1
COLLECTIVES = "collectives"


def validation_document(answer: Validation) -> dict[str, Any]:
    """What ``planner validate`` answers; errors are shares of the measured value.

    A table of collectives has one figure, and its errors stand where those of others stand by the name of the figure.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "planner_version": __version__,
        "kind": answer.kind,
        "rows": answer.overall.rows,
        "answered": answer.overall.answered,
        "flagged_left_out": answer.left_out,
        "unanswered": [{"reason": reason, "rows": count} for reason, count in _reasons(answer)],
        "overall": _grades(answer.kind, answer.overall),
        **ranking.document(answer.overall.ranking),
        "groups": [
            {
                **group.of,
                "rows": group.rows,
                "answered": group.answered,
                **_grades(answer.kind, group),
                **ranking.document(group.ranking),
            }
            for group in answer.groups
        ],
    }


def _reasons(answer: Validation) -> list[tuple[str, int]]:
    """Why rows have no prediction, and how many; the most frequent first."""
    return sorted(answer.reasons.items(), key=lambda item: (-item[1], item[0]))


def _grades(kind: str, group: Graded) -> dict[str, Any]:
    if kind == COLLECTIVES:
        return _errors(next(iter(group.grades.values()), None))
    return {name: {"measurements": grade.measurements, **_errors(grade)} for name, grade in group.grades.items()}


def _errors(grade: Grade | None) -> dict[str, float | None]:
    known = grade.accuracy if grade else None
    return {
        "mape": known.mape if known else None,
        "median_ape": known.median_ape if known else None,
        "bias": known.bias if known else None,
        "p90_ape": known.p90_ape if known else None,
        "inside_interval": grade.inside if grade else None,
    }


def predictions_csv(answer: Validation) -> str:
    """The rows with columns ``predicted_…``, ``…_low`` and ``…_high`` for every figure, empty where there is no prediction."""
    added = [f"predicted_{name}{end}" for name in answer.figures for end in ("", "_low", "_high")]
    return write_table(answer.columns, [{**one.cells, **_written(one)} for one in answer.answers], added)


def _written(one: RowAnswer) -> Mapping[str, str]:
    return {
        f"predicted_{name}{end}": f"{value:.6g}" if abs(value) < 1000 else f"{value:.3f}"
        for name, figure in one.figures.items()
        for end, value in (("", figure.predicted), ("_low", figure.low), ("_high", figure.high))
    }


def validation(answer: Validation) -> None:
    """Overall first, then the groups, the poorest bars among them, the order of layouts, what has no prediction and why."""
    left_out = f", {answer.left_out} flagged row{'s' * (answer.left_out > 1)} left out" if answer.left_out else ""
    out = _wrapped([f"{answer.source}: {answer.overall.answered} of {answer.overall.rows} rows answered{left_out}"])
    out += _table([line for group in (answer.overall, *answer.groups) for line in _lines(answer, group)])
    out += _wrapped(_poorest(answer))
    for group in (answer.overall, *answer.groups):
        if group.ranking is not None:
            name = ", ".join(group.of.values()) or "all"
            out += _wrapped([*ranking.at_one_load(name, group.ranking), *ranking.tensor_pipeline(name, group.ranking)])
            out += _wrapped(ranking.choices_title(name, group.ranking))
            out += ranking.choices(group.ranking, short=bool(group.of))
    out += _wrapped([f"no prediction for {count} row{'s' * (count > 1)}: {reason}" for reason, count in _reasons(answer)])
    sys.stdout.write("".join(line + "\n" for line in out))


def _wrapped(lines: list[str]) -> list[str]:
    width, out = max(20, terminal.console().width), []
    for line in lines:
        margin = line[: len(line) - len(line.lstrip())]
        out += textwrap.wrap(
            text.printable(line), width, subsequent_indent=margin + "  ", break_long_words=False, break_on_hyphens=False
        )
    return out


def _table(rows: list[tuple[str, str]]) -> list[str]:
    """Names and their numbers, a line each; in a terminal too narrow for that the numbers below."""
    console = terminal.console()
    named = [(text.printable(name), shown) for name, shown in (("group", _HEADINGS), *rows)]
    wide = max(len(name) for name, _ in named)
    told = console.is_terminal or "COLUMNS" in os.environ  # a pipe has no width
    if told and wide + 1 + len(_HEADINGS) > console.width:
        return [line for name, shown in named for line in (name, f"  {shown}")]
    return [f"{name:<{wide}} {shown}" for name, shown in named]


def _poorest(answer: Validation) -> list[str]:
    """Of every figure the share inside its bars, and the group where that is smallest."""
    out = []
    for name, grade in answer.overall.grades.items():
        found = poorest(answer.groups, name)
        if found is not None:
            group, least = found
            of = ", ".join(group.of.values())
            figure = f" of {name}" if len(answer.overall.grades) > 1 else ""
            out.append(
                f"inside the bar{figure}: {grade.inside:.0%} of {grade.measurements} rows; poorest group of at least "
                f"{ENOUGH_ROWS} rows: {of} with {least.inside:.0%} of {least.measurements}"
            )
    return out


def _lines(answer: Validation, group: Graded) -> list[tuple[str, str]]:
    """A line a figure of a group: its name, then the numbers."""
    name = ", ".join(group.of.values()) if group.of else "all"
    if answer.kind == COLLECTIVES or not group.grades:
        grade = next(iter(group.grades.values()), None)
        return [(name, _numbers(f"{group.answered}/{group.rows}", grade))]
    return [(f"{name}: {figure}", _numbers(str(grade.measurements), grade)) for figure, grade in group.grades.items()]


_HEADINGS = f"{'answered':>9} {'mean error':>10} {'median':>8} {'bias':>8} {'90th pct':>9} {'inside':>7}"


def _numbers(counted: str, grade: Grade | None) -> str:
    words = ["-"] * 5
    if grade is not None:
        known = grade.accuracy
        words = [f"{share:.1%}" for share in (known.mape, known.median_ape, known.bias, known.p90_ape)] + [f"{grade.inside:.0%}"]
    return f"{counted:>9} {words[0]:>10} {words[1]:>8} {words[2]:>8} {words[3]:>9} {words[4]:>7}"
