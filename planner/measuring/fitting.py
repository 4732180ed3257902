"""A machine's links and curves fitted to placed tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from statistics import fmean

from planner.core.finding import Finding
from planner.core.measured import ALIKE, EAGER, MeasuredCurve
from planner.core.operation import Operation
from planner.core.topology import PEER_LINKS, Link, LinkKind, Topology
from planner.core.unknown import Unknown
from planner.cost.calibration import Calibration
from planner.cost.interconnect import Interconnect
from planner.cost.isotonic import isotonic, without_outliers, without_spikes
from planner.cost.link_fit import (
    HIGHEST,
    LOWEST,
    ClassKey,
    Settled,
    class_of,
    crossed_by,
    fit_copies,
    fit_group,
    settled_with,
)
from planner.cost.operations import Operations
from planner.engines.implementations import implementations
from planner.measuring.placed import Gpus, Placed, PlacedCopies
from planner.render import text
from planner.units import Bytes, BytesPerSecond, Seconds

LARGE = Bytes(16 * 2.0**20)
"""From here on a collective's time is its bytes over what the links carry."""
DISAGREE = 2.0
DOUBTFUL = 0.25
"""Large messages that are further off by the links alone are told: NCCL's steps of channel speed alone are up to a fifth apart."""
_COPIES = "copies"
_RING: tuple[Operation, ...] = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")
Pair = tuple[int, int]
Wire = Callable[[Topology], Interconnect]
"""A topology with what its hardware implies, ready for the cost model."""


