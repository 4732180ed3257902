"""From measurements to a topology whose links and collectives are measured: what ``planner calibrate`` asks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from planner.core.calibrated import CalibrationAnswer, HeldAgainst, LinkClass, Off
from planner.core.finding import Finding
from planner.core.measured import ALIKE, EAGER, MeasuredCopies, MeasuredCurve, MeasuredTable
from planner.core.operation import Operation
from planner.core.topology import PEER_LINKS, Topology
from planner.cost.calibration import Calibration
from planner.cost.interconnect import KIND_WORDS, Interconnect
from planner.cost.link_fit import ClassKey, class_of, port_rate
from planner.cost.nccl_ops import bus_factor
from planner.cost.operations import Operations
from planner.documents.calibration import load_calibration
from planner.documents.files import read_stdin, read_text
from planner.documents.hardware import load_link_rates
from planner.engines.implementations import implementations
from planner.errors import BadInput
from planner.graph.diagnosis import slow
from planner.graph.diagnosis.view import views
from planner.machines import STDIN, find_topology, load_gpu
from planner.measuring.access import settle_access
from planner.measuring.fitting import (
    LARGE,
    LinkFits,
    copy_rates,
    curve_gpus,
    curves_of,
    fit_links,
    forgetting,
    line_rates,
    with_measured,
    words,
)
from planner.measuring.placed import Gpus, Placed, PlacedCopies, place_copies, place_table, short
from planner.measuring.rows import is_csv, read_rows
from planner.render.text import shorten
from planner.render.text import size as sized
from planner.units import BytesPerSecond
from planner.validation import find_operation, refuse_gpus, wires_of

Measured = MeasuredTable | MeasuredCopies
MAX_FILES = 64
IMPOSSIBLE = 2.0
"""So many times what a GPU's wires carry is no measurement of this machine: an in-switch reduction stays below it."""
HOPELESS = 1000
"""So many times below that for large messages is a slip of the unit: the worst PCIe box that was published is at 23 times."""


def calibrate(
    reference: str | None,
    files: Sequence[str],
    *,
    gpu: str | None = None,
    operation: str | None = None,
    gpus: Sequence[int] | None = None,
) -> CalibrationAnswer:
    """A machine's topology with what ``files`` measured on it: links, and curves of collectives. Nothing is written to disk.

    ``operation`` and ``gpus`` say what the files do not. Raises ``BadInput`` for the first thing in them that cannot be read, or
    cannot be of this machine.
    """
    if STDIN in files and (reference == STDIN or list(files).count(STDIN) > 1):
        raise BadInput("standard input is read once", path=STDIN)
    if len(files) > MAX_FILES:
        raise BadInput(f"{len(files)} files; up to {MAX_FILES} are read together")
    topology = find_topology(reference, gpu=gpu)
    chosen = None if gpus is None else tuple(gpus)
    if chosen is not None:
        refuse_gpus(topology, chosen)
    asked = None if operation is None else find_operation(operation)
    tables: list[Placed] = []
    measured: list[Measured] = []
    notes: list[str] = []
    for file in files:
        text, source = (read_stdin(), "<stdin>") if file == STDIN else (read_text(Path(file)), file)
        if is_csv(text):
            rows = read_rows(text, source, topology, reference or "", chosen)
            tables += rows.tables
            notes += rows.notes
            continue
        from planner.readers.measurements import read_all_measured, read_measurements

        reading = read_all_measured(text, source)
        notes += [f"{short(source)}: left out: {name}" for name in reading.left_out]
        measured += reading.measured or read_measurements(text, source)
    placed, copies = _placed(measured, topology, operation=asked, gpus=chosen)
    return _fitted(topology, reference or topology.name, files, [*tables, *placed], copies, notes)


def calibrate_with(topology: Topology, measured: Sequence[Measured], source: str) -> CalibrationAnswer:
    """A topology with what programs that ran on it measured. Raises ``BadInput`` where that cannot be of this machine."""
    tables, copies = _placed(measured, topology, operation=None, gpus=None)
    return _fitted(topology, topology.name, (source,), tables, copies, ())


def _placed(
    measured: Sequence[Measured], topology: Topology, *, operation: Operation | None, gpus: Gpus | None
) -> tuple[list[Placed], list[PlacedCopies]]:
    tables = [one for one in measured if isinstance(one, MeasuredTable)]
    copies = [one for one in measured if isinstance(one, MeasuredCopies)]
    return (
        [place_table(one, topology, operation=operation, gpus=gpus, look_up=_known) for one in tables],
        [place_copies(one, topology, gpus=gpus, look_up=_known) for one in copies],
    )


def _known(name: str) -> str | None:
    try:
        return load_gpu(name).name
    except BadInput:
        return None


