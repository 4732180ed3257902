"""What tests share beside fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from planner.core.capture import Capture
from planner.core.hardware import GpuSpec
from planner.core.topology import Topology
from planner.documents.hardware import load_gpu
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


def look_up(model: str) -> GpuSpec | None:
    """The data sheet of a GPU, if there is one."""
    try:
        return load_gpu(model)
    except BadInput:
        return None


def assembled(captures: Sequence[Capture], name: str = "paste") -> Topology:
    """The graph of captures of one host, with the data sheets at hand but no names changed."""
    return assemble(join(captures), name, "capture", look_up)


def read_capture(text: str, source: str = "paste") -> Topology:
    """What a pasted text is read into."""
    return assembled(read_all(text, source))