@dataclass
class LinkFits:
    """What was found so far: rates by link number, with what each was measured; what is settled, with a word by class."""

    rates: dict[int, BytesPerSecond] = field(default_factory=dict)
    by: dict[int, str] = field(default_factory=dict)
    settled: set[Settled] = field(default_factory=set)
    words: dict[ClassKey, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def copy_rates(wires: Interconnect, tables: Sequence[PlacedCopies]) -> dict[Pair, tuple[BytesPerSecond, str]]:
    """The rate in one direction of every pair that was copied between the way the graph goes, and the file that says so.

    Through host memory the matrix without peer-to-peer counts, else the one with it; half of both directions at once, which
    is what a ring does, before one direction alone; the fastest of several tables of a kind.
    """
    found: dict[Pair, tuple[int, BytesPerSecond, str]] = {}
    for table in tables:
        for pair, rate in table.rates.items():
            path = wires.path(*pair)
            refused = table.access.get(pair) is False  # then copies fall back to host memory, whatever the heading says
            direct = None if table.peer_to_peer is None else table.peer_to_peer and not refused
            if not path.links or direct is path.staged:
                continue
            both = table.direction == "both-ways"
            one = int(both), BytesPerSecond(rate / 2 if both else rate), table.source
            if pair not in found or one[:2] > found[pair][:2]:
                found[pair] = one
    return {pair: (rate, source) for pair, (_, rate, source) in found.items()}


def fit_links(
    topology: Topology, wire: Wire, copies: Sequence[PlacedCopies], tables: Sequence[Placed], constants: Calibration
) -> LinkFits:
    """The links of ``topology`` as copies and large collectives show them, small groups before larger ones.

    What direct copies settle stays settled. Through host memory a memcpy is not how NCCL moves data: there a collective over
    the same links has the last word. Links of a class that a collective does not cross take its rate over, but for those
    that were measured themselves.
    """
    bare = replace(topology, measurements=())
    wires = wire(bare)
    lines = line_rates(bare, wires.topology)
    fits = LinkFits()
    rates = copy_rates(wires, copies)
    if rates:
        fit = fit_copies(wires, {pair: rate for pair, (rate, _) in rates.items()})
        sources = ", ".join(dict.fromkeys(source for _, source in rates.values()))
        _take(fits, wires, fit.measured, lines, f"{_copied(rates, topology)}, {sources}")
        direct = directly_crossed(wires, rates)
        fits.settled |= {settled_with(wires.topology, number) for number in fit.measured if number in direct}
        for number, most in fit.seen.items():
            key = class_of(wires.topology, number)
            if number not in fit.measured:
                nvlink = wires.topology.links[number].kind in PEER_LINKS
                said = (
                    "copies reach what is counted on"
                    if nvlink
                    else f"carries {most / 1e9:.3g} GB/s at least; one copy does not fill it"
                )
                fits.words.setdefault(key, said)
        fits.settled |= {number for number in fit.seen if wires.topology.links[number].kind in PEER_LINKS}
        fits.findings += [_slow_pair(wires, *one) for one in fit.slow]
        wires = wire(with_measured(bare, fits))
    stay = _own(topology, wires)
    judged = []
    for table in groups_for_links(tables):
        ratio = _ratio(table, constants)
        if ratio is None:
            continue
        group = fit_group(wires, table.gpus, ratio, lines, fits.settled)
        judged.append((table, ratio, group.word))
        by = f"{_asked(table, topology)}, {table.source}"
        crossed = crossed_by(wires, table.gpus)
        taken = _taken_over(wires.topology, group.rates, crossed, stay)
        _take(fits, wires, taken, lines, by, alike=taken.keys() - crossed)
        fits.settled |= {settled_with(wires.topology, number) for number in group.rates}
        stay |= crossed
        wires = wire(with_measured(bare, fits))
    for table, ratio, word in judged:
        left = ratio(wires)
        if abs(math.log(left)) > math.log1p(DOUBTFUL):
            fits.findings.append(_unexplained(table, left, word or "the other groups leave no link that explains it", topology))
    return fits


def _taken_over(
    topology: Topology, rates: Mapping[int, BytesPerSecond], crossed: Collection[int], stay: Collection[int]
) -> dict[int, BytesPerSecond]:
    """The rates of a fit: of links that it ``crossed``, and of those of their classes that do not ``stay`` as they are.

    Of the latter, one of which copies tell what it carries keeps its share of that; the others are as good as the best crossed.
    A link that is found to carry what was measured already keeps that, and its origin.
    """
    best: dict[ClassKey, BytesPerSecond] = {}
    for number in rates.keys() & crossed:
        key = class_of(topology, number)
        best[key] = max(best.get(key, rates[number]), rates[number])
    found = {}
    for number, rate in rates.items():
        link = topology.links[number]
        told = number in crossed or (link.measured is not None and not link.measured_by.endswith(ALIKE))
        if link.measured != rate and (number in crossed or number not in stay):
            found[number] = rate if told else best.get(class_of(topology, number), rate)
    return found


def forgetting(
    topology: Topology, wires: Interconnect, copies: Sequence[PlacedCopies], tables: Sequence[Placed]
) -> tuple[Topology, set[int]]:
    """The topology without what the same questions said of links before, whatever file answered them, and which links those are.

    The question of a collective is its operation and its GPUs; that of copies is their GPUs, and only of links that they cross.
    """
    pairs = copy_rates(wires, copies)
    crossed = {number for pair in pairs for number, _ in wires.path(*pair).links}
    copied = f"{_copied(pairs, topology)}, "
    asked = tuple(f"{_asked(table, topology)}, " for table in groups_for_links(tables))
    again = {
        number
        for number, link in enumerate(topology.links)
        if link.measured_by.startswith(asked) or (number in crossed and link.measured_by.startswith(copied))
    }
    links = (
        replace(link, measured=None, measured_by="") if number in again else link for number, link in enumerate(topology.links)
    )
    return replace(topology, links=tuple(links)), again


def _asked(table: Placed, topology: Topology) -> str:
    return f"{words(table.operation)} over {_among(table.gpus, topology)}"


def _copied(pairs: Iterable[Pair], topology: Topology) -> str:
    gpus = {gpu for pair in pairs for gpu in pair}
    return _COPIES if len(gpus) == len(topology.gpus) else f"{_COPIES} over {_among(gpus, topology)}"


def _among(gpus: Iterable[int], topology: Topology) -> str:
    ordered = tuple(sorted(gpus))
    whole = len(ordered) == len(topology.gpus)
    return f"{len(ordered)} GPUs" if whole else f"GPUs {text.group(ordered).strip('{}')}"


def _own(topology: Topology, wires: Interconnect) -> set[int]:
    """The links that earlier files measured themselves, as NCCL uses them: not by copies through host memory."""
    found = {
        number for number, link in enumerate(topology.links) if link.measured is not None and not link.measured_by.endswith(ALIKE)
    }
    copied = {number for number in found if topology.links[number].measured_by.startswith(_COPIES)}
    if not copied:
        return found
    return found - (copied - directly_crossed(wires, permutations(range(len(topology.gpus)), 2)))


def directly_crossed(wires: Interconnect, pairs: Iterable[Pair]) -> set[int]:
    """The links that pairs of GPUs cross without a rest in host memory."""
    return {number for pair in pairs if not (path := wires.path(*pair)).staged for number, _ in path.links}


def line_rates(stated: Topology, equipped: Topology) -> dict[int, float]:
    """Line rates by number of link; what is assumed to join sockets has none."""
    return {
        number: float(link.bandwidth)
        for number, (link, said) in enumerate(zip(equipped.links, stated.links, strict=True))
        if not isinstance(link.bandwidth, Unknown) and not (link.kind is LinkKind.SOCKET and isinstance(said.bandwidth, Unknown))
    }


def _take(
    fits: LinkFits,
    wires: Interconnect,
    rates: Mapping[int, BytesPerSecond],
    lines: Mapping[int, float],
    by: str,
    alike: Collection[int] = (),
) -> None:
    """Keep the rates that a link of that line rate can have; of the others a finding. Those ``alike`` only take theirs over."""
    strange = []
    for number, rate in rates.items():
        if number in lines and not LOWEST <= rate / lines[number] <= HIGHEST:
            strange.append(number)
        else:
            fits.rates[number] = BytesPerSecond(float(f"{rate:.4g}"))
            fits.by[number] = by + ALIKE if number in alike else by
    if strange:
        links = wires.topology.links
        named = ", ".join(links[number].name for number in strange[:4])
        line, rate = lines[strange[0]], rates[strange[0]]
        fits.findings.append(
            Finding(
                "rate-implausible",
                f"{named} would carry {rate / 1e9:.3g} GB/s by {by}, of a line rate of {line / 1e9:.3g} GB/s; not written",
                hint="check that the topology names the right generation, lanes or number of NVLinks, then measure again",
                devices=tuple(dict.fromkeys(end for number in strange for end in (links[number].a, links[number].b))),
            )
        )


def with_measured(topology: Topology, fits: LinkFits) -> Topology:
    """The topology with the rates that were found, as they are written."""
    links: list[Link] = []
    for number, link in enumerate(topology.links):
        if number in fits.rates:
            links.append(replace(link, measured=fits.rates[number], measured_by=fits.by[number]))
        else:
            links.append(link)
    return replace(topology, links=tuple(links))


def groups_for_links(tables: Sequence[Placed]) -> list[Placed]:
    """One table a group for its links: NCCL's before an engine's, all-reduces before the others; small groups first."""
    best: dict[frozenset[int], tuple[tuple[bool, int], Placed]] = {}
    for table in tables:
        usable = table.operation in _RING and not table.stack.endswith(EAGER) and any(size >= LARGE for size, _ in table.points)
        if usable and (table.stack == "nccl" or table.operation == "all_reduce"):
            rank = table.stack != "nccl", _RING.index(table.operation)
            key = frozenset(table.gpus)
            if key not in best or rank < best[key][0]:
                best[key] = rank, table
    return [table for _, table in sorted(best.values(), key=lambda one: (len(one[1].gpus), one[1].gpus))]


def _ratio(table: Placed, constants: Calibration) -> Callable[[Interconnect], float] | None:
    """Predicted over measured time of a table's large messages, the geometric mean over sizes."""
    implementation = next((one for one in implementations().values() if one.stack == table.stack), None)
    if implementation is None:
        return None
    large = [(size, time) for size, time in table.points if size >= LARGE]

    def ratio(wires: Interconnect) -> float:
        asked = Operations(wires, constants, implementation)
        off = [math.log(asked.predict(table.operation, table.gpus, size).taken.time / time) for size, time in large]
        return math.exp(fmean(off))

    return ratio


def curves_of(tables: Sequence[Placed], topology: Topology) -> tuple[list[MeasuredCurve], list[Finding]]:
    """A curve for every operation, GPUs and stack; sizes measured several times (by several versions) at their middle."""
    gathered: dict[tuple[Operation, Gpus, str], list[Placed]] = {}
    for table in tables:
        gathered.setdefault((table.operation, curve_gpus(table.operation, table.gpus), table.stack), []).append(table)
    curves, findings = [], []
    for (operation, _, stack), members in gathered.items():
        times: dict[Bytes, list[float]] = {}
        for table in members:
            for size, time in table.points:
                times.setdefault(size, []).append(time)
        rows = [(size, middle(times[size])) for size in sorted(times)]
        # launched one by one, small messages wait for the host in no order of size: there only what sticks out is noise
        kept = rows if stack.endswith(EAGER) else without_outliers(rows)
        rising = without_spikes(rows) if stack.endswith(EAGER) else isotonic(kept)
        points = tuple((size, Seconds(float(f"{time * 1e6:.6g}") * 1e-6)) for size, time in rising)
        ids = tuple(topology.gpus[gpu].id for gpu in members[0].gpus)
        source = "; ".join(dict.fromkeys(table.source for table in members))
        if len(kept) < len(rows):
            source += f" without {', '.join(f'{size:.0f} B' for size, _ in rows if size not in dict(kept))}"
        curves.append(MeasuredCurve(operation, ids, stack, points, source))
        apart = [size for size, found in times.items() if max(found) > DISAGREE * min(found)]
        if len(apart) * 2 > len(times):
            findings.append(_disagree(operation, members[0], times, apart))
    return curves, findings


def curve_gpus(operation: Operation, gpus: Gpus) -> Gpus:
    """What tells curves apart: the order of the GPUs matters for send/recv alone."""
    return gpus if operation == "send_recv" else tuple(sorted(gpus))


def middle(times: Sequence[float]) -> float:
    """The median; of an even number of times the geometric mean of the middle two, or the lower where those are not of one
    thing: other traffic slows a message down, nothing speeds it up.

    A prediction is asked for without a version, so the middle of what versions took is nearer to any of them than the newest is.

    >>> middle([1.0, 1.44]), middle([9.0, 1.0, 2.0]), middle([1.0, 100.0])
    (1.2, 2.0, 1.0)
    """
    ordered = sorted(times)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if high > DISAGREE * low else math.sqrt(low * high)


def words(operation: Operation) -> str:
    """An operation as people write it.

    >>> words("all_reduce")
    'all-reduce'
    """
    return operation.replace("_", "-")


def _slow_pair(wires: Interconnect, pair: Pair, rate: BytesPerSecond, expected: BytesPerSecond) -> Finding:
    a, b = pair
    return Finding(
        "pair-slow",
        f"copies from GPU {a} to GPU {b} reach {rate / 1e9:.3g} GB/s; the same links carry {expected / 1e9:.3g} GB/s for other pairs",
        hint="compare a second run; where it stays, look at access control (ACS) and NUMA settings between these two",
        devices=(wires.topology.gpus[a].id, wires.topology.gpus[b].id),
    )


def _unexplained(table: Placed, left: float, word: str, topology: Topology) -> Finding:
    slower = left < 1
    what = f"{words(table.operation)} over GPUs {','.join(map(str, table.gpus))}"
    times = f"{1 / left if slower else left:.2g} times {'slower' if slower else 'faster'} than"
    return Finding(
        "links-unexplained",
        f"large messages of {what} are {times} the links promise, and {word}; this group is predicted as measured, "
        "others like it are not",
        hint="measure the groups that matter; if copies between these GPUs rest in host memory, say 'peer_to_peer: disabled' "
        "for the host and calibrate again"
        if slower
        else "measure the groups that matter; a larger group that is faster than a smaller one asks for a second run",
        evidence=table.source,
        devices=tuple(topology.gpus[gpu].id for gpu in table.gpus),
    )


def _disagree(operation: Operation, table: Placed, times: Mapping[Bytes, list[float]], apart: Sequence[Bytes]) -> Finding:
    worst = max(apart, key=lambda size: max(times[size]) / min(times[size]))
    low, high = min(times[worst]), max(times[worst])
    return Finding(
        "rows-disagree",
        f"{words(operation)} over {len(table.gpus)} GPUs by {table.stack}: most sizes were measured at times more than twofold apart, "
        f"{worst:.0f} B at {low * 1e6:.4g} and {high * 1e6:.4g} µs; the middle is taken",
        hint="two machines, or other GPUs, in one table? give each a table of its own, with --gpus",
        evidence=table.source,
    )
