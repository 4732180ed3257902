"""The traffic that was asked for, and how its requests fare, in words and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.core.estimate import Estimate, Percentiles, Serving
from planner.core.workload import Workload
from planner.render import text


def words(workload: Workload) -> str:
    """Lengths and load: ``1024 tokens in, 256 out, 32 in flight``."""
    found = f", {workload.cached_share:.4g} of them cached" if workload.cached_share else ""
    guessed = f"; {workload.speculation}" if workload.speculation is not None else ""
    tokens = "token" if workload.input_tokens == 1 else "tokens"
    return f"{workload.input_tokens} {tokens} in{found}, {workload.output_tokens} out, {workload.traffic}{guessed}"


def document(workload: Workload) -> dict[str, Any]:
    """Lengths and load; ``concurrency`` is null where every plan has its own."""
    given, guess = workload.load in {"concurrency", "batch"}, workload.speculation
    return {
        "input_tokens": workload.input_tokens,
        "output_tokens": workload.output_tokens,
        "concurrency": workload.concurrency if given else None,
        "load": workload.load,
        "request_rate": workload.request_rate if workload.load == "request-rate" else None,
        "prefix_hit_rate": workload.cached_share,
        "speculation": None
        if guess is None
        else {
            "method": guess.method,
            "draft_tokens": guess.draft_tokens,
            "acceptance_rate": guess.acceptance,
            "checkpoint": guess.checkpoint or None,
        },
    }


def targets(workload: Workload) -> dict[str, Any]:
    """Targets, and for which share of the requests they are."""
    return {
        "ttft_target_s": workload.ttft_target,
        "tpot_target_s": workload.tpot_target,
        "target_percentile": workload.percentile,
    }


def serving_line(serving: Serving, workload: Workload) -> str:
    """How requests fare, in one line."""
    line = f"{text.count(serving.requests_per_second)} requests a second"
    if workload.load in {"full", "request-rate"}:
        line = f"{_count(serving.in_flight)} in flight, {line}"
    parts = [line]
    if workload.load != "batch":
        parts.append(
            f"p90 and p99: TTFT {_two(serving.ttft)}, TPOT {_two(serving.tpot)}, inter-token latency {_two(serving.itl)}"
        )
    if serving.within_targets is not None and serving.goodput is not None:
        parts.append(
            f"{text.percent(serving.within_targets)} within targets, {text.count(serving.goodput)} good requests a second"
        )
    return "; ".join(parts)


def chances_line(chances: Mapping[str, float]) -> str:
    """How likely targets are met, in one line."""
    said = ", ".join(f"{name} {text.percent(chance)}" for name, chance in chances.items())
    return f"targets met, as far as the error bars say: {said}"


def maximum_line(most: Estimate, workload: Workload) -> str:
    """What a plan does at most, in one line."""
    within = " within the targets" if workload.has_targets else ""
    return (
        f"at most{within}: {text.rate(most.output_tokens_per_second)} tok/s with {_count(most.serving.in_flight)} in flight "
        f"(TTFT {text.duration(most.ttft)}, TPOT {text.duration(most.tpot)})"
    )


def maximum_document(most: Estimate | None) -> dict[str, Any] | None:
    """What a plan does at most."""
    if most is None:
        return None
    return {
        "in_flight": round(most.serving.in_flight, 6),
        "requests_per_s": most.serving.requests_per_second,
        "output_tokens_per_s": most.output_tokens_per_second,
        "ttft_s": most.ttft,
        "tpot_s": most.tpot,
    }


def serving_document(serving: Serving) -> dict[str, Any]:
    """How requests fare."""
    return {
        "in_flight": round(serving.in_flight, 6),
        "requests_per_s": serving.requests_per_second,
        "ttft_s": _percentiles(serving.ttft),
        "tpot_s": _percentiles(serving.tpot),
        "inter_token_latency_s": _percentiles(serving.itl),
        "within_targets": serving.within_targets,
        "goodput_requests_per_s": serving.goodput,
    }


def _percentiles(times: Percentiles) -> dict[str, float]:
    return {"p50": times.p50, "p90": times.p90, "p99": times.p99}


def _two(times: Percentiles) -> str:
    return f"{text.duration(times.p90)} and {text.duration(times.p99)}"


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
