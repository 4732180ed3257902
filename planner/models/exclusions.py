"""Which modules a checkpoint's quantisation leaves alone: names, shell-like patterns and a small part of regular expressions.

A pattern comes from a file, so it is never handed to a regular-expression engine: ``.*`` and ``*`` cut it into pieces without
wildcards, and those are looked for one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

MOST_PATTERNS = 1000
MOST_ALTERNATIVES = 64
MOST_CHARACTERS = 300
_GROUP = re.compile(r"\((?:\?:)?([^()]{1,200})\)")
_DIGITS = "\x00"
_STAR = "\x01"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A name with gaps: ``pieces`` stand in this order, the first at the start, the last at the end where ``closed``; a
    character 0 in a piece is a number. ``whole`` says that what follows the last piece must be a dot.
    """

    pieces: tuple[str, ...]
    closed: bool
    whole: bool

    @property
    def numbered(self) -> bool:
        """Whether it may tell one layer from another."""
        return any(character.isdigit() for piece in self.pieces for character in piece)

    def matches(self, name: str) -> bool:
        """Whether ``name`` begins with this pattern."""
        place = 0
        for number, piece in enumerate(self.pieces):
            last = number == len(self.pieces) - 1
            found = _find(piece, name, place, anchored=number == 0, at_end=last and self.closed)
            if found is None:
                return False
            place = found
        return not self.whole or not self.pieces[-1] or place == len(name) or name[place] == "."


def _find(piece: str, name: str, start: int, *, anchored: bool, at_end: bool) -> int | None:
    """Where ``piece`` ends in ``name`` when looked for from ``start`` on."""
    if _DIGITS in piece:
        expression = re.compile(re.escape(piece).replace(_DIGITS, "[0-9]{1,6}") + (r"\Z" if at_end else ""))
        found = expression.match(name, start) if anchored else expression.search(name, start)
        return found.end() if found else None
    if at_end:
        start = start if anchored else max(start, len(name) - len(piece))
        return len(name) if name[start:] == piece else None
    place = (start if name.startswith(piece, start) else -1) if anchored else name.find(piece, start)
    return None if place < 0 else place + len(piece)


def from_glob(text: str) -> Pattern:
    """A shell-like pattern, which covers a module and all below it."""
    pieces = tuple(re.sub(r"\*+", "*", text).split("*"))
    return Pattern(pieces, closed=False, whole=True)


def from_expression(text: str) -> list[Pattern] | None:
    """The patterns of a regular expression made of literals, ``.*``, digits and groups of alternatives; ``None`` for others.

    >>> sorted(one.matches("model.layers.3.mlp.gate_proj") for one in from_expression(".*mlp.(gate|up)_proj.*"))
    [False, True]
    """
    if len(text) > MOST_CHARACTERS:
        return None
    alternatives, expanded = [text.removeprefix("^")], []
    while alternatives:
        one = alternatives.pop()
        group = _GROUP.search(one)
        if group is None:
            expanded.append(one)
        else:
            alternatives += [one[: group.start()] + choice + one[group.end() :] for choice in group[1].split("|")]
        if len(alternatives) + len(expanded) > MOST_ALTERNATIVES:
            return None
    patterns = []
    for one in expanded:
        closed = one.endswith("$")
        plain = one.removesuffix("$")
        plain = plain.replace(".*", _STAR).replace(".+", _STAR).replace(r"\d+", _DIGITS).replace("[0-9]+", _DIGITS)
        plain = plain.replace(r"\.", ".").replace(r"\d", _DIGITS).replace(r"\-", "-").replace(r"\_", "_")
        if re.search(r"[\\\[\](){}|?+*^$]", plain):
            return None
        patterns.append(Pattern(tuple(re.sub(f"{_STAR}+", _STAR, plain).split(_STAR)), closed, whole=False))
    return patterns


class Exclusions:
    """Modules by names and patterns. A plain name covers the modules below it wherever it stands in a path."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._patterns: list[Pattern] = []
        self.unread: list[str] = []
        for entry in entries:
            if entry.startswith("re:"):
                patterns = from_expression(entry[3:])
                if patterns is None:
                    self.unread.append(entry)
                self._patterns += patterns or []
            elif "*" in entry:
                self._patterns.append(from_glob(entry[:MOST_CHARACTERS]))
            elif entry:
                self._names.add(entry)
        self._patterns = self._patterns[:MOST_PATTERNS]

    @cached_property
    def numbered(self) -> bool:
        """Whether any of them tells one layer from another."""
        return any(one.numbered for one in self._patterns) or any(
            part.isdigit() for name in self._names for part in name.split(".")
        )

    @cached_property
    def _last_parts(self) -> set[str]:
        return {name.rpartition(".")[2] for name in self._names}

    def __bool__(self) -> bool:
        return bool(self._names or self._patterns)

    def cover(self, path: str) -> bool:
        """Whether the module at ``path`` is one of them, or below one."""
        parts = path.split(".")
        ends = [end for end, part in enumerate(parts, 1) if part in self._last_parts]
        runs = (".".join(parts[start:end]) for end in ends for start in range(end))
        return any(run in self._names for run in runs) or any(one.matches(path) for one in self._patterns)
