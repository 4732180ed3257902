"""Fit what engines add to their kernels, and the error bars: planner/data/calibration/engines.yaml.

    python scripts/fit_serving.py DATA_FOLDER --date YYYY-MM-DD > planner/data/calibration/engines.yaml
    python scripts/fit_serving.py DATA_FOLDER --leave-one-out

DATA_FOLDER holds serving.csv; its closed-loop rows without a flag are used. Kernels, memory and wires are predicted as
everywhere; what is fitted is small, and every engine's own:
overheads   µs a small kernel of layers with experts, ms a step, how many times as long as its kernels a prompt holds up others,
            and of all engines together µs a sequence, to the time per output token, by the mean size of the logarithm of
            predicted over measured (coordinate search; deterministic);
first_token base, share of the others' prefills before it, and what latent attention adds, to the time to first token of runs that
            fit in the KV cache, the same way, apart for older releases of an engine (a share of the prompt's own time, fitted as
            well, does no better on models left out: prompt and running step count whole);
uncertainty measured over predicted, each model left out of the fit: from the 10th percentile of the groups' (model and machine)
            lowest 5 % to the 90th percentile of their highest 5 %; of static batches and maximum throughputs, on which nothing
            is fitted, with the constants that ship: run the script twice where they change. Of GPUs of other vendors also how
            many times as long they took, the median of the groups' medians.
With --leave-one-out it says instead how far off predictions are with the graded model, or GPU, left out of what is fitted here; and
with the GPU left out of kernels and measured all-reduces as well ("gpu, all").
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from residuals import grade_or_write
from unseen_gpu import without

from planner import api
from planner.core.feed_forward import MoeMlp
from planner.core.model import kinds
from planner.core.plan import Infeasible
from planner.core.workload import Workload
from planner.cost.accuracy import accuracy
from planner.cost.calibration import TtftFit
from planner.cost.elementwise import small_kernels
from planner.cost.serving import burst_wait, time_to_first_token
from planner.cost.uncertainty import FITTED_ON
from planner.documents.calibration import load_calibration
from planner.documents.tables import Table, TableRow, parse_table
from planner.engines import engines
from planner.errors import BadInput
from planner.machines import load_gpu
from planner.search.rank import Ranked
from planner.units import Seconds
from planner.validation.answering import FORMATS, Library, degrees_of, engine_of, release_of
from planner.validation.serving import LOADS, ServingRows

SPEEDS = ("output_tokens_per_s", "total_tokens_per_s")
RATES = (*SPEEDS, "e2e_latency_s")
"""Columns that say a rate: tokens a second, or how long the same tokens took."""
LATENT_APART = frozenset({"tensorrt-llm"})
"""Engines whose prompts of latent attention start later than others: told apart where leaving models out proves it better."""
FEWEST = 40
"""Runs of an engine below which the fit of all engines together stands for it."""


@dataclass(frozen=True)
class Run:
    """A closed loop: what was measured in s (0 where it was not), and the parts of the prediction without any overhead.

    ``riding`` is what one prompt adds to the steps of others, ``prompts`` how many do so to one token; those of ``apart`` have
    steps of their own. ``small_kernels`` is how many are launched, at the reference clock.
    """

    engine: str
    answering: str
    model: str
    gpu: str
    latent: bool
    experts: bool
    small_kernels: float
    requests: float
    running: int
    fits: bool
    tpot: float
    ttft: float
    decode: float
    prompt: float
    chunks: int
    riding: float
    output: int
    share: float
    prompts: float
    apart: bool


@dataclass(frozen=True)
class Rate:
    """A static batch, or a maximum throughput: measured over predicted output."""

    load: str
    model: str
    gpu: str
    vendor: str
    ratio: float


@dataclass(frozen=True)
class Measured:
    """What the table holds: closed loops, and rates of other loads."""

    runs: Sequence[Run]
    rates: Sequence[Rate]
    folder: Path


def read(folder: Path) -> Measured:
    """The rows whose model, machine and engine are known."""
    table = parse_table((folder / "serving.csv").read_text("utf-8"), "serving.csv")
    library = Library(api.load_model, api.priced)
    return Measured(closed_loops(table, library), other_loads(table, library), folder)


def never_seen(data: Measured) -> list[Answer]:
    """Runs on every GPU, predicted with constants that it is in nowhere: neither what engines add nor kernels nor all-reduces."""
    table = parse_table((data.folder / "serving.csv").read_text("utf-8"), "serving.csv")
    found: list[Answer] = []
    for gpu in sorted({one.gpu for one in data.runs}):
        runs = closed_loops(table, Library(api.load_model, partial(api.priced, constants=without(data.folder, gpu))))
        found += answered(runs, "gpu", gpu)
    return found


def other_loads(table: Table, library: Library) -> list[Rate]:
    """Rates of loads that nothing is fitted on, predicted with the constants as they ship."""
    rows, rates = ServingRows(library), []
    for row in table.rows:
        load = LOADS.get(row.word("load_kind"))
        if row.flagged or load is None or load == "concurrency":
            continue
        figures = rows.answer(row)
        name = next((name for name in RATES if row.word(name)), None)
        if isinstance(figures, str) or name is None:
            continue
        ratio = (figures[name].measured or 0.0) / figures[name].predicted
        gpu = row.word("topology").split("x", 1)[1].split(":")[0]
        rates.append(Rate(load, named(row), gpu, load_gpu(gpu).vendor, ratio if name in SPEEDS else 1 / ratio))
    return rates


def named(row: TableRow) -> str:
    """The model of a row, by the last part of its name."""
    return row.word("model").rsplit("/", 1)[-1]


def closed_loops(table: Table, library: Library) -> list[Run]:
    """Closed loops with the parts of their predictions."""
    known: dict[tuple[object, ...], Ranked | None] = {}
    runs = []
    for row in table.rows:
        engine = engine_of(row.word("engine"))
        if row.flagged or row.word("load_kind") != "concurrency" or engine not in engines():
            continue
        key = tuple(
            row.word(name) for name in ("topology", "model", "quant", "engine", "tp", "pp", "dp", "ep", "isl", "osl", "load")
        )
        if key not in known:
            known[key] = estimated(row, library)
        found = known[key]
        if found is not None:
            runs.append(run(row, engine or "", found, library))
    return runs


def estimated(row: TableRow, library: Library) -> Ranked | None:
    model, machine = library.model(row.word("model"), row.word("quant")), library.machine(row.word("topology"))
    if isinstance(model, str) or isinstance(machine, str) or row.word("quant") not in FORMATS:
        return None
    workload = Workload(round(row.number("isl")), round(row.number("osl")), row.count("load"))
    try:
        found = library.estimate(model, machine, workload, degrees_of(row), row.word("engine"))
    except BadInput:
        return None
    return None if isinstance(found, Infeasible) else found


def run(row: TableRow, engine: str, ranked: Ranked, library: Library) -> Run:
    found, output = ranked.estimate, round(row.number("osl"))
    model = library.model(row.word("model"), row.word("quant"))
    assert not isinstance(model, str)
    routed = [(layer, count) for layer, count in kinds(model.layers) if isinstance(layer.mlp, MoeMlp)]
    gpu = row.word("topology").split("x", 1)[1].split(":")[0]
    launched = load_gpu(gpu).cycle * sum(count * small_kernels(layer) for layer, count in routed)
    now = load_calibration().overheads[engine]
    each = row.count("load") / degrees_of(row).data
    requests = min(math.ceil(each), found.max_concurrency)
    apart, small = engines()[engine].traits.prompts_apart, now.small_kernel * launched
    passes, interference = found.pipeline.prefill_micro_batches, (requests - 1) / output
    return Run(
        engine=engine,
        answering=engines()[engine].traits.at(release_of(row.word("engine"))).first_token,
        latent=model.latent,
        model=named(row),
        gpu=gpu,
        experts=bool(routed),
        small_kernels=launched,
        requests=min(each, found.max_concurrency),
        running=requests,
        fits=each <= found.max_concurrency,
        tpot=float(row.word("tpot_ms") or 0) * 1e-3,
        ttft=float(row.word("ttft_ms") or 0) * 1e-3,
        decode=found.decode.total - now.of_step(requests) - small,
        prompt=found.prefill.total - small * passes,
        chunks=passes,
        riding=(found.tpot - found.decode.total) / interference / now.interference - apart * small * passes
        if requests > 1
        else 0.0,
        output=output,
        share=0.0 if apart else row.number("isl") / ranked.plan.limits.max_batched_tokens,
        prompts=interference,
        apart=apart,
    )


Overhead = tuple[float, float, float, float]
"""s a small kernel of a layer with experts, s a step, s a sequence of it, and what a prompt holds up others beyond its kernels."""


def added_to(one: Run, overhead: Overhead) -> float:
    return overhead[0] * one.small_kernels + overhead[1] + overhead[2] * one.running


def tpot_of(one: Run, overhead: Overhead) -> float:
    return one.decode + added_to(one, overhead) + one.prompts * riding_of(one, overhead)


def riding_of(one: Run, overhead: Overhead) -> float:
    launched = overhead[0] * one.small_kernels * one.chunks if one.apart else 0.0
    return (1 + overhead[3]) * (one.riding + launched)


def ttft_of(one: Run, overhead: Overhead, fit: Sequence[float]) -> float:
    step = one.decode + added_to(one, overhead)
    prompt, riding = Seconds(one.prompt + overhead[0] * one.small_kernels * one.chunks), riding_of(one, overhead)
    constants = TtftFit(Seconds(fit[0]), 1.0, fit[1], 1.0, Seconds(sum(fit[2:])))
    alone = time_to_first_token(prompt, Seconds(step), constants, latent=one.latent)
    return alone + burst_wait(Seconds(riding + one.share * step), one.requests, one.output, constants)


def descend(error: Callable[[Sequence[float]], float], start: Sequence[float]) -> list[float]:
    """The constants of least error, none below zero: one after the other, by ever smaller factors."""
    now, least, step = list(start), error(start), 2.0
    while step > 1.004:
        moved = False
        for place in range(len(now)):
            for value in (now[place] * step, now[place] / step, 0.0):
                tried = [*now[:place], value, *now[place + 1 :]]
                if (got := error(tried)) < least - 1e-9:
                    now, least, moved = tried, got, True
        if not moved:
            step = math.sqrt(step)
    return now


def off(pairs: Iterable[tuple[float, float]]) -> float:
    logs = [abs(math.log(max(predicted, 1e-9) / measured)) for predicted, measured in pairs]
    return sum(logs) / len(logs)


def sequence_of(runs: Sequence[Run]) -> float:
    """Seconds a sequence, of all engines together: apart, they are too few models to tell it from the rest."""
    timed = [one for one in runs if one.tpot > 0]
    start = (1e-6, 5e-4, 5e-6, 0.1)

    def error(tried: Sequence[float]) -> float:
        return off((tpot_of(one, (tried[0], tried[1], tried[2], tried[3])), one.tpot) for one in timed)

    return descend(error, start)[2]


def overhead_of(runs: Sequence[Run], sequence: float) -> Overhead:
    timed = [one for one in runs if one.tpot > 0]
    start = (1e-6, 5e-4, 0.1)
    found = descend(lambda tried: off((tpot_of(one, (tried[0], tried[1], sequence, tried[2])), one.tpot) for one in timed), start)
    return found[0], found[1], sequence, found[2]


def ttft_fit(runs: Sequence[Run], overhead: Overhead) -> list[float]:
    """Base, share of the others' prefills, and what latent attention adds."""
    timed = [one for one in runs if one.ttft > 0 and one.fits]
    apart = {one.answering for one in runs} <= LATENT_APART
    start = (0.03, 0.15, 0.03) if apart else (0.03, 0.15)
    found = descend(lambda tried: off((ttft_of(one, overhead, tried), one.ttft) for one in timed), start)
    return found if apart else [*found, 0.0]


