"""A topology as YAML ⇄ :class:`planner.core.topology.Topology`.

Hosts that are alike are written once, with ``count``. Device ids are those of the host (``gpu0``); in the graph of
several hosts they carry the host's name (``node1/gpu0``). A link end that starts with ``/`` is a shared device: a
network, or an NVLink domain over several hosts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from planner.core.facts import PeerCapability, PeerStatus
from planner.core.finding import Finding, Severity
from planner.core.measured import MeasuredCurve
from planner.core.operation import Operation
from planner.core.topology import (
    Basis,
    Device,
    DeviceKind,
    Host,
    Link,
    LinkKind,
    Origin,
    OriginKind,
    PeerToPeer,
    Stated,
    Topology,
)
from planner.core.unknown import NOT_STATED, Unknown
from planner.documents import strict_yaml
from planner.documents.base import SCHEMA_VERSION, Bandwidth, Document, Size, validate
from planner.documents.block_yaml import write
from planner.documents.facts import GpuFactsDocument, HostFactsDocument, facts_out, gpu_facts, host_facts
from planner.errors import BadInput, PlannerError
from planner.units import Bytes, BytesPerSecond, Seconds, write_quantity

MAX_HOSTS = 4096


class DeviceDocument(Document):
    """A device of a host, or a shared one."""

    id: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    kind: Literal["gpu", "nic", "pcie-switch", "host-bridge", "socket", "nvswitch", "network"]
    index: int | None = Field(default=None, ge=0)
    gpu: str | None = None
    memory: Size | None = None
    numa_node: int | None = Field(default=None, ge=0)
    label: str = ""
    bus_id: str | None = None
    rate: Bandwidth | None = None
    facts: GpuFactsDocument | None = None


class LinkDocument(Document):
    """A link between two devices; where the bandwidth is left out it follows from the hardware."""

    between: list[str] = Field(min_length=2, max_length=2)
    kind: Literal["nvlink", "xgmi", "pcie", "c2c", "socket-interconnect", "network"]
    bandwidth: Bandwidth | None = None
    basis: Basis = "peak"
    count: int | None = Field(default=None, ge=1)
    generation: int | None = Field(default=None, ge=1)
    possible_count: int | None = Field(default=None, ge=1)
    possible_generation: int | None = Field(default=None, ge=1)
    source: str = ""
    measured: Bandwidth | None = None
    measured_by: str = ""


class PeerStatusDocument(Document):
    """What the driver says of one peer-to-peer capability, a row a GPU."""

    capability: PeerCapability
    statuses: list[list[str]]


class HostDocument(Document):
    """One machine, or ``count`` machines alike."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    count: int = Field(default=1, ge=1, le=MAX_HOSTS)
    peer_to_peer: PeerToPeer = "unknown"
    gpudirect: Stated = "unknown"
    pxn: Stated = "unknown"
    peer_status: list[PeerStatusDocument] = []
    facts: HostFactsDocument | None = None
    devices: list[DeviceDocument]
    links: list[LinkDocument]


class OriginDocument(Document):
    """Where it came from."""

    kind: OriginKind
    source: str
    assumptions: list[str] = []


class ObservedDocument(Document):
    """A link class a capture states that the tree cannot express."""

    pair: list[str] = Field(min_length=2, max_length=2)
    link_class: str


class FindingDocument(Document):
    """What the reader of a capture noticed."""

    code: str
    message: str
    hint: str = ""
    severity: Severity = "problem"
    evidence: str = ""
    cost: str = ""
    devices: list[str] = []


class CurveDocument(Document):
    """A collective measured on this machine; ``gpus`` in rank order, ``microseconds`` by ``bytes``."""

    operation: Operation
    gpus: list[str] = Field(min_length=1)
    stack: str = Field(min_length=1)
    source: str
    bytes: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    microseconds: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)


class SharedDocument(Document):
    """What hosts share."""

    devices: list[DeviceDocument] = []
    links: list[LinkDocument] = []


class TopologyDocument(Document):
    """The whole file."""

    schema_version: int
    name: str = Field(min_length=1)
    description: str = ""
    aliases: list[str] = []
    origin: OriginDocument
    hosts: list[HostDocument] = Field(min_length=1)
    shared: SharedDocument = SharedDocument()
    observed: list[ObservedDocument] = []
    findings: list[FindingDocument] = []
    measurements: list[CurveDocument] = []


