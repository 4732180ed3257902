"""Machines drawn at random: PCIe trees, NVLink bridges of differing width, NVSwitches, one node or several on rails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from hypothesis import strategies as st

from planner.core.topology import Device, DeviceKind, Host, Link, LinkKind, Origin, PeerToPeer, Topology
from planner.units import BytesPerSecond

MODELS = ("RTX-3090", "A100-PCIe-80GB", "A100-SXM4-80GB", "H100-SXM5-80GB", "B200-SXM-180GB")


def link(a: str, b: str, kind: LinkKind, rate: float) -> Link:
    """A link that carries ``rate`` GB/s each way."""
    carried = BytesPerSecond(rate * 1e9)
    return Link(a, b, kind, carried, "achieved", achieved=carried)


@st.composite
def hosts(draw: st.DrawFn, name: str = "h", most: int = 6, cards: int = 0, least: int = 2) -> Topology:
    """One host with ``least`` to ``most`` GPUs of one model and so many network cards, which end nowhere yet."""

    def rate(*choices: float) -> float:
        """One of the usual GB/s, or any."""
        return draw(st.sampled_from(choices) | st.integers(3, 100).map(float))

    def new(identifier: str, kind: DeviceKind, above: str, speed: float) -> str:
        devices.append(Device(f"{name}/{identifier}", kind, name))
        links.append(link(above, devices[-1].id, LinkKind.PCIE, speed))
        return devices[-1].id

    count, model = draw(st.integers(least, most)), draw(st.sampled_from(MODELS))
    sockets = [f"{name}/so{number}" for number in range(draw(st.integers(1, 2)))]
    devices = [Device(socket, DeviceKind.SOCKET, name) for socket in sockets]
    links = [link(sockets[0], sockets[1], LinkKind.SOCKET, rate(6, 10, 16, 22, 40))] if len(sockets) == 2 else []
    bridges = [
        new(f"br{number}", DeviceKind.HOST_BRIDGE, sockets[number % len(sockets)], rate(24, 48, 96))
        for number in range(draw(st.integers(len(sockets), 3)))
    ]
    switches = [
        new(f"sw{number}", DeviceKind.PCIE_SWITCH, draw(st.sampled_from(bridges)), rate(12, 24, 48))
        for number in range(draw(st.integers(0, 2)))
    ]
    tops = [*bridges, *switches]
    gpus = [f"{name}/gpu{number}" for number in range(count)]
    for number, gpu in enumerate(gpus):
        devices.append(Device(gpu, DeviceKind.GPU, name, number, model))
        links.append(link(draw(st.sampled_from(tops)), gpu, LinkKind.PCIE, rate(6, 12, 24, 24, 24)))
    for number in range(cards):
        new(f"nic{number}", DeviceKind.NIC, draw(st.sampled_from(tops)), rate(12, 24, 48))
    wired = draw(st.sampled_from(["bare", "bridges", "switch"])) if count > 1 else "bare"
    if wired == "bridges":
        pairs = [(a, b) for place, a in enumerate(gpus) for b in gpus[place + 1 :]]
        some = draw(st.sets(st.sampled_from(pairs), max_size=6))
        links += [link(a, b, LinkKind.NVLINK, rate(12, 20, 25, 36, 48, 100)) for a, b in sorted(some)]
    elif wired == "switch":
        devices.append(Device(f"{name}/nvswitch", DeviceKind.NVSWITCH, name))
        port = rate(144, 240, 370.8, 721.8)
        links += [link(gpu, f"{name}/nvswitch", LinkKind.NVLINK, port) for gpu in gpus]
    peer_to_peer: PeerToPeer = draw(st.sampled_from(["enabled", "disabled", "unknown"]))
    return Topology(name, (Host(name, peer_to_peer),), tuple(devices), tuple(links), Origin("written", "drawn"))


@st.composite
def clusters(draw: st.DrawFn) -> Topology:
    """Two or three hosts of up to three GPUs on one network, with one to three cards each."""
    parts = [draw(hosts(f"h{number}", 3, draw(st.integers(1, 3)), least=1)) for number in range(draw(st.integers(2, 3)))]
    rate = draw(st.sampled_from([3.0, 12.0, 25.0, 50.0]) | st.integers(1, 100).map(float))
    devices = [Device("network", DeviceKind.NETWORK), *(device for part in parts for device in part.devices)]
    links = [one for part in parts for one in part.links]
    links += [link(card.id, "network", LinkKind.NETWORK, rate) for card in devices if card.kind is DeviceKind.NIC]
    every = tuple(host for part in parts for host in part.hosts)
    return Topology("cluster", every, tuple(devices), tuple(links), Origin("written", "drawn"))


def machines() -> st.SearchStrategy[Topology]:
    """One host, or a few."""
    return st.one_of(hosts(), clusters()).map(checked)


def checked(topology: Topology) -> Topology:
    """The machine itself, which breaks no invariant."""
    topology.check()
    return topology


def with_rates(topology: Topology, faster: Callable[[int], float]) -> Topology:
    """The machine with every link, by number, so many times as fast."""
    links = []
    for number, one in enumerate(topology.links):
        carried = BytesPerSecond(float(one.achieved or 0.0) * faster(number))
        links.append(replace(one, bandwidth=carried, achieved=carried))
    return replace(topology, links=tuple(links))


def renumbered(topology: Topology, index: Mapping[str, int]) -> Topology:
    """The machine with GPUs of other indices, and its devices and links written down in reverse."""
    devices = [replace(one, index=index[one.id]) if one.kind is DeviceKind.GPU else one for one in reversed(topology.devices)]
    links = [replace(one, a=one.b, b=one.a) for one in reversed(topology.links)]
    return replace(topology, devices=tuple(devices), links=tuple(links))
