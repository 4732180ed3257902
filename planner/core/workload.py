"""What traffic a deployment is planned for, and which targets it must meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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

    @property
    def total_tokens(self) -> int:
        """Tokens a request holds in the KV cache when it ends."""
        return self.input_tokens + self.output_tokens

    @property
    def mean_context(self) -> int:
        """Context of a request halfway through its answer."""
        return self.input_tokens + self.output_tokens // 2
