"""Tables of nccl-tests (and rccl-tests), of all its programs and ages, with their lists of devices.

The time out of place is read. Rows that move nothing are skipped; a table of one GPU, of an operation that planner has no use for or of
groups that ran at once is left out by name. What cannot be is refused: see :mod:`planner.readers.nccl_operations`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from planner.core.bus_id import BUS_ID_PATTERN, normal_bus_id
from planner.core.measured import MeasuredTable, TableDevice
from planner.errors import BadInput
from planner.readers.figures import MOST_CHARACTERS, figure, is_figure, words_of
from planner.readers.measured_text import MeasurementReader, Reading, refuse_many_tables
from planner.readers.nccl_operations import NAMES, PROGRAMS, WORD_BYTES, Row, identify, refuse_impossible
from planner.units import Bytes, Seconds

_TYPES = "|".join(sorted(WORD_BYTES, key=len, reverse=True))
_TYPE = re.compile(rf"(?<![^\s|])(?:{_TYPES})(?=[\s|])")
_REDOPS = frozenset({"sum", "prod", "max", "min", "avg", "all", "mulsum", "none"})
_NAME = re.compile(rf"(?<![A-Za-z0-9_])({'|'.join(sorted(NAMES, key=len, reverse=True))})_perf(?![A-Za-z0-9])")
_RANK = re.compile(
    r"Rank {1,8}(\d{1,6}) {1,8}(?:Group {1,8}(\d{1,6}) {1,8})?Pid {1,12}\d{1,12} {1,8}on {1,80}(?:([^\s\[]{1,255}) {1,80})?"
    r"device {1,8}(\d{1,4}) {1,8}\[([0-9A-Fa-fx:.]{1,20})\] {0,8}([^\s].{0,119})?"
)
_SHAPE = re.compile(r"nThreads? {1,8}(\d{1,6}) {1,8}nGpus {1,8}(\d{1,6})")
_SIZES = re.compile(r"maxBytes {1,8}(\d{1,18}) {1,8}step: {0,8}(\d{1,18}) {0,8}\((bytes|factor)\)")
_TASKS = re.compile(r"(?:mpirun|mpiexec|orterun|srun)\b.{0,400}? -{1,2}(?:np|n|ntasks)[ =](\d{1,6})(?!\S)")
_OF_RANKS = re.compile(r"\bnranks (\d{1,6})\b")
_OUT_OF_BOUNDS = re.compile(r"Out of bounds values {0,8}: {0,8}(\d{1,18}) {1,8}(\w{1,12})")
_BUS_ONLY = re.compile(r"0x([0-9A-Fa-f]{1,2})")
_WORTH = ("algbw", "busbw", "Rank", "_perf", "nThread", "nranks", "Out of bounds", "Avg bus")
_SHORTEST = 8
"""Characters of the shortest line that tells anything: ``nranks 2``."""
_MOST_ROWS = 20_000
_HINT = "paste the whole table, as nccl-tests printed it"


@dataclass(slots=True)
class _Run:
    """What the text tells of one run of one program.

    ``columns`` are the words of its header, if it has one; ``gpus`` a process and the ``sizes`` are as the line above it says.
    """

    line: int = 0
    name: str | None = None
    columns: list[str] | None = None
    rows: list[Row] = field(default_factory=list)
    empty: int = 0
    ranks: dict[int, tuple[int, TableDevice]] = field(default_factory=dict)
    logged: set[int] = field(default_factory=set)
    tasks: int = 1
    shape: int = 1
    gpus: int = 1
    sizes: re.Match[str] | None = None
    ended: bool = False

    @property
    def started(self) -> bool:
        """Whether rows were read."""
        return bool(self.rows or self.empty)


def _read(lines: Sequence[str], source: str) -> Reading:
    tables: list[MeasuredTable] = []
    left_out: list[str] = []
    for run in _runs(lines, source):
        if run.columns is not None and not run.rows:
            problem = "a table without a row that moves anything" if run.empty else "a table without rows"
            raise BadInput(problem, path=f"{source}, line {run.line}", hint=_HINT)
        if run.rows:
            _take(run, tables, left_out, source)
    return Reading(tuple(tables), tuple(left_out))


def _runs(lines: Sequence[str], source: str) -> list[_Run]:
    """The runs of a text; what stands before a table belongs to it, and log lines within it are passed over."""
    runs = [_Run()]
    called: tuple[str, str] | None = None
    for number, line in enumerate(lines, 1):
        if not _SHORTEST <= len(line) <= MOST_CHARACTERS:
            continue
        kind = _TYPE.search(line)
        if kind is not None and (row := _row(runs[-1], line, kind, number, source)):
            if runs[-1].started and runs[-1].ended:
                runs.append(_Run())
            _add(runs[-1], row, source)
            called = None
        elif not any(word in line for word in _WORTH):
            continue
        elif named := _NAME.search(line):
            called = _named(runs, named[1], line)
        else:
            header = "algbw" in line and "busbw" in line
            shape, device = _SHAPE.search(line), _RANK.search(line)
            if (runs[-1].started and (header or shape or device)) or (runs[-1].columns is not None and (shape or device)):
                runs.append(_Run())
                if called is not None:
                    _call(runs[-1], *called)
                    called = None
            if header:
                runs[-1].columns, runs[-1].line = [word.lower() for word in words_of(line)], number
            elif shape:
                runs[-1].gpus = int(shape[1]) * int(shape[2])
                runs[-1].shape = max(runs[-1].shape, runs[-1].gpus)
                runs[-1].sizes = _SIZES.search(line)
                runs[-1].ranks.clear()
            elif device:
                _list(runs[-1], device)
            else:
                _end(runs[-1], line, number, source)
        refuse_many_tables(len(runs), source)
    return runs


def _named(runs: list[_Run], name: str, line: str) -> tuple[str, str] | None:
    """Take a line that names a program; what is returned may be the command of the next run, or nothing to this one."""
    if "concluded" in line:
        runs[-1].name = runs[-1].name or name
        runs[-1].ended = runs[-1].started
        return None
    if not runs[-1].ended and (runs[-1].started or runs[-1].columns is not None):
        return name, line
    if runs[-1].ended:
        runs.append(_Run())
    _call(runs[-1], name, line)
    return None


def _end(run: _Run, line: str, number: int, source: str) -> None:
    """What stands below a table, and what NCCL logs."""
    if bounds := _OUT_OF_BOUNDS.search(line):
        if int(bounds[1]) or bounds[2].upper() != "OK":
            raise _broken(f"{bounds[1]} values out of bounds", number, source)
        run.ended = run.started
    elif "Avg bus" in line:
        run.ended = run.started
    elif logged := _OF_RANKS.search(line):
        run.logged.add(int(logged[1]))


def _call(run: _Run, name: str, line: str) -> None:
    """A command line, or what a program says of itself as it starts."""
    run.name = name
    if tasks := _TASKS.search(line):
        run.tasks = int(tasks[1])
    gpus = re.search(r" -{1,2}(?:g|ngpus)[ =]?(\d{1,4})(?!\S)", line)
    threads = re.search(r" -{1,2}(?:t|nthreads)[ =]?(\d{1,4})(?!\S)", line)
    run.shape = max(run.shape, int(gpus[1] if gpus else 1) * int(threads[1] if threads else 1))


def _list(run: _Run, device: re.Match[str]) -> None:
    name = device[5]
    bus_id = None
    if bus := _BUS_ONLY.fullmatch(name):
        bus_id = normal_bus_id(f"{bus[1]}:00.0") if int(bus[1], 16) else None
    elif re.fullmatch(rf"{BUS_ID_PATTERN}|(?:[0-9A-Fa-f]{{4,8}}:)?[0-9A-Fa-f]{{2}}:[0-9A-Fa-f]{{2}}", name):
        bus_id = normal_bus_id(name if "." in name else f"{name}.0")
    model = " ".join((device[6] or "").split()) or None
    run.ranks.setdefault(int(device[1]), (int(device[2] or 0), TableDevice(int(device[4]), device[3] or "", bus_id, model)))


def _row(run: _Run, line: str, kind: re.Match[str], number: int, source: str) -> Row | None:
    """The line as a row of the run's table, ``None`` where it is none. Raises ``BadInput`` where it is one that cannot be read."""
    before, after = words_of(line[: kind.start()])[-2:], words_of(line[kind.end() :])
    redop = after.pop(0) if after and after[0].lower() in _REDOPS else None
    width = next((place for place, word in enumerate(after) if not is_figure(word)), len(after))
    figures = after[:width]
    where = f"{source}, line {number}"
    rooted = "root" in run.columns if run.columns is not None else width % 4 == 1
    if width < 3 + rooted or len(before) < 2:
        if run.columns is not None and not run.ended and len(before) == 2 and all(map(is_figure, before)):
            raise BadInput("the row ends before its bandwidths", path=where, hint=_HINT)
        return None
    size, count = (_whole(word) for word in before)
    if size is None or count is None:
        if run.columns is None and width < 7:
            return None
        odd = before[0] if size is None else before[1]
        raise BadInput(f"{odd!r} is not a number of {'bytes' if size is None else 'elements'}", path=where, hint=_HINT)
    root = _whole_or_none(figures[0]) if rooted else None
    time, algorithm, bus = (figure(word) for word in figures[rooted : rooted + 3])
    if time is None or algorithm is None or bus is None:
        odd = next(word for word in figures[rooted:] if figure(word) is None)
        raise BadInput(f"{odd} for {size} bytes is no number", path=where, hint=_HINT)
    errors = figures[rooted + 3 :: 4]
    for word in errors:
        _refuse_wrong(word, run.columns, number, source)
    checked = tuple(place < len(errors) and errors[place] != "N/A" for place in (0, 1))
    return Row(number, size, count, kind[0], redop, root, time, algorithm, bus, (checked[0], checked[1]))


