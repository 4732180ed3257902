"""A CSV of measured collectives as tables on a machine's GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from planner.core.measured import EAGER
from planner.core.operation import OPERATIONS, Operation
from planner.core.topology import Topology
from planner.documents.measurements import COLUMNS, NCCL_TESTS, MeasuredCollective, parse_collectives
from planner.engines.implementations import written_implementation
from planner.errors import BadInput, folded
from planner.machines import STDIN, load_topology
from planner.measuring.placed import Gpus, Placed, short
from planner.units import Bytes, Seconds

_ENOUGH_COLUMNS = 4
MOST_NAMES = 100


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

    A group is the first so many of the machine's GPUs, or of ``gpus``. Rows launched without CUDA graphs are a stack of
    their own. Raises ``BadInput`` where no row is of this machine, or one asks for more GPUs than there are.
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
    for (operation, ranks, stack), members in sorted(found.items(), key=lambda one: (one[0][1], one[0])):
        where = f"{source}, line {members[0].line}"
        versions = sorted({row.implementation for row in members})
        points = tuple((Bytes(float(row.size)), Seconds(row.time * 1e-6)) for row in members)
        named = versions[0] if len(versions) == 1 else f"{len(versions)} versions, their middle"
        tables.append(Placed(operation, _first(ranks, topology, gpus, where), stack, points, f"{short(source)}, {named}", where))
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


def _first(ranks: int, topology: Topology, gpus: Gpus | None, where: str) -> Gpus:
    among = tuple(range(len(topology.gpus))) if gpus is None else gpus
    if ranks > len(among):
        there = f"{topology.name} has {len(among)}" if gpus is None else f"--gpus names {len(among)}"
        raise BadInput(f"is of {ranks} GPUs; {there}", path=where, hint="it was measured on another machine")
    return among[:ranks]