@dataclass(frozen=True)
class Fit:
    """All constants, by engine; ``ttft`` by engine and age."""

    overheads: Mapping[str, Overhead]
    ttft: Mapping[str, Sequence[float]]


def fitted(runs: Sequence[Run]) -> Fit:
    overheads, ttft, sequence = {}, {}, sequence_of(runs)
    for engine in sorted({one.engine for one in runs}):
        own = [one for one in runs if one.engine == engine]
        of = own if len(own) >= FEWEST else runs
        overheads[engine] = overhead_of(of, sequence)
        for name in sorted({one.answering for one in own}):
            same = [one for one in own if one.answering == name]
            ttft[name] = ttft_fit(same if len(same) >= FEWEST else of, overheads[engine])
    return Fit(overheads, ttft)


@dataclass(frozen=True)
class Answer:
    """A run and what is predicted for it, its own model or GPU left out."""

    run: Run
    tpot: float
    ttft: float


def left_out(runs: Sequence[Run], by: str) -> list[Answer]:
    return [found for name in sorted({getattr(one, by) for one in runs}) for found in answered(runs, by, name)]


def answered(runs: Sequence[Run], by: str, name: str) -> Iterator[Answer]:
    """The runs of one model or GPU, with constants fitted on all others."""
    rest = [one for one in runs if getattr(one, by) != name]
    constants = fitted(rest)
    every = overhead_of(rest, sequence_of(rest))
    everyones = ttft_fit(rest, every)
    for one in (one for one in runs if getattr(one, by) == name):
        overhead = constants.overheads.get(one.engine, every)
        first = constants.ttft.get(one.answering) or constants.ttft.get(one.engine) or everyones
        yield Answer(one, tpot_of(one, overhead), ttft_of(one, overhead, first))


