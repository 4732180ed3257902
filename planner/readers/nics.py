"""The network cards of this host: ``/sys/class/infiniband``, and what of ``/sys/class/net`` is fast enough to matter."""

from __future__ import annotations

import re

from planner.core.capture import NicSight
from planner.core.finding import Finding
from planner.core.unknown import Unknown
from planner.readers.host_files import FileTree, exists, names, resolved, text
from planner.readers.sysfs import functions, way_to
from planner.units import BytesPerSecond

INFINIBAND, NET = "/sys/class/infiniband", "/sys/class/net"
FAST = BytesPerSecond(10e9 / 8)
"""10 Gb/s: what is slower carries management traffic."""
_RATE = re.compile(r"([0-9]{1,5}(?:\.[0-9])?) Gb/sec")


def read_nics(files: FileTree) -> tuple[tuple[NicSight, ...], tuple[Finding, ...]]:
    """The network cards with their place on PCIe and what their active ports carry together in one direction.

    A card that is in both lists is told once, by its InfiniBand name, which NCCL and nvidia-smi use. Where there is no
    fast card, slow ones and those that do not say are told.
    """
    verbs: list[NicSight] = []
    down: list[str] = []
    for name in _listed(files, INFINIBAND):
        if exists(files, f"{INFINIBAND}/{name}/device/physfn"):
            continue  # a virtual function: its port is the physical one's
        rate, active = _ports(files, name)
        if not active:
            down.append(name)
        verbs.append(_sight(files, name, f"{INFINIBAND}/{name}", rate))
    taken = {card.bus_id for card in verbs}
    plain = [card for name in _listed(files, NET) if (card := _network(files, name)) and card.bus_id not in taken]
    cards = [*verbs, *(card for card in plain if card.rate is not None and card.rate >= FAST)]
    return tuple(cards or plain), _down(down)


def _listed(files: FileTree, folder: str) -> list[str]:
    found = names(files, folder)
    if isinstance(found, Unknown):
        return []
    return sorted(found, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)])


def _sight(files: FileTree, name: str, folder: str, rate: BytesPerSecond | None) -> NicSight:
    bus_id = _bus_id(files, folder)
    if bus_id is None:
        return NicSight(label=name, rate=rate)
    way = way_to(files, bus_id)
    return NicSight(label=name, bus_id=bus_id, numa_node=way.numa_node, root=way.root, hops=way.hops, rate=rate)


def _bus_id(files: FileTree, folder: str) -> str | None:
    path = resolved(files, f"{folder}/device")
    chain = () if isinstance(path, Unknown) else functions(path)[1]
    return chain[-1] if chain else None


def _ports(files: FileTree, name: str) -> tuple[BytesPerSecond | None, bool]:
    """What the active ports carry together, and whether there is one."""
    total, active = 0.0, False
    for port in _listed(files, f"{INFINIBAND}/{name}/ports"):
        state, rate = (text(files, f"{INFINIBAND}/{name}/ports/{port}/{what}") for what in ("state", "rate"))
        if isinstance(state, Unknown) or "ACTIVE" not in state:
            continue  # the rate of a port that is down is what it was made with, not what it carries
        active = True
        match = None if isinstance(rate, Unknown) else _RATE.match(rate)
        if match is None:
            return None, True
        total += float(match[1]) * 1e9 / 8
    return (BytesPerSecond(total) if total else None), active


def _network(files: FileTree, name: str) -> NicSight | None:
    """A network interface on PCI that is up."""
    state = text(files, f"{NET}/{name}/operstate")
    if isinstance(state, Unknown) or state not in {"up", "unknown"} or exists(files, f"{NET}/{name}/device/physfn"):
        return None
    card = _sight(files, name, f"{NET}/{name}", _speed(files, name))
    return card if card.bus_id is not None else None


def _speed(files: FileTree, name: str) -> BytesPerSecond | None:
    """``speed`` is in Mb/s; -1, or no answer, where the card does not know (many virtual ones)."""
    said = text(files, f"{NET}/{name}/speed")
    known = not isinstance(said, Unknown) and re.fullmatch(r"[1-9][0-9]{0,8}", said)
    return BytesPerSecond(int(known[0]) * 1e6 / 8) if known else None


def _down(cards: list[str]) -> tuple[Finding, ...]:
    if not cards:
        return ()
    return (
        Finding(
            "nic-down",
            f"no port is active on {', '.join(cards)}",
            "if it should be: 'ibstat' says more; look at the cable and the subnet manager",
            severity="notice",
        ),
    )
