"""The options that say which traffic a plan is for, and the workload they come to."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Annotated, cast

import typer

from planner.cli.options import MOST
from planner.errors import BadInput

if TYPE_CHECKING:
    from planner.core.speculation import Method, Speculation
    from planner.core.workload import Load, Workload
    from planner.units import Seconds

DEFAULT_CONCURRENCY = 32
"""Requests in flight where nobody says."""
DEFAULT_DRAFT_TOKENS = 3
MAXIMUM = "max"

InFlight = Annotated[
    str | None,
    typer.Option(
        "--concurrency",
        metavar=f"N|{MAXIMUM}",
        help=f"Requests in flight, over all replicas together; {MAXIMUM}: as many as fit, or as meet the targets "
        f"[default: {DEFAULT_CONCURRENCY}].",
        show_default=False,
    ),
]
RequestRate = Annotated[
    float | None,
    typer.Option(
        "--request-rate", min=1e-6, max=MOST, help="Requests a second that come by chance: an open loop.", show_default=False
    ),
]
StaticBatch = Annotated[
    int | None,
    typer.Option(
        "--batch", min=1, max=MOST, help="Requests that start and end together (an offline job), instead.", show_default=False
    ),
]
CachedShare = Annotated[
    float, typer.Option("--prefix-hit-rate", min=0, max=0.9999, help="Share of a prompt's tokens found in the prefix cache.")
]
TargetPercentile = Annotated[
    int | None,
    typer.Option(
        "--percentile",
        metavar="50|90|99",
        help="Hold 50, 90 or 99 % of the requests to the targets, not their mean.",
        show_default=False,
    ),
]
Guessing = Annotated[
    str | None,
    typer.Option(
        "--speculative", metavar="METHOD", help="Guess tokens: mtp, eagle3 (with --draft-model) or ngram.", show_default=False
    ),
]
DraftTokens = Annotated[
    int | None,
    typer.Option(
        "--draft-tokens",
        min=1,
        max=16,
        help=f"Tokens that --speculative guesses at a time [default: {DEFAULT_DRAFT_TOKENS}].",
        show_default=False,
    ),
]
Acceptance = Annotated[
    float | None,
    typer.Option(
        "--acceptance-rate",
        min=0,
        max=0.9999,
        help="Share of guesses that are right, given that those before them are: as measured for your traffic.",
        show_default=False,
    ),
]
DraftModel = Annotated[
    str | None,
    typer.Option("--draft-model", help="The checkpoint that eagle3 guesses with.", show_default=False),
]


@dataclass(frozen=True)
class Guess:
    """The options of speculative decoding as they were given."""

    method: str | None = None
    draft_tokens: int | None = None
    acceptance: float | None = None
    checkpoint: str | None = None


@dataclass(frozen=True)
class Traffic:
    """The options as they were given; targets in milliseconds."""

    input_tokens: int
    output_tokens: int
    concurrency: str | None = None
    request_rate: float | None = None
    batch: int | None = None
    cached_share: float = 0.0
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    percentile: int | None = None
    guess: Guess = Guess()


def workload_of(asked: Traffic, *, idle: Load = "concurrency") -> Workload:
    """The workload, ``idle`` where no load is given. Raises ``BadInput`` for two loads at once, a percentile of no target, and numbers
    that are none.
    """
    from planner.core.workload import PERCENTILES, Workload
    from planner.units import Seconds

    loads: list[tuple[str, Load, float | str | None]] = [
        ("--concurrency", "full" if asked.concurrency == MAXIMUM else "concurrency", asked.concurrency),
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
        ("--acceptance-rate", asked.guess.acceptance),
    ):
        if value is not None and not isfinite(value):  # some releases of typer let nan pass their bounds
            raise BadInput(f"must be a number, found {value}", path=option)
    if asked.percentile is not None and asked.percentile not in PERCENTILES:
        known = ", ".join(map(str, PERCENTILES))
        raise BadInput(f"must be one of {known}, found {asked.percentile}", path="--percentile")
    if asked.percentile is not None and asked.ttft_ms is None and asked.tpot_ms is None:
        raise BadInput("is of targets, and there is none", path="--percentile", hint="add --ttft-ms or --tpot-ms")

    def target(milliseconds: float | None) -> Seconds | None:
        return None if milliseconds is None else Seconds(milliseconds * 1e-3)

    return Workload(
        asked.input_tokens,
        asked.output_tokens,
        asked.batch or _in_flight(asked.concurrency),
        target(asked.ttft_ms),
        target(asked.tpot_ms),
        load=given[0][1] if given else idle,
        request_rate=asked.request_rate or 0.0,
        cached_share=asked.cached_share,
        percentile=asked.percentile,
        speculation=_speculation(asked.guess),
    )


def _in_flight(text: str | None) -> int:
    """How many requests; of ``max`` the number is the plan's to find."""
    if text is None or text == MAXIMUM:
        return DEFAULT_CONCURRENCY
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:20]) <= MOST:
        raise BadInput(f"{text!r} is no count from 1 to {MOST:,}", path="--concurrency", hint=f"a number, or {MAXIMUM}")
    return int(text)


def _speculation(asked: Guess) -> Speculation | None:
    from planner.core.speculation import METHODS, Speculation

    if asked.method is None:
        given = {"--acceptance-rate": asked.acceptance, "--draft-tokens": asked.draft_tokens, "--draft-model": asked.checkpoint}
        for option, value in given.items():
            if value is not None:
                raise BadInput("is for --speculative", path=option, hint=f"add --speculative {'|'.join(METHODS)}")
        return None
    if asked.method not in METHODS:
        raise BadInput(f"unknown method {asked.method!r}", path="--speculative", hint=f"one of {', '.join(METHODS)}")
    if asked.acceptance is None:
        hint = "measured for your traffic; engines report it ('acceptance rate' in metrics and logs)"
        raise BadInput("is missing: it says how many guesses are right", path="--acceptance-rate", hint=hint)
    if asked.method == "eagle3" and asked.checkpoint is None:
        raise BadInput("eagle3 guesses with a checkpoint of its own", path="--draft-model", hint="the one trained for MODEL")
    if asked.method != "eagle3" and asked.checkpoint is not None:
        raise BadInput(f"{asked.method} guesses without one", path="--draft-model", hint="leave it out, or --speculative eagle3")
    tokens = asked.draft_tokens or DEFAULT_DRAFT_TOKENS
    return Speculation(cast("Method", asked.method), tokens, asked.acceptance, asked.checkpoint or "")
