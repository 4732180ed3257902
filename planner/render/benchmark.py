"""A benchmark held against a plan, in words and as JSON. The schema lies in ``data/schemas``."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

from planner import __version__
from planner.core.benchmark import BenchmarkAnswer, Compared
from planner.core.saved import SavedPlan
from planner.render import terminal, text
from planner.render.workload import words

SCHEMA_VERSION = 1
_NAMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "output_tokens_per_s": "output tok/s"}


def document(saved: SavedPlan, digest: str, answer: BenchmarkAnswer) -> dict[str, Any]:
    """What ``planner validate … --plan`` answers."""
    served, workload, exposed = answer.served, answer.workload, answer.exposed
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "benchmark",
        "planner_version": __version__,
        "plan": digest,
        "topology": saved.topology.name,
        "tool": served.tool,
        "measured": {
            "model": served.model,
            "concurrency": served.concurrency,
            "mean_in_flight": served.mean_in_flight,
            "input_tokens": served.input_tokens,
            "output_tokens": served.output_tokens,
            "completed": served.completed,
            "failed": served.failed,
            "ttft_s": served.ttft,
            "tpot_s": served.tpot,
            "output_tokens_per_s": served.output_tokens_per_second,
        },
        "same_workload": not answer.differences,
        "differences": list(answer.differences),
        "compared_with": answer.compared_with,
        "workload": {
            "input_tokens": workload.input_tokens,
            "output_tokens": workload.output_tokens,
            "concurrency": workload.concurrency,
        },
        "figures": [
            {
                "name": one.name,
                "measured": one.measured,
                "predicted": one.predicted,
                "interval": [one.low, one.high],
                "ratio": one.ratio,
                "inside_interval": one.inside,
            }
            for one in answer.figures
        ],
        "communication": None
        if exposed is None
        else {
            "share_of_tpot": exposed.share,
            "decode_s": exposed.decode,
            "prefill_s": exposed.prefill,
            "limiting_link": exposed.link,
        },
        "flags": [{"code": flag.code, "message": flag.message, "remedy": flag.remedy} for flag in answer.flags],
        "notes": list(answer.notes),
    }


def show(saved: SavedPlan, answer: BenchmarkAnswer) -> None:
    """Of what it is, whether the traffic is the plan's, the figures, communication, what is flagged, what to know."""
    served, workload = answer.served, answer.workload
    traffic = words(workload)
    head = [f"{served.source} ({served.tool}) against {saved.model.name}, {saved.plan.parallelism} on {saved.topology.name}"]
    if answer.differences:
        head.append(f"NOT THE PLAN'S TRAFFIC: {'; '.join(answer.differences)}")
        head.append(
            f"compared with an estimate of the plan for what was measured: {traffic}"
            if answer.compared_with == "estimate"
            else "compared with nothing"
        )
    else:
        head.append(f"traffic as planned: {traffic}")
    rest = []
    if answer.exposed is not None:
        link = f", limited by {answer.exposed.link}" if answer.exposed.link else ""
        rest.append(f"communication: {text.percent(answer.exposed.share)} of the time per token by the estimate{link}")
    if answer.flags:
        rest += ["flagged", *(f"- {flag.message}: {flag.remedy}" for flag in answer.flags)]
    elif answer.figures:
        rest.append("nothing flagged")
    if answer.notes:
        rest += ["worth knowing", *(f"- {note}" for note in answer.notes)]
    for line in (*_wrapped(head), *_table(answer), *_wrapped(rest)):
        sys.stdout.write(line + "\n")


def _wrapped(lines: list[str]) -> list[str]:
    width = max(20, terminal.console().width)
    out = []
    for line in lines:
        hanging = "  " if line.startswith("- ") else ""
        out += textwrap.wrap(
            text.printable(line), width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
        )
    return out


def _table(answer: BenchmarkAnswer) -> list[str]:
    served = answer.served
    if answer.compared_with == "nothing":
        pairs = (("ttft_s", served.ttft), ("tpot_s", served.tpot), ("output_tokens_per_s", served.output_tokens_per_second))
        return [f"{_NAMES[name]:<12} {_shown(name, value):>9}" for name, value in pairs if value is not None]
    if not answer.figures:
        return []
    rows = [_row(one) for one in answer.figures]
    wide = max(len("interval"), *(len(row[4]) for row in rows))
    lines = [f"{'':<12} {'measured':>9} {'predicted':>9} {'ratio':>6}  {'interval':<{wide}} inside"]
    lines += [f"{row[0]:<12} {row[1]:>9} {row[2]:>9} {row[3]:>6}  {row[4]:<{wide}} {row[5]}" for row in rows]
    return lines


def _row(one: Compared) -> tuple[str, str, str, str, str, str]:
    low, high = _shown(one.name, one.low), _shown(one.name, one.high)
    values = (_shown(one.name, one.measured), _shown(one.name, one.predicted))
    return (_NAMES[one.name], *values, text.count(one.ratio), f"{low} to {high}", "yes" if one.inside else "no")


def _shown(name: str, value: float) -> str:
    return text.rate(value) if name == "output_tokens_per_s" else text.duration(value)