def _add(run: _Run, row: Row, source: str) -> None:
    run.line = run.line or row.line
    if row.size == 0:
        run.empty += 1
    else:
        run.rows.append(row)
    if len(run.rows) > _MOST_ROWS:
        raise BadInput(f"a table of more than {_MOST_ROWS} rows", path=f"{source}, line {row.line}")


def _whole(word: str) -> int | None:
    """A number of bytes or elements; a log may stand right before it (``<stdout>:8``)."""
    digits = re.fullmatch(r"(?:.{0,200}[:>\])])?([0-9]{1,18})", word)
    return int(digits[1]) if digits else None


def _whole_or_none(word: str) -> int | None:
    return int(word) if re.fullmatch(r"-?[0-9]{1,6}", word) else None


def _refuse_wrong(word: str, columns: list[str] | None, line: int, source: str) -> None:
    """Raise ``BadInput`` where answers were wrong. Old releases print the greatest deviation instead, which may be small."""
    value = figure(word)
    if value is None:
        if word in {"N/A", "n/a"}:
            return
        raise _broken(f"an error of {word}", line, source)
    deviation = columns is not None and "error" in columns
    if (value.value >= 1 or (value.value > 0 and "." not in word and "e" not in word.lower())) and not deviation:
        raise _broken(f"{word} wrong values", line, source)


