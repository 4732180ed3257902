"""What the driver said of peer access when copies were measured, held against what the topology says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from planner.core.facts import PeerCapability, PeerStatus
from planner.core.finding import Finding
from planner.core.topology import Host, Topology
from planner.graph.paths import PathKind, Paths
from planner.render.text import shorten

Pair = tuple[int, int]


def settle_access(topology: Topology, equipped: Topology, access: Mapping[Pair, bool]) -> tuple[Topology, tuple[Finding, ...]]:
    """``topology`` with the driver's word where it contradicts what was assumed, and what is to be said about it.

    The driver was asked pair by pair, so its word goes into the host's peer status, for all pairs of a host where it contradicts
    one; a host that states the contrary for all pairs no longer does. Where the driver allows what NCCL does not use over that
    distance, nothing changes: that is NCCL's rule.
    """
    paths = Paths(equipped)
    ids = [gpu.id for gpu in topology.gpus]
    closed: list[Pair] = []
    opened: list[Pair] = []
    unused: list[Pair] = []
    for (a, b), word in sorted(access.items()):
        can = word and access.get((b, a), True)
        path = paths.between(ids[a], ids[b])
        if path.kind in {PathKind.NVLINK, PathKind.NETWORK}:
            continue
        barred = equipped.host(equipped.gpus[a].host).peer_to_peer == "disabled" or paths.refused(ids[a], ids[b])
        if not can and not path.staged:
            closed.append((a, b))
        elif can and barred:
            opened.append((a, b))
        elif can and path.staged:
            unused.append((a, b))
    differ = {topology.gpus[a].host for a, _ in (*closed, *opened)}
    stated = tuple(
        _with_word(topology, host, equipped.host(host.name), access) if host.name in differ else host for host in topology.hosts
    )
    taken = tuple(host if host.name in differ else equipped.host(host.name) for host in stated)
    after = Paths(replace(equipped, hosts=taken))
    unused += [(a, b) for a, b in opened if after.between(ids[a], ids[b]).staged]
    opened = [pair for pair in opened if pair not in unused]
    findings = []
    if closed:
        findings.append(
            Finding(
                "peer-access-differs",
                f"the driver refuses direct copies between GPUs {_pairs(closed)}, which the topology allows; "
                "it now says that they go through host memory",
                hint="if they should be direct: switch PCIe access control (ACS) and the IOMMU off in BIOS and kernel, "
                "and check that driver and GPU offer peer-to-peer",
                evidence="the tool found that these GPUs CANNOT access each other",
                devices=_devices(ids, closed),
            )
        )
    if opened:
        findings.append(
            Finding(
                "peer-access-differs",
                f"the driver allows direct copies between GPUs {_pairs(opened)}, which the topology rules out; it now allows them",
                severity="notice",
                evidence="the tool found that these GPUs CAN access each other",
                hint="nothing to do",
                devices=_devices(ids, opened),
            )
        )
    if unused:
        findings.append(
            Finding(
                "peer-access-unused",
                f"the driver allows direct copies between GPUs {_pairs(unused)}; NCCL does not use them over that distance",
                severity="notice",
                evidence="the tool found that these GPUs CAN access each other; the way leads over a host bridge or sockets",
                hint="measure with NCCL_P2P_LEVEL=SYS; if it is faster, set it for the engine, and peer_to_peer: enabled here",
                devices=_devices(ids, unused),
            )
        )
    return replace(topology, hosts=stated), tuple(findings)


def _with_word(topology: Topology, host: Host, taken: Host, access: Mapping[Pair, bool]) -> Host:
    """The host with the driver's word on each pair that it was asked about; others of a host ``taken`` to refuse stay refused."""
    members = topology.gpus_of_host[host.name]
    place = {gpu: number for number, gpu in enumerate(members)}
    here = {(place[a], place[b]): can for (a, b), can in access.items() if a in place and b in place}
    known = {one.capability: one.statuses for one in host.peer_status}
    asked: tuple[PeerCapability, ...] = ("read", "write") if "write" in known else ("read",)
    contrary = taken.peer_to_peer == "disabled" and any(here.values())
    unsaid = "NS" if contrary else "U"
    statuses = [PeerStatus(one, _corrected(known.get(one) or _nobody_said(len(members)), here, unsaid)) for one in asked]
    others = [one for one in host.peer_status if one.capability not in {"read", "write"}]
    return replace(host, peer_to_peer="unknown" if contrary else host.peer_to_peer, peer_status=(*statuses, *others))


def _corrected(rows: tuple[tuple[str, ...], ...], here: Mapping[Pair, bool], unsaid: str) -> tuple[tuple[str, ...], ...]:
    words = {True: "OK", False: "NS"}
    return tuple(
        tuple(
            words[here[row, column]] if (row, column) in here else unsaid if word == "U" else word
            for column, word in enumerate(cells)
        )
        for row, cells in enumerate(rows)
    )


def _nobody_said(count: int) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple("X" if row == column else "U" for column in range(count)) for row in range(count))


def _pairs(pairs: Iterable[Pair]) -> str:
    return shorten([f"{a}–{b}" for a, b in dict.fromkeys((min(pair), max(pair)) for pair in pairs)], 4)


def _devices(ids: list[str], pairs: Iterable[Pair]) -> tuple[str, ...]:
    return tuple(ids[gpu] for gpu in sorted({gpu for pair in pairs for gpu in pair}))
