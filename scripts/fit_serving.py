"""Fit what engines add to their kernels, and the error bars: planner/data/calibration/engines.yaml.

    python scripts/fit_serving.py DATA_FOLDER --date YYYY-MM-DD > planner/data/calibration/engines.yaml
    python scripts/fit_serving.py DATA_FOLDER --leave-one-out

DATA_FOLDER holds serving.csv; its closed-loop rows without a flag are used. Kernels, memory and wires are predicted as
everywhere; what is fitted is small, and every engine's own:
overheads   µs a layer with experts and ms a step, to the time per output token, by the mean size of the logarithm of
            predicted over measured (coordinate search; deterministic);
ttft        base, share of the prompt, and share of the others' prefills before it, to the time to first token of runs that fit
            in the KV cache, the same way;
uncertainty measured over predicted, each model left out of the fit: from the 10th percentile of the groups' (model and machine)
            lowest 5 % to the 90th percentile of their highest 5 %.
With --leave-one-out it says instead how far off predictions are with the graded model, or GPU, left out.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from residuals import grade_or_write

from planner import api
from planner.core.estimate import Estimate
from planner.core.feed_forward import MoeMlp
from planner.core.model import kinds
from planner.core.plan import Infeasible
from planner.core.workload import Workload
from planner.cost.accuracy import accuracy
from planner.cost.calibration import TtftFit
from planner.cost.serving import burst_wait, time_to_first_token
from planner.documents.calibration import load_calibration
from planner.documents.tables import TableRow, parse_table
from planner.engines import engines
from planner.errors import BadInput
from planner.units import Seconds
from planner.validation.answering import FORMATS, Library, degrees_of, engine_of

FEWEST = 40
"""Runs of an engine below which the fit of all engines together stands for it."""


@dataclass(frozen=True)
class Run:
    """A closed loop: what was measured in s (0 where it was not), and the parts of the prediction without any overhead."""

    engine: str
    model: str
    gpu: str
    experts: bool
    moe_layers: int
    requests: float
    fits: bool
    tpot: float
    ttft: float
    bare_tpot: float
    decode: float
    prompt: float
    chunks: int


def read(folder: Path) -> list[Run]:
    """The runs whose model, machine and engine are known."""
    table = parse_table((folder / "serving.csv").read_text("utf-8"), "serving.csv")
    library = Library(api.load_model, api.priced)
    known: dict[tuple[object, ...], Estimate | None] = {}
    runs = []
    for row in table.rows:
        engine = engine_of(row.word("engine"))
        if row.flagged or row.word("load_kind") != "concurrency" or engine not in engines():
            continue
        key = tuple(row.word(name) for name in ("topology", "model", "quant", "tp", "pp", "dp", "ep", "isl", "osl", "load"))
        if (*key, engine) not in known:
            known[*key, engine] = estimated(row, engine or "", library)
        found = known[*key, engine]
        if found is not None:
            runs.append(run(row, engine or "", found, library))
    return runs


def estimated(row: TableRow, engine: str, library: Library) -> Estimate | None:
    model, machine = library.model(row.word("model"), row.word("quant")), library.machine(row.word("topology"))
    if isinstance(model, str) or isinstance(machine, str) or row.word("quant") not in FORMATS:
        return None
    workload = Workload(round(row.number("isl")), round(row.number("osl")), row.count("load"))
    try:
        found = library.estimate(model, machine, workload, degrees_of(row), engine)
    except BadInput:
        return None
    return None if isinstance(found, Infeasible) else found.estimate


def run(row: TableRow, engine: str, found: Estimate, library: Library) -> Run:
    model = library.model(row.word("model"), row.word("quant"))
    assert not isinstance(model, str)
    moe_layers = sum(count for layer, count in kinds(model.layers) if isinstance(layer.mlp, MoeMlp))
    now = load_calibration().overheads[engine]
    added = now.step + now.moe_layer * moe_layers
    each = row.count("load") / degrees_of(row).data
    return Run(
        engine=engine,
        model=row.word("model").rsplit("/", 1)[-1],
        gpu=row.word("topology").split("x", 1)[1].split(":")[0],
        experts=moe_layers > 0,
        moe_layers=moe_layers,
        requests=min(each, found.max_concurrency),
        fits=each <= found.max_concurrency,
        tpot=float(row.word("tpot_ms") or 0) * 1e-3,
        ttft=float(row.word("ttft_ms") or 0) * 1e-3,
        bare_tpot=found.tpot - added,
        decode=found.decode.total - added,
        prompt=found.prefill.total - now.moe_layer * moe_layers * found.pipeline.prefill_micro_batches,
        chunks=found.pipeline.prefill_micro_batches,
    )


Overhead = tuple[float, float]
"""s a layer with experts, s a step."""


def tpot_of(one: Run, overhead: Overhead) -> float:
    return one.bare_tpot + overhead[0] * one.moe_layers + overhead[1]


def ttft_of(one: Run, overhead: Overhead, fit: Sequence[float]) -> float:
    step = one.decode + overhead[0] * one.moe_layers + overhead[1]
    prompt = Seconds(one.prompt + overhead[0] * one.moe_layers * one.chunks)
    constants = TtftFit(Seconds(fit[0]), fit[1], fit[2], 1.0)
    return time_to_first_token(prompt, Seconds(step), constants) + burst_wait(prompt, one.requests, constants)


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


def overhead_of(runs: Sequence[Run]) -> Overhead:
    timed = [one for one in runs if one.tpot > 0]
    found = descend(lambda tried: off((tpot_of(one, (tried[0], tried[1])), one.tpot) for one in timed), (1e-5, 5e-4))
    return found[0], found[1]


def ttft_fit(runs: Sequence[Run], overhead: Overhead) -> list[float]:
    timed = [one for one in runs if one.ttft > 0 and one.fits]
    return descend(lambda tried: off((ttft_of(one, overhead, tried), one.ttft) for one in timed), (0.03, 1.0, 0.15))


@dataclass(frozen=True)
class Fit:
    """All constants, by engine."""

    overheads: Mapping[str, Overhead]
    ttft: Mapping[str, Sequence[float]]


def fitted(runs: Sequence[Run]) -> Fit:
    overheads, ttft = {}, {}
    for engine in sorted({one.engine for one in runs}):
        own = [one for one in runs if one.engine == engine]
        of = own if len(own) >= FEWEST else runs
        overheads[engine] = overhead_of(of)
        ttft[engine] = ttft_fit(of, overheads[engine])
    return Fit(overheads, ttft)


@dataclass(frozen=True)
class Answer:
    """A run and what is predicted for it, its own model or GPU left out."""

    run: Run
    tpot: float
    ttft: float


def left_out(runs: Sequence[Run], by: str) -> list[Answer]:
    found = []
    for name in sorted({getattr(one, by) for one in runs}):
        rest = [one for one in runs if getattr(one, by) != name]
        constants = fitted(rest)
        every = overhead_of(rest)
        for one in (one for one in runs if getattr(one, by) == name):
            overhead = constants.overheads.get(one.engine, every)
            first = constants.ttft.get(one.engine) or ttft_fit(rest, every)
            found.append(Answer(one, tpot_of(one, overhead), ttft_of(one, overhead, first)))
    return found


def report(runs: Sequence[Run]) -> None:
    print(f"{'left out':<8} | figure | group | runs | mean | median | bias")
    for by in ("model", "gpu"):
        answers = left_out(runs, by)
        groups: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for one in answers:
            kind = "moe" if one.run.experts else "dense"
            if one.run.tpot > 0:
                for name in (kind, f"{kind} {getattr(one.run, by)} {one.run.engine}"):
                    groups["tpot", name].append((one.tpot, one.run.tpot))
            if one.run.ttft > 0 and one.run.fits:
                load = "up to 8 in flight" if one.run.requests <= 8 else "more than 8"
                for name in (one.run.engine, load):
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


def write(runs: Sequence[Run], date: str) -> None:
    out = sys.stdout.write
    constants, answers = fitted(runs), left_out(runs, "model")
    out("# Written by scripts/fit_serving.py; do not edit. What engines add to their kernels, and the error bars.\n")
    out("schema_version: 1\n")
    out(f'fitted: "{date}"\n')
    out(
        'source: "published closed-loop runs of vLLM, TensorRT-LLM and SGLang on H100 and B200 with NVSwitch, one pipeline stage"\n'
    )
    out("engines:\n")
    for engine, (moe_layer, step) in constants.overheads.items():
        base, share, queue = constants.ttft[engine]
        count = sum(one.engine == engine for one in runs)
        out(f"  {engine}:\n    runs: {count}\n")
        out(f"    overhead: {{layer: 0 us, moe_layer: {moe_layer * 1e6:.2f} us, step: {step * 1e3:.3f} ms}}\n")
        out(
            f"    ttft: {{base: {base * 1e3:.2f} ms, prefill_factor: {share:.3f}, queue_share: {queue:.3f}, decode_factor: 1.0}}\n"
        )
    out("# measured over predicted, the model left out of the fit\n")
    out("uncertainty:\n")
    tpot: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    ttft: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in answers:
        group = one.run.model, one.run.gpu
        if one.run.tpot > 0:
            tpot["moe" if one.run.experts else "dense"][group].append(one.run.tpot / one.tpot)
        if one.run.ttft > 0 and one.run.fits:
            ttft[one.run.engine][group].append(one.run.ttft / one.ttft)
    for title, table in (("tpot", tpot), ("ttft", ttft)):
        out(f"  {title}:\n")
        for name, groups in sorted(table.items()):
            low, high = bar(groups)
            count = sum(map(len, groups.values()))
            out(f"    {name}: {{low: {low:.3f}, high: {high:.3f}, runs: {count}, groups: {len(groups)}}}\n")


if __name__ == "__main__":
    grade_or_write(__doc__, read, report, write)
