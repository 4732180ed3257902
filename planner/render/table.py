"""Results for a terminal of 80 columns or more, with colour where the terminal has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from planner.core.estimate import CollectiveTime, Estimate
from planner.core.topology import Topology
from planner.cost.pipeline import BUBBLE_CONVENTION
from planner.graph.paths import class_matrix
from planner.graph.ranks import rank_lines, rank_map
from planner.render import facts, scene, show, terminal, text
from planner.render import workload as traffic
from planner.render.prose import notes, paragraph, verbatim
from planner.search.load import chances
from planner.search.recommendation import Recommendation, Recommended
from planner.units import Seconds

if TYPE_CHECKING:
    from rich.console import Console

MOST_COLUMNS = 16
SHOWN_REFUSALS = 5
_console = terminal.console


def probe(topology: Topology, stated: Topology | None = None) -> None:
    """Draw what was found; ``stated`` is the same without the bandwidths that its hardware implies."""
    console = _console()
    drawn = scene.scene_of(stated or topology, topology, topology.findings)
    paragraph(console, drawn.title, style="bold")
    paragraph(console, f"{topology.origin.kind}: {topology.origin.source}", style="dim")
    console.print()
    show.draw(drawn, console)
    if len(topology.gpus) <= MOST_COLUMNS:
        console.print()
        for line in matrix_lines(topology):
            verbatim(line)
    else:
        paragraph(console, f"{len(topology.gpus)} × {len(topology.gpus)} matrix: see --format json", style="dim")
    said = facts.lines(topology, console.width)
    if said:
        console.print()
        for line in said:
            paragraph(console, line)
    notes(
        console, "findings", [f"{one.code}: {one.message}" + (f" ({one.hint})" if one.hint else "") for one in topology.findings]
    )
    notes(console, "assumed", topology.origin.assumptions)


def matrix_lines(topology: Topology) -> list[str]:
    """The matrix of link classes as ``nvidia-smi topo -m`` lays it out."""
    names = [f"GPU{number}" for number in range(len(topology.gpus))]
    width = max(len(name) for name in names) + 2
    lines = [" " * width + "".join(name.ljust(width) for name in names).rstrip()]
    for name, row in zip(names, class_matrix(topology), strict=True):
        lines.append(name.ljust(width) + "".join(cell.ljust(width) for cell in row).rstrip())
    return lines


def recommendation(answer: Recommendation, *, ranks: bool = False) -> None:
    """Plans best first, why, and the command of the first; with ``ranks`` which GPU is which rank of it."""
    console = _console()
    workload, model = answer.workload, answer.model
    paragraph(
        console,
        f"{model.name} ({model.storage}, {model.parameters / 1e9:.1f}B) on {answer.topology.name} "
        f"with {answer.engine.name} {answer.engine.version}",
        style="bold",
    )
    paragraph(
        console,
        f"{traffic.words(workload)}; best {answer.objective} first{_fewest(answer)}",
        style="dim",
    )
    if answer.plans:
        console.print()
        _plans(console, answer)
    asked_for_one = len(answer.infeasible) == 1
    notes(console, "why" if answer.plans else "not possible" if asked_for_one else "nothing fits", answer.reasons)
    _refusals(console, answer)
    notes(console, "warnings", answer.warnings)
    notes(console, "assumed", answer.topology.origin.assumptions)
    if answer.plans:
        if ranks:
            _ranks(console, answer)
        _command(console, answer.plans[0])


def _fewest(answer: Recommendation) -> str:
    """What the most throughput is at a rate that all keep up with."""
    rated = answer.workload.load == "request-rate" and answer.objective == "throughput"
    return " (the fewest GPUs that keep up)" if rated else ""


def _plans(console: Console, answer: Recommendation) -> None:
    from rich.table import Table

    experts = answer.model.experts > 0
    head = Table(box=None, padding=(0, 1, 0, 0), show_header=True, header_style="dim", pad_edge=False)
    for name, justify in _COLUMNS:
        head.add_column(name, justify="right" if justify else "left", no_wrap=True)
    rows = [_row(one, experts) for one in answer.plans]
    for number, row in enumerate(rows):
        head.add_row(*row, style="bold" if number == 0 else "")
    needed = sum(max(map(len, column)) + 1 for column in zip([name for name, _ in _COLUMNS], *rows, strict=True))
    if needed <= console.width:
        console.print(head)
    else:  # a narrow terminal must not cut numbers short
        for number, (rank, degrees, *numbers) in enumerate(rows):
            named = ", ".join(f"{name} {value}" for (name, _), value in zip(_COLUMNS[2:], numbers, strict=True))
            paragraph(console, f"{rank} {degrees}: {named}", style="bold" if number == 0 else "")
    console.print()
    for one in answer.plans:
        for line in _details(one, answer):
            paragraph(console, line, indent=0 if line.startswith(f"#{one.rank} ") else 3)
    unsure = answer.plans[0].ranked.estimate.uncertainty
    paragraph(
        console,
        f"error bars of #1: TTFT {_between(unsure.ttft)}, TPOT {_between(unsure.tpot)}, "
        f"{text.rate(unsure.output_tokens_per_second[0])} to {text.rate(unsure.output_tokens_per_second[1])} tok/s ({unsure.basis})",
        style="dim",
    )
    if any(one.ranked.plan.parallelism.pipeline > 1 for one in answer.plans):
        paragraph(console, f"bubble: {BUBBLE_CONVENTION}", style="dim")


def _between(interval: tuple[Seconds, Seconds]) -> str:
    return f"{text.duration(interval[0])} to {text.duration(interval[1])}"


_COLUMNS = (
    ("#", False),
    ("plan", False),
    ("GiB/GPU", True),
    ("TTFT", True),
    ("TPOT", True),
    ("tok/s", True),
    ("per GPU", True),
)


def _row(one: Recommended, experts: bool) -> list[str]:
    estimate, degrees = one.ranked.estimate, one.ranked.plan.parallelism
    worst = max(estimate.memory, key=lambda stage: stage.total / stage.capacity)
    return [
        str(one.rank),
        text.degrees(degrees, experts=experts),
        f"{text.gibibytes(worst.total)}/{text.gibibytes(worst.capacity)}",
        text.duration(estimate.ttft),
        text.duration(estimate.tpot),
        text.rate(estimate.output_tokens_per_second),
        text.rate(estimate.output_tokens_per_second / degrees.gpus),
    ]


def _details(one: Recommended, answer: Recommendation) -> Iterable[str]:
    estimate, plan = one.ranked.estimate, one.ranked.plan
    replicas = [text.replica(replica) for replica in plan.placement]
    yield f"#{one.rank} GPUs {text.shorten(replicas, 8).replace(', ', '  ')}"
    if plan.parallelism.pipeline > 1 and len(set(plan.layer_partition)) > 1:
        yield f"layers {', '.join(str(count) for count in plan.layer_partition)}"
    yield _memory_line(estimate)
    yield _memory_bar(estimate)
    yield "; ".join(_wires(estimate))
    yield traffic.serving_line(estimate.serving, answer.workload)
    if one.maximum is not None:
        yield traffic.maximum_line(one.maximum, answer.workload)
    missed = one.ranked.missed(answer.workload)
    if missed:
        yield f"misses the target for {' and '.join(missed)}"
    if sure := chances(estimate, answer.workload):
        yield traffic.chances_line(sure)
    yield from one.assumptions


BAR = 56
"""Characters of a bar of memory, its ends included."""
_GLYPHS, _PLAIN_GLYPHS = ("█", "▓", "▒", "░", "·"), ("#", "=", "+", "-", ".")


def _memory_line(estimate: Estimate) -> str:
    """What the memory of a GPU of the fullest stage goes to; each part by the glyph of its bar."""
    worst = max(estimate.memory, key=lambda stage: stage.total / stage.capacity)
    least, most = (text.gibibytes(max(size, 0.0)) for size in worst.kv_cache_range)
    weights, cache, activation, other = _glyphs()[:4]
    return (
        f"{weights} weights {text.gibibytes(worst.weights)}, {cache} KV cache {text.gibibytes(worst.kv_cache)} ({least} to {most}), "
        f"{activation} activations {text.gibibytes(worst.activation)}, {other} other {text.gibibytes(worst.overhead)} GiB; "
        f"room for {text.several(estimate.max_concurrency, 'request')} a replica"
    )


def _memory_bar(estimate: Estimate) -> str:
    """The same drawn to scale, and what is left of the GPU."""
    worst = max(estimate.memory, key=lambda stage: stage.total / stage.capacity)
    ends, taken, width = [], 0.0, BAR - 2
    for part in (worst.weights, worst.kv_cache, worst.activation, worst.overhead):
        taken += part
        ends.append(round(width * min(1.0, taken / worst.capacity)))
    counts = [max(0, end - start) for start, end in zip([0, *ends], [*ends, width], strict=True)]
    return "[" + "".join(glyph * count for glyph, count in zip(_glyphs(), counts, strict=True)) + "]"


def _glyphs() -> tuple[str, ...]:
    return _GLYPHS if terminal.draws_lines() else _PLAIN_GLYPHS


def _wires(estimate: Estimate) -> Iterable[str]:
    communication, use = estimate.communication, estimate.pipeline

    def layer(one: CollectiveTime) -> str:
        return text.duration(communication.all_reduces_per_layer * one.time)

    if communication.all_reduce_decode is not None and communication.all_reduce_prefill is not None:
        yield (
            f"all-reduce a layer {layer(communication.all_reduce_decode)} decode, "
            f"{layer(communication.all_reduce_prefill)} prefill ({communication.confidence} confidence)"
        )
    else:
        yield "no all-reduce"
    if communication.point_to_point_decode > 0:
        yield (
            f"P2P a boundary {text.duration(communication.point_to_point_decode)} decode, "
            f"{text.duration(communication.point_to_point_prefill)} prefill"
        )
        chunks = text.several(use.prefill_micro_batches, "chunk")
        yield f"bubble {text.percent(use.bubble_ratio)} in prefill ({chunks} a prompt)"
        yield f"idle {text.percent(use.idle_ratio)} in decode"


def _refusals(console: Console, answer: Recommendation) -> None:
    lines = [f"{one.parallelism}: {one.message}" for one in answer.infeasible]
    if not answer.plans:
        return
    notes(console, "not possible", lines[:SHOWN_REFUSALS])
    if len(lines) > SHOWN_REFUSALS:
        paragraph(console, f"- and {len(lines) - SHOWN_REFUSALS} more: see --format json", style="dim")


def _ranks(console: Console, answer: Recommendation) -> None:
    console.print()
    paragraph(console, "ranks of #1", style="bold")
    for line in rank_lines(rank_map(answer.topology, answer.plans[0].ranked.plan.placement)):
        verbatim(line)


def _command(console: Console, best: Recommended) -> None:
    console.print()
    paragraph(console, "start #1 with", style="bold")
    hosts = {process.node for process in best.launch.processes}
    for process, command in zip(best.launch.processes, best.commands, strict=True):
        if len(hosts) > 1:
            verbatim(f"# on {process.node}")
        verbatim(command)
    for name, content in best.launch.files.items():
        console.print()
        paragraph(console, f"file {name}", style="bold")
        verbatim(content.rstrip("\n"))
    for note in best.launch.notes:
        verbatim(f"# {note}")