def report(data: Measured) -> None:
    runs = data.runs
    print(f"{'left out':<8} | figure | group | runs | mean | median | bias")
    asked = {"model": left_out(runs, "model"), "gpu": left_out(runs, "gpu"), "gpu, all": never_seen(data)}
    for by, answers in asked.items():
        groups: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for one in answers:
            kind = "moe" if one.run.experts else "dense"
            if one.run.tpot > 0:
                for name in (kind, f"{kind} {one.run.model if by == 'model' else one.run.gpu} {one.run.engine}"):
                    groups["tpot", name].append((one.tpot, one.run.tpot))
            if one.run.ttft > 0 and one.run.fits:
                load = "up to 8 in flight" if one.run.requests <= 8 else "more than 8"
                for name in (one.run.answering, load):
                    groups["ttft", name].append((one.ttft, one.run.ttft))
        for (figure, name), pairs in sorted(groups.items()):
            grade = accuracy(pairs)
            print(f"{by:<8} | {figure} | {name} | {len(pairs)} | {grade.mape:.3f} | {grade.median_ape:.3f} | {grade.bias:+.3f}")


def bar(ratios: Mapping[tuple[str, str], Sequence[float]]) -> tuple[float, float]:
    lows = sorted(at(values, 0.05) for values in ratios.values())
    highs = sorted(at(values, 0.95) for values in ratios.values())
    return min(1.0, at(lows, 0.1)), max(1.0, at(highs, 0.9))


