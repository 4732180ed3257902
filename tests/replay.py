"""Machines that were asked once and answer again: recorded answers of NVML and recorded files.

A scenario is YAML. ``nvml`` maps a call with its arguments (``nvmlDeviceGetName 0``) to its answer, or to ``refused: why``
with NVML's ``code``. ``*``, ``?`` and ``[0-3]`` stand for what they do in file names, the longest key that fits wins, and a
call that no key fits is not supported. ``files`` maps paths to text in the same manner, ``links`` paths to where they lead,
``bytes`` paths to a ``size`` and hexadecimal digits by offset; folders hold what has a key without ``*``, and a key that
ends in ``/`` is an empty one. ``environment`` has names of variables. ``expected`` maps a path into the capture to what
stands there, ``#`` being a number of things and ``unknown: why`` a reason; ``findings`` are the codes of all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from planner.core.capture import Capture
from planner.core.unknown import Unknown
from planner.readers import live
from planner.readers.nvml import NOT_SUPPORTED, Refused

SCENARIOS = Path(__file__).parent / "readers" / "scenarios"


def _best(patterns: Mapping[str, Any], key: str) -> str | None:
    if key in patterns:
        return key
    fitting = [pattern for pattern in patterns if fnmatchcase(key, pattern)]
    return max(fitting, key=len, default=None)


@dataclass
class ReplayedLibrary:
    """NVML as it answered; ``broken`` calls fail as drivers do when nothing else fits. ``open`` counts who holds it."""

    answers: Mapping[str, Any]
    broken: frozenset[str] = frozenset()
    open: int = 0
    asked: list[str] = field(default_factory=list)

    def ask(self, call: str, /, *arguments: int) -> Any:
        key = " ".join((call, *map(str, arguments)))
        self.asked.append(key)
        if call in self.broken or key in self.broken:
            raise Refused("NVML: Unknown Error", 999)
        pattern = _best(self.answers, key)
        if pattern is None and call not in {"nvmlInit", "nvmlShutdown"}:
            raise Refused("NVML: Not Supported", NOT_SUPPORTED)
        answer = None if pattern is None else self.answers[pattern]
        if isinstance(answer, dict) and "refused" in answer:
            raise Refused(answer["refused"], answer.get("code"))
        self.open += {"nvmlInit": 1, "nvmlShutdown": -1}.get(call, 0)
        return answer


@dataclass
class ReplayedFiles:
    """Files as they were."""

    files: Mapping[str, str] = field(default_factory=dict)
    binary: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    def _open(self, path: str) -> None:
        self.asked.append(path)
        if path in self.broken:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def data(self, path: str, /) -> bytes:
        self._open(path)
        if path in self.binary:
            return _sparse(self.binary[path])
        pattern = _best(self.files, path)
        if pattern is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return str(self.files[pattern]).encode()

    def names(self, path: str, /) -> Sequence[str]:
        self._open(path)
        below = [key.removeprefix(path + "/") for key in self._keys() if key.startswith(path + "/")]
        if not below:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return sorted({name.split("/")[0] for name in below} - {""})

    def resolve(self, path: str, /) -> str:
        self._open(path)
        if path in self.links:
            return self.links[path]
        if path in self.files or any(key.startswith(path + "/") for key in self._keys()):
            return path
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def _keys(self) -> list[str]:
        return [key for key in (*self.files, *self.binary, *self.links) if "*" not in key]


def _sparse(parts: Mapping[Any, Any]) -> bytes:
    whole = bytearray(parts["size"])
    for offset, digits in parts.items():
        if offset != "size":
            some = bytes.fromhex(digits)
            whole[offset : offset + len(some)] = some
    return bytes(whole)


@dataclass(frozen=True)
class Scenario:
    """One recorded machine."""

    name: str
    comment: str
    document: Mapping[str, Any]

    @property
    def library(self) -> ReplayedLibrary:
        return ReplayedLibrary(self.document.get("nvml", {}))

    @property
    def files(self) -> ReplayedFiles:
        return ReplayedFiles(*(self.document.get(part, {}) for part in ("files", "bytes", "links")))

    @property
    def environment(self) -> Sequence[str]:
        return tuple(self.document.get("environment", ()))

    def capture(self) -> Capture:
        return live.capture(self.library, self.files, self.environment)


def scenarios() -> list[Scenario]:
    """All machines on record."""
    found = []
    for path in sorted(SCENARIOS.glob("*.yaml")):
        text = path.read_text("utf-8")
        found.append(Scenario(path.stem, text.split("\n")[0], yaml.safe_load(text)))
    return found


def looked_up(thing: Any, path: str) -> Any:
    """What stands at ``path`` in a capture, as a scenario would write it."""
    for step in path.split("."):
        if step == "#":
            thing = len(thing)
        elif isinstance(thing, Mapping):
            thing = thing[tuple(map(int, step.split(",")))] if "," in step else thing[step]
        elif step.isdigit():
            thing = thing[int(step)]
        else:
            thing = getattr(thing, step)
    if isinstance(thing, Unknown):
        return {"unknown": thing.reason}
    return list(thing) if isinstance(thing, tuple) else thing
