"""NVLinks and Infinity Fabric links of a host: which GPUs they join, how many, directly or through a switch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from planner.core.capture import Capture, GpuSight, PeerLinkSight
from planner.core.finding import Finding
from planner.core.hardware import GpuSpec
from planner.core.topology import Link, LinkKind
from planner.core.unknown import NOT_STATED, Unknown
from planner.graph.distances import Leaf

MAX_LINKS_PER_GPU = 18
"""NVLinks of the GPU that has most of them (Hopper and Blackwell): more towards its peers means a switch."""

Counts = dict[int, dict[int, int]]
"""GPU → GPU → links up between the two."""


@dataclass
class Peers:
    """The links, the switches they need, and what was noticed."""

    links: list[Link] = field(default_factory=list)
    switches: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    def switch(self) -> str:
        """A new switch."""
        self.switches.append(f"nvswitch{len(self.switches)}")
        return self.switches[-1]


def peers_of(capture: Capture, leaves: Sequence[Leaf], look_up: Callable[[str], GpuSpec | None]) -> Peers:
    """The links between GPUs: by the matrix where there is one, else by what links say of their far ends."""
    sights = {leaf.sight.index: leaf.sight for leaf in leaves if isinstance(leaf.sight, GpuSight)}
    sheets = {index: look_up(sight.model) if sight.model else None for index, sight in sights.items()}
    peers = Peers()
    counts = _by_matrix(capture)
    told = [link for link in capture.links if link.kind is LinkKind.XGMI or not counts]
    if counts:
        _islands(counts, sheets, sights, peers)
    if told:
        _told(told, peers)
    elif not counts and capture.matrix is None:
        _by_number(sights, sheets, peers)
    return peers


def _gpu(index: int) -> str:
    return f"gpu{index}"


def _by_matrix(capture: Capture) -> Counts:
    counts: Counts = {}
    if capture.matrix is None:
        return counts
    for (a, b), word in capture.matrix.cells.items():
        if a.startswith("GPU") and b.startswith("GPU") and word.startswith("NV"):
            left, right, count = int(a[3:]), int(b[3:]), int(word[2:])
            for one, other in ((left, right), (right, left)):
                row = counts.setdefault(one, {})
                row[other] = min(count, row.get(other, count))
    return counts


def _islands(counts: Counts, sheets: Mapping[int, GpuSpec | None], sights: Mapping[int, GpuSight], peers: Peers) -> None:
    left = sorted(counts)
    while left:
        island = [left.pop(0)]
        for member in island:
            island += sorted(peer for peer in counts[member] if peer not in island)
        left = [index for index in left if index not in island]
        if any(_switched(counts[member], sheets.get(member)) for member in island):
            _switched_island(sorted(island), counts, sights, peers)
        else:
            for a in sorted(island):
                peers.links += [Link(_gpu(a), _gpu(b), LinkKind.NVLINK, count=counts[a][b]) for b in sorted(counts[a]) if b > a]


def _switched(row: Mapping[int, int], sheet: GpuSpec | None) -> bool:
    """Whether a GPU reaches its peers through a switch: more links than it has, or all of them towards one peer."""
    if sum(row.values()) > MAX_LINKS_PER_GPU:
        return True
    if sheet is None or sheet.fabric != "nvswitch" or sheet.peer_links is None:
        return False
    return max(row.values()) == sheet.peer_links.links


def _switched_island(island: Sequence[int], counts: Counts, sights: Mapping[int, GpuSight], peers: Peers) -> None:
    switch = peers.switch()
    ports = {member: max(counts[member].values()) for member in island}
    most = max(ports.values())
    for member, count in ports.items():
        possible = max(most, _links_there(sights.get(member)))
        peers.links.append(
            Link(_gpu(member), switch, LinkKind.NVLINK, count=count, possible_count=possible if possible > count else None)
        )
    fewer = [member for member, count in ports.items() if count < most]
    if fewer:
        peers.findings.append(
            Finding(
                "nvlink-down",
                f"{', '.join(f'GPU{member}' for member in fewer)} has fewer NVLinks up than its neighbours",
                "run 'nvidia-smi nvlink -s' and 'dmesg | grep -i xid'; a GPU reset or a reseat usually brings the link back",
                evidence=", ".join(f"GPU{member} NV{ports[member]} beside NV{most}" for member in fewer),
                cost=f"every collective with it runs at {min(ports.values())}/{most} of the bandwidth",
                devices=tuple(_gpu(member) for member in fewer),
            )
        )


def _links_there(sight: GpuSight | None) -> int:
    if sight is None or isinstance(sight.facts.nvlinks, Unknown):
        return 0
    return len(sight.facts.nvlinks)


def _told(told: Sequence[PeerLinkSight], peers: Peers) -> None:
    """Links whose far ends are told."""
    switch = ""
    for link in told:
        bandwidth = NOT_STATED if link.bandwidth is None else link.bandwidth
        if link.b is None:
            switch = switch or peers.switch()
            peers.links.append(Link(_gpu(link.a), switch, link.kind, bandwidth, count=link.count))
        else:
            peers.links.append(Link(_gpu(link.a), _gpu(link.b), link.kind, bandwidth, count=link.count))


def _by_number(sights: Mapping[int, GpuSight], sheets: Mapping[int, GpuSpec | None], peers: Peers) -> None:
    """Where only the number of links up is told: certain for two GPUs, or for a part that only comes with a switch."""
    told = {
        index: sum(link.active is True for link in sight.facts.nvlinks)
        for index, sight in sights.items()
        if not isinstance(sight.facts.nvlinks, Unknown)
    }
    up = {index: count for index, count in told.items() if count}
    if len(up) < 2:
        return
    fabrics = {sheet.fabric if (sheet := sheets.get(index)) else None for index in up}
    names = ", ".join(_gpu(index) for index in up)
    if fabrics == {"nvswitch"}:
        switch = peers.switch()
        peers.links += [Link(_gpu(index), switch, LinkKind.NVLINK, count=count) for index, count in up.items()]
        peers.assumptions.append(f"the NVLinks of {names} end at one NVSwitch: this part comes with one")
    elif len(up) == 2 and len(sights) == len(told):
        a, b = sorted(up)
        peers.links.append(Link(_gpu(a), _gpu(b), LinkKind.NVLINK, count=min(up.values())))
        peers.assumptions.append(f"the NVLinks of {names} join the two: the host has no other GPU with any")
    else:
        peers.findings.append(
            Finding(
                "nvlink-peers-unknown",
                f"NVLinks are up on {names}, nothing tells which GPU each ends at",
                "add the text of 'nvidia-smi topo -m'; planned as if there were none",
                devices=tuple(_gpu(index) for index in up),
            )
        )
