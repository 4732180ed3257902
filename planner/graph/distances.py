"""How far devices of a host are from each other over PCIe, out of all that captures tell: cells, bus paths, NUMA nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planner.core.capture import Capture, GpuSight, Matrix, NicSight
from planner.core.finding import Finding
from planner.graph.paths import PathKind
from planner.graph.ultrametric import Distance, complete

Hidden = tuple[str, str, PathKind]
"""Two GPUs whose PCIe class nothing settles, and what it is taken as."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A GPU or network card: the name its row would have in a matrix, and what was seen of it."""

    name: str
    sight: GpuSight | NicSight
    numa_node: int | None


def leaves_of(capture: Capture) -> list[Leaf]:
    """GPUs by index, then network cards: those of the matrix in its order, then others whose place is known."""
    matrix = capture.matrix or Matrix((), {})
    sights = {sight.index: sight for sight in capture.gpus}
    indices = {int(name.removeprefix("GPU")) for name in matrix.gpus} | set(sights) | _asked(capture)
    leaves = []
    for index in sorted(indices):
        sight = sights.get(index, GpuSight(index=index))
        node = matrix.numa_nodes.get(f"GPU{index}", sight.numa_node)
        leaves.append(Leaf(f"GPU{index}", sight, node))
    seen = {card.label: card for card in capture.nics}
    for name in matrix.names:
        if not name.startswith("GPU"):
            label = matrix.labels.get(name, "" if name.startswith("NIC") else name)
            card = seen.pop(label, NicSight(label=label))
            leaves.append(Leaf(name, card, matrix.numa_nodes.get(name, card.numa_node)))
    placed = (card for card in seen.values() if card.hops or card.root or card.numa_node is not None)
    return [*leaves, *(Leaf(f"card {card.label}", card, card.numa_node) for card in placed)]


def _asked(capture: Capture) -> set[int]:
    links = {end for link in capture.links for end in (link.a, link.b) if end is not None}
    return links | {end for statuses in capture.peers.values() for pair in statuses for end in pair}


def distances_of(capture: Capture, leaves: Sequence[Leaf], findings: list[Finding]) -> tuple[list[list[Distance]], list[Hidden]]:
    """PCIe classes of all pairs of leaves, completed by the ultrametric; and the pairs of GPUs that nothing settles.

    Those are taken as the farthest that the others allow: two that meet a third at PXB are PXB or nearer, two of one NUMA
    node NODE or nearer. Where nothing bounds them, NODE: in one socket, under different host bridges.
    """
    matrix = capture.matrix or Matrix((), {})
    distances: list[list[Distance]] = [[None] * len(leaves) for _ in leaves]
    uneven: list[str] = []
    one_socket = all(leaf.numa_node is None for leaf in leaves)  # Linux numbers no node where there is only one
    for i, j in _pairs(len(leaves)):
        a, b = leaves[i], leaves[j]
        kind = _cell(matrix, a.name, b.name, uneven)
        if kind is None:
            kind = _by_hops(a, b, one_socket=one_socket)
        if kind is None and None not in (a.numa_node, b.numa_node) and a.numa_node != b.numa_node:
            kind = PathKind.SYS
        distances[i][j] = distances[j][i] = kind
    if uneven:
        findings.append(
            Finding(
                "asymmetric",
                f"not the same both ways: {', '.join(uneven[:4])}",
                "the worse way was taken; MIG on?",
                devices=tuple(dict.fromkeys(f"gpu{name[3:].split(' ')[0]}" for name in uneven if name.startswith("GPU"))),
            )
        )
    completed = complete(distances)
    hidden = []
    farthest = [(i, j, _bound(completed, leaves, i, j)) for i, j in _pairs(len(leaves)) if completed[i][j] is None]
    for i, j, kind in farthest:
        completed[i][j] = completed[j][i] = kind
        if leaves[i].name.startswith("GPU") and leaves[j].name.startswith("GPU"):
            hidden.append((leaves[i].name, leaves[j].name, kind))
    return completed, hidden


def _bound(distances: Sequence[Sequence[Distance]], leaves: Sequence[Leaf], i: int, j: int) -> PathKind:
    """How far apart two devices can be at most: no farther than the nearest third one is from the farther of them."""
    through = (
        max(left, right)
        for k in range(len(distances))
        if k not in (i, j) and (left := distances[i][k]) is not None and (right := distances[k][j]) is not None
    )
    farthest = min(through, default=PathKind.NODE)
    one_node = leaves[i].numa_node is not None and leaves[i].numa_node == leaves[j].numa_node
    return min(farthest, PathKind.NODE) if one_node else farthest


def _cell(matrix: Matrix, a: str, b: str, uneven: list[str]) -> Distance:
    there, back = matrix.cells.get((a, b)), matrix.cells.get((b, a))
    if there and back and there != back:
        uneven.append(f"{a} to {b} is {there}, back {back}")
    words = [there, back, matrix.under.get((a, b)), matrix.under.get((b, a))]
    return max((PathKind[word] for word in words if word is not None and word in PathKind.__members__), default=None)


def _by_hops(a: Leaf, b: Leaf, *, one_socket: bool) -> Distance:
    """The class that two ways down from host bridges give: the switches they share."""
    one, other = a.sight, b.sight
    if one.root is None or other.root is None:
        return None
    if one.root != other.root:
        if one_socket:
            return PathKind.NODE
        if a.numa_node is None or b.numa_node is None:
            return None
        return PathKind.NODE if a.numa_node == b.numa_node else PathKind.SYS
    above, beside = [hop.bus_id for hop in one.hops[:-1]], [hop.bus_id for hop in other.hops[:-1]]
    if above and beside and above[-1] == beside[-1]:
        return PathKind.PIX
    return PathKind.PXB if set(above) & set(beside) else PathKind.PHB


def _pairs(size: int) -> Iterator[tuple[int, int]]:
    for i in range(size):
        for j in range(i + 1, size):
            yield i, j