def _broken(what: str, line: int, source: str) -> BadInput:
    hint = "results were wrong, so their times mean nothing: find the broken GPU, link or driver, and measure again"
    return BadInput(f"{what}: the run was broken", path=f"{source}, line {line}", hint=hint)


def _take(run: _Run, tables: list[MeasuredTable], left_out: list[str], source: str) -> None:
    """Put the run's tables where they belong: one for each type, reduction and root."""
    groups = {group for group, _ in run.ranks.values()}
    whole = sorted(run.ranks) == list(range(len(run.ranks)))
    stated = len(run.ranks) if run.ranks and whole else None
    if stated and run.gpus and stated % run.gpus:
        problem = f"lists {stated} rank{'s' * (stated > 1)}; its header says {run.gpus} GPUs a process"
        raise BadInput(problem, path=f"{source}, line {run.line}", hint=_HINT)
    label = f"{run.name or 'a table'} (line {run.line})"
    if run.name in NAMES and run.name not in PROGRAMS:
        left_out.append(label)
        return
    if len(groups) > 1:
        left_out.append(f"{label}, of {len(groups)} groups of GPUs at once")
        return
    if stated == 1:
        left_out.append(f"{label}, of one GPU")
        return
    for row in run.rows:
        refuse_impossible(row, source)
    parts: dict[tuple[str, str | None, int | None], list[Row]] = {}
    for row in run.rows:
        parts.setdefault((row.kind, row.redop, row.root), []).append(row)
    hints = [*(run.logged if len(run.logged) == 1 else ()), *([run.tasks * run.shape] if run.tasks * run.shape > 1 else ())]
    for rows in parts.values():
        answer = identify(rows, run.name, stated, hints, source)
        known = tuple(dict.fromkeys(program.operation for program in answer.programs if program.operation is not None))
        if answer.ranks == 1:
            left_out.append(f"{label}, of one GPU")
        elif not known:
            names = " or ".join(program.name for program in answer.programs)
            left_out.append(f"{names} (line {run.line})")
        else:
            points = _points(rows)
            tables.append(
                MeasuredTable(
                    operation=known[0] if len(answer.programs) == 1 else None,
                    candidates=known,
                    ranks=answer.ranks,
                    points=tuple((size, time) for size, time, _ in points),
                    devices=_devices(run) if stated else (),
                    stack="nccl",
                    source=source,
                    line=run.line,
                    lines=tuple(line for _, _, line in points),
                    announced=_announced(run, rows),
                )
            )


