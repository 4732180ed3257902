"""What became of a saved plan, in words and as JSON. The schema lies in ``data/schemas``."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from planner import __version__
from planner.core.engine import EngineTraits
from planner.core.estimate import Estimate
from planner.core.model import ModelSpec
from planner.core.plan import Plan
from planner.core.saved import Expected, SavedPlan
from planner.render import terminal, text
from planner.render.json import parallelism
from planner.search.judgement import Judgement

SCHEMA_VERSION = 1


def document(saved: SavedPlan, digest: str, found: Judgement) -> dict[str, Any]:
    """What ``planner check`` answers."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "check",
        "planner_version": __version__,
        "plan": digest,
        "changes": [change.message for change in found.changes],
        "notes": list(found.notes),
        "expected": _figures(saved.expected),
        **_verdict(found),
    }


def _verdict(found: Judgement) -> dict[str, Any]:
    best = found.best
    return {
        "topology": found.topology.name,
        "stands": found.stands,
        "problems": list(found.problems),
        "now": None if found.estimate is None else _figures(found.estimate),
        "best": None
        if best is None
        else {
            "parallelism": str(best.plan.parallelism),
            "placement": [[list(group) for group in replica] for replica in best.plan.placement],
            **_figures(best.estimate),
        },
        "behind_ratio": found.behind,
    }


def _figures(of: Estimate | Expected) -> dict[str, float]:
    return {"ttft_s": of.ttft, "tpot_s": of.tpot, "output_tokens_per_s": of.output_tokens_per_second}


def imported(model: ModelSpec, plan: Plan, engine: EngineTraits, found: Judgement, notes: Sequence[str]) -> dict[str, Any]:
    """What ``planner import`` answers."""
    limits = plan.limits
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "import",
        "planner_version": __version__,
        "model": {"name": model.name, "weight_format": model.weight_format.name},
        "engine": {"name": engine.name, "version": engine.version},
        "parallelism": parallelism(plan.parallelism),
        "placement": [[list(group) for group in replica] for replica in plan.placement],
        "layer_partition": list(plan.layer_partition),
        "limits": {
            "max_model_tokens": limits.max_model_tokens,
            "max_sequences": limits.max_sequences,
            "max_batched_tokens": limits.max_batched_tokens,
            "memory_fraction": limits.memory_fraction,
        },
        "notes": list(notes),
        **_verdict(found),
    }


def show(
    model: ModelSpec,
    plan: Plan,
    engine: str,
    found: Judgement,
    *,
    expected: Expected | None = None,
    notes: Sequence[str] = (),
) -> None:
    """The verdict, the figures when it was planned and now, the best plan where it is not this one, and what changed."""
    verdict = "stands" if found.stands else "does not stand"
    lines = [f"{model.name}, {plan.parallelism} with {engine} on {found.topology.name}: {verdict}"]
    lines += [f"- {problem}" for problem in found.problems]
    if expected is None:
        lines.append(f"GPUs {_replicas(plan)}")
    else:
        lines.append(f"planned: {_words(expected)}")
    if found.estimate is not None:
        lines.append(f"{'now' if expected else 'expected'}: {_words(found.estimate)}")
    if found.best is not None and not found.stands:
        best = found.best.plan
        lines.append(
            f"best{' now' if expected else ''}: {best.parallelism} on GPUs {_replicas(best)}: {_words(found.best.estimate)}"
        )
    if found.changes:
        lines += ["changed since it was planned", *(f"- {change.message}" for change in found.changes)]
    if notes:
        lines += ["worth knowing", *(f"- {note}" for note in notes)]
    width = max(20, terminal.console().width)
    for line in lines:
        hanging = "  " if line.startswith("- ") else ""
        wrapped = textwrap.wrap(
            text.printable(line), width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
        )
        sys.stdout.writelines(one + "\n" for one in wrapped)


def _replicas(plan: Plan) -> str:
    return text.shorten([text.replica(replica) for replica in plan.placement], 8)


def _words(of: Estimate | Expected) -> str:
    return f"TTFT {text.duration(of.ttft)}, TPOT {text.duration(of.tpot)}, {text.rate(of.output_tokens_per_second)} tok/s"
