"""What a machine said of itself: a table under the picture, and as JSON. Nothing is shown of what nobody asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from planner.core.facts import GpuFacts, HostFacts, NvlinkFacts
from planner.core.topology import Device, Host, Topology
from planner.core.unknown import NOT_STATED, Unknown

_UNITS = {"memory_free": "memory_free_bytes", "memory_used": "memory_used_bytes", "bandwidth": "bandwidth_bytes_per_s"}
_GAP = "  "
ASKED_IN_VAIN = "?"


def document(facts: GpuFacts | HostFacts | NvlinkFacts) -> dict[str, Any]:
    """The known facts by name, the unit in the key; under ``unknown`` why others are not known."""
    known: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for one in fields(facts):
        value, key = getattr(facts, one.name), _UNITS.get(one.name, one.name)
        if isinstance(value, Unknown):
            if value != NOT_STATED:
                reasons[key] = value.reason
        else:
            known[key] = [document(link) for link in value] if isinstance(value, tuple) else value
    return {**known, "unknown": reasons} if reasons else known


def lines(topology: Topology, width: int) -> list[str]:
    """A line for each host and a table of its GPUs, as far as they said anything; a line a GPU where the table is too wide."""
    written: list[str] = []
    for host in topology.hosts:
        said = _host(host)
        gpus = [topology.gpus[gpu] for gpu in topology.gpus_of_host[host.name]]
        if said:
            written.append(f"{host.name}: {said}" if len(topology.hosts) > 1 else said)
        written += _table(gpus, width)
    return written


def _host(host: Host) -> str:
    facts = host.facts
    words = [
        ("driver", facts.driver),
        ("CUDA", facts.cuda),
        ("IOMMU", facts.iommu),
        ("ACS", facts.acs),
        ("virtual machine", facts.virtual_machine),
        ("container", facts.container),
    ]
    return ", ".join(f"{name} {_plain(value)}" for name, value in words if value not in (NOT_STATED, "none"))


def _plain(value: str | Unknown) -> str:
    return "unknown" if isinstance(value, Unknown) else value


Cell = Callable[[Device], str]
"""What a column says of a GPU: empty where nobody asked."""


def _table(gpus: Sequence[Device], width: int) -> list[str]:
    columns = [(head, [cell(gpu) for gpu in gpus]) for head, cell in _COLUMNS]
    columns = [(head, cells) for head, cells in columns if set(cells) - {"", ASKED_IN_VAIN}]
    if len(columns) < 2:
        return []
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    sizes = [max(len(head), *map(len, cells)) for head, cells in columns]
    if sum(sizes) + len(_GAP) * (len(sizes) - 1) > width:
        heads = [head for head, _ in columns]
        told = ([f"{head} {cell}" for head, cell in zip(heads, row, strict=True) if cell] for row in rows)
        return [", ".join(words) for words in told]
    written = ([head for head, _ in columns], *rows)
    return [_GAP.join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip() for row in written]


def _said(value: object) -> str:
    if isinstance(value, Unknown):
        return "" if value == NOT_STATED else ASKED_IN_VAIN
    return str(value)


def _memory(gpu: Device) -> str:
    free = gpu.facts.memory_free
    if isinstance(free, Unknown):
        return _said(free)
    total = "" if gpu.memory is None else f" of {gpu.memory / 2**30:.1f}"
    return f"{free / 2**30:.1f}{total}"


def _pcie(generation: int | Unknown, width: int | Unknown) -> str:
    if isinstance(generation, Unknown) and isinstance(width, Unknown):
        return _said(generation) or _said(width)
    return f"gen{_said(generation) or ASKED_IN_VAIN} x{_said(width) or ASKED_IN_VAIN}"


def _nvlinks(gpu: Device) -> str:
    links = gpu.facts.nvlinks
    if isinstance(links, Unknown):
        return _said(links)
    return f"{sum(link.active is True for link in links)}/{len(links)}" if links else "none"


def _state(gpu: Device) -> str:
    said = _said(gpu.facts.performance_state)
    return f"P{said}" if said.isdigit() else said


_COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("GPU", lambda gpu: str(gpu.index)),
    ("bus id", lambda gpu: gpu.bus_id or ""),
    ("GiB free", _memory),
    ("PCIe now", lambda gpu: _pcie(gpu.facts.pcie_generation, gpu.facts.pcie_width)),
    ("possible", lambda gpu: _pcie(gpu.facts.pcie_generation_possible, gpu.facts.pcie_width_possible)),
    ("state", _state),
    ("NVLinks up", _nvlinks),
    ("MIG", lambda gpu: {"disabled": "off", "enabled": "on"}.get(said := _said(gpu.facts.multi_instance), said)),
)
