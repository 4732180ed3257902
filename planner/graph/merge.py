"""Hosts → one cluster: unique names, one network, shared NVLink domains, and what is known of each host carried over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.core.finding import Finding
from planner.core.topology import DeviceKind, Origin, OriginKind, Topology
from planner.core.unknown import Unknown
from planner.errors import BadInput
from planner.graph.network import AS_SEEN, HOW_TO_SAY, Network, wire
from planner.graph.network_cards import join_cards
from planner.graph.nvlink_domain import join_domains
from planner.graph.relabel import cluster_names, relabelled

Member = tuple[str, Topology]
"""What a host, or a cluster to be taken up, is called, and its topology."""

NODE_MISSING = "node-missing"


def node_missing(name: str, reason: str, hint: str = "") -> Finding:
    """A node that is not in the cluster because nothing could be learnt of it."""
    return Finding(NODE_MISSING, f"{name} is not in it: {reason}", hint or "capture it again and merge once more")


def merge(
    name: str, members: Sequence[Member], network: Network = AS_SEEN, findings: Sequence[Finding] = (), source: str = ""
) -> Topology:
    """The cluster of ``members``, joined by ``network``; ``findings`` are of nodes that are missing.

    A machine that is there twice (by the UUID of a GPU) is taken once. Raises ``BadInput`` where no node is left or
    nothing joins the hosts.
    """
    kept, twice = _distinct(members)
    if not kept:
        reasons = "; ".join(finding.message for finding in findings[:3])
        raise BadInput(f"no node is left to merge{': ' + reasons if reasons else ''}", hint=_first_hint(findings))
    names = cluster_names(kept)
    hosts = sum(len(topology.hosts) for _, topology in kept)
    shared = _shared_names(kept)
    hosts_only = [
        relabelled(topology, names[place], prefixed=hosts > 1, shared=shared[place]) for place, (_, topology) in enumerate(kept)
    ]
    joining = join_cards(hosts_only, network)
    joined = join_domains(
        [device for topology in joining.topologies for device in topology.devices],
        [link for topology in joining.topologies for link in topology.links],
    )
    wires = wire(network, joining.cards)
    said = [text for _, topology in kept for text in topology.origin.assumptions]
    merged = Topology(
        name=name,
        hosts=tuple(host for topology in joining.topologies for host in topology.hosts),
        devices=(*wires.devices, *joined.devices),
        links=(*joined.links, *wires.links),
        origin=Origin(
            _kind([topology for _, topology in kept]),
            source or f"{hosts} host{'s' * (hosts > 1)} merged: {_shortened([label for label, _ in kept])}",
            tuple(dict.fromkeys((*said, *joining.assumptions, *joined.assumptions, *wires.assumptions))),
        ),
        observed=tuple(one for topology in joining.topologies for one in topology.observed),
        findings=(*findings, *twice, *_gathered(hosts_only)),
        measurements=tuple(curve for topology in joining.topologies for curve in topology.measurements),
    )
    try:
        merged.check()
    except BadInput as error:
        raise BadInput(error.problem, path=error.path, hint=error.hint or f"say what network joins them: {HOW_TO_SAY}") from None
    return _ordered(merged)


def _ordered(topology: Topology) -> Topology:
    """Devices and links as :func:`planner.documents.topology.parse_topology` orders them: what is shared, then host by host."""
    order = {"": -1} | {host.name: place for place, host in enumerate(topology.hosts)}
    by_id = topology.by_id
    devices = sorted(topology.devices, key=lambda device: order[device.host])
    links = sorted(topology.links, key=lambda link: order[by_id[link.a].host or by_id[link.b].host])
    return replace(topology, devices=tuple(devices), links=tuple(links))


def _distinct(members: Sequence[Member]) -> tuple[list[Member], list[Finding]]:
    """Members without those that show a GPU that an earlier one showed."""
    owner: dict[str, str] = {}
    kept, twice = [], []
    for label, topology in members:
        uuids = [gpu.facts.uuid for gpu in topology.gpus if not isinstance(gpu.facts.uuid, Unknown)]
        known = next((owner[uuid] for uuid in uuids if uuid in owner), None)
        if known is None:
            kept.append((label, topology))
            owner |= dict.fromkeys(uuids, label)
        else:
            hint = "capture every host once; with containers, one on each host"
            twice.append(Finding("node-twice", f"{label} is the same machine as {known} by its GPUs' UUIDs; taken once", hint))
    return kept, twice


def _shared_names(members: Sequence[Member]) -> list[dict[str, str]]:
    """New ids for shared NVSwitches that several clusters call the same."""
    taken: set[str] = set()
    found = []
    for _, topology in members:
        names = {}
        for device in topology.devices:
            if not device.host and device.kind is not DeviceKind.NETWORK:
                free = (device.id, *(f"{device.id}-{number}" for number in range(2, len(members) + 2)))
                names[device.id] = next(name for name in free if name not in taken)
                taken.add(names[device.id])
        found.append(names)
    return found


def _gathered(topologies: Sequence[Topology]) -> list[Finding]:
    """The hosts' findings; one that several make is there once, with their names."""
    found: dict[Finding, list[tuple[Topology, Finding]]] = {}
    for topology in topologies:
        for finding in topology.findings:
            found.setdefault(replace(finding, devices=()), []).append((topology, finding))
    gathered = []
    for finding, there in found.items():
        alone = [topology.hosts[0].name for topology, _ in there if len(topology.hosts) == 1]
        named = len(topologies) > 1 and alone
        message = f"{finding.message} (on {_shortened(alone)})" if named else finding.message
        devices = tuple(dict.fromkeys(device for _, one in there for device in one.devices))
        gathered.append(replace(finding, message=message, devices=devices))
    return gathered


def _kind(topologies: Sequence[Topology]) -> OriginKind:
    """Where all of it came from; parts that came from different places were put together by somebody."""
    kinds = {topology.origin.kind for topology in topologies}
    return kinds.pop() if len(kinds) == 1 else "written"


def _shortened(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _first_hint(findings: Sequence[Finding]) -> str:
    return next((finding.hint for finding in findings if finding.hint), "pass the captures or topologies of at least one host")
