"""Several captures of one host → one. What one does not tell another may; what two tell differently is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import reduce
from typing import Any, TypeVar

from planner.core.capture import Capture, GpuSight, Matrix, NicSight
from planner.core.facts import GpuFacts, HostFacts, PeerCapability
from planner.core.unknown import NOT_STATED, Unknown
from planner.errors import BadInput

_HINT = "are they captures of one host? merge several hosts with 'planner topology merge'"

Part = TypeVar("Part", GpuFacts, HostFacts, GpuSight, NicSight)


def join(captures: Sequence[Capture]) -> Capture:
    """One capture that tells what all of them tell, the first one's word first.

    GPUs are the same GPU where PCI bus id or UUID agree, else where the index does. Raises ``BadInput``, naming both
    sources, where captures contradict each other.

    >>> one = Capture(source="a", format="x", gpus=(GpuSight(index=0, model="T4"),))
    >>> two = Capture(source="b", format="y", gpus=(GpuSight(index=0, numa_node=1),))
    >>> joined = join([one, two]).gpus[0]
    >>> joined.model, joined.numa_node
    ('T4', 1)
    """
    return reduce(_join, captures)


def _join(one: Capture, other: Capture) -> Capture:
    other = _renumbered(one, other)
    gpus = {sight.index: sight for sight in one.gpus}
    for sight in other.gpus:
        known = gpus.get(sight.index)
        if known is not None:
            _same_gpu(known, sight, one, other)
        gpus[sight.index] = sight if known is None else _merged(known, sight)
    _same_count(one, other)
    nics = {sight.label: sight for sight in one.nics}
    for card in other.nics:
        nics[card.label] = _merged(nics[card.label], card) if card.label in nics else card
    formats = [text for text in (one.format, other.format) if text]
    return Capture(
        source=one.source if one.source == other.source else f"{one.source}, {other.source}",
        format=", ".join(dict.fromkeys(formats)),
        gpus=tuple(gpus[index] for index in sorted(gpus)),
        nics=tuple(nics.values()),
        matrix=_matrices(one, other),
        links=one.links or other.links,
        peers=_peers(one.peers, other.peers),
        hostname=one.hostname or other.hostname,
        host=_merged(one.host, other.host),
        findings=tuple(dict.fromkeys((*one.findings, *other.findings))),
        assumptions=tuple(dict.fromkeys((*one.assumptions, *other.assumptions))),
    )


def _silent(value: object) -> bool:
    """Whether a field tells nothing at all."""
    return value is None or value is False or value == NOT_STATED or value in ((), "")


def _merged(one: Part, other: Part) -> Part:
    """Field by field what is known, the first one's word before the second's, a reason before silence."""
    changes: dict[str, Any] = {}
    for part in fields(one):
        mine, theirs = getattr(one, part.name), getattr(other, part.name)
        if isinstance(mine, GpuFacts):
            changes[part.name] = _merged(mine, theirs)
        elif (_silent(mine) and not _silent(theirs)) or (isinstance(mine, Unknown) and not isinstance(theirs, Unknown)):
            changes[part.name] = theirs
    return replace(one, **changes)


def _known(value: object) -> bool:
    return value is not None and not isinstance(value, Unknown)


def _same_gpu(one: GpuSight, other: GpuSight, first: Capture, second: Capture) -> None:
    facts = (("model", one.model, other.model), ("bus id", one.bus_id, other.bus_id), ("UUID", one.facts.uuid, other.facts.uuid))
    for what, mine, theirs in facts:
        if _known(mine) and _known(theirs) and mine != theirs:
            where, there = _named(first, second)
            raise BadInput(
                f"GPU {one.index} has the {what} {theirs} {where} and {mine} in {there}", path=second.source, hint=_HINT
            )


def _named(first: Capture, second: Capture) -> tuple[str, str]:
    """How a message tells the second capture from the first: by the file, or by the formats in one file."""
    if first.source != second.source:
        return "here", first.source
    return f"in one part ({second.format})", f"another ({first.format})"


def _count(capture: Capture) -> int | None:
    """How many GPUs the host has, where the capture shows all of them: only a matrix does."""
    return None if capture.matrix is None else len(capture.matrix.gpus)


def _highest(capture: Capture) -> int:
    peers = [max(pair) for statuses in capture.peers.values() for pair in statuses]
    return max([-1, *(sight.index for sight in capture.gpus), *peers])


def _same_count(one: Capture, other: Capture) -> None:
    for whole, part in ((one, other), (other, one)):
        if whole.matrix is None:
            continue
        known = [int(name.removeprefix("GPU")) for name in whole.matrix.gpus]
        if _highest(part) > max(known, default=-1):
            here, there = _named(whole, part)
            raise BadInput(f"tells of GPU {_highest(part)} {here}, of {len(known)} GPUs in {there}", path=part.source, hint=_HINT)


def _renumbered(one: Capture, other: Capture) -> Capture:
    """``other`` with the indices that ``one`` gives to the same GPUs; NCCL counts as CUDA does, nvidia-smi by bus id."""
    buses = {sight.bus_id: sight.index for sight in one.gpus if sight.bus_id}
    uuids = {sight.facts.uuid: sight.index for sight in one.gpus if not isinstance(sight.facts.uuid, Unknown)}
    change: dict[int, int] = {}
    for sight in other.gpus:
        index = buses.get(sight.bus_id or "")
        if index is None and not isinstance(sight.facts.uuid, Unknown):
            index = uuids.get(sight.facts.uuid)
        if index is not None:
            change[sight.index] = index
    untouched = {sight.index for sight in other.gpus} - set(change)
    if all(old == new for old, new in change.items()):
        return other
    if len(set(change.values())) < len(change) or untouched & set(change.values()):
        return other  # two GPUs would be one: the contradiction is found, and said, where the GPUs are compared
    return replace(
        other,
        gpus=tuple(replace(sight, index=change.get(sight.index, sight.index)) for sight in other.gpus),
        links=tuple(
            replace(link, a=change.get(link.a, link.a), b=None if link.b is None else change.get(link.b, link.b))
            for link in other.links
        ),
        peers={
            capability: {(change.get(a, a), change.get(b, b)): word for (a, b), word in statuses.items()}
            for capability, statuses in other.peers.items()
        },
        matrix=None if other.matrix is None else _renamed(other.matrix, change),
    )


def _renamed(matrix: Matrix, change: Mapping[int, int]) -> Matrix:
    names = {f"GPU{old}": f"GPU{new}" for old, new in change.items()}

    def name(old: str) -> str:
        return names.get(old, old)

    def pairs(cells: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], str]:
        return {(name(a), name(b)): word for (a, b), word in cells.items()}

    nodes = {name(row): node for row, node in matrix.numa_nodes.items()}
    columns = sorted((name(column) for column in matrix.gpus), key=lambda column: int(column.removeprefix("GPU")))
    others = [column for column in matrix.names if not column.startswith("GPU")]
    return Matrix((*columns, *others), pairs(matrix.cells), matrix.labels, nodes, pairs(matrix.under))


def _matrices(one: Capture, other: Capture) -> Matrix | None:
    """One matrix of two. Where one names an NVLink and the other a PCIe class (``topo -mp``), both are kept."""
    if one.matrix is None or other.matrix is None:
        return one.matrix or other.matrix
    mine, theirs = one.matrix, other.matrix
    if mine.gpus != theirs.gpus:
        raise BadInput(
            f"has a matrix of {len(theirs.gpus)} GPUs, {one.source} one of {len(mine.gpus)}", path=other.source, hint=_HINT
        )
    cells, under = dict(mine.cells), {**mine.under, **theirs.under}
    for pair, word in theirs.cells.items():
        known = cells.setdefault(pair, word)
        if known == word:
            continue
        if known.startswith("NV") == word.startswith("NV"):
            raise BadInput(f"{pair[0]}-{pair[1]} is {word} here and {known} in {one.source}", path=other.source, hint=_HINT)
        cells[pair], under[pair] = (known, word) if known.startswith("NV") else (word, known)
    names = dict.fromkeys((*mine.names, *theirs.names))
    return Matrix(tuple(names), cells, {**theirs.labels, **mine.labels}, {**theirs.numa_nodes, **mine.numa_nodes}, under)


def _peers(
    one: Mapping[PeerCapability, Mapping[tuple[int, int], str]], other: Mapping[PeerCapability, Mapping[tuple[int, int], str]]
) -> dict[PeerCapability, Mapping[tuple[int, int], str]]:
    capabilities: Iterable[PeerCapability] = dict.fromkeys((*one, *other))
    return {capability: {**other.get(capability, {}), **one.get(capability, {})} for capability in capabilities}
