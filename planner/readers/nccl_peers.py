"""``<nvlink>`` and ``<xgmi>`` of NCCL's topology files → links between GPUs, or to their switch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from planner.core.bus_id import normal_bus_id
from planner.core.capture import PeerLinkSight
from planner.core.finding import Finding
from planner.core.topology import LinkKind
from planner.readers.nccl_tree import Element

MAX_LINKS = 1000
"""Links that one element may count; a GPU has some dozens."""
_SWITCH = "0x068000"
_CPU = "0x068001"  # the NVLink bridge of IBM's POWER CPUs
_KINDS = {"nvlink": LinkKind.NVLINK, "xgmi": LinkKind.XGMI}


@dataclass
class _Links:
    """What the elements say, before the two ends of a pair are compared."""

    switched: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    direct: dict[tuple[LinkKind, int, int], dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    lost: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    to_cpu: dict[int, int] = field(default_factory=lambda: defaultdict(int))


def links_of(
    gpus: Sequence[tuple[int, Element]], buses: Mapping[str, int]
) -> tuple[tuple[PeerLinkSight, ...], tuple[Finding, ...]]:
    """The links of all GPUs, each pair once, and what was noticed.

    ``gpus`` are their indices and elements, ``buses`` the index by PCI bus id. NVSwitches are counted together: every GPU
    of an NVSwitch machine reaches every one of them.
    """
    links = _Links()
    for index, gpu in gpus:
        for tag, kind in _KINDS.items():
            for element in gpu.all(tag):
                _sort(links, index, kind, element, buses)
    found = [PeerLinkSight(a=index, b=None, count=count) for index, count in sorted(links.switched.items())]
    uneven = []
    for (kind, a, b), counts in sorted(links.direct.items()):
        found.append(PeerLinkSight(a=a, b=b, kind=kind, count=min(counts.values())))
        if len(counts) == 2 and counts[a] != counts[b]:
            uneven.append((a, b, counts[a], counts[b]))
    return tuple(found), (*_uneven(uneven), *_lost(links.lost), *_to_cpu(links.to_cpu))


def _sort(links: _Links, index: int, kind: LinkKind, element: Element, buses: Mapping[str, int]) -> None:
    count = element.number("count")
    if count is None:
        count = 1
    if not 0 < count <= MAX_LINKS:
        return
    far = element.text("tclass")
    peer = buses.get(normal_bus_id(element.text("target")) or "")
    if far.startswith(_CPU):
        links.to_cpu[index] += count
    elif far.startswith(_SWITCH) and peer is None:
        links.switched[index] += count
    elif peer is None or peer == index:
        links.lost[index] += count
    else:
        ends = links.direct[kind, min(index, peer), max(index, peer)]
        ends[index] = ends.get(index, 0) + count


def _devices(indices: Sequence[int] | Mapping[int, int]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"gpu{index}" for index in indices))


def _uneven(pairs: Sequence[tuple[int, int, int, int]]) -> tuple[Finding, ...]:
    if not pairs:
        return ()
    some = ", ".join(f"GPU{a} counts {one} to GPU{b}, which counts {other} back" for a, b, one, other in pairs[:3])
    return (
        Finding(
            "link-ends-differ",
            f"the two ends of {len(pairs)} pairs of GPUs count their links differently",
            "the smaller count was taken; is a link down?",
            evidence=some,
            devices=_devices([end for a, b, _, _ in pairs for end in (a, b)]),
        ),
    )


def _lost(counts: Mapping[int, int]) -> tuple[Finding, ...]:
    if not counts:
        return ()
    some = ", ".join(f"GPU{index} ({count})" for index, count in list(counts.items())[:4])
    return (
        Finding(
            "nvlink-peers-unknown",
            f"links of {len(counts)} GPUs end at a device that the file does not have, or at the GPU itself",
            "planned as if they were not there; add the text of 'nvidia-smi topo -m', which says whom they join",
            evidence=f"links without a far end: {some}",
            devices=_devices(counts),
        ),
    )


def _to_cpu(counts: Mapping[int, int]) -> tuple[Finding, ...]:
    if not counts:
        return ()
    return (
        Finding(
            "nvlink-to-cpu",
            "NVLinks join GPUs to their CPU (POWER); the way over the CPU is counted as PCIe",
            "state the links in the topology if transfers over the CPU matter",
            severity="notice",
            evidence=", ".join(f"GPU{index}: {count}" for index, count in list(counts.items())[:4]),
            devices=_devices(counts),
        ),
    )