def _refuse_impossible(table: Placed, wires: Interconnect) -> None:
    """Refuse a bus bandwidth that no wires of this group carry, or a time that a large message on them never takes."""
    factor = bus_factor(table.operation, len(table.gpus))
    limit = port_rate(wires, table.gpus)
    for (size, time), place in zip(table.points, table.places, strict=True):
        fast = size / time * factor > IMPOSSIBLE * limit
        slow = max(size, LARGE) / time * factor * HOPELESS < limit < math.inf
        if fast or slow:
            raise BadInput(
                f"a bus bandwidth of {size / time * factor / 1e9:.4g} GB/s ({size:.0f} B in {time * 1e6:.4g} µs); "
                f"the wires of a GPU in this group carry {limit / 1e9:.4g} GB/s",
                path=place,
                hint="this was measured on another machine, or counts bits"
                if fast
                else "times are in microseconds; or the program fell back to a way over the network",
            )


def _refuse_impossible_copies(copies: PlacedCopies, wires: Interconnect) -> None:
    for (a, b), rate in copies.rates.items():
        limit = port_rate(wires, (a, b)) * (2 if copies.direction == "both-ways" else 1)
        if rate > IMPOSSIBLE * limit:
            raise BadInput(
                f"{rate / 1e9:.4g} GB/s from GPU {a} to GPU {b}; the wires between them carry {limit / 1e9:.4g} GB/s",
                path=copies.where,
                hint="this was measured on another machine, or counts bits",
            )


def _fitted(
    topology: Topology,
    target: str,
    files: Sequence[str],
    tables: Sequence[Placed],
    copies: Sequence[PlacedCopies],
    notes: Sequence[str],
) -> CalibrationAnswer:
    constants = load_calibration()
    old = wires_of(topology)
    for table in tables:
        _refuse_impossible(table, old)
    for one in copies:
        _refuse_impossible_copies(one, old)
    latencies = [one.source for one in copies if not one.rates and not one.access]
    notes = [*notes, *(f"{source}: latencies alone; links are fitted to bandwidths" for source in latencies)]
    access = {pair: can for one in copies for pair, can in one.access.items()}
    stated, findings = settle_access(topology, old.topology, access)
    settled, again = forgetting(stated, wires_of(stated), copies, tables)
    fits = fit_links(settled, wires_of, copies, tables, constants)
    curves, doubts = curves_of(tables, topology)
    kept, replaced = _without(settled, curves)
    linked = with_measured(settled, fits)
    new = replace(linked, measurements=_in_place(settled, curves))
    new.check()
    wires = wires_of(new)
    grades = [_grade(table, old, linked, kept, wires, constants) for table in tables]
    held = _grade_copies(copies, old, wires)
    if not grades and not held and not findings:
        raise BadInput(
            "tells nothing of what links carry: latencies alone, or copies by another way than the topology's",
            path=", ".join(map(short, files)),
            hint="pass the bandwidths too; of GPUs without peer-to-peer those with P2P disabled, else those with P2P enabled",
        )
    cut = [table for table in tables if table.announced is not None]
    groups = [*(table.gpus for table in tables), *(pair for one in copies for pair in one.rates)]
    pairs = {(a, b) for group in groups for a in group for b in group if a != b}
    return CalibrationAnswer(
        target=target,
        sources=tuple(files),
        topology=new,
        classes=_classes(settled, old, wires, fits, pairs, again),
        tables=(*grades, *held),
        findings=(*findings, *fits.findings, *_slow_links(wires), *map(_cut, cut), *doubts),
        notes=tuple(notes),
        curves=len(curves),
        replaced=replaced,
    )


def _key(curve: MeasuredCurve, topology: Topology) -> tuple[str, Gpus, str]:
    place = {gpu.id: number for number, gpu in enumerate(topology.gpus)}
    return curve.operation, curve_gpus(curve.operation, tuple(place[gpu] for gpu in curve.gpus)), curve.stack


def _in_place(topology: Topology, curves: Sequence[MeasuredCurve]) -> tuple[MeasuredCurve, ...]:
    """The curves that are there, new ones where their question stood, else behind them."""
    there = {_key(curve, topology): curve for curve in topology.measurements}
    return tuple((there | {_key(curve, topology): curve for curve in curves}).values())


def _without(topology: Topology, curves: Iterable[MeasuredCurve]) -> tuple[list[MeasuredCurve], int]:
    """The curves that are there and stay, and how many do not."""
    new = {_key(curve, topology) for curve in curves}
    kept = [curve for curve in topology.measurements if _key(curve, topology) not in new]
    return kept, len(topology.measurements) - len(kept)


def _grade(
    table: Placed, old: Interconnect, linked: Topology, kept: Sequence[MeasuredCurve], new: Interconnect, constants: Calibration
) -> HeldAgainst:
    """A table held against predictions as they were, by the links alone, and with its own curve."""
    apart = curve_gpus(table.operation, table.gpus)
    others = tuple(curve for curve in kept if _key(curve, linked)[:2] != (table.operation, apart))
    return HeldAgainst(
        what=table.operation,
        stack=table.stack,
        gpus=table.gpus,
        rows=len(table.points),
        before=_off(table, old, constants),
        links=_off(table, wires_of(replace(linked, measurements=others)), constants),
        after=_off(table, new, constants),
        source=table.source,
    )


