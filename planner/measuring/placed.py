"""Tables of measurements after it is known which GPUs of the machine they are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from planner.core.measured import CopyDirection, MeasuredCopies, MeasuredTable, TableDevice
from planner.core.operation import Operation
from planner.core.topology import Topology
from planner.errors import BadInput
from planner.units import Bytes, BytesPerSecond, Seconds

Gpus = tuple[int, ...]
LookUp = Callable[[str], str | None]
"""The name of a GPU in the catalogue by what a program calls it, ``None`` where it is not known."""

HOW_TO_SAY_GPUS = "add --gpus with the GPUs of its ranks in order, for example --gpus 0,1"


@dataclass(frozen=True)
class Placed:
    """One operation over ``gpus`` in rank order.

    ``points`` as they were measured, sizes may be there twice. ``where`` and, by point, ``places`` for errors; ``announced`` as in
    :class:`~planner.core.measured.MeasuredTable`.
    """

    operation: Operation
    gpus: Gpus
    stack: str
    points: tuple[tuple[Bytes, Seconds], ...]
    source: str
    where: str
    places: tuple[str, ...]
    announced: Bytes | None = None


@dataclass(frozen=True)
class PlacedCopies:
    """Copies by (from, to) as the machine counts its GPUs; otherwise as :class:`~planner.core.measured.MeasuredCopies`."""

    direction: CopyDirection
    peer_to_peer: bool | None
    rates: Mapping[tuple[int, int], BytesPerSecond]
    access: Mapping[tuple[int, int], bool]
    source: str
    where: str


def place_table(
    table: MeasuredTable, topology: Topology, *, operation: Operation | None, gpus: Gpus | None, look_up: LookUp
) -> Placed:
    """A table of one operation on its GPUs: by the bus ids of its devices, else ``gpus``, else their indices, else all GPUs.

    Raises ``BadInput`` where its operation or its GPUs cannot be told, or it is of another machine.
    """
    where = _where(table.source, table.line)
    found = _operation(table, operation, where)
    placed = _gpus(table.devices, table.ranks, topology, gpus, where)
    if len(placed) < 2:
        raise BadInput("is of one GPU, which has nobody to talk to", path=where, hint="measure over two GPUs or more")
    _refuse_other_model(table.devices, placed, topology, look_up, where)
    places = tuple(_where(table.source, line) for line in table.lines) or (where,) * len(table.points)
    return Placed(found, placed, table.stack, table.points, short(table.source), where, places, table.announced)


def place_copies(copies: MeasuredCopies, topology: Topology, *, gpus: Gpus | None, look_up: LookUp) -> PlacedCopies:
    """Copies between pairs on the machine's GPUs, found as those of a table are. Raises ``BadInput`` likewise."""
    where = _where(copies.source, copies.line)
    named = [index for pair in (*copies.bandwidth, *copies.latency, *copies.access) for index in pair]
    listed = {device.index for device in copies.devices}
    count = max([*named, *listed], default=-1) + 1
    devices = sorted(copies.devices, key=lambda device: device.index) if listed == set(range(count)) else []
    placed = _gpus(devices, count, topology, gpus, where)
    _refuse_other_model(devices, placed, topology, look_up, where)
    rates = {(placed[a], placed[b]): rate for (a, b), rate in copies.bandwidth.items() if a != b}
    access = {(placed[a], placed[b]): can for (a, b), can in copies.access.items() if a != b}
    return PlacedCopies(copies.direction, copies.peer_to_peer, rates, access, short(copies.source), where)


def short(source: str) -> str:
    """A file by its name alone: what is written into a topology says nothing of where somebody keeps files.

    >>> short("/home/ada/runs/bw.txt"), short("<stdin>")
    ('bw.txt', 'standard input')
    """
    return "standard input" if source == "<stdin>" else PurePath(source).name


def _where(source: str, line: int) -> str:
    return f"{source}, line {line}" if line else source


def _operation(table: MeasuredTable, asked: Operation | None, where: str) -> Operation:
    if table.operation is not None:
        if asked is not None and asked != table.operation:
            raise BadInput(f"is a table of {table.operation}; --operation says {asked}", path=where)
        return table.operation
    if asked is not None:
        if table.candidates and asked not in table.candidates:
            allowed = ", ".join(table.candidates)
            hint = f"they allow {allowed}"
            raise BadInput(f"its bus bandwidths are not those of {asked} over {table.ranks} GPUs", path=where, hint=hint)
        return asked
    if len(table.candidates) == 1:
        return table.candidates[0]
    hint = f"add --operation: its bus bandwidths allow {', '.join(table.candidates)}" if table.candidates else "add --operation"
    raise BadInput("does not say which operation was measured", path=where, hint=hint)


