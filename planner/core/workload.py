"""What traffic a deployment is planned for, and which targets it must meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from planner.core.speculation import Speculation
from planner.errors import BadInput
from planner.units import Seconds

Objective = Literal["throughput", "latency"]
Load = Literal["concurrency", "request-rate", "full", "batch"]
"""How requests come: as many as there are users, each asking again when answered (closed loop); so many a second whatever becomes
of them (open loop, Poisson); as many in flight as a plan holds, or as its targets allow; all at once, once (static batch)."""
LOADS: tuple[Load, ...] = ("concurrency", "request-rate", "full", "batch")
PERCENTILES = (50, 90, 99)
"""Which of the requests may be held to a target, besides their mean."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of ``input_tokens`` in and ``output_tokens`` out, and how many.

    ``concurrency`` requests are in flight over the whole deployment, or ``request_rate`` of them come a second; see :data:`Load`.
    Of every prompt ``cached_share`` is found in the prefix cache; tokens may be guessed (``speculation``). Targets are of mean times, or of what ``percentile`` per cent of
    the requests stay within; ``None`` where none is asked.
    """

    input_tokens: int = 1024
    output_tokens: int = 256
    concurrency: int = 32
    ttft_target: Seconds | None = None
    tpot_target: Seconds | None = None
    load: Load = "concurrency"
    request_rate: float = 0.0
    cached_share: float = 0.0
    percentile: int | None = None
    speculation: Speculation | None = None

    def __post_init__(self) -> None:
        """Raise ``BadInput`` for counts below 1, for targets and a rate that are not positive, and for a share of 1 or more."""
        for name in ("input_tokens", "output_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise BadInput(f"must be 1 or more, found {getattr(self, name)}", path=name)
        for name in ("ttft_target", "tpot_target"):
            target = getattr(self, name)
            if target is not None and not 0 < target < float("inf"):
                raise BadInput(f"must be a positive time, found {target}", path=name)
        if self.load not in LOADS:
            raise BadInput(f"is none of {', '.join(LOADS)}: {self.load!r}", path="load")
        if self.load == "request-rate" and not 0 < self.request_rate < math.inf:
            raise BadInput(f"must be a positive number of requests a second, found {self.request_rate}", path="request_rate")
        if not 0 <= self.cached_share < 1:
            raise BadInput(f"must be from 0 to below 1, found {self.cached_share}", path="cached_share")
        if self.percentile is not None and self.percentile not in PERCENTILES:
            raise BadInput(f"must be one of {', '.join(map(str, PERCENTILES))}, found {self.percentile}", path="percentile")

    @property
    def total_tokens(self) -> int:
        """Tokens a request holds in the KV cache when it ends."""
        return self.input_tokens + self.output_tokens

    @property
    def mean_context(self) -> int:
        """Context of a request halfway through its answer."""
        return self.input_tokens + self.output_tokens // 2

    @property
    def cached_tokens(self) -> int:
        """Tokens of a prompt that are found in the prefix cache; at least one is computed."""
        return min(self.input_tokens - 1, int(self.cached_share * self.input_tokens))

    @property
    def new_tokens(self) -> int:
        """Tokens of a prompt that are computed."""
        return self.input_tokens - self.cached_tokens

    @property
    def verified(self) -> int:
        """Tokens of a sequence that a decode step runs through the model."""
        return 1 if self.speculation is None else self.speculation.verified

    @property
    def traffic(self) -> str:
        """How many requests, in words."""
        return {
            "concurrency": f"{self.concurrency} in flight",
            "request-rate": f"{self.request_rate:g} requests a second",
            "full": "as many in flight as targets allow" if self.has_targets else "as many in flight as fit",
            "batch": f"a static batch of {self.concurrency}",
        }[self.load]

    @property
    def has_targets(self) -> bool:
        """Whether any target is to be met."""
        return self.ttft_target is not None or self.tpot_target is not None
