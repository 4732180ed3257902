"""What measurements made of a machine's links, as text and as JSON. The schema lies in ``data/schemas``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from planner import __version__
from planner.core.calibrated import CalibrationAnswer, HeldAgainst, LinkClass, Off, Range
from planner.render import findings, picture, terminal, text
from planner.render.text import printable

SCHEMA_VERSION = 1
NARROW = 76
"""Below so many columns the numbers of a table stand under its name."""
_HEADS = ("before", "links alone", "with curve")
_COLUMN = 15
_GIGA = 1e9


def show(answer: CalibrationAnswer, place: str | None) -> None:
    """Links, tables, findings and what was written, on standard output."""
    from rich.text import Text

    console = terminal.console()
    for style, line in lines(answer, place, console.width, ascii_only=not terminal.draws_lines()):
        console.print(Text(line, style=style), soft_wrap=True)


def lines(answer: CalibrationAnswer, place: str | None, width: int = 80, *, ascii_only: bool = False) -> list[tuple[str, str]]:
    """The answer line by line, each with its style, wrapped to the width."""
    width = max(20, width)
    drawn: list[tuple[str, str]] = []
    for style, words, indent in _said(answer, place, width):
        if not words:
            drawn.append(("", ""))
        elif style == "table":
            drawn.append(("", printable(words)))
        else:
            pieces = textwrap.wrap(
                printable(words),
                width,
                initial_indent=" " * indent,
                subsequent_indent=" " * (indent + 2),
                break_long_words=False,
                break_on_hyphens=False,
            )
            drawn += [(style, piece) for piece in pieces]
    return [(style, picture.plain(line)) for style, line in drawn] if ascii_only else drawn


def _said(answer: CalibrationAnswer, place: str | None, width: int) -> Iterator[tuple[str, str, int]]:
    yield "bold", f"{answer.target}: {_counted(len(answer.tables), 'table')} from {', '.join(map(_short, answer.sources))}", 0
    for note in answer.notes:
        yield "dim", f"- {note}", 0
    if answer.classes:
        yield "", "", 0
        yield "bold", "links, GB/s in one direction", 0
        for one in answer.classes:
            yield "", _link(one, several=len({each.host for each in answer.classes}) > 1), 2
    if answer.tables:
        yield "", "", 0
        yield "bold", "how far off predictions are: mean (worst)", 0
        yield from _tables(answer.tables, width)
    for finding in answer.findings:
        yield "", "", 0
        yield "", f"{'!' if finding.severity == 'problem' else '-'} {finding.code}: {finding.message}", 0
        for word, said in (("seen", finding.evidence), ("remedy", finding.hint)):
            if said:
                yield "", f"{word}: {said}", 4
    yield "", "", 0
    yield "bold", _written(answer, place), 0


def _short(source: str) -> str:
    return "standard input" if source == "-" else PurePath(source).name


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _link(one: LinkClass, *, several: bool) -> str:
    name = f"{one.host} {one.name}" if several and one.host else one.name
    line = "" if one.line is None else f"line rate {_number(one.line)}, "
    counted = f"{name} ×{len(one.links)}: {line}"
    if not one.measured:
        rates = (
            f"{_span(one.before)} as before" if one.before == one.after else f"before {_span(one.before)} → {_span(one.after)}"
        )
        return f"{counted}{rates}" + (f" ({one.note})" if one.note else "")
    some = "" if one.measured == len(one.links) else f", {one.measured} of them"
    taken = f" and {one.alike} alike" if one.alike else ""
    before = f"{'assumed' if one.assumed else 'before'} {_span(one.before)}"
    return f"{counted}{before} → measured {_span(one.after)}{some}{taken}, by {one.by}"


def _span(rates: Range) -> str:
    low, high = (_number(rate) for rate in rates)
    return low if low == high else f"{low} to {high}"


def _number(rate: float) -> str:
    return text.count(rate / _GIGA)


def _tables(tables: Sequence[HeldAgainst], width: int) -> Iterator[tuple[str, str, int]]:
    rows = [(_called(one), [_off(off) for off in (one.before, one.links, one.after)]) for one in tables]
    wide = width >= NARROW
    room = width - 2 - _COLUMN * len(_HEADS) if wide else 0
    heads = "".join(f"{head:>{_COLUMN}}" for head in _HEADS)
    yield "table", f"  {'':<{room}}{heads}" if wide else f"  {', '.join(_HEADS)}", 0
    for name, numbers in rows:
        if wide and len(name) <= room:
            yield "table", f"  {name:<{room}}" + "".join(f"{number:>{_COLUMN}}" for number in numbers), 0
        elif wide:
            yield "", name, 2
            yield "table", f"  {'':<{room}}" + "".join(f"{number:>{_COLUMN}}" for number in numbers), 0
        else:
            yield "", name, 2
            yield "", ", ".join(numbers), 4


def _called(one: HeldAgainst) -> str:
    if not one.stack:
        return f"{one.what}, {_counted(one.rows, 'pair')}"
    return f"{one.what.replace('_', '-')} {text.group(one.gpus)} {one.stack}, {_counted(one.rows, 'row')}"


def _off(off: Off | None) -> str:
    return "-" if off is None else f"{_percent(off.mean)} ({_percent(off.worst)})"


def _percent(share: float) -> str:
    """A share in percent, with a digit behind the point where it is small.

    >>> _percent(0.0341), _percent(1.5)
    ('3.4 %', '150 %')
    """
    return f"{share * 100:.1f} %" if share < 0.1 else text.percent(share)


def _written(answer: CalibrationAnswer, place: str | None) -> str:
    links = sum(one.measured for one in answer.classes)
    alike = sum(one.alike for one in answer.classes)
    taken = f", {_counted(alike, 'link')} alike" if alike else ""
    what = f"{_counted(links, 'measured link')}{taken} and {_counted(answer.curves, 'measured curve')}"
    again = f", {answer.replaced} of the curves in place of older ones" if answer.replaced else ""
    return f"{what}{again} " + (f"in {place}" if place else "would be written")


def document(answer: CalibrationAnswer, place: str | None) -> dict[str, Any]:
    """The same as a document; ``written_to`` is null where nothing was written."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "calibration",
        "planner_version": __version__,
        "topology": answer.target,
        "sources": list(answer.sources),
        "notes": list(answer.notes),
        "links": [_class_document(one) for one in answer.classes],
        "tables": [_table_document(one) for one in answer.tables],
        "findings": [findings.document(one) for one in answer.findings],
        "measured_links": sum(one.measured for one in answer.classes),
        "alike_links": sum(one.alike for one in answer.classes),
        "measured_curves": answer.curves,
        "replaced_curves": answer.replaced,
        "written_to": place,
    }


def _class_document(one: LinkClass) -> dict[str, Any]:
    return {
        "host": one.host,
        "name": one.name,
        "links": list(one.links),
        "line_rate_bytes_per_s": one.line,
        "before_bytes_per_s": list(one.before),
        "after_bytes_per_s": list(one.after),
        "measured_links": one.measured,
        "alike_links": one.alike,
        "measured_by": one.by,
        "note": one.note,
    }


def _table_document(one: HeldAgainst) -> dict[str, Any]:
    return {
        "what": one.what,
        "stack": one.stack or None,
        "gpus": list(one.gpus),
        "rows": one.rows,
        "before": _off_document(one.before),
        "links_alone": _off_document(one.links),
        "after": _off_document(one.after),
        "source": one.source,
    }


def _off_document(off: Off | None) -> dict[str, float] | None:
    return None if off is None else {"mean": off.mean, "worst": off.worst}
