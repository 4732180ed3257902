"""Something a reader noticed about a machine that its owner should know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation: a stable ``code``, what was seen, and what it means for the plan (or how to settle it)."""

    code: str
    message: str
    hint: str = ""
