"""What is wrong with a machine, concluded from its graph, its facts and the data sheets.

One module a family of findings; each family is a function from one host to its findings. Nothing is asked of the machine:
a saved probe gives the findings of the live one. A fact that nobody stated leads to no finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from planner.core.finding import Finding
from planner.core.hardware import GpuSpec, LinkRates
from planner.core.topology import Topology
from planner.graph.diagnosis import devices, fabric, host, nvlink, order, pcie, peer, slow
from planner.graph.diagnosis.view import View, views

Family = Callable[[View], Iterator[Finding]]

FAMILIES: tuple[Family, ...] = (
    devices.lost,
    fabric.findings,
    nvlink.findings,
    order.findings,
    pcie.findings,
    slow.findings,
    peer.findings,
    devices.findings,
    host.findings,
)
"""In the order in which an owner would want to know."""
MOST_HOSTS = 4


def diagnose(topology: Topology, specs: Mapping[str, GpuSpec], rates: LinkRates) -> tuple[Finding, ...]:
    """What the graph and the facts show that its reader did not say, problems first.

    ``specs`` holds data sheets by name; GPUs without one are judged by the graph and the facts alone. Costs in GB/s are
    given where every GPU has a data sheet. Hosts with the same finding share it. What the reader found already
    (``topology.findings``, by code and devices) is left out.
    """
    found = [(view.host.name, one) for view in views(topology, specs, rates) for family in FAMILIES for one in family(view)]
    concluded = [*_folded(found, len(topology.hosts)), *devices.mixed(topology, specs)]
    new = [one for one in concluded if not _told(one, topology.findings)]
    return tuple(sorted(new, key=lambda one: one.severity != "problem"))


def _folded(found: list[tuple[str, Finding]], hosts: int) -> Iterator[Finding]:
    """Findings that differ by nothing but the host as one, which says the hosts where there are several."""
    alike: dict[Finding, list[tuple[str, Finding]]] = {}
    for name, one in found:
        alike.setdefault(replace(one, devices=()), []).append((name, one))
    for common, members in alike.items():
        names = [name for name, _ in members]
        more = f" and {len(names) - MOST_HOSTS} more" if len(names) > MOST_HOSTS else ""
        where = "every host" if len(names) == hosts else ", ".join(names[:MOST_HOSTS]) + more
        message = f"{common.message}; on {where}" if hosts > 1 else common.message
        yield replace(common, message=message, devices=tuple(device for _, one in members for device in one.devices))


def _told(one: Finding, told: tuple[Finding, ...]) -> bool:
    """Whether the reader said it: the same code, for these devices or more."""
    devices_told = {device for other in told if other.code == one.code for device in other.devices}
    return any(other.code == one.code for other in told) and set(one.devices) <= devices_told
