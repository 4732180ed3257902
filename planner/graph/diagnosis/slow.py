"""Links that were measured well below what such links carry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from planner.core.finding import Finding
from planner.core.measured import ALIKE
from planner.core.topology import PEER_LINKS, TREE_LINKS, Link
from planner.graph.diagnosis.view import View, per_second
from planner.graph.equip import equip

SHARE = 0.75
"""PCIe of one kind differs by less from host to host."""
NVLINK_SHARE = 0.9
NAMED = 4


def findings(view: View) -> Iterator[Finding]:
    """``link-slow``. What joins sockets is only assumed, and through host memory the host limits: neither is a fault of a link.

    Nor is the rate of a link that only took it over from others of its class.
    """
    links = view.topology.links
    measured = [number for number, link in enumerate(links) if link.measured is not None and not link.measured_by.endswith(ALIKE)]
    if not measured or not view.priced:
        return
    bare = tuple(replace(link, measured=None, measured_by="") for link in links)
    usual = equip(replace(view.topology, links=bare), view.specs, view.rates).links
    direct = _direct(view)
    alike: dict[tuple[str, str, str, str], list[Link]] = {}
    for number in measured:
        link, reached = links[number], usual[number].achieved
        share = NVLINK_SHARE if link.kind in PEER_LINKS else SHARE
        if number in direct and reached is not None and (link.measured or 0.0) < share * reached:
            key = link.kind, per_second(link.measured or 0.0), per_second(reached), link.measured_by
            alike.setdefault(key, []).append(link)
    for (kind, rate, reached_, by), slow in alike.items():
        named = ", ".join(link.name for link in slow[:NAMED]) + (f" and {len(slow) - NAMED} more" if len(slow) > NAMED else "")
        if kind in PEER_LINKS:
            hint = "look for NVLinks that are down: 'nvidia-smi nvlink -s'"
        else:
            hint = (
                "look at width and generation under load ('planner doctor' on a fresh probe), at access control (ACS), and whether "
                "copies rest in host memory though the topology says that they do not ('nvidia-smi topo -p2p r')"
            )
        yield Finding(
            "link-slow",
            f"{named} {'carries' if len(slow) == 1 else 'carry'} {rate} where such links usually carry {reached_}",
            hint=hint,
            evidence=f"measured by {by}" if by else "",
            devices=tuple(dict.fromkeys(end for link in slow for end in (link.a, link.b))),
        )


def _direct(view: View) -> set[int]:
    """The PCIe, C2C and peer links that copies between two GPUs of the host cross without a rest in host memory."""
    found: set[int] = set()
    for place, one in enumerate(view.gpus):
        for other in view.gpus[place + 1 :]:
            path = view.paths.between(one.id, other.id)
            if not path.staged:
                found |= {number for number, _ in path.links}
    return {number for number in found if view.topology.links[number].kind in PEER_LINKS | TREE_LINKS}
