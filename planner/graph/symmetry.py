"""Which GPUs of a host can be swapped without changing anything: the search need not try both."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from planner.core.topology import PEER_LINKS, Topology
from planner.graph.paths import Paths


def interchangeable(topology: Topology, gpus: Sequence[int]) -> list[list[int]]:
    """``gpus`` (indices, of one host) in classes of equals, each ascending, classes by their first GPU.

    Two GPUs are equal when swapping them is a symmetry of the links that GPUs use among themselves: same model and
    memory, private ways of the same make up to the same shared device, the same NVLinks to every third device.
    """
    paths = Paths(topology)
    ids = [topology.gpus[gpu].id for gpu in gpus]
    below = _gpus_below(topology, paths)
    places = {identifier: _place(topology, paths, identifier, below) for identifier in ids}
    peers = {identifier: _peers(topology, identifier) for identifier in ids}
    classes: list[list[int]] = []
    for gpu, identifier in zip(gpus, ids, strict=True):
        for members in classes:
            other = topology.gpus[members[0]].id
            if places[identifier] == places[other] and _alike(peers, identifier, other):
                members.append(gpu)
                break
        else:
            classes.append([gpu])
    return classes


def _gpus_below(topology: Topology, paths: Paths) -> Mapping[str, int]:
    count: dict[str, int] = {}
    for gpu in topology.gpus:
        for device in paths.ancestors(gpu.id):
            count[device] = count.get(device, 0) + 1
    return count


def _place(topology: Topology, paths: Paths, gpu: str, below: Mapping[str, int]) -> Hashable:
    """What the GPU is, the private part of its way up, and the first device it shares with another GPU."""
    device = topology.by_id[gpu]
    chain = paths.ancestors(gpu)
    shared = next((step for step in chain if below[step] > 1), chain[-1])
    private = chain[: chain.index(shared) + 1] if below[shared] > 1 else chain
    links = [topology.links[number] for number, _ in paths.up(gpu, private[-1])]
    kinds = tuple(topology.by_id[step].kind for step in private[1:-1])
    rates = tuple((link.achieved, str(link.bandwidth)) for link in links)
    return device.host, device.hardware, device.memory, kinds, rates, private[-1]


def _peers(topology: Topology, gpu: str) -> dict[str, Hashable]:
    peers: dict[str, Hashable] = {}
    for link in topology.links:
        if link.kind in PEER_LINKS and gpu in (link.a, link.b):
            other = link.b if link.a == gpu else link.a
            peers[other] = (link.kind, link.achieved, str(link.bandwidth))
    return peers


def _alike(peers: Mapping[str, Mapping[str, Hashable]], one: str, other: str) -> bool:
    left = {peer: link for peer, link in peers[one].items() if peer != other}
    right = {peer: link for peer, link in peers[other].items() if peer != one}
    return left == right
