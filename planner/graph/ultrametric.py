"""The PCIe tree out of a matrix of link classes.

PIX ⊂ PXB ⊂ PHB ⊂ NODE ⊂ SYS is an ultrametric: of the three distances between three devices the two largest are
equal. So single-linkage clustering gives the tree back, and a pair whose PCIe class NVLink hides is known wherever
some third device is at different distances from the two. What stays open stays open: it is never assumed PIX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.graph.paths import PathKind

Distance = PathKind | None
"""A PCIe class, or ``None`` where an NVLink hides it."""

LEVELS = (PathKind.PIX, PathKind.PXB, PathKind.PHB, PathKind.NODE)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Devices (by number) that meet at ``level`` or below; ``parts`` are the clusters one level down."""

    level: PathKind
    members: tuple[int, ...]
    parts: tuple[Cluster, ...] = ()


def complete(distances: Sequence[Sequence[Distance]]) -> list[list[Distance]]:
    """``distances`` with every hidden pair filled in that the ultrametric settles.

    >>> P, N = PathKind.PIX, PathKind.NODE
    >>> complete([[None, None, P], [None, None, N], [P, N, None]])[0][1].name
    'NODE'
    """
    filled = [list(row) for row in distances]
    size = len(filled)
    changed = True
    while changed:
        changed = False
        for i in range(size):
            for j in range(i + 1, size):
                if filled[i][j] is not None:
                    continue
                for k in range(size):
                    left, right = filled[i][k], filled[k][j]
                    if k not in (i, j) and left is not None and right is not None and left != right:
                        filled[i][j] = filled[j][i] = max(left, right)
                        changed = True
                        break
    return filled


def cluster(distances: Sequence[Sequence[Distance]], members: Sequence[int]) -> list[Cluster]:
    """The clusters of ``members`` at NODE level (one a socket), each divided level by level."""

    def split(numbers: Sequence[int], level: PathKind) -> list[Cluster]:
        below = LEVELS[LEVELS.index(level) - 1] if level is not LEVELS[0] else None
        parts = _components(numbers, lambda i, j: _within(distances[i][j], level))
        return [Cluster(level, tuple(part), tuple(split(part, below)) if below else ()) for part in parts]

    return split(members, PathKind.NODE)


def _within(distance: Distance, level: PathKind) -> bool:
    return distance is not None and distance <= level


def _components(numbers: Sequence[int], joined: Callable[[int, int], bool]) -> list[list[int]]:
    left = list(numbers)
    components = []
    while left:
        component = [left.pop(0)]
        for member in component:
            near = [other for other in left if joined(member, other)]
            component += near
            left = [other for other in left if other not in near]
        components.append(sorted(component))
    return components
