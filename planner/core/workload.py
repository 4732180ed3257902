"""What traffic a deployment is planned for, and which targets it must meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.errors import BadInput
from planner.units import Seconds

Objective = Literal["throughput", "latency"]


@dataclass(frozen=True, slots=True)
class Workload:
    """Closed loop: ``concurrency`` requests in flight over the whole deployment, each of ``input_tokens`` in and
    ``output_tokens`` out. Targets are mean times; ``None`` where none is asked.
    """

    input_tokens: int = 1024
    output_tokens: int = 256
    concurrency: int = 32
    ttft_target: Seconds | None = None
    tpot_target: Seconds | None = None

    def __post_init__(self) -> None:
        """Raise ``BadInput`` for counts below 1 and for targets that are no positive time."""
        for name in ("input_tokens", "output_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise BadInput(f"must be 1 or more, found {getattr(self, name)}", path=name)
        for name in ("ttft_target", "tpot_target"):
            target = getattr(self, name)
            if target is not None and not 0 < target < float("inf"):
                raise BadInput(f"must be a positive time, found {target}", path=name)

    @property
    def total_tokens(self) -> int:
        """Tokens a request holds in the KV cache when it ends."""
        return self.input_tokens + self.output_tokens

    @property
    def mean_context(self) -> int:
        """Context of a request halfway through its answer."""
        return self.input_tokens + self.output_tokens // 2