def _gpus(devices: Sequence[TableDevice], ranks: int | None, topology: Topology, asked: Gpus | None, where: str) -> Gpus:
    count = len(devices) or ranks
    if asked is None and _all_nameless(devices, topology):
        return tuple(range(len(topology.gpus)))
    by_bus_id = _by_bus_id(devices, topology, asked, where)
    if by_bus_id is not None:
        if asked is not None and sorted(asked) != sorted(by_bus_id):
            raise BadInput(f"by its bus ids it is of GPUs {_named(by_bus_id)}; --gpus says {_named(asked)}", path=where)
        placed = by_bus_id
    elif asked is not None:
        if count is not None and count != len(asked):
            raise BadInput(f"is of {count} GPUs; --gpus names {len(asked)}", path=where)
        placed = asked
    elif devices:
        placed = _by_index(devices, topology, where)
    elif count is None:
        raise BadInput("does not say over how many GPUs it was measured", path=where, hint=HOW_TO_SAY_GPUS)
    elif count == len(topology.gpus):
        placed = tuple(range(count))
    else:
        raise BadInput(
            f"is of {count} GPUs and does not say which; {topology.name} has {len(topology.gpus)}",
            path=where,
            hint=HOW_TO_SAY_GPUS if count < len(topology.gpus) else "it was measured on another machine",
        )
    if len(set(placed)) < len(placed):
        raise BadInput(f"has two ranks on one GPU: {_named(placed)}", path=where, hint="measure with a GPU a rank")
    return placed


def _all_nameless(devices: Sequence[TableDevice], topology: Topology) -> bool:
    """Whether a table is of all GPUs of several hosts whose names somebody took out: then its ranks are in our order."""
    names = {device.host for device in devices}
    known = {host.name for host in topology.hosts}
    return 1 < len(known) != len(names) and not names & known and len(devices) == len(topology.gpus)


def _by_bus_id(devices: Sequence[TableDevice], topology: Topology, asked: Gpus | None, where: str) -> Gpus | None:
    """By bus id, where the text prints them and the topology knows them. ``--gpus`` helps where a guest renumbers the bus."""
    hosts = {device.host for device in devices}
    ours = {(gpu.host, gpu.bus_id): number for number, gpu in enumerate(topology.gpus) if gpu.bus_id is not None}
    if not ours or not devices or any(device.bus_id is None for device in devices):
        return None
    names = _hosts(hosts, topology, where) if len(topology.hosts) > 1 else dict.fromkeys(hosts, topology.hosts[0].name)
    found = [ours.get((names[device.host], device.bus_id or "")) for device in devices]
    placed = tuple(number for number in found if number is not None)
    if len(placed) == len(devices):
        return placed
    if asked is not None:
        return None
    strange = next(device for device, number in zip(devices, found, strict=True) if number is None)
    known = ", ".join(str(gpu.bus_id) for gpu in topology.gpus[:4] if gpu.bus_id is not None)
    raise BadInput(
        f"names a GPU at {strange.bus_id}; {topology.name} has none there",
        path=where,
        hint=f"its GPUs are at {known} …; if it is this machine, as a guest or container sees it, say which with --gpus",
    )


def _by_index(devices: Sequence[TableDevice], topology: Topology, where: str) -> Gpus:
    hosts = list(dict.fromkeys(device.host for device in devices))
    if len(hosts) > len(topology.hosts):
        raise BadInput(f"is of {len(hosts)} hosts; {topology.name} has {len(topology.hosts)}", path=where)
    names = _hosts(hosts, topology, where) if len(topology.hosts) > 1 else dict.fromkeys(hosts, topology.hosts[0].name)
    ours = {(gpu.host, gpu.index): number for number, gpu in enumerate(topology.gpus)}
    placed = []
    for device in devices:
        number = ours.get((names[device.host], device.index))
        if number is None:
            there = len(topology.gpus_of_host[names[device.host]])
            raise BadInput(
                f"names device {device.index}; {topology.name} has {there} GPUs{' a host' if len(topology.hosts) > 1 else ''}",
                path=where,
                hint="it was measured on another machine",
            )
        placed.append(number)
    return tuple(placed)


def _hosts(hosts: Sequence[str] | set[str], topology: Topology, where: str) -> dict[str, str]:
    """The table's hosts by name; all of them unknown: in order, where there are as many."""
    known = {host.name for host in topology.hosts}
    if set(hosts) <= known:
        return {name: name for name in hosts}
    if not set(hosts) & known and len(hosts) == len(known):
        ordered = list(hosts) if not isinstance(hosts, set) else sorted(hosts)
        return dict(zip(ordered, (host.name for host in topology.hosts), strict=True))
    strange = next(name for name in hosts if name not in known)
    raise BadInput(
        f"names host {strange!r}, which is not in {topology.name}",
        path=where,
        hint=f"its hosts are {', '.join(sorted(known)[:4])}; {HOW_TO_SAY_GPUS}",
    )


def _refuse_other_model(devices: Sequence[TableDevice], placed: Gpus, topology: Topology, look_up: LookUp, where: str) -> None:
    for device, number in zip(devices, placed, strict=False):
        ours = topology.gpus[number].hardware
        theirs = look_up(device.model) if device.model else None
        if theirs is not None and ours is not None and theirs != ours:
            raise BadInput(
                f"was measured on {theirs}; GPU {number} of {topology.name} is {ours}",
                path=where,
                hint="it is of another machine, or the topology names the wrong GPU",
            )


def _named(gpus: Gpus) -> str:
    return ",".join(str(gpu) for gpu in gpus)
