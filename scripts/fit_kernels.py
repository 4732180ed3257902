"""Fit the kernel constants of planner/data/calibration/kernels.yaml from measured tables.

    python scripts/fit_kernels.py DATA_FOLDER --date YYYY-MM-DD > planner/data/calibration/kernels.yaml
    python scripts/fit_kernels.py DATA_FOLDER --leave-one-out

DATA_FOLDER holds gemm.csv, attention.csv, moe.csv and moe_a2a.csv. Rows with a flag are left out, and the kernels of
``kernel_rows.LEFT_OUT``. The fit is deterministic: a coordinate search that minimises the mean absolute logarithm of predicted over
measured, every machine counted alike. What is printed beside the constants is leave-one-system-out: fitted on all other machines,
graded on the one left out; ``left_out_error`` averages over machines, ``low`` and ``high`` are measured over predicted, where nine of
ten rows lie with every machine counted alike. With --leave-one-out it says the error on every machine instead.
"""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kernel_rows import GEMM, MOE, POPULARITY, Row, decode_rows, exchange_rows, gemm_rows, moe_rows, prefill_rows
from residuals import grade_or_write, quantile

from planner.cost.attention import short_prompts
from planner.cost.gemm import smooth

Parameters = Sequence[float]
Fields = dict[str, float]
UNITS = {"launch": (1e6, "us"), "loop": (1e9, "ns"), "context": (1e9, "ns"), "elements": (1e6, "us")}
TIMED_APART = ("fp8", "nvfp4")
"""Formats in which TensorRT-LLM's products are timed with more launches than others'. Its steps do not take as much longer, so the
tables are predicted with constants of engines, and steps with those of all engines together.
"""
QUANTISED = frozenset({"fp8", "fp8-block", "int8", "nvfp4"})
"""Formats whose inputs are quantised before a product."""


@dataclass(frozen=True)
class Form:
    """How a time depends on features: ``entries`` says which constants make up the entries that it yields, by what they are for.

    Constants that start at zero stay there. ``family`` names machines with constants of their own if their entries start with it.
    """

    time: Callable[[Parameters, Sequence[float]], float]
    start: list[float]
    ceilings: list[float]
    entries: Callable[[Parameters], Mapping[str, Fields]]
    floors: list[float] = field(default_factory=list)
    family: str = ""


def product(parameters: Parameters, features: Sequence[float]) -> float:
    """The smooth roofline of a matrix product; ``fill`` in GFLOP, ``more`` launches in TensorRT-LLM."""
    launch, memory, compute, sharpness, loop, traffic, fill, more = parameters
    moved, work, inputs, passed, rate, own, cycle = features
    busy = smooth(moved / memory, (work + fill * 1e9 / rate) / compute, sharpness)
    return cycle * (launch + own * more + loop * inputs) + traffic * passed + busy


def product_entries(parameters: Parameters) -> dict[str, Fields]:
    launch, memory, compute, sharpness, loop, traffic, fill, more = parameters
    shared = {"memory": memory, "compute": compute, "sharpness": sharpness, "loop": loop, "traffic": traffic, "fill": fill}
    if not more:
        return {"": {"launch": launch, **shared}}
    others = {"launch": launch, **shared}
    return {"@sglang": others, "@vllm": others, "@tensorrt-llm": {"launch": launch + more, **shared}}


def products(name: str, *, apart: bool = False) -> Form:
    quantised = name in QUANTISED
    start = [5e-6, 0.85, 0.6, 3.0, 4e-10, 2.0 if quantised else 0.0, 0.0 if quantised else 1.0, 5e-6 if apart else 0.0]
    return Form(product, start, [1e-3, 0.97, 0.97, 8.0, 1e-8, 20.0, 100.0, 1e-3], product_entries)


def grouped(parameters: Parameters, features: Sequence[float]) -> float:
    """The same of experts: beside it what routed tokens take to go in and out of memory."""
    launch, memory, compute, sharpness, traffic = parameters
    moved, work, routed, cycle = features
    return cycle * launch + traffic * routed + smooth(moved / memory, work / compute, sharpness)


EXPERTS = Form(
    grouped,
    [2e-5, 0.8, 0.3, 1.5, 1.0],
    [1e-3, 0.97, 0.97, 8.0, 10.0],
    lambda found: {"": dict(zip(("launch", "memory", "compute", "sharpness", "traffic"), found, strict=True))},
    floors=[0.0, 0.0, 0.0, 0.8, 0.0],  # below a sharpness of 0.8 both times would more than add up
)


