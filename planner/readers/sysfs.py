"""Where Linux says a PCI device sits: the way from the host bridge down to it, and what each link of the way carries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from planner.core.capture import PcieHop
from planner.core.pcie import pcie_generation
from planner.core.unknown import Unknown
from planner.readers.host_files import FileTree, resolved, text
from planner.readers.pci_config import UPSTREAM, port_type

DEVICES = "/sys/bus/pci/devices"
_FUNCTION = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ROOT = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")
_WIDTHS = frozenset({1, 2, 4, 8, 12, 16, 32})


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The way from a host bridge down to a device.

    ``chain`` has the bus ids of all PCI functions on it, ports of switches each on their own, the device last; ``hops``
    one a switch and the device.
    """

    root: str | None
    chain: tuple[str, ...]
    hops: tuple[PcieHop, ...]
    numa_node: int | None


NOWHERE = Way(root=None, chain=(), hops=(), numa_node=None)


def functions(path: str) -> tuple[str | None, tuple[str, ...]]:
    """The host bridge and the PCI functions of a path under ``/sys/devices``.

    >>> functions("/sys/devices/pci0000:17/0000:17:01.0/0000:18:00.0")
    ('pci0000:17', ('0000:17:01.0', '0000:18:00.0'))
    """
    root: str | None = None
    chain: list[str] = []
    for part in path.split("/"):
        if _ROOT.fullmatch(part):
            root, chain = part, []  # behind another device's own host bridge (Intel VMD), that one is the root
        elif _FUNCTION.fullmatch(part):
            chain.append(part)
    return root, tuple(chain)


def way_to(files: FileTree, bus_id: str) -> Way:
    """The way to a device; :data:`NOWHERE` where ``/sys`` does not show it, as in some containers."""
    path = resolved(files, f"{DEVICES}/{bus_id}")
    if isinstance(path, Unknown):
        return NOWHERE
    root, chain = functions(path)
    if not chain:
        return NOWHERE
    node = _number(files, bus_id, "numa_node")
    places = _switches(chain, [port_type(config_of(files, port)) for port in chain[:-1]])
    hops = tuple(_hop(files, chain, place) for place in places)
    return Way(root=root, chain=chain, hops=hops, numa_node=None if node is None or node < 0 else node)


def config_of(files: FileTree, bus_id: str) -> bytes:
    """As much of a device's configuration space as this user may read; empty where it is nothing."""
    try:
        return files.data(f"{DEVICES}/{bus_id}/config")
    except (OSError, ValueError):
        return b""


def _switches(chain: Sequence[str], kinds: Sequence[int | None]) -> list[int]:
    """The places in ``chain`` of the switches' upstream ports and, last, of the device.

    Where the ports say what they are, by that. Else by position: a root port, then an upstream and a downstream port for
    each switch, then the device; counted from the device up, as a virtual machine may hide the root port.
    """
    last = len(chain) - 1
    if kinds and all(kind is not None for kind in kinds):
        return [place for place, kind in enumerate(kinds) if kind == UPSTREAM] + [last]
    return list(range(last, -1, -2))[::-1]


def _hop(files: FileTree, chain: Sequence[str], place: int) -> PcieHop:
    """The link above ``chain[place]``, as fast and wide as it is now and as both its ends could make it."""
    lower, upper = chain[place], chain[place - 1] if place else None
    generation, width = _generation(files, lower, "current_link_speed"), _width(files, lower, "current_link_width")
    generations = [_generation(files, lower, "max_link_speed")]
    widths = [_width(files, lower, "max_link_width")]
    if upper is not None:
        generations.append(_generation(files, upper, "max_link_speed"))
        widths.append(_width(files, upper, "max_link_width"))
    return PcieHop(
        bus_id=lower,
        generation=generation,
        width=width,
        possible_generation=_least(generations, generation),
        possible_width=_least(widths, width),
    )


def _least(ends: Sequence[int | None], now: int | None) -> int | None:
    """What both ends can do. An end that claims less than the link does now is not real: hypervisors make up root ports."""
    real = [end for end in ends if end is not None and (now is None or end >= now)]
    return min(real, default=None)


def _generation(files: FileTree, bus_id: str, name: str) -> int | None:
    said = text(files, f"{DEVICES}/{bus_id}/{name}")
    return None if isinstance(said, Unknown) else pcie_generation(said)


def _width(files: FileTree, bus_id: str, name: str) -> int | None:
    lanes = _number(files, bus_id, name)
    return lanes if lanes in _WIDTHS else None  # 0, 63 and 255 are what a link that is not there says


def _number(files: FileTree, bus_id: str, name: str) -> int | None:
    said = text(files, f"{DEVICES}/{bus_id}/{name}")
    return int(said) if not isinstance(said, Unknown) and re.fullmatch(r"-?[0-9]{1,6}", said) else None
