"""Predictions held against measurements."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from planner import __version__
from planner.cost.accuracy import Comparison, Grade, Graded, Ranking, RowAnswer, Validation
from planner.documents.tables import write_table
from planner.render import text

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
        "overall": _grades(answer.kind, answer.overall),
        **_ranking(answer.overall),
        "groups": [
            {
                **group.of,
                "rows": group.rows,
                "answered": group.answered,
                **_grades(answer.kind, group),
                **_ranking(group),
            }
            for group in answer.groups
        ],
    }


def _ranking(group: Graded) -> dict[str, Any]:
    """How layouts are ordered; nothing where no rows differ in their layout alone."""
    if group.ranking is None:
        return {}
    return {"ranking": {"same_gpus": _comparison(group.ranking.same_gpus), "per_gpu": _comparison(group.ranking.per_gpu)}}


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "groups": one.groups,
        "pairs": one.pairs,
        "top1_regret": one.regret,
        "agreement": one.agreement,
        "at_tpot_target": [
            {"tpot_ms": at.tpot_ms, "groups": at.groups, "top1_regret": at.regret, "lost": at.lost} for at in one.targets
        ],
    }


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
    """Overall first, then the groups, then what has no prediction and why."""
    rows = [line for group in (answer.overall, *answer.groups) for line in _lines(answer, group)]
    wide = max(len("group"), *(len(text.printable(name)) for name, _ in rows))
    left_out = f", {answer.left_out} flagged rows left out" if answer.left_out else ""
    out = [
        f"{answer.source}: {answer.overall.answered} of {answer.overall.rows} rows answered{left_out}",
        f"{'group':<{wide}} {'answered':>11} {'mean error':>11} {'median':>8} {'bias':>8} {'90th pct':>9} {'inside':>7}",
    ]
    out += [f"{text.printable(name):<{wide}} {shown}" for name, shown in rows]
    for group in (answer.overall, *answer.groups):
        if group.ranking is not None:
            out += _ranking_lines(", ".join(group.of.values()) or "all", group.ranking)
    for reason, count in sorted(answer.reasons.items(), key=lambda item: (-item[1], item[0])):
        out.append(f"no prediction for {count} row{'s' * (count > 1)}: {reason}")
    sys.stdout.write("".join(text.printable(line) + "\n" for line in out))


def _ranking_lines(name: str, ranking: Ranking) -> list[str]:
    """What is lost by choosing the layout that is predicted best, and how many pairs are in order."""
    out = []
    for words, one in (("equally many GPUs", ranking.same_gpus), ("any number of GPUs, per GPU", ranking.per_gpu)):
        if one.regret is None:
            continue
        order = "" if one.agreement is None else f", {one.agreement:.0%} of {one.pairs} pairs in order"
        out.append(f"ranking of {name}, {words}: {_groups(one.groups)}, regret {one.regret:.1%}{order}")
        out += [
            f"  TPOT within {at.tpot_ms:g} ms: {_groups(at.groups)}, regret {at.regret:.1%}, all lost in {at.lost}"
            for at in one.targets
            if at.regret is not None
        ]
    return out


def _groups(count: int) -> str:
    return f"{count} group{'s' * (count != 1)}"


def _lines(answer: Validation, group: Graded) -> list[tuple[str, str]]:
    """A line a figure of a group: its name, then the numbers."""
    name = ", ".join(group.of.values()) if group.of else "all"
    if answer.kind == COLLECTIVES or not group.grades:
        grade = next(iter(group.grades.values()), None)
        return [(name, _numbers(f"{group.answered}/{group.rows}", grade))]
    return [(f"{name}: {figure}", _numbers(str(grade.measurements), grade)) for figure, grade in group.grades.items()]


def _numbers(counted: str, grade: Grade | None) -> str:
    if grade is None:
        return f"{counted:>11} {'-':>11} {'-':>8} {'-':>8} {'-':>9} {'-':>7}"
    known = grade.accuracy
    words = [f"{share:.1%}" for share in (known.mape, known.median_ape, known.bias, known.p90_ape)]
    return f"{counted:>11} {words[0]:>11} {words[1]:>8} {words[2]:>8} {words[3]:>9} {f'{grade.inside:.0%}':>7}"
