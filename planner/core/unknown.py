"""A value nobody could tell us. Unknown is neither zero nor absent: it stays visible, with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why a value is not known, in words a user can act on."""

    reason: str

    def __str__(self) -> str:
        return f"unknown ({self.reason})"


NOT_STATED = Unknown("not stated")
"""Nobody asked, or nobody said."""
