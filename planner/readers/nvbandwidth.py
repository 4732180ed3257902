"""``nvbandwidth``: copies between every two GPUs that reach each other directly, as text or as the JSON of ``-j``.

Its arrows say where the data goes: ``GPU(row) <- GPU(column)``. Of copies both ways at once it prints each direction and their total, which is read;
the JSON holds the three one below the other (``json_output.cpp``). Everything else it measures (to and from the host, all
GPUs at once, latencies of a load) is left out by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.core.bus_id import normal_bus_id
from planner.core.measured import CopyDirection, MeasuredCopies, TableDevice
from planner.errors import BadInput
from planner.readers.figures import MOST_CHARACTERS, Figure, Matrix, figure, labels_of, read_matrix
from planner.readers.measured_text import MeasurementReader, Reading, refuse_many_tables
from planner.units import BytesPerSecond

_PROGRAM = "nvbandwidth"
_COPIES = re.compile(r"device_to_device_(bidirectional_)?memcpy_(?:read|write)_(?:ce|sm)")
_RUNNING = re.compile(r"Running (?:benchmark )?([a-z][a-z0-9_]{3,60})\.?(?=\s|$)")
_DESCRIPTION = re.compile(
    r"(?:memcpy |\b)(?:CE|SM)\b.{0,40}?\b(CPU|GPU)\(row\) (<->|<-|->) (CPU|GPU)\(column\)(?: (Total|\w{1,12}))? bandwidth"
)
_SUM = re.compile(r"SUM ([a-z][a-z0-9_]{3,60}) ([0-9]{1,12}(?:\.[0-9]{1,6})?)(?=\s|$)")
_DEVICE = re.compile(
    r"Device {1,4}([0-9]{1,4}): {0,4}(\S.{0,119}?)(?: \(([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2})\))?\s{0,40}$"
)
_HINT = "paste the whole output of nvbandwidth"
_HEADER_WITHIN = 12
_MOST_GPUS = 1024


@dataclass(slots=True)
class _Test:
    """One matrix: the test it is of (empty where the text is cut), its arrow and what it is a part of."""

    name: str
    arrow: str
    part: str
    matrix: Matrix


def _read(lines: Sequence[str], source: str) -> Reading:
    start = next((place for place, line in enumerate(lines) if '"nvbandwidth"' in line), None)
    if start is not None:
        return _from_json(lines, start, source)
    return _from_text(lines, source)


def _from_text(lines: Sequence[str], source: str) -> Reading:
    devices: dict[int, TableDevice] = {}
    tests: list[_Test] = []
    left_out: list[str] = []
    name, named = "", 0
    place = 0
    while place < len(lines):
        line = lines[place]
        place += 1
        if ("(row)" not in line and "Running" not in line and "SUM" not in line and "Device" not in line) or len(
            line
        ) > MOST_CHARACTERS:
            continue
        if found := _RUNNING.search(line):
            name, named = found[1], place
            if not _COPIES.fullmatch(name):
                left_out.append(f"{name} (line {place})")
        elif found := _DESCRIPTION.search(line):
            if name and not _COPIES.fullmatch(name):
                continue
            if not name and "CPU" in {found[1], found[3]}:
                left_out.append(f"copies to and from the host (line {place})")
                continue
            test, place = _below(name, found, lines, place, source)
            tests.append(test)
            refuse_many_tables(len(tests), source)
        elif found := _SUM.search(line):
            if tests and found[1].startswith(tests[-1].name) and place - max(tests[-1].matrix.lines.values()) < _HEADER_WITHIN:
                _refuse_other_sum(tests[-1], float(found[2]), place, source)
        elif found := _DEVICE.search(line):
            devices[int(found[1])] = _device(int(found[1]), found[2], found[3])
    if name and _COPIES.fullmatch(name) and not any(test.name == name for test in tests):
        left_out.append(f"{name}, which has no matrix (line {named})")
    return _reading(tests, devices, left_out, source)


def _device(index: int, model: str, bus_id: str | None) -> TableDevice:
    return TableDevice(index, bus_id=normal_bus_id(f"{bus_id}.0") if bus_id else None, model=model.strip())


def _below(name: str, found: re.Match[str], lines: Sequence[str], place: int, source: str) -> tuple[_Test, int]:
    for header in range(place, min(place + _HEADER_WITHIN, len(lines))):
        labels = labels_of(lines[header], frozenset({""}))
        if labels is not None:
            matrix, end = read_matrix(lines, header, labels, source)
            if matrix.missing is not None:
                problem = f"row {matrix.missing} is missing in a matrix of {len(labels)} columns"
                last = max(matrix.lines.values(), default=header + 1)
                raise BadInput(problem, path=f"{source}, line {last}", hint=_HINT)
            return _Test(name, found[2], (found[4] or "").lower(), matrix), end
    raise BadInput(f"'{found[0]}' has no matrix below it", path=f"{source}, line {place}", hint=_HINT)


def _refuse_other_sum(test: _Test, said: float, line: int, source: str) -> None:
    """Raise ``BadInput`` where the numbers of a matrix do not add up to the sum below it."""
    total = sum(cell.value for cell in test.matrix.cells.values())
    slack = 0.005 + sum(cell.half for cell in test.matrix.cells.values()) + 1e-5 * total
    if abs(total - said) > slack:
        problem = f"the numbers of {test.name or 'the matrix'} add up to {total:.2f}, not to the {said:.2f} below them"
        raise BadInput(problem, path=f"{source}, line {line}", hint="were numbers changed or cut? paste what nvbandwidth printed")


def _reading(tests: Sequence[_Test], devices: Mapping[int, TableDevice], left_out: Sequence[str], source: str) -> Reading:
    out = list(left_out)
    measured = []
    for test in tests:
        direction: CopyDirection = "both-ways" if test.arrow == "<->" else "one-way"
        if direction == "both-ways" and test.part != "total":
            # each direction by itself, while the other is busy; releases before 0.3 print only that
            if not any(other.name == test.name and other.part == "total" for other in tests):
                out.append(f"{test.name or 'copies both ways'} without its total (line {test.matrix.line})")
            continue
        between = {pair: cell for pair, cell in test.matrix.cells.items() if pair[0] != pair[1]}
        if below := next((pair for pair, cell in between.items() if cell.value < 0), None):
            problem = f"the bandwidth between {below[0]} and {below[1]} is {between[below].value:g} GB/s"
            raise BadInput(problem, path=f"{source}, line {test.matrix.lines[below[0]]}")
        # before 0.3 a pair without peer access is printed as 0.00
        copied = {pair: cell for pair, cell in between.items() if cell.value > 0}
        if not copied:
            out.append(f"{test.name or 'a matrix'}, in which no GPU copies to another (line {test.matrix.line})")
            continue
        turned = test.arrow == "<-"
        labels = test.matrix.labels
        measured.append(
            MeasuredCopies(
                direction=direction,
                peer_to_peer=True,
                bandwidth={_turn(pair, turned): BytesPerSecond(cell.value * 1e9) for pair, cell in copied.items()},
                latency={},
                access={
                    _turn((row, column), turned): (row, column) in copied for row in labels for column in labels if row != column
                },
                devices=tuple(devices[index] for index in sorted(devices)),
                source=source,
                line=test.matrix.line,
            )
        )
    return Reading(tuple(measured), tuple(out))


def _turn(pair: tuple[int, int], turned: bool) -> tuple[int, int]:
    return (pair[1], pair[0]) if turned else pair


def _from_json(lines: Sequence[str], start: int, source: str) -> Reading:
    """The document of ``-j``, wherever it stands in the text."""
    text = "\n".join(lines)
    opening = text.rfind("{", 0, text.index('"nvbandwidth"'))
    where = f"{source}, line {start + 1}"
    if opening < 0:
        raise BadInput("the JSON of nvbandwidth has no beginning", path=where, hint=_HINT)
    try:
        document, _ = json.JSONDecoder().raw_decode(text, opening)
        body = document["nvbandwidth"]
        tests = body.get("testcases") or []
        if not isinstance(tests, list) or not all(isinstance(test, dict) for test in tests):
            raise BadInput("'testcases' is no list of tests", path=where, hint=_HINT)
        if (problem := body.get("error")) and not tests:
            raise BadInput(f"nvbandwidth ended with an error: {str(problem)[:200]}", path=where)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = str(error)[:100] if isinstance(error, ValueError) else "not the document of nvbandwidth -j"
        raise BadInput(f"the JSON of nvbandwidth cannot be read: {said}", path=where, hint=_HINT) from None
    left_out: list[str] = []
    refuse_many_tables(len(tests), source)
    named = [number for number, line in enumerate(lines, 1) if '"name"' in line]
    places = named if len(named) == len(tests) else [start + 1] * len(tests)
    found = [test for entry, line in zip(tests, places, strict=True) for test in _json_tests(entry, line, left_out, source)]
    return _reading(found, {}, left_out, source)


def _json_tests(entry: Mapping[str, Any], line: int, left_out: list[str], source: str) -> Iterator[_Test]:
    name = str(entry.get("name", ""))[:60]
    where = f"{source}, line {line}"
    kind = _COPIES.fullmatch(name)
    rows = entry.get("bandwidth_matrix")
    if kind is None:
        left_out.append(name or "a test without a name")
        return
    if not rows:
        status = str(entry.get("status", ""))[:40]
        left_out.append(f"{name}, which has no matrix" + (f" ({status})" if status else ""))
        return
    if not isinstance(rows, list) or not all(isinstance(row, list) and row and len(row) == len(rows[0]) for row in rows):
        raise BadInput(f"the matrix of {name} is not one of equal rows", path=where, hint=_HINT)
    width = len(rows[0])
    if len(rows) % width or width > _MOST_GPUS or len(rows) > 3 * width:
        raise BadInput(f"the matrix of {name} has {len(rows)} rows and {width} columns", path=where, hint=_HINT)
    description = _DESCRIPTION.search(str(entry.get("bandwidth_description", ""))[:MOST_CHARACTERS])
    arrow = "<->" if kind[1] else description[2] if description else "<-"
    parts = {1: [(description[4] or "").lower() if description else ""], 3: ["read1", "read2", "total"]}.get(
        len(rows) // width, ["", "total"]
    )
    for number, part in enumerate(parts):
        matrix = Matrix(tuple(range(width)), line)
        for label, row in enumerate(rows[number * width : (number + 1) * width]):
            matrix.lines[label] = line
            for column, word in enumerate(row):
                if (cell := _json_cell(word)) is not None:
                    matrix.cells[label, column] = cell
                elif word != "N/A":
                    raise BadInput(f"row {label} of {name} holds {str(word)[:40]}, which is no number", path=where)
        test = _Test(name, arrow, part, matrix)
        if part == parts[-1] and isinstance(said := entry.get("sum"), int | float):
            _refuse_other_sum(test, float(said), line, source)
        yield test


def _json_cell(word: Any) -> Figure | None:
    return figure(str(word)) if isinstance(word, str | int | float) and not isinstance(word, bool) else None


MEASUREMENTS = MeasurementReader(
    _PROGRAM, re.compile(r'"nvbandwidth"|nvbandwidth Version|memcpy (?:CE|SM)\b|_(?:ce|sm)\b|\(row\) (?:<->|<-|->)'), _read
)
