"""``nvidia-smi topo -p2p r|w|n|a|p``: whether the driver lets each pair of GPUs read, write, … each other.

The text does not say which capability was asked for: the command line above it does, or the name of the file, or an
assumption is made and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from planner.core.capture import Capture
from planner.core.facts import PeerCapability
from planner.core.finding import Finding
from planner.errors import BadInput
from planner.readers import Reader
from planner.readers.smi_words import lines, refuse_many

_WHOLE = "paste the whole matrix of 'nvidia-smi topo -p2p r'"
_CAPABILITIES: dict[str, PeerCapability] = {"r": "read", "w": "write", "n": "nvlink", "a": "atomics", "p": "pcie"}
_WORDS = r"(?:CNS|GNS|TNS|NS|OK|DR|U|X)(?![a-z0-9=:])"
_WORD = re.compile(_WORDS)
_GPU = re.compile(r"GPU([0-9]{1,3})")
_HEADER = re.compile(r"(?<![\w.])GPU[0-9]{1,3}[\s|]*(?:GPU[0-9]{1,3}[\s|]*+)++$")
_ROW = re.compile(rf"(?<![\w.])GPU([0-9]{{1,3}})[\s|]*+((?:{_WORDS}[\s|]*+)++)(.{{0,20}})")
_CELLS = re.compile(rf"[\s|>]*+(?:{_WORDS}[\s|]*+)++$")
_MORE_NAMES = re.compile(r"[\s|>]*+(?:GPU[0-9]{1,3}[\s|]*+)++$")
_HINTS = re.compile(r"GPU[0-9]{1,3}[ \t|]{0,20}(?:X[ \t|]{0,20})?(?:CNS|GNS|TNS|NS|OK|DR|U)(?![a-z0-9=:])")
_LONGEST = 8192
"""Characters of a line that may be part of a matrix: 256 GPUs fit with room to spare."""
_COMMAND = re.compile(r"-p2p(?:status)?[ =\t]{1,4}([rwnap])(?!\w)")
_NAMED = re.compile(r"p2p[-_. ]?([rwnap])$|[-_. ](r|w|rw)$")


@dataclass(slots=True)
class _Matrix:
    """One matrix: the capabilities asked for above it, its columns, and its rows with the line of each."""

    line: int
    columns: list[int]
    asked: tuple[PeerCapability, ...]
    rows: dict[int, list[str]] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    trouble: tuple[int, str] | None = None


def _matrices(text: str) -> Iterator[_Matrix]:
    """The matrices of a text, as far as they go; those of link classes (``topo -m``) have no row here."""
    asked: dict[PeerCapability, None] = {}
    command = 0
    matrix: _Matrix | None = None
    last: int | None = None
    for number, line in lines(text):
        if len(line) > _LONGEST:
            last = None
        elif "-p2p" in line and (found := _COMMAND.search(line)):
            if number != command + 1:  # only commands line by line share one answer
                asked = {}
            asked[_CAPABILITIES[found[1]]] = None
            command = number
        elif "GPU" not in line:
            if matrix is not None and last is not None and _CELLS.match(line):
                _wrapped(matrix, last, line)
            elif line.strip():
                last = None
        elif matrix is not None and not matrix.rows and _MORE_NAMES.match(line) and _continues(matrix, line):
            matrix.columns += _names(line)
        elif header := _HEADER.search(line):
            if matrix is not None and matrix.rows:
                yield matrix
                asked = asked if command > matrix.line else {}
            matrix, last = _Matrix(number, _names(header[0]), tuple(asked)), None
        elif matrix is not None and len(_GPU.findall(line, 0, 400)) > 1:
            if matrix.rows:  # the header of another matrix
                yield matrix
                asked = asked if command > matrix.line else {}
            matrix = last = None
        elif matrix is not None:
            last = _row(matrix, number, line)
    if matrix is not None and matrix.rows:
        yield matrix


def _names(line: str) -> list[int]:
    return [int(name) for name in _GPU.findall(line)]


def _continues(matrix: _Matrix, line: str) -> bool:
    """Whether a second line of names goes on where the header was wrapped."""
    return _names(line)[0] == matrix.columns[-1] + 1


def _row(matrix: _Matrix, number: int, line: str) -> int | None:
    """Take a row; the GPU whose row may go on in the next line."""
    match = _ROW.search(line)
    if match is None:
        return None
    name = int(match[1])
    words = _WORD.findall(match[2])
    if words == ["X"] and match[3].strip():
        return None  # a matrix of link classes: after the X comes PIX or NV4
    if name in matrix.rows:
        matrix.trouble = matrix.trouble or (number, f"the row of GPU{name} is there twice")
        return None
    matrix.rows[name], matrix.places[name] = words, number
    if match[3].strip():
        matrix.trouble = matrix.trouble or (number, f"row GPU{name} has {match[3].split()[0]!r} among its cells")
    return name


def _wrapped(matrix: _Matrix, name: int, line: str) -> None:
    if len(matrix.rows[name]) < len(matrix.columns):
        matrix.rows[name] += _WORD.findall(line)


def _recognises(text: str) -> bool:
    return _HINTS.search(text) is not None and any(map(_tells, _matrices(text)))


def _tells(matrix: _Matrix) -> bool:
    """Whether any cell is of two different GPUs: ``X`` alone stands in every matrix."""
    return any(word != "X" for row in matrix.rows.values() for word in row)


def _read(text: str, source: str) -> Capture:
    peers: dict[PeerCapability, dict[tuple[int, int], str]] = {}
    findings: list[Finding] = []
    assumptions: list[str] = []
    for matrix in _matrices(text):
        if not _tells(matrix):
            continue
        statuses = _statuses(matrix, source)
        asked = matrix.asked or _assumed(source, assumptions)
        findings.extend(_several(one, matrix.line) for one in asked if peers.setdefault(one, statuses) != statuses)
    if not peers:
        raise BadInput("holds no matrix of peer-to-peer statuses", path=f"{source}, line 1", hint=_WHOLE)
    return Capture(
        source=source,
        format="nvidia-smi topo -p2p",
        peers=peers,
        findings=tuple(findings),
        assumptions=tuple(dict.fromkeys(assumptions)),
    )


def _several(capability: PeerCapability, line: int) -> Finding:
    return Finding(
        "several-peer-matrices",
        f"a second matrix of peer-to-peer {capability} follows (line {line}) and is different",
        "only the first was read",
    )


def _assumed(source: str, assumptions: list[str]) -> tuple[PeerCapability, ...]:
    """The capabilities of a matrix that no command line stands above.

    A file name tells where it ends in the letter of the option (``…-p2p-n.txt``); ``…-r``, ``-w`` and ``-rw`` are
    believed anywhere.
    """
    named = _NAMED.search(source.lower().removesuffix(".txt").removesuffix(".log")[-200:])
    if named:
        capabilities = tuple(_CAPABILITIES[letter] for letter in named[1] or named[2])
        assumptions.append(f"the p2p matrix does not say which capability: {' and '.join(capabilities)}, by the file's name")
        return capabilities
    assumptions.append("the p2p matrix does not say which capability: taken as read and write")
    return "read", "write"


def _statuses(matrix: _Matrix, source: str) -> dict[tuple[int, int], str]:
    """The matrix by ordered pair, without the diagonal. Raises ``BadInput`` with the line where it is not whole."""
    where = f"{source}, line {matrix.line}"
    refuse_many(len(matrix.columns), where)
    if len(set(matrix.columns)) < len(matrix.columns):
        raise BadInput("the header names a GPU twice", path=where, hint=_WHOLE)
    if matrix.trouble:
        number, problem = matrix.trouble
        raise BadInput(problem, path=f"{source}, line {number}", hint=_WHOLE)
    statuses: dict[tuple[int, int], str] = {}
    for name, row in matrix.rows.items():
        there = f"{source}, line {matrix.places[name]}"
        if name not in matrix.columns:
            raise BadInput(f"row GPU{name} is not in the header", path=there, hint=_WHOLE)
        if len(row) != len(matrix.columns):
            raise BadInput(f"row GPU{name} has {len(row)} cells, the header {len(matrix.columns)}", path=there, hint=_WHOLE)
        for other, word in zip(matrix.columns, row, strict=True):
            if (word == "X") != (name == other):
                raise BadInput(f"row GPU{name} does not have its X in its own column", path=there, hint=_WHOLE)
            if name != other:
                statuses[name, other] = word
    missing = [f"GPU{name}" for name in matrix.columns if name not in matrix.rows]
    if missing:
        last = max(matrix.places.values())
        some = ", ".join(missing[:8]) + (" …" if len(missing) > 8 else "")
        raise BadInput(f"the rows of {some} are missing", path=f"{source}, line {last}", hint=_WHOLE)
    return statuses


READER = Reader("nvidia-smi topo -p2p", _recognises, _read)
