"""A CSV of measured collectives as tables on a machine's GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice, pairwise

from planner.core.measured import EAGER
from planner.core.operation import OPERATIONS, Operation
from planner.core.topology import Topology
from planner.cost.interconnect import Interconnect
from planner.cost.measured_here import likeness
from planner.documents.measurements import COLUMNS, NCCL_TESTS, MeasuredCollective, parse_collectives
from planner.engines.implementations import written_implementation
from planner.errors import BadInput, folded
from planner.machines import STDIN, load_topology
from planner.measuring.placed import HOW_TO_SAY_GPUS, Gpus, Placed, short
from planner.units import Bytes, Seconds
from planner.validation import wires_of

_ENOUGH_COLUMNS = 4
MOST_NAMES = 100
MOST_GROUPS = 200
"""Up to so many groups are compared one by one, else pairs of GPUs."""


def is_csv(text: str) -> bool:
    """Whether a text is meant as a CSV of measured collectives: its first line names most of the columns."""
    first = next((line for line in text.splitlines()[:10] if line.strip()), "")
    names = {name.strip().strip('"') for name in first[:10_000].split(",")}
    return len(names & {*COLUMNS, *NCCL_TESTS.values()}) >= _ENOUGH_COLUMNS


@dataclass(frozen=True)
class Rows:
    """The tables of a CSV, and what was left out of it or assumed, for people."""

    tables: tuple[Placed, ...]
    notes: tuple[str, ...]


def read_rows(text: str, source: str, topology: Topology, target: str, gpus: Gpus | None) -> Rows:
    """The rows of a CSV that are of this machine, by operation, number of GPUs and stack; ``target`` is how it was asked for.

    A group is ``gpus``, or all GPUs of the machine; or the first so many, where any others are joined alike, or where the rows'
    own topology has no more. Rows launched without CUDA graphs are a stack of their own. Raises ``BadInput`` where no row is of
    this machine, or it cannot be told which GPUs one is of.
    """
    _, rows = parse_collectives(text, source)
    notes: list[str] = []
    ours = _of_this_machine(rows, source, topology, target, notes)
    left: Counter[str] = Counter()
    found: dict[tuple[Operation, int, str], list[MeasuredCollective]] = {}
    for row in ours:
        operation = next((one for one in OPERATIONS if folded(one) == folded(row.operation)), None)
        try:
            implementation, eager = written_implementation(row.implementation)
        except BadInput as error:
            left[error.problem] += 1
            continue
        if operation is None or row.problem or row.ranks < 2:
            reason = f"unknown operation {row.operation!r}" if operation is None else row.problem
            left[reason or "one GPU has nobody to talk to"] += 1
            continue
        stack = implementation.stack + (EAGER if eager else "")
        found.setdefault((operation, row.ranks, stack), []).append(row)
    notes += [f"{short(source)}: {count} row{'s' * (count > 1)} left out: {reason}" for reason, count in sorted(left.items())]
    if not found:
        raise BadInput("holds no row that can be used", path=source, hint="; ".join(sorted(left)[:3]))
    tables = []
    groups = _Groups(topology, gpus)
    for (operation, ranks, stack), members in sorted(found.items(), key=lambda one: (one[0][1], one[0])):
        where = f"{source}, line {members[0].line}"
        versions = sorted({row.implementation for row in members})
        points = tuple((Bytes(float(row.size)), Seconds(row.time * 1e-6)) for row in members)
        named = versions[0] if len(versions) == 1 else f"{len(versions)} versions, their middle"
        placed = groups.of(ranks, {row.topology for row in members}, where)
        places = tuple(f"{source}, line {row.line}" for row in members)
        tables.append(Placed(operation, placed, stack, points, f"{short(source)}, {named}", where, places))
    notes += [f"{short(source)}: rows of {ranks} GPUs are taken to be of the first {ranks}" for ranks in sorted(groups.taken)]
    return Rows(tuple(tables), tuple(notes))


def _of_this_machine(
    rows: Sequence[MeasuredCollective], source: str, topology: Topology, target: str, notes: list[str]
) -> list[MeasuredCollective]:
    """The rows whose topology can be this machine: its name, or as many of its GPUs as a row counts."""
    names = sorted({row.topology for row in rows})
    if len(names) > MOST_NAMES:
        raise BadInput(
            f"has rows of {len(names)} machines", path=f"{source}, column topology", hint="keep the rows of this machine"
        )
    hardware = {name: _hardware(name) for name in names}
    ours = set(topology.hardware)
    if len(names) == 1:
        theirs = hardware[names[0]]
        if names[0] != target and theirs is not None and theirs[0] != ours:
            raise BadInput(
                f"is of {', '.join(sorted(theirs[0]))}; {topology.name} has {', '.join(sorted(ours))}",
                path=f"{source}, column topology",
                hint="it was measured on another machine",
            )
        if names[0] != target:
            notes.append(f"{short(source)}: all rows are of {names[0]!r}, taken to be this machine")
        return list(rows)
    there = len(topology.gpus)
    kept = [row for row in rows if row.topology == target or hardware[row.topology] in ((ours, row.ranks), (ours, there))]
    if not kept:
        raise BadInput(
            f"has rows of {len(names)} machines ({', '.join(names[:3])}{' …' if len(names) > 3 else ''}), none of them {target}",
            path=f"{source}, column topology",
            hint="keep the rows of this machine, or call it there as --topology does",
        )
    if len(kept) < len(rows):
        notes.append(f"{short(source)}: {len(rows) - len(kept)} of {len(rows)} rows left out: of other machines")
    return kept


def _hardware(name: str) -> tuple[set[str], int] | None:
    """The GPUs a reference in a row means, and how many; ``None`` where it cannot be told."""
    if name in {"", STDIN}:
        return None
    try:
        there = load_topology(name)
    except BadInput:
        return None
    return set(there.hardware), len(there.gpus)


class _Groups:
    """Which GPUs of a machine rows are of. ``taken`` are the numbers of ranks of which only their own topology tells."""

    def __init__(self, topology: Topology, asked: Gpus | None) -> None:
        self._topology = topology
        self._asked = asked
        self._wires: Interconnect | None = None
        self._meant: dict[str, tuple[set[str], int] | None] = {}
        self.taken: set[int] = set()

    def of(self, ranks: int, names: set[str], where: str) -> Gpus:
        """The GPUs of rows of so many ``ranks``, whose topologies have these ``names``."""
        there = len(self._topology.gpus)
        if self._asked is not None:
            if ranks != len(self._asked):
                hint = "give the rows of each number of GPUs as a file of their own, and calibrate with one after the other"
                raise BadInput(f"is of {ranks} GPUs; --gpus names {len(self._asked)}", path=where, hint=hint)
            return self._asked
        if ranks > there:
            hint = "it was measured on another machine"
            raise BadInput(f"is of {ranks} GPUs; {self._topology.name} has {there}", path=where, hint=hint)
        if ranks < there and not self._all_alike(ranks):
            self._meant |= {name: _hardware(name) for name in names - self._meant.keys()}
            ours = set(self._topology.hardware), ranks
            if any(self._meant[name] != ours for name in names):
                problem = f"is of {ranks} GPUs and does not say which; {self._topology.name} has {there}"
                raise BadInput(problem, path=where, hint=HOW_TO_SAY_GPUS)
            self.taken.add(ranks)
        return tuple(range(ranks))

    def _all_alike(self, ranks: int) -> bool:
        """Whether the machine joins any so many of its GPUs in the same way."""
        if self._wires is None:
            self._wires = wires_of(self._topology)
        gpus = range(len(self._topology.gpus))
        groups = list(islice(combinations(gpus, ranks), MOST_GROUPS + 1))
        if len(groups) > MOST_GROUPS:
            groups = [*((0, other) for other in gpus[1:]), *pairwise(gpus)]
        first = likeness(self._wires.group(groups[0]))
        return all(likeness(self._wires.group(group)) == first for group in groups)
