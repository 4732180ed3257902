"""What tests share beside fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as JSON."""
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    @property
    def words(self) -> str:
        """Both streams with every run of white space made one space, so that wrapping does not matter."""
        return " ".join((self.out + " " + self.err).split())


Planner = Callable[..., Run]
