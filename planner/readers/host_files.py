"""The files in which Linux tells of the machine: ``/sys`` and ``/proc``, read through one narrow door.

Tests replay recorded files through the same door. Nothing is written, and nothing here needs to be root.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from planner.core.unknown import Unknown

MAX_BYTES = 2**16
"""Read of one file: the first processors of ``/proc/cpuinfo``, all of a configuration space."""


class FileTree(Protocol):
    """What answers for the files of a host."""

    def data(self, path: str, /) -> bytes:
        """What a file holds, its first :data:`MAX_BYTES`. Raises ``OSError``."""

    def names(self, path: str, /) -> Sequence[str]:
        """What a directory holds. Raises ``OSError``."""

    def resolve(self, path: str, /) -> str:
        """Where a path leads once all links in it are followed. Raises ``OSError`` where there is nothing."""


class HostFiles:
    """The files of this host."""

    def data(self, path: str, /) -> bytes:
        """As :meth:`FileTree.data`."""
        with Path(path).open("rb", buffering=0) as file:
            parts = []
            left = MAX_BYTES
            while left > 0 and (some := file.read(left)):
                parts.append(some)
                left -= len(some)
        return b"".join(parts)

    def names(self, path: str, /) -> Sequence[str]:
        """As :meth:`FileTree.names`."""
        return sorted(os.listdir(path))  # noqa: PTH208 - names, not paths

    def resolve(self, path: str, /) -> str:
        """As :meth:`FileTree.resolve`."""
        return str(Path(path).resolve(strict=True))


def text(files: FileTree, path: str) -> str | Unknown:
    """A file's text without white space around it, or why it cannot be read."""
    try:
        return files.data(path).decode(errors="replace").strip().strip("\0")
    except (OSError, ValueError) as error:
        return _why(path, error)


def names(files: FileTree, path: str) -> Sequence[str] | Unknown:
    """The names in a directory, or why it cannot be listed."""
    try:
        return files.names(path)
    except (OSError, ValueError) as error:
        return _why(path, error)


def resolved(files: FileTree, path: str) -> str | Unknown:
    """Where a path leads, or why nowhere."""
    try:
        return files.resolve(path)
    except (OSError, ValueError, RuntimeError) as error:
        return _why(path, error)


def exists(files: FileTree, path: str) -> bool:
    """Whether something is there."""
    return not isinstance(resolved(files, path), Unknown)


def _why(path: str, error: Exception) -> Unknown:
    return Unknown(f"{path}: {(getattr(error, 'strerror', None) or str(error) or 'cannot be read').lower()}")
