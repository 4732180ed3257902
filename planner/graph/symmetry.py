"""Which GPUs of a host can be swapped without changing anything: the search need not try both."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from planner.core.topology import PEER_LINKS, DeviceKind, LinkKind, Topology
from planner.graph.paths import Paths


def interchangeable(topology: Topology, gpus: Sequence[int]) -> list[list[int]]:
    """``gpus`` (indices, of one host) in classes of equals, each ascending, classes by their first GPU.

    Two GPUs are equal when swapping them is a symmetry of the links that GPUs use among themselves: same model and
    memory, private ways of the same make up to the same shared device, the same NVLinks to every third device. Where
    one NVSwitch joins all of them, no two use PCIe, and where they sit on it does not matter.
    """
    paths = Paths(topology)
    ids = [topology.gpus[gpu].id for gpu in gpus]
    peers = _peers(topology)
    common = set.intersection(*(set(peers.get(identifier, {})) for identifier in ids)) if ids else set()
    if any(topology.by_id[device].kind is DeviceKind.NVSWITCH for device in common):
        places = {identifier: _what(topology, identifier) for identifier in ids}
    else:
        below = _gpus_below(topology, paths)
        places = {identifier: _place(topology, paths, identifier, below) for identifier in ids}
        for identifier in ids:
            peers[identifier] = peers.get(identifier, {}) | _lone_socket(topology, paths, identifier, below)
    sockets = {identifier: paths.ancestors(identifier)[-1] for identifier in ids}
    classes: list[list[int]] = []
    for gpu, identifier in zip(gpus, ids, strict=True):
        for members in classes:
            other = topology.gpus[members[0]].id
            swapped = {identifier, other, sockets[identifier], sockets[other]}
            if places[identifier] == places[other] and _alike(peers, identifier, other, swapped):
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
    chain = paths.ancestors(gpu)
    shared = next((step for step in chain if below[step] > 1), chain[-1])
    private = chain[: chain.index(shared) + 1] if below[shared] > 1 else chain
    alone = below[private[-1]] == 1  # a socket to itself: the links between sockets tell where it is
    links = [topology.links[number] for number, _ in paths.up(gpu, private[-1])]
    kinds = tuple(topology.by_id[step].kind for step in private[1:-1])
    rates = tuple((link.achieved, str(link.bandwidth)) for link in links)
    return _what(topology, gpu), kinds, rates, None if alone else private[-1]


def _lone_socket(topology: Topology, paths: Paths, gpu: str, below: Mapping[str, int]) -> dict[str, Hashable]:
    """For a GPU with a socket to itself: the other sockets and what joins them, as if the links were the GPU's."""
    socket = paths.ancestors(gpu)[-1]
    if below[socket] > 1:
        return {}
    joined: dict[str, Hashable] = {}
    for link in topology.links:
        if link.kind is LinkKind.SOCKET and socket in (link.a, link.b):
            joined[link.b if link.a == socket else link.a] = (link.kind, link.achieved, str(link.bandwidth))
    return joined


def _what(topology: Topology, gpu: str) -> Hashable:
    device = topology.by_id[gpu]
    return device.host, device.hardware, device.memory


def _peers(topology: Topology) -> dict[str, dict[str, Hashable]]:
    """For every device with NVLinks: its neighbours and what joins them."""
    peers: dict[str, dict[str, Hashable]] = {}
    for link in topology.links:
        if link.kind in PEER_LINKS:
            make = (link.kind, link.achieved, str(link.bandwidth))
            peers.setdefault(link.a, {})[link.b] = make
            peers.setdefault(link.b, {})[link.a] = make
    return peers


def _alike(peers: Mapping[str, Mapping[str, Hashable]], one: str, other: str, swapped: set[str]) -> bool:
    """Whether two GPUs have the same links to all that stays in place when they (and their sockets) are swapped."""
    left = {peer: link for peer, link in peers.get(one, {}).items() if peer not in swapped}
    right = {peer: link for peer, link in peers.get(other, {}).items() if peer not in swapped}
    return left == right
