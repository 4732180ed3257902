"""Something about a machine that its owner should know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["problem", "notice"]
"""A ``problem`` makes the machine slower, smaller or less certain than it could be; a ``notice`` is worth knowing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation.

    ``code`` is stable from release to release. ``message`` says what is so, ``evidence`` what was seen that shows it,
    ``cost`` what it costs, ``hint`` what to do or how to settle it. ``devices`` are the ids it is about.
    """

    code: str
    message: str
    hint: str = ""
    severity: Severity = "problem"
    evidence: str = ""
    cost: str = ""
    devices: tuple[str, ...] = ()