def one_token(parameters: Parameters, features: Sequence[float]) -> float:
    """A launch, every position of the context, the bytes of the cache."""
    launch, efficiency, context, narrow, more = parameters
    moved, seen, eight, own, cycle = features
    return cycle * (launch + own * more + context * seen) + moved / (narrow if eight else efficiency)


def one_token_entries(parameters: Parameters) -> dict[str, Fields]:
    launch, efficiency, context, narrow, more = parameters
    return {
        "": {"launch": launch, "efficiency": efficiency, "context": context},
        "@8-bit": {"launch": launch, "efficiency": narrow, "context": context},
        "@sglang@8-bit": {"launch": launch + more, "efficiency": narrow, "context": context},
    }


DECODE = Form(one_token, [1e-5, 0.85, 1.5e-10, 0.8, 5e-6], [1e-3, 0.97, 1e-6, 0.97, 1e-3], one_token_entries, family="@blackwell")


def prompt(parameters: Parameters, features: Sequence[float]) -> float:
    """A launch, every element of the queries, causal arithmetic, the last tile; all slower in TensorRT-LLM, and from an 8-bit cache."""
    launch, efficiency, elements, short, steepness, own, narrow, products, last = parameters
    work, millions, length, owned, in_eight, from_eight, tile, cycle = features
    factor = (own if owned else 1.0) * (narrow if from_eight else 1.0)
    rate = products if in_eight else efficiency
    return factor * (cycle * launch + elements * millions + last * tile + work / rate * short_prompts(length, short, steepness))


def prompt_entries(parameters: Parameters) -> dict[str, Fields]:
    launch, efficiency, elements, short, steepness, own, narrow, products, last = parameters

    def slower(factor: float, rate: float) -> Fields:
        found = {"launch": launch * factor, "efficiency": rate / factor, "elements": elements * factor}
        return {**found, "short": short, "steepness": steepness, "last": last * factor}

    in_eight = slower(own, products)
    return {
        "": slower(1.0, efficiency),
        "@8-bit": slower(narrow, efficiency),
        "@tensorrt-llm": slower(own, efficiency),
        "@hopper@tensorrt-llm@8-bit": in_eight,
        "@blackwell@tensorrt-llm@8-bit": in_eight,
    }


PREFILL = Form(
    prompt,
    [1.3e-5, 0.65, 1.8e-6, 4000.0, 0.3, 1.25, 1.1, 0.85, 1.0],
    [1e-3, 0.97, 1e-3, 1e5, 3.0, 3.0, 3.0, 2.0, 9.0],
    prompt_entries,
)


def line(parameters: Parameters, features: Sequence[float]) -> float:
    """a0 + work / e."""
    return parameters[0] + features[0] / parameters[1]


SENDS = Form(line, [5e-5, 0.5], [1e-2, 20.0], lambda found: {"": dict(zip(("launch", "efficiency"), found, strict=True))})


def fit(form: Form, rows: Sequence[Row]) -> list[float]:
    """The constants of least error, one after the other by ever smaller factors."""
    sizes = Counter(row.system for row in rows)
    weighed = [(row.features, row.seconds, 1 / (len(sizes) * sizes[row.system])) for row in rows]
    floors = form.floors or [0.0] * len(form.start)

    def error(parameters: Parameters) -> float:
        return sum(weight * abs(math.log(form.time(parameters, features) / time)) for features, time, weight in weighed)

    parameters, best, step = list(form.start), error(form.start), 1.3
    while step > 1.004:
        moved = False
        for place, (floor, ceiling) in enumerate(zip(floors, form.ceilings, strict=True)):
            for factor in (step, 1 / step):
                trial = list(parameters)
                trial[place] = max(floor, min(trial[place] * factor, ceiling))
                if trial != parameters and (got := error(trial)) < best - 1e-9:
                    parameters, best, moved = trial, got, True
        if not moved:
            step = math.sqrt(step)
    return parameters


def fits(form: Form, rows: Sequence[Row]) -> dict[str, list[float]]:
    """The constants of all machines and, if there are such, of the family's own."""
    own = [row for row in rows if form.family and row.entry.startswith(form.family)]
    return {"": fit(form, rows), **({form.family: fit(form, own)} if own else {})}


def seconds(form: Form, found: Mapping[str, list[float]], row: Row) -> float:
    own = form.family if form.family and row.entry.startswith(form.family) else ""
    return form.time(found.get(own) or found[""], row.features)


