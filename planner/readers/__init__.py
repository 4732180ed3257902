"""Captures → :class:`planner.core.capture.Capture`. One module a format; what is not a topology is recognised and refused.

A module that reads a format has one constant, ``READER``. Adding a format is adding a module. A text may hold several
formats (a bug report does): every reader that recognises its own takes its part.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from planner.core.capture import Capture
from planner.errors import BadInput

MAX_CHARACTERS = 2_000_000
HOW_TO_CAPTURE = "run 'nvidia-smi topo -m' on the GPU host and pass its text"
_ANSI = re.compile(r"(?:\x1b|\ufffd|\u241b)\[[0-9;?]{0,16}[A-Za-z]|\[[0-9]{1,3}(?:;[0-9]{1,3}){0,4}m")
"""Terminal colours; browsers drop the escape character and keep the rest (``[4mGPU0``)."""
_JSON = re.compile(r"\\(u([0-9a-fA-F]{4})|[rnt\"\\/])")
_PLAIN = {"r": "\r", "n": "\n", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Reader:
    """A format: its name, how to tell it, and how to read it.

    ``recognises`` is quick and never raises. ``read`` takes the text and what messages call it, and raises ``BadInput``
    with the line.
    """

    name: str
    recognises: Callable[[str], bool]
    read: Callable[[str, str], Capture]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that people paste instead of a topology: what it is called, and what to run instead."""

    pattern: re.Pattern[str]
    what: str
    hint: str = HOW_TO_CAPTURE


_MEASURING = frozenset(
    {
        "benchmarks",
        "bounded_run",
        "figures",
        "measured_text",
        "measurements",
        "nccl_operations",
        "nccl_tests",
        "nvbandwidth",
        "p2p_bandwidth",
        "torch_benchmark",
    }
)
"""Modules about measurements: who reads a capture does not wait until they are loaded."""


@cache
def readers() -> tuple[Reader, ...]:
    """All readers, by module name."""
    names = [info.name for info in pkgutil.iter_modules(__path__) if info.name not in _MEASURING]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(module.READER for module in modules if hasattr(module, "READER"))


def clean(text: str) -> str:
    r"""``text`` without terminal colours, with Unix line ends and plain blanks; one long JSON string becomes its lines.

    >>> clean('"GPU0\\tGPU1\\r\\n\\u001b[0mGPU0"')
    '"GPU0\tGPU1\nGPU0"'
    """
    if "\\n" in text and "\n" not in text.strip():
        text = _JSON.sub(lambda escape: chr(int(escape[2], 16)) if escape[2] else _PLAIN.get(escape[1], escape[1]), text)
    text = text.replace("&nbsp;", " ")
    return _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " "))


def read_all(text: str, source: str) -> list[Capture]:
    """What every reader that recognises the text makes of it, at least one.

    Raises ``BadInput`` with the line where none does, saying by its name what was pasted instead.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadInput(f"longer than {MAX_CHARACTERS // 1_000_000} million characters", path=source, hint="pass only the capture")
    text = clean(text)
    from planner.readers.refusals import refuse, refuse_other_maker

    if other := refuse_other_maker(text, source):
        raise other
    found = [reader.read(text, source) for reader in readers() if reader.recognises(text)]
    if found:
        return found
    raise refuse(text, source)