def _off(table: Placed, wires: Interconnect, constants: Calibration) -> Off | None:
    stack = table.stack.removesuffix(EAGER)
    implementation = next((one for one in implementations().values() if one.stack == stack), None)
    if implementation is None:
        return None
    asked = Operations(wires, constants, implementation)
    eager = table.stack.endswith(EAGER)
    try:
        times = [(asked.predict(table.operation, table.gpus, size, eager=eager).taken.time, time) for size, time in table.points]
    except BadInput:
        return None
    return _error(times)


def _error(pairs: Sequence[tuple[float, float]]) -> Off:
    errors = [abs(predicted - measured) / measured for predicted, measured in pairs]
    return Off(sum(errors) / len(errors), max(errors))


def _grade_copies(copies: Sequence[PlacedCopies], old: Interconnect, new: Interconnect) -> list[HeldAgainst]:
    """The copies that the fit leans on, by the way they went."""
    found: dict[tuple[str, str], dict[tuple[int, int], BytesPerSecond]] = {}
    for pair, (rate, source) in copy_rates(new, copies).items():
        way = "copies through host memory" if new.path(*pair).staged else "copies between GPUs"
        found.setdefault((way, source), {})[pair] = rate
    return [
        HeldAgainst(
            what=way,
            stack="",
            gpus=tuple(sorted({gpu for pair in rates for gpu in pair})),
            rows=len(rates),
            before=_error([(old.rate(old.path(*pair)), rate) for pair, rate in rates.items()]),
            links=(off := _error([(new.rate(new.path(*pair)), rate) for pair, rate in rates.items()])),
            after=off,
            source=source,
        )
        for (way, source), rates in found.items()
    ]


def _classes(
    stated: Topology, old: Interconnect, new: Interconnect, fits: LinkFits, pairs: Iterable[tuple[int, int]], again: Iterable[int]
) -> tuple[LinkClass, ...]:
    """The classes of all links between GPUs that were measured, now or before ``again``, and what became of them."""
    used = {number for pair in pairs for number, _ in new.path(*pair).links} | set(fits.rates) | set(again)
    lines = line_rates(stated, new.topology)
    by_class: dict[ClassKey, list[int]] = {}
    for number in sorted(used):
        by_class.setdefault(class_of(new.topology, number), []).append(number)
    same: dict[LinkClass, tuple[list[str], list[str], int, int]] = {}
    for key, numbers in by_class.items():
        host, kind, ends, _ = key
        measured = [number for number in numbers if number in fits.rates and not fits.by[number].endswith(ALIKE)]
        alike = sum(number in fits.rates for number in numbers) - len(measured)
        one = LinkClass(
            host="",
            name="–".join(ends) if KIND_WORDS[kind] in ends else f"{KIND_WORDS[kind]} {'–'.join(ends)}",
            links=(),
            line=BytesPerSecond(lines[numbers[0]]) if numbers[0] in lines else None,
            before=_range(old, numbers),
            after=_range(new, numbers),
            assumed=all(old.topology.links[number].measured is None for number in numbers),
            measured=0,
            alike=0,
            by="; ".join(dict.fromkeys(fits.by[number] for number in measured)),
            note="" if measured else fits.words.get(key, _note(new, numbers)),
        )
        hosts, names, count, others = same.get(one, ([], [], 0, 0))
        names += [new.topology.links[number].name for number in numbers]
        same[one] = [*hosts, host] if host else hosts, names, count + len(measured), others + alike
    return tuple(
        replace(one, host=shorten(hosts, 2), links=tuple(names), measured=count, alike=others)
        for one, (hosts, names, count, others) in same.items()
    )


def _note(wires: Interconnect, numbers: Sequence[int]) -> str:
    """Why nothing is written of a class of links."""
    links = [wires.topology.links[number] for number in numbers]
    earlier = "; ".join(dict.fromkeys(link.measured_by for link in links if link.measured is not None))
    if earlier:
        return f"measured earlier by {earlier}"
    return "" if links[0].kind in PEER_LINKS else "not settled by these files"


def _range(wires: Interconnect, numbers: Sequence[int]) -> tuple[BytesPerSecond, BytesPerSecond]:
    rates = [BytesPerSecond(float(wires.topology.links[number].achieved or 0.0)) for number in numbers]
    return min(rates), max(rates)


def _cut(table: Placed) -> Finding:
    last = max(size for size, _ in table.points)
    return Finding(
        "table-cut",
        f"the table of {words(table.operation)} over {len(table.gpus)} GPUs ends at {sized(last)}; "
        f"its header announces {sized(table.announced or last)}",
        hint="paste it to its last line; what is larger is predicted from the rows that are there",
        evidence=table.where,
    )


def _slow_links(wires: Interconnect) -> list[Finding]:
    """What the machine's doctor says of measured links from now on."""
    return [finding for view in views(wires.topology, wires.specs, load_link_rates()) for finding in slow.findings(view)]


__all__ = ["CalibrationAnswer", "calibrate", "calibrate_with"]