def parse_topology(text: str, name: str) -> Topology:
    """A topology document. Raises ``BadInput`` with file and path for anything amiss, the graph's invariants included."""
    return topology_of(strict_yaml.load(text, name), name)


def topology_of(data: Any, name: str) -> Topology:
    """The topology of a document that is parsed already; raises as :func:`parse_topology` does."""
    document = validate(TopologyDocument, data, name)
    hosts: list[Host] = []
    devices = [_device(item, "") for item in document.shared.devices]
    links = [_link(item, "") for item in document.shared.links]
    total = sum(item.count for item in document.hosts)
    for item in document.hosts:
        for number in range(item.count):
            host = f"{item.name}{number}" if item.count > 1 else item.name
            prefix = f"{host}/" if total > 1 else ""
            status = tuple(PeerStatus(one.capability, tuple(map(tuple, one.statuses))) for one in item.peer_status)
            hosts.append(Host(host, item.peer_to_peer, status, host_facts(item.facts), item.gpudirect, item.pxn))
            devices += [_device(device, host, prefix) for device in item.devices]
            links += [_link(link, prefix) for link in item.links]
    topology = Topology(
        name=document.name,
        hosts=tuple(hosts),
        devices=tuple(devices),
        links=tuple(links),
        origin=Origin(document.origin.kind, document.origin.source, tuple(document.origin.assumptions)),
        description=document.description,
        observed=tuple((item.pair[0], item.pair[1], item.link_class) for item in document.observed),
        findings=tuple(_finding(item) for item in document.findings),
        aliases=tuple(document.aliases),
        measurements=tuple(_curve(item, place, name) for place, item in enumerate(document.measurements)),
    )
    try:
        topology.check()
    except PlannerError as error:
        raise BadInput(error.problem, path=name, hint=error.hint) from None
    return topology


def _device(item: DeviceDocument, host: str, prefix: str = "") -> Device:
    return Device(
        id=prefix + item.id,
        kind=DeviceKind(item.kind),
        host=host,
        index=item.index,
        hardware=item.gpu,
        memory=Bytes(item.memory) if item.memory is not None else None,
        numa_node=item.numa_node,
        label=item.label,
        bus_id=item.bus_id,
        rate=BytesPerSecond(item.rate) if item.rate is not None else None,
        facts=gpu_facts(item.facts),
    )


def _finding(item: FindingDocument) -> Finding:
    return Finding(item.code, item.message, item.hint, item.severity, item.evidence, item.cost, tuple(item.devices))


def _curve(item: CurveDocument, place: int, name: str) -> MeasuredCurve:
    if len(item.bytes) != len(item.microseconds) or sorted(set(item.bytes)) != item.bytes:
        raise BadInput("bytes must rise, and have a time each in microseconds", path=f"{name}: measurements[{place}]")
    points = tuple((Bytes(size), Seconds(time * 1e-6)) for size, time in zip(item.bytes, item.microseconds, strict=True))
    return MeasuredCurve(item.operation, tuple(item.gpus), item.stack, points, item.source)


def _link(item: LinkDocument, prefix: str) -> Link:
    a, b = (end[1:] if end.startswith("/") else prefix + end for end in item.between)
    return Link(
        a=a,
        b=b,
        kind=LinkKind(item.kind),
        bandwidth=BytesPerSecond(item.bandwidth) if item.bandwidth is not None else NOT_STATED,
        basis=item.basis,
        count=item.count,
        generation=item.generation,
        possible_count=item.possible_count,
        possible_generation=item.possible_generation,
        source=item.source,
        measured=BytesPerSecond(item.measured) if item.measured is not None else None,
        measured_by=item.measured_by,
    )


def dump_topology(topology: Topology) -> str:
    """The document of a topology; :func:`parse_topology` reads back an equal graph."""
    return write(topology_document(topology))


