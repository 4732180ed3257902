"""NVLink domains over several hosts: GPUs that say they are in one fabric hang from one NVSwitch.

NVML gives each GPU of an NVSwitch fabric the UUID of its cluster and the number of its clique; NVLinks reach every GPU
with the same two (NVIDIA, NVML API reference, nvmlGpuFabricInfo_t). A fabric inside one host has a UUID of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.core.topology import Device, DeviceKind, Link, LinkKind
from planner.core.unknown import Unknown

Domain = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Joined:
    """Devices and links with the shared switches in, and what is to be said about it."""

    devices: tuple[Device, ...]
    links: tuple[Link, ...]
    assumptions: tuple[str, ...]


def domain_of(gpu: Device) -> Domain | None:
    """The fabric a GPU says it is in together with other hosts; ``None`` where it says nothing of the kind."""
    facts = gpu.facts
    if facts.fabric != "completed" or isinstance(facts.fabric_cluster, Unknown) or isinstance(facts.fabric_clique, Unknown):
        return None
    return None if set(facts.fabric_cluster) <= set("0-") else (facts.fabric_cluster.lower(), facts.fabric_clique)


def join_domains(devices: Sequence[Device], links: Sequence[Link]) -> Joined:
    """One shared NVSwitch for every fabric with GPUs on several hosts, in place of what each host saw of it."""
    members: dict[Domain, list[Device]] = {}
    for device in devices:
        if device.kind is DeviceKind.GPU and (domain := domain_of(device)) is not None:
            members.setdefault(domain, []).append(device)
    domains = {key: gpus for key, gpus in members.items() if len({gpu.host for gpu in gpus}) > 1}
    found, wires, said = list(devices), list(links), []
    taken = {device.id for device in devices}
    names = ("nvswitch",) if len(domains) == 1 else tuple(f"nvswitch{number}" for number in range(len(domains) + len(taken)))
    free = iter(name for name in (*names, *(f"nvswitch-{number}" for number in range(len(taken)))) if name not in taken)
    switches = []
    for domain, gpus in sorted(domains.items()):
        switches.append(next(free))
        found, wires = _with_switch(switches[-1], gpus, found, wires)
        hosts = len({gpu.host for gpu in gpus})
        said.append(f"the {len(gpus)} GPUs of {hosts} hosts in NVLink fabric {domain[0]}, clique {domain[1]}, share one NVSwitch")
    shared = (Device(name, DeviceKind.NVSWITCH) for name in switches)
    return Joined((*shared, *found), tuple(wires), tuple(said))


def _with_switch(
    switch: str, gpus: Sequence[Device], devices: Sequence[Device], links: Sequence[Link]
) -> tuple[list[Device], list[Link]]:
    """Every GPU's NVLinks moved to ``switch``; what they ended at on the host is gone if nothing else ends there."""
    kinds = {device.id: device.kind for device in devices}
    inside = {gpu.id for gpu in gpus}
    moved: dict[str, Link] = {}
    kept = []
    for link in links:
        ends = [end for end in (link.a, link.b) if end in inside]
        other = link.b if link.a in inside else link.a
        if link.kind is not LinkKind.NVLINK or not ends or (kinds[other] is not DeviceKind.NVSWITCH and len(ends) < 2):
            kept.append(link)
            continue
        for end in ends:
            known = moved.get(end)
            if known is None or (link.count or 0) > (known.count or 0):
                moved[end] = replace(link, a=end, b=switch)
    joined = [moved.get(gpu.id, Link(gpu.id, switch, LinkKind.NVLINK)) for gpu in gpus]
    used = {end for link in (*kept, *joined) for end in (link.a, link.b)}
    dropped = {device.id for device in devices if device.kind is DeviceKind.NVSWITCH and device.id not in used}
    staying = [device for device in devices if device.id not in dropped]
    return staying, [*kept, *joined]
