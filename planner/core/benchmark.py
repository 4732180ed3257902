"""What a benchmark measured on a running server, and what that says of the plan it was launched from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.core.plan import Parallelism
from planner.core.workload import Workload
from planner.units import Seconds

FigureName = Literal["ttft_s", "tpot_s", "output_tokens_per_s"]
ComparedWith = Literal["plan", "estimate", "nothing"]
"""What measured figures are held against: what the plan expected; the plan priced anew for the traffic that was measured; nothing,
where it cannot be priced for that.
"""


@dataclass(frozen=True, slots=True)
class Served:
    """What a tool says that it sent and was served; ``None`` for what it does not say.

    ``tool`` is who wrote it, ``engine`` and ``parallelism`` what it measured where it says so. ``concurrency`` is the most requests
    in flight that were allowed, ``in_flight`` the mean number that there were, ``paced`` how requests were sent where not as soon as
    another had ended. ``input_tokens`` and ``output_tokens`` are means of a request, times are means in seconds.
    """

    source: str
    tool: str
    model: str | None = None
    engine: str | None = None
    parallelism: Parallelism | None = None
    concurrency: float | None = None
    in_flight: float | None = None
    paced: str = ""
    input_tokens: float | None = None
    output_tokens: float | None = None
    completed: float | None = None
    failed: float | None = None
    ttft: Seconds | None = None
    tpot: Seconds | None = None
    output_tokens_per_second: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def mean_in_flight(self) -> float | None:
        """The mean number of requests in flight: as the tool says, else by Little's law from rate and times."""
        if self.in_flight is not None:
            return self.in_flight
        if self.output_tokens_per_second is None or self.output_tokens is None or self.ttft is None or self.tpot is None:
            return None
        residence = self.ttft + self.tpot * max(0.0, self.output_tokens - 1)
        return self.output_tokens_per_second / self.output_tokens * residence


@dataclass(frozen=True, slots=True)
class Compared:
    """A measured figure, the predicted one and its interval, in seconds or tokens a second."""

    name: FigureName
    measured: float
    predicted: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted

    @property
    def inside(self) -> bool:
        """Whether it lies in the interval, in which nine of ten measurements are expected."""
        return self.low <= self.measured <= self.high


@dataclass(frozen=True, slots=True)
class Exposed:
    """Communication in the time per token: seconds in a decode step and in what prompts of other requests add to it, both as a
    share of TPOT, and the link that limits it.
    """

    decode: Seconds
    prefill: Seconds
    share: float
    link: str | None


@dataclass(frozen=True, slots=True)
class Flag:
    """A threshold that is passed: what was found, and what to look at."""

    code: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class BenchmarkAnswer:
    """A benchmark held against a plan.

    ``differences`` are why its traffic is not the plan's, ``workload`` is the traffic that figures are predicted for. ``figures`` are
    those that were measured, ``exposed`` is ``None`` where the plan cannot be priced any more. ``notes`` are what else to know
    before believing it.
    """

    served: Served
    workload: Workload
    differences: tuple[str, ...]
    compared_with: ComparedWith
    figures: tuple[Compared, ...]
    exposed: Exposed | None
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]
