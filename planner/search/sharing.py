"""Which groups of a placement wait for the same wire. Each is priced as if it were alone; who reads a plan must know."""

from __future__ import annotations

from itertools import combinations

from planner.core.plan import Group, Placement
from planner.cost.interconnect import Interconnect


def shared_link(wires: Interconnect, placement: Placement) -> str | None:
    """A sentence on two tensor-parallel groups that need the link which limits one of them, or ``None``."""
    groups = [group for replica in placement for group in replica if len(group) > 1]
    for one, other in combinations(groups, 2):
        for limited, busy in ((one, other), (other, one)):
            limiting = wires.group(limited).packing.limiting
            if limiting is not None and limiting[0] in _links(wires, busy):
                return (
                    f"groups {_set(one)} and {_set(other)} share {wires.describe(limiting)}; "
                    "each is priced as if alone, so expect less when both are busy"
                )
    return None


def _links(wires: Interconnect, group: Group) -> set[int]:
    """The links between members of a group."""
    return {number for a, b in combinations(sorted(group), 2) for number, _ in wires.path(a, b).links}


def _set(group: Group) -> str:
    return "{" + ",".join(str(gpu) for gpu in group) + "}"