def ratios_left_out(form: Form, rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Measured over predicted, every system predicted with constants fitted on the others."""
    found: list[tuple[Row, float]] = []
    systems = sorted({row.system for row in rows})
    for system in systems if len(systems) > 1 else ():
        constants = fits(form, [row for row in rows if row.system != system])
        found += [(row, row.seconds / seconds(form, constants, row)) for row in rows if row.system == system]
    return found


def errors(ratios: Iterable[tuple[Row, float]]) -> dict[str, float]:
    """Mean relative error by system."""
    by_system: dict[str, list[float]] = defaultdict(list)
    for row, ratio in ratios:
        by_system[row.system].append(abs(1 / ratio - 1))
    return {system: sum(found) / len(found) for system, found in by_system.items()}


def written(fields: Fields, rows: Sequence[Row], ratios: Sequence[tuple[Row, float]]) -> str:
    shown = []
    for name, value in fields.items():
        if name in UNITS:
            scale, unit = UNITS[name]
            shown.append(f"{name}: {value * scale:.3g} {unit}")
        elif value:
            shown.append(f"{name}: {value:.0f}" if name == "short" else f"{name}: {value:.3f}")
    shown += [f"rows: {len(rows)}", f"systems: {len({row.system for row in rows})}"]
    if not ratios:
        return "{" + ", ".join([*shown, "left_out_error: null", "low: 0.5", "high: 2.0"]) + "}"
    sizes, each = Counter(row.system for row, _ in ratios), errors(ratios)
    weighed = sorted((ratio, 1 / sizes[row.system]) for row, ratio in ratios)
    low, high = quantile(weighed, 0.05), quantile(weighed, 0.95)
    shown += [f"left_out_error: {sum(each.values()) / len(each):.3f}", f"low: {min(1, low):.3f}", f"high: {max(1, high):.3f}"]
    return "{" + ", ".join(shown) + "}"


def entries(name: str, form: Form, rows: Sequence[Row]) -> Iterator[str]:
    """Lines of all entries that rows are predicted with, and of those that others would be."""
    ratios, constants = ratios_left_out(form, rows), fits(form, rows)
    for own, parameters in constants.items():
        for what, fields in form.entries(parameters).items():
            entry = own + what
            of = [row for row in rows if row.entry == entry]
            graded = [(row, ratio) for row, ratio in ratios if row.entry == entry]
            yield f"  {name}{entry}: {written(fields, of, graded)}\n"


Section = tuple[str, list[tuple[str, Form, list[Row]]]]


def sections(folder: Path) -> list[Section]:
    """All forms with their rows, by section of the document."""
    tables = [(name, products(name), gemm_rows(folder, name)) for name in GEMM]
    apart = [(name, products(name, apart=True), gemm_rows(folder, name, apart=True)) for name in TIMED_APART]
    return [
        ("gemm", tables + apart),
        ("moe", [(name, EXPERTS, moe_rows(folder, name)) for name in MOE]),
        ("attention", [("decode", DECODE, decode_rows(folder)), ("prefill", PREFILL, prefill_rows(folder))]),
        ("exchanges", [(name, SENDS, rows) for name, rows in sorted(exchange_rows(folder).items())]),
    ]


def report(found: list[Section]) -> None:
    for title, forms in found:
        for name, form, rows in forms:
            if each := errors(ratios_left_out(form, rows)):
                machines = ", ".join(f"{system} {error:.3f}" for system, error in each.items())
                print(f"{title} {name}: {sum(each.values()) / len(each):.3f} ({machines})")


def write(found: list[Section], date: str) -> None:
    out = sys.stdout.write
    out("# Written by scripts/fit_kernels.py; do not edit. Times of one kernel; efficiencies are shares of the data sheet.\n")
    out(
        "# left_out_error: mean relative error on a machine that was not in the fit; low, high: where nine of ten rows of it lay.\n"
    )
    out("# fill: GFLOP at which a product's arithmetic is half as efficient as a large one's; elements: for a million.\n")
    out("schema_version: 1\n")
    out(f'fitted: "{date}"\n')
    out('source: "kernel tables of NVIDIA\'s aiconfigurator 0.12 and of Vidur (A100, H100, B200, GB200, L40S), unflagged rows"\n')
    out(f"# variance of experts' loads, the mean being 1, under the skewed routings of the tables\npopularity: {POPULARITY}\n")
    for title, forms in found:
        if title == "exchanges":
            out(
                "# dispatch and combine of experts on one node: launch, and the share of the NVLinks' line rate that 16-bit tokens reach\n"
            )
        out(f"{title}:\n")
        for name, form, rows in forms:
            for entry in entries(name, form, rows):
                out(entry)


if __name__ == "__main__":
    grade_or_write(__doc__, sections, report, write)
