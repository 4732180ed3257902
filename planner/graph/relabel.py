"""What hosts are called in a cluster: names that are unique, and device ids that start with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.core.topology import Topology
from planner.graph.network import identifier

NAMELESS = frozenset({"localhost", "localhost.localdomain", "node", "node0", "host", "this-host"})
"""What a host is called that nobody named."""


def cluster_names(members: Sequence[tuple[str, Topology]]) -> list[dict[str, str]]:
    """For every member its hosts' names in the cluster, by their present ones.

    A host's own name if it is one and nobody else has it, else what the member is called, else ``node0``, ``node1`` …
    """
    named = [{host.name for host in one.hosts if len(one.hosts) > 1 or host.name not in NAMELESS} for _, one in members]
    own = Counter(name for names in named for name in names)
    labels = [
        {host.name: identifier(label if len(topology.hosts) == 1 else f"{label}-{host.name}") for host in topology.hosts}
        for label, topology in members
    ]
    often = Counter(label for names in labels for label in names.values())
    taken: set[str] = set()
    found: list[dict[str, str]] = [{} for _ in members]
    for number, (_, topology) in enumerate(members):
        for host in topology.hosts:
            if host.name in named[number] and own[host.name] == 1 and identifier(host.name) == host.name:
                found[number][host.name] = host.name
                taken.add(host.name)
    for number, (_, topology) in enumerate(members):
        for host in topology.hosts:
            label = labels[number][host.name]
            if host.name not in found[number] and often[label] == 1 and label not in taken:
                found[number][host.name] = label
                taken.add(label)
    running = (f"node{number}" for number in range(2 * sum(len(one.hosts) for _, one in members)))
    for number, (_, topology) in enumerate(members):
        for host in topology.hosts:
            if host.name not in found[number]:
                found[number][host.name] = next(name for name in running if name not in taken)
    return found


def relabelled(
    topology: Topology, names: Mapping[str, str], *, prefixed: bool, shared: Mapping[str, str] | None = None
) -> Topology:
    """``topology`` with its hosts called by ``names`` (those not in it stay), and the ids of what they hold to match.

    ``prefixed`` as in a topology of several hosts (``node1/gpu0``). ``shared`` renames what hosts share.
    """
    ids: dict[str, str] = {}
    for device in topology.devices:
        if not device.host:
            ids[device.id] = (shared or {}).get(device.id, device.id)
            continue
        bare = device.id.removeprefix(f"{device.host}/")
        ids[device.id] = f"{names.get(device.host, device.host)}/{bare}" if prefixed else bare
    return replace(
        topology,
        hosts=tuple(replace(host, name=names.get(host.name, host.name)) for host in topology.hosts),
        devices=tuple(
            replace(device, id=ids[device.id], host=names.get(device.host, device.host) if device.host else "")
            for device in topology.devices
        ),
        links=tuple(replace(link, a=ids[link.a], b=ids[link.b]) for link in topology.links),
        observed=tuple((ids[a], ids[b], word) for a, b, word in topology.observed),
        findings=tuple(
            replace(finding, devices=tuple(ids.get(device, device) for device in finding.devices))
            for finding in topology.findings
        ),
        measurements=tuple(replace(curve, gpus=tuple(ids[gpu] for gpu in curve.gpus)) for curve in topology.measurements),
    )
