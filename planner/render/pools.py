"""Two pools on a terminal of 80 columns or more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from planner.core.engine import LaunchSpec
from planner.core.pools import Limit, Pool, PoolPair
from planner.render import terminal, text
from planner.render import workload as traffic
from planner.render.prose import notes, paragraph, verbatim
from planner.search.disaggregation import Disaggregation, PlannedPair
from planner.units import Seconds

if TYPE_CHECKING:
    from rich.console import Console

_COLUMNS = (
    ("#", False),
    ("prefill", False),
    ("decode", False),
    ("req/s", True),
    ("per GPU", True),
    ("TTFT", True),
    ("TPOT", True),
)
_PARTS = {
    "prompt": "the prompt",
    "engine": "the engine",
    "prompt_queue": "behind other prompts",
    "transfer": "KV transfer",
    "transfer_queue": "behind other transfers",
    "cache_queue": "for room in the cache",
    "first_step": "the first step",
}
LIMITS: dict[Limit, str] = {
    "prefill": "prefill pool",
    "decode": "decode pool",
    "link": "links",
    "prefill-cache": "prefill pool's cache",
    "ttft": "target for the first token",
    "asked": "asked for",
}
_WORTH_SAYING = 1e-4
_MANY_REPLICAS = 8


def disaggregation(answer: Disaggregation) -> None:
    """Pairs best first, why, and the commands of the first."""
    console = terminal.console()
    workload, model = answer.workload, answer.model
    paragraph(
        console,
        f"{model.name} ({model.storage}, {model.parameters / 1e9:.1f}B) in two pools on {answer.topology.name} "
        f"with {answer.engine.name} {answer.engine.version}",
        style="bold",
    )
    order = "the fewest GPUs that keep up first" if workload.load == "request-rate" else "most requests a second first"
    paragraph(console, f"{_asked(answer)}; {order}", style="dim")
    if answer.pairs:
        console.print()
        _pairs(console, answer)
    notes(console, "why" if answer.pairs else "not possible", answer.reasons)
    notes(console, "warnings", answer.warnings)
    if answer.pairs:
        notes(console, "assumed", (*answer.assumptions, *answer.topology.origin.assumptions))
        _commands(console, answer.pairs[0])


def _asked(answer: Disaggregation) -> str:
    workload = answer.workload
    words = traffic.words(workload)
    targets = [
        f"{name} {text.duration(target)}"
        for name, target in (("TTFT", workload.ttft_target), ("TPOT", workload.tpot_target))
        if target is not None
    ]
    if not targets:
        return words
    held = "in the mean" if workload.percentile is None else f"for {workload.percentile} % of the requests"
    return f"{words}, {' and '.join(targets)} {held}"


def _pairs(console: Console, answer: Disaggregation) -> None:
    from rich.table import Table

    experts = answer.model.experts > 0
    head = Table(box=None, padding=(0, 1, 0, 0), show_header=True, header_style="dim", pad_edge=False)
    for name, justify in _COLUMNS:
        head.add_column(name, justify="right" if justify else "left", no_wrap=True)
    rows = [_row(one, experts=experts) for one in answer.pairs]
    for number, row in enumerate(rows):
        head.add_row(*row, style="bold" if number == 0 else "")
    needed = sum(max(map(len, column)) + 1 for column in zip([name for name, _ in _COLUMNS], *rows, strict=True))
    if needed <= console.width:
        console.print(head)
    else:  # a narrow terminal must not cut numbers short
        for number, (rank, prefill, decode, *numbers) in enumerate(rows):
            named = ", ".join(f"{name} {value}" for (name, _), value in zip(_COLUMNS[3:], numbers, strict=True))
            paragraph(console, f"{rank} prefill {prefill}, decode {decode}: {named}", style="bold" if number == 0 else "")
    console.print()
    for one in answer.pairs:
        for line in _details(one, answer):
            paragraph(console, line, indent=0 if line.startswith("#") else 3)
    unsure = answer.pairs[0].pair.uncertainty
    paragraph(
        console,
        f"error bars of #1: TTFT {_between(unsure.ttft)}, TPOT {_between(unsure.tpot)}, "
        f"{text.rate(unsure.output_tokens_per_second[0])} to {text.rate(unsure.output_tokens_per_second[1])} tok/s ({unsure.basis})",
        style="dim",
    )


def _row(one: PlannedPair, *, experts: bool) -> list[str]:
    pair = one.pair
    return [
        str(one.rank),
        text.degrees(pair.prefill.plan.parallelism, experts=experts),
        text.degrees(pair.decode.plan.parallelism, experts=experts),
        text.count(pair.requests_per_second),
        text.count(pair.requests_per_second / pair.gpus),
        text.duration(pair.ttft),
        text.duration(pair.tpot),
    ]


def _details(one: PlannedPair, answer: Disaggregation) -> Iterable[str]:
    pair = one.pair
    idle = len(answer.topology.gpus) - pair.gpus
    spare = f"; {idle} idle" if idle else ""
    yield f"#{one.rank} prefill on GPUs {_placed(pair.prefill)}; decode on GPUs {_placed(pair.decode)}{spare}"
    yield _transfer_line(pair)
    allowed = ", ".join(f"{LIMITS[name]} {text.count(rate)}" for name, rate in pair.limits.items() if name != "prefill-cache")
    yield f"requests a second that each allows: {allowed}"
    parts = [f"{_PARTS[name]} {text.duration(time)}" for name, time in pair.first_token.parts.items() if time >= _WORTH_SAYING]
    yield f"first token: {', '.join(parts)}"
    yield f"{pair.decode.requests} requests at once on a decode replica, room for {pair.decode.estimate.max_concurrency}"
    yield traffic.serving_line(pair.serving, answer.workload)
    if pair.missed:
        yield f"misses the target for {' and '.join(pair.missed)}"
    yield from pair.assumptions


def _placed(pool: Pool) -> str:
    return text.shorten([text.replica(replica) for replica in pool.plan.placement], _MANY_REPLICAS).replace(", ", "  ")


def _transfer_line(pair: PoolPair) -> str:
    transfer = pair.transfer
    return (
        f"KV cache of a prompt: {text.size(transfer.size)} over {' and '.join(transfer.kinds)} in {text.duration(transfer.time)}, "
        f"{text.duration(transfer.exposed)} of it seen; {transfer.link} limits it to {text.count(transfer.requests_per_second)} a second; "
        f"{transfer.regrouping}"
    )


def _between(interval: tuple[Seconds, Seconds]) -> str:
    return f"{text.duration(interval[0])} to {text.duration(interval[1])}"


def _commands(console: Console, best: PlannedPair) -> None:
    launch = best.launch
    pools = (("prefill", launch.prefill), ("decode", launch.decode), ("router", launch.router))
    several = len({process.node for _, spec in pools for process in spec.processes}) > 1
    for (name, spec), commands in zip(pools, best.commands, strict=True):
        if not spec.processes:
            continue
        console.print()
        what = "then what goes before them" if name == "router" else f"start the {name} pool of #{best.rank} with"
        paragraph(console, what, style="bold")
        _pool(console, spec, commands, several=several)
    console.print()
    for note in (*launch.notes, *dict.fromkeys((*launch.prefill.notes, *launch.decode.notes))):
        verbatim(f"# {note}")


def _pool(console: Console, spec: LaunchSpec, commands: Sequence[str], *, several: bool) -> None:
    for process, command in zip(spec.processes, commands, strict=True):
        if several:
            verbatim(f"# on {process.node}")
        verbatim(command)
    for name, content in spec.files.items():
        console.print()
        paragraph(console, f"file {name}", style="bold")
        verbatim(content.rstrip("\n"))