def topology_document(topology: Topology) -> dict[str, Any]:
    """What :func:`dump_topology` writes, as mappings and lists."""
    several = len(topology.hosts) > 1
    hosts = []
    for host in topology.hosts:
        prefix = f"{host.name}/" if several else ""
        hosts.append(
            {
                "name": host.name,
                "peer_to_peer": host.peer_to_peer,
                **{name: word for name, word in (("gpudirect", host.gpudirect), ("pxn", host.pxn)) if word != "unknown"},
                **_without_empty({"peer_status": [_status_out(one) for one in host.peer_status], "facts": facts_out(host.facts)}),
                "devices": [_device_out(device, prefix) for device in topology.devices if device.host == host.name],
                "links": [_link_out(link, prefix) for link in topology.links if _owner(topology, link) == host.name],
            }
        )
    shared = {
        "devices": [_device_out(device, "") for device in topology.devices if not device.host],
        "links": [_link_out(link, "") for link in topology.links if not _owner(topology, link)],
    }
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": topology.name,
        "description": topology.description,
        "aliases": list(topology.aliases),
        "origin": {
            "kind": topology.origin.kind,
            "source": topology.origin.source,
            "assumptions": list(topology.origin.assumptions),
        },
        "hosts": _folded(hosts),
        **({"shared": shared} if shared["devices"] else {}),
        "observed": [{"pair": [a, b], "link_class": link_class} for a, b, link_class in topology.observed],
        "findings": [_finding_out(finding) for finding in topology.findings],
        "measurements": [_curve_out(curve) for curve in topology.measurements],
    }
    for key in ("observed", "description", "aliases", "findings", "measurements"):
        if not document[key]:
            del document[key]
    if not document["origin"]["assumptions"]:
        del document["origin"]["assumptions"]
    return document


def _owner(topology: Topology, link: Link) -> str:
    """The host a link is written under: that of either end."""
    return topology.by_id[link.a].host or topology.by_id[link.b].host


def _device_out(device: Device, prefix: str) -> dict[str, Any]:
    return _without_empty(
        {
            "id": device.id.removeprefix(prefix),
            "kind": str(device.kind),
            "index": device.index,
            "gpu": device.hardware,
            "memory": write_quantity(device.memory, "size") if device.memory is not None else None,
            "numa_node": device.numa_node,
            "label": device.label,
            "bus_id": device.bus_id,
            "rate": write_quantity(device.rate, "bandwidth") if device.rate is not None else None,
            "facts": facts_out(device.facts),
        }
    )


def _status_out(status: PeerStatus) -> dict[str, Any]:
    return {"capability": status.capability, "statuses": [list(row) for row in status.statuses]}


def _finding_out(finding: Finding) -> dict[str, Any]:
    return _without_empty(
        {
            "code": finding.code,
            "message": finding.message,
            "hint": finding.hint,
            "severity": finding.severity if finding.severity != "problem" else None,
            "evidence": finding.evidence,
            "cost": finding.cost,
            "devices": list(finding.devices),
        }
    )


def _curve_out(curve: MeasuredCurve) -> dict[str, Any]:
    return {
        "operation": curve.operation,
        "gpus": list(curve.gpus),
        "stack": curve.stack,
        "source": curve.source,
        "bytes": [int(size) if size.is_integer() else float(size) for size, _ in curve.points],
        "microseconds": [_microseconds(time) for _, time in curve.points],
    }


def _microseconds(time: Seconds) -> float:
    """The shortest number of microseconds, from six digits on, that reads back as the same time."""
    for digits in range(6, 17):
        number = float(f"{time * 1e6:.{digits}g}")
        if number * 1e-6 == time:
            return number
    return time * 1e6


def _link_out(link: Link, prefix: str) -> dict[str, Any]:
    known = not isinstance(link.bandwidth, Unknown)
    ends = [end.removeprefix(prefix) if not prefix or end.startswith(prefix) else f"/{end}" for end in (link.a, link.b)]
    return _without_empty(
        {
            "between": ends,
            "kind": str(link.kind),
            "bandwidth": write_quantity(link.bandwidth, "bandwidth") if not isinstance(link.bandwidth, Unknown) else None,
            "basis": link.basis if known and link.basis != "peak" else None,
            "count": link.count,
            "generation": link.generation,
            "possible_count": link.possible_count,
            "possible_generation": link.possible_generation,
            "source": link.source,
            "measured": write_quantity(link.measured, "bandwidth") if link.measured is not None else None,
            "measured_by": link.measured_by,
        }
    )


def _without_empty(mapping: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if value is not None and value not in ("", [], {})}


def _folded(hosts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs of hosts named PREFIX0, PREFIX1, … that are otherwise equal, written once with a count."""
    first = hosts[0]
    stem = first["name"].removesuffix("0")
    alike = [
        host["name"] == f"{stem}{number}" and {**host, "name": ""} == {**first, "name": ""} for number, host in enumerate(hosts)
    ]
    if len(hosts) > 1 and all(alike):
        return [{"name": stem, "count": len(hosts), **{key: value for key, value in first.items() if key != "name"}}]
    return hosts
