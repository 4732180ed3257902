"""NVLinks, NVLink-C2C and peer-to-peer status as NVML tells them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from planner.core.bus_id import normal_bus_id
from planner.core.capture import GpuSight, PeerLinkSight
from planner.core.facts import NvlinkFacts, PeerCapability
from planner.core.unknown import Unknown
from planner.readers.nvml import INVALID_ARGUMENT, NOT_SUPPORTED, Library, Refused, asked, part
from planner.units import BytesPerSecond

MAX_LINKS = 36
"""NVML_NVLINK_MAX_LINKS of the newest header; 18 before."""
_SPEED, _COMMON_SPEED = 164, 90
"""NVML_FI_DEV_NVLINK_GET_SPEED with the link as scope, NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON: MB/s, one direction."""
_C2C_COUNT, _C2C_STATUS, _C2C_SPEED = 170, 171, 172
"""NVML_FI_DEV_C2C_LINK_COUNT, …_GET_STATUS (1: up) and …_GET_MAX_BW (MB/s, one direction) with the link as scope."""
_VERSIONS = {1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4, 7: 5, 8: 6}
"""``nvmlNvlinkVersion_t`` is an enumeration (1.0, 2.0, 2.2, 3.0, 3.1, 4.0, 5.0, 6.0), not a version number."""
_REMOTES = {0: "gpu", 1: "ibm-npu", 2: "switch"}
_CAPABILITIES: dict[PeerCapability, int] = {"read": 0, "write": 1, "nvlink": 2, "atomics": 3, "pcie": 4}
"""``nvmlGpuP2PCapsIndex_t``, by number: pynvml's own constant for READ is the tuple ``(0,)``."""
_STATUSES = ("OK", "CNS", "GNS", "TNS", "DR", "NS", "U")
"""``nvmlGpuP2PStatus_t``, in the words of ``nvidia-smi topo -p2p``."""


def nvlinks(library: Library, gpu: int) -> tuple[NvlinkFacts, ...] | Unknown:
    """The NVLinks of a GPU, those that are down too; none where it has none. Unknown where no link can be asked about."""
    found: list[NvlinkFacts] = []
    answered = False
    for link in range(MAX_LINKS):
        try:
            state = library.ask("nvmlDeviceGetNvLinkState", gpu, link)
        except Refused as refusal:
            if refusal.code == INVALID_ARGUMENT:  # beyond the last link that any GPU of this driver may have
                break
            if refusal.code != NOT_SUPPORTED:  # a link that this GPU does not have
                found.append(NvlinkFacts(link=link, active=Unknown(refusal.reason)))
            continue
        answered = True
        # 2 is sleep: a link that saves power and wakes at the first transfer
        found.append(_up(library, gpu, link) if state else NvlinkFacts(link=link, active=False))
    if found and not answered and isinstance(found[0].active, Unknown):
        return found[0].active
    return tuple(found)


def _up(library: Library, gpu: int, link: int) -> NvlinkFacts:
    pci = part(asked(library, "nvmlDeviceGetNvLinkRemotePciInfo", gpu, link), "busId", "busIdLegacy")
    bus_id = pci if isinstance(pci, Unknown) else normal_bus_id(pci)
    return NvlinkFacts(
        link=link,
        active=True,
        version=_named(_VERSIONS, asked(library, "nvmlDeviceGetNvLinkVersion", gpu, link), "NVLink version"),
        remote=_named(_REMOTES, asked(library, "nvmlDeviceGetNvLinkRemoteDeviceType", gpu, link), "far end of type"),
        remote_bus_id=Unknown("NVML: the far end has no bus id; is the fabric manager running?") if bus_id is None else bus_id,
        bandwidth=_speed(library, gpu, link),
    )


def _named(names: Mapping[int, Any], value: Any | Unknown, what: str) -> Any | Unknown:
    return value if isinstance(value, Unknown) else names.get(value, Unknown(f"NVML: {what} {value}"))


def _speed(library: Library, gpu: int, link: int) -> BytesPerSecond | Unknown:
    """The line rate of one link in one direction: an H100 says 26.562 GB/s, of which data can use 25."""
    speed = asked(library, "nvmlDeviceGetFieldValues", gpu, _SPEED, link)
    if isinstance(speed, Unknown) or not speed:
        speed = asked(library, "nvmlDeviceGetFieldValues", gpu, _COMMON_SPEED, 0)
    if isinstance(speed, Unknown):
        return speed
    return BytesPerSecond(speed * 1e6) if speed else Unknown("NVML: a speed of 0 on a link that is up")


def peer_links(gpus: Sequence[GpuSight]) -> tuple[PeerLinkSight, ...]:
    """The NVLinks that are up, by what they end at: another GPU of the host, or a switch.

    A link whose far end NVML does not tell, or that is no GPU of ours (a container sees some only), is in no count. The
    bandwidth is left to the data sheet: the line rate that NVML gives is more than data can use.
    """
    indices = {gpu.bus_id: gpu.index for gpu in gpus if gpu.bus_id is not None}
    ends: Counter[tuple[int, int]] = Counter()
    switched: Counter[int] = Counter()
    for gpu in gpus:
        links = () if isinstance(gpu.facts.nvlinks, Unknown) else gpu.facts.nvlinks
        for link in links:
            if link.active is not True:
                continue
            other = None if isinstance(link.remote_bus_id, Unknown) else indices.get(link.remote_bus_id)
            if other is not None and other != gpu.index:
                ends[gpu.index, other] += 1
            elif link.remote == "switch":
                switched[gpu.index] += 1
    found = [PeerLinkSight(a=gpu, b=None, count=count) for gpu, count in sorted(switched.items())]
    for a, b in sorted({(min(pair), max(pair)) for pair in ends}):
        # NVML counts both ends of a GPU-GPU link; keep a < b or every cable is doubled. Where the ends differ, one of them
        # was not told: the end that was, counts.
        found.append(PeerLinkSight(a=a, b=b, count=max(ends[a, b], ends[b, a])))
    return tuple(found)


def peer_status(library: Library, count: int) -> dict[PeerCapability, dict[tuple[int, int], str]]:
    """What the driver lets each ordered pair of ``count`` GPUs do, in nvidia-smi's words; pairs not answered are left out."""
    found: dict[PeerCapability, dict[tuple[int, int], str]] = {}
    for capability, number in _CAPABILITIES.items():
        words = {}
        for a, b in permutations(range(count), 2):
            status = asked(library, "nvmlDeviceGetP2PStatus", a, b, number)
            if not isinstance(status, Unknown):
                words[a, b] = _STATUSES[status] if status < len(_STATUSES) else "U"
        if words:
            found[capability] = words
    return found


def chip_to_chip(library: Library, gpu: int) -> BytesPerSecond | None:
    """What the NVLink-C2C links that are up between a GPU and its CPU carry in one direction; ``None`` where there is none.

    Source: NCCL ``src/graph/xml.cc``, which asks the same fields (GH200: 10 links of 44 712 MB/s).
    """
    count = asked(library, "nvmlDeviceGetFieldValues", gpu, _C2C_COUNT, 0)
    if isinstance(count, Unknown):
        return None
    total = 0.0
    for link in range(min(count, MAX_LINKS)):
        speed = asked(library, "nvmlDeviceGetFieldValues", gpu, _C2C_SPEED, link)
        if asked(library, "nvmlDeviceGetFieldValues", gpu, _C2C_STATUS, link) == 1 and not isinstance(speed, Unknown):
            total += speed * 1e6
    return BytesPerSecond(total) if total else None