def at(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * (len(ordered) - 1))))]


def write(data: Measured, date: str) -> None:
    out, runs = sys.stdout.write, data.runs
    constants, answers = fitted(runs), left_out(runs, "model")
    out("# Written by scripts/fit_serving.py; do not edit. What engines add to their kernels, and the error bars.\n")
    out("schema_version: 1\n")
    out(f'fitted: "{date}"\n')
    out(
        'source: "published closed-loop runs of vLLM, TensorRT-LLM and SGLang on H100 and B200 with NVSwitch, one pipeline stage"\n'
    )
    out("engines:\n")
    for engine, (small_kernel, step, sequence, interference) in constants.overheads.items():
        count = sum(one.engine == engine for one in runs)
        out(f"  {engine}:\n    runs: {count}\n")
        out(f"    overhead: {{small_kernel: {small_kernel * 1e6:.3f} us, step: {step * 1e3:.3f} ms, ")
        out(f"sequence: {sequence * 1e6:.2f} us, interference: {1 + interference:.3f}}}\n")
    out("first_token:\n")
    for name, (base, queue, latent) in constants.ttft.items():
        count = sum(one.answering == name for one in runs)
        out(f"  {name}: {{runs: {count}, base: {base * 1e3:.2f} ms, prefill_factor: 1.0, queue_share: {queue:.3f}, ")
        out(f"decode_factor: 1.0, latent: {latent * 1e3:.2f} ms}}\n")
    out("# measured over predicted, the model left out of the fit\n")
    out("uncertainty:\n")
    tpot: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    ttft: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in answers:
        group = one.run.model, one.run.gpu
        if one.run.tpot > 0:
            tpot["moe" if one.run.experts else "dense"][group].append(one.run.tpot / one.tpot)
        if one.run.ttft > 0 and one.run.fits:
            ttft[one.run.answering][group].append(one.run.ttft / one.ttft)
    speeds: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    vendors: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for rate in data.rates:
        table = speeds[rate.load] if rate.vendor == FITTED_ON else vendors[rate.vendor]
        table[rate.model, rate.gpu].append(rate.ratio)
    for title, bars in (("tpot", tpot), ("ttft", ttft), ("rates", speeds), ("vendors", vendors)):
        out(f"  {title}:\n")
        for name, groups in sorted(bars.items()):
            time = ""
            if title == "vendors":
                now = load_calibration().slower.get(name, 1.0)
                half = at([at(values, 0.5) for values in groups.values()], 0.5)
                time = f"time: {now / half:.2f}, "
            low, high = bar(groups)
            count = sum(map(len, groups.values()))
            out(f"    {name}: {{{time}low: {low:.3f}, high: {high:.3f}, runs: {count}, groups: {len(groups)}}}\n")


if __name__ == "__main__":
    grade_or_write(__doc__, read, report, write)
