"""Which device of one topology is which of another of the same machine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from planner.core.topology import Device, DeviceKind, Topology
from planner.core.unknown import Unknown

MATCHED = (DeviceKind.GPU, DeviceKind.NIC, DeviceKind.NVSWITCH, DeviceKind.NETWORK)
"""Devices that are somebody. Sockets, bridges and PCIe switches are named by the order they were found in."""

Key = Callable[[Device], Hashable | None]


@dataclass(frozen=True, slots=True)
class Match:
    """Hosts by name and devices by id, from the one topology to the other, in the order of the first."""

    hosts: Mapping[str, str]
    devices: Mapping[str, str]


def match(before: Topology, after: Topology) -> Match:
    """The devices that are the same: by UUID, then by bus id, then by label, then by index or name.

    So a GPU that fell off the bus is the one that is gone, though the driver numbers the others anew. Where each
    topology has one host, they are the same, whatever they are called.
    """
    if len(before.hosts) == len(after.hosts) == 1:
        hosts = {before.hosts[0].name: after.hosts[0].name}
    else:
        names = {host.name for host in after.hosts}
        hosts = {host.name: host.name for host in before.hosts if host.name in names}
    same: dict[str, str] = {}
    for kind in MATCHED:
        for host, other in {**hosts, "": ""}.items():
            same |= _matched(
                [device for device in before.devices if device.kind is kind and device.host == host],
                [device for device in after.devices if device.kind is kind and device.host == other],
            )
    return Match(hosts, {device.id: same[device.id] for device in before.devices if device.id in same})


def _matched(before: list[Device], after: list[Device]) -> dict[str, str]:
    same: dict[str, str] = {}
    for key in (_uuid, _bus_id, _label, _place):
        left = [device for device in before if device.id not in same]
        right = [device for device in after if device.id not in same.values()]
        places: dict[Hashable, list[Device]] = {}
        for device in right:
            if (found := key(device)) is not None:
                places.setdefault(found, []).append(device)
        for device in left:
            wanted = key(device)
            candidates = [other for other in places.get(wanted, []) if _may_be(device, other)] if wanted is not None else []
            if len(candidates) == 1 and candidates[0].id not in same.values():
                same[device.id] = candidates[0].id
    return same


def _may_be(one: Device, other: Device) -> bool:
    """Whether nothing surer speaks against it. A GPU in the slot of another is that slot's: replaced, not gone and new."""
    if one.kind is DeviceKind.NIC:
        return not (one.label and other.label and one.label != other.label)
    if one.bus_id is not None and other.bus_id is not None and one.bus_id != other.bus_id:
        return _uuid(one) is not None and _uuid(one) == _uuid(other)
    return True


def _uuid(device: Device) -> Hashable | None:
    return None if isinstance(device.facts.uuid, Unknown) else device.facts.uuid


def _bus_id(device: Device) -> Hashable | None:
    return device.bus_id


def _label(device: Device) -> Hashable | None:
    return device.label or None


def _place(device: Device) -> Hashable | None:
    if device.index is not None:
        return device.index
    return device.id.removeprefix(f"{device.host}/") if device.host else device.id
