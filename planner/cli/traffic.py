"""The options that say which traffic a plan is for, and the workload they come to."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from planner.cli.options import MOST
from planner.errors import BadInput

if TYPE_CHECKING:
    from planner.core.workload import Load, Objective, Workload
    from planner.units import Seconds

DEFAULT_CONCURRENCY = 32
"""Requests in flight where the best latency is asked for and no load is given: a full machine is no measure of that."""

InFlight = Annotated[
    Optional[int],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option(
        "--concurrency",
        min=1,
        max=MOST,
        help="Requests in flight, over all replicas together. Without any load: as many as fit, or as meet the targets "
        f"({DEFAULT_CONCURRENCY} with --objective latency).",
        show_default=False,
    ),
]
RequestRate = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        "--request-rate", min=1e-6, max=MOST, help="Requests a second that come by chance, instead.", show_default=False
    ),
]
StaticBatch = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--batch", min=1, max=MOST, help="Requests that start and end together (an offline job), instead.", show_default=False
    ),
]
CachedShare = Annotated[
    float, typer.Option("--prefix-hit-rate", min=0, max=0.9999, help="Share of a prompt's tokens found in the prefix cache.")
]
TargetPercentile = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--percentile",
        min=50,
        max=99,
        help="Hold 50, 90 or 99 % of the requests to the targets, not their mean.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Traffic:
    """The options as they were given; targets in milliseconds."""

    input_tokens: int
    output_tokens: int
    concurrency: int | None = None
    request_rate: float | None = None
    batch: int | None = None
    cached_share: float = 0.0
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    percentile: int | None = None


def workload_of(asked: Traffic, objective: Objective) -> Workload:
    """The workload. Raises ``BadInput`` for two loads at once, a percentile of no target, and numbers that are none."""
    from planner.core.workload import Workload
    from planner.units import Seconds

    loads: list[tuple[str, Load, float | None]] = [
        ("--concurrency", "concurrency", asked.concurrency),
        ("--request-rate", "request-rate", asked.request_rate),
        ("--batch", "batch", asked.batch),
    ]
    given = [(option, load) for option, load, value in loads if value is not None]
    if len(given) > 1:
        raise BadInput(f"is another load than {given[0][0]}", path=given[1][0], hint="give one of them")
    for option, value in (
        ("--ttft-ms", asked.ttft_ms),
        ("--tpot-ms", asked.tpot_ms),
        ("--request-rate", asked.request_rate),
        ("--prefix-hit-rate", asked.cached_share),
    ):
        if value is not None and not isfinite(value):  # some releases of typer let nan pass their bounds
            raise BadInput(f"must be a number, found {value}", path=option)
    if asked.percentile is not None and asked.ttft_ms is None and asked.tpot_ms is None:
        raise BadInput("is of targets, and there is none", path="--percentile", hint="add --ttft-ms or --tpot-ms")
    idle: Load = "full" if objective == "throughput" else "concurrency"

    def target(milliseconds: float | None) -> Seconds | None:
        return None if milliseconds is None else Seconds(milliseconds * 1e-3)

    return Workload(
        asked.input_tokens,
        asked.output_tokens,
        asked.batch or asked.concurrency or DEFAULT_CONCURRENCY,
        target(asked.ttft_ms),
        target(asked.tpot_ms),
        load=given[0][1] if given else idle,
        request_rate=asked.request_rate or 0.0,
        cached_share=asked.cached_share,
        percentile=asked.percentile,
    )
