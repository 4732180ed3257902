"""What tests share beside fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from planner.core.hardware import GpuSpec
from planner.core.topology import Topology
from planner.errors import BadInput
from planner.graph.assemble import assemble
from planner.graph.join import join
from planner.readers import read_all


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


def read_capture(text: str, source: str = "paste", name: str = "paste") -> Topology:
    """What a pasted text is read into, with the data sheets at hand but no names changed."""
    from planner.documents.hardware import load_gpu

    def look_up(model: str) -> GpuSpec | None:
        try:
            return load_gpu(model)
        except BadInput:
            return None

    return assemble(join(read_all(text, source)), name, "capture", look_up)
