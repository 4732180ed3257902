"""What stands at the top of every file: which plan it is of, what was assumed, which GPU is which rank."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from planner import __version__
from planner.core.saved import Expected, SavedPlan
from planner.deploy.target import Job
from planner.graph.ranks import rank_lines

_BREAK = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")


def comment(lines: Iterable[str], mark: str = "#") -> str:
    r"""Lines as comments; whatever could end a line or steer a terminal is escaped.

    >>> comment(["a\x1b[31m", "b\nrm -rf ~"])
    '# a\\x1b[31m\n# b rm -rf ~\n'
    """
    return "".join(f"{mark} {_plain(line)}".rstrip() + "\n" for line in lines)


def _plain(line: str) -> str:
    whole = _BREAK.sub(" ", line)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in whole)


def header(job: Job, notes: Sequence[str] = ()) -> str:
    """The comment at the top of every file."""
    return comment(header_lines(job, notes))


def header_lines(job: Job, notes: Sequence[str] = ()) -> list[str]:
    """Version, plan and its digest, what was expected, what was assumed, and the map of ranks. No date: same plan, same bytes."""
    saved, expected = job.saved, job.saved.expected
    lines = [
        f"written by planner {__version__}; plan {job.digest}",
        f"{_what(saved)} with {job.engine} {job.engine_version} on {saved.topology.name}: {saved.plan.parallelism}",
        f"expected {_traffic(saved)}: {_figures(expected)}",
    ]
    lines += [f"assumed: {line}" for line in saved.assumptions]
    lines += [f"warning: {line}" for line in saved.warnings]
    if job.engine_version != saved.engine_version:
        lines.append(f"warning: limits and figures are those of {saved.engine} {saved.engine_version}, which was planned for")
    lines += [f"note: {line}" for line in (*job.launch.notes, *notes)]
    return [*lines, "", *rank_lines(job.ranks)]


def _what(saved: SavedPlan) -> str:
    return f"{saved.model.name} ({saved.model.weight_format.name})"


def _traffic(saved: SavedPlan) -> str:
    traffic = saved.workload
    load = traffic.traffic if traffic.load == "batch" else f"{traffic.concurrency} in flight"
    rate = f" ({traffic.request_rate:g} requests a second)" if traffic.load == "request-rate" else ""
    return f"at {load}{rate}, {traffic.input_tokens} tokens in and {traffic.output_tokens} out"


def _figures(expected: Expected) -> str:
    first = f"TTFT {_time(expected.ttft)} ({_between(expected.ttft_interval)})"
    each = f"TPOT {_time(expected.tpot)} ({_between(expected.tpot_interval)})"
    low, high = expected.output_interval
    return f"{first}, {each}, {expected.output_tokens_per_second:.0f} tok/s ({low:.0f} to {high:.0f})"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _between(interval: tuple[float, float]) -> str:
    return f"{_time(interval[0])} to {_time(interval[1])}"