def _points(rows: Sequence[Row]) -> tuple[tuple[Bytes, Seconds, int], ...]:
    """(bytes, seconds, line) ascending; where a size was measured several times the median, and the first line."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row.size, []).append(row)
    return tuple((Bytes(float(size)), Seconds(_median(found[size]) * 1e-6), found[size][0].line) for size in sorted(found))


def _announced(run: _Run, rows: Sequence[Row]) -> Bytes | None:
    """The largest size by the line above the table, where the table has no end and the next row was still to come."""
    if run.ended or run.sizes is None:
        return None
    most, step, last = int(run.sizes[1]), int(run.sizes[2]), max(row.size for row in rows)
    following = last + step if run.sizes[3] == "bytes" else last * max(2, step)
    return Bytes(float(most)) if following <= most else None


def _median(rows: Sequence[Row]) -> float:
    ordered = sorted(row.time.value for row in rows)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _devices(run: _Run) -> tuple[TableDevice, ...]:
    """The devices of the ranks, in rank order. Bus ids that two GPUs of a host share are none."""
    devices = [run.ranks[rank][1] for rank in sorted(run.ranks)]
    seen: dict[tuple[str, str | None], set[int]] = {}
    for device in devices:
        seen.setdefault((device.host, device.bus_id), set()).add(device.index)
    return tuple(
        device if len(seen[device.host, device.bus_id]) == 1 else TableDevice(device.index, device.host, None, device.model)
        for device in devices
    )


MEASUREMENTS = MeasurementReader(
    "nccl-tests",
    re.compile(
        rf"algbw|busbw|nThreads? +[0-9]|Avg bus bandwidth|Out of bounds values|(?<![0-9])[0-9]{{1,18}}[ \t]{{1,40}}[0-9]{{1,18}}[ \t]{{1,40}}(?:{_TYPES})\s"
    ),
    _read,
)
