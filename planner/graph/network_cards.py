"""Which cards of a host the cluster's network joins, and the ones that nobody saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from planner.core.topology import Device, DeviceKind, Link, LinkKind, Topology
from planner.core.unknown import Unknown
from planner.graph.network import Card, Network
from planner.graph.paths import PathKind, Paths
from planner.units import BytesPerSecond

SLOWEST_RATE = BytesPerSecond(25e9 / 8)
"""Slower cards are for management: RDMA cards start at 25 Gb/s."""


@dataclass
class Joining:
    """Hosts with the cards that were added, the cards to join, and what was assumed, by what is assumed → where."""

    topologies: list[Topology] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)
    said: dict[str, list[str]] = field(default_factory=dict)

    def say(self, assumption: str, where: str) -> None:
        """Note an assumption about a host or a card."""
        self.said.setdefault(assumption, []).append(where)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Each once, with where it holds."""
        return tuple(f"{text}: {_list(where)}" for text, where in self.said.items())


def join_cards(topologies: Sequence[Topology], network: Network) -> Joining:
    """The cards of every host that ``network`` joins. Networks that the topologies have of their own are taken out."""
    joining = Joining()
    for topology in topologies:
        rates = _own_rates(topology)
        bare = _without_network(topology)
        if network.wiring != "none":
            paths = Paths(bare)
            for host in [host.name for host in topology.hosts]:
                bare = _join_host(joining, bare, paths, host, rates, network)
        joining.topologies.append(bare)
    return joining


def _own_rates(topology: Topology) -> dict[str, BytesPerSecond]:
    """What cards carry: as they say, else as their link to a network says."""
    rates = {device.id: device.rate for device in topology.devices if device.rate is not None}
    for link in topology.links:
        if link.kind is LinkKind.NETWORK and not isinstance(link.bandwidth, Unknown):
            for end in (link.a, link.b):
                rates.setdefault(end, link.bandwidth)
    return rates


def _without_network(topology: Topology) -> Topology:
    return replace(
        topology,
        devices=tuple(device for device in topology.devices if device.kind is not DeviceKind.NETWORK),
        links=tuple(link for link in topology.links if link.kind is not LinkKind.NETWORK),
    )


def _join_host(
    joining: Joining, topology: Topology, paths: Paths, host: str, rates: dict[str, BytesPerSecond], network: Network
) -> Topology:
    usable = []
    for nic in topology.nics(host):
        rate = rates.get(nic.id, network.rate)
        if rate is None:
            joining.say("nobody says how fast these cards are, so they are not joined (say it: --network 8x400)", nic.id)
        elif rate < SLOWEST_RATE:
            joining.say("cards below 25 Gb/s are taken to be for management and not joined", nic.id)
        else:
            usable.append(Card(nic.id, host, rate))
            if nic.id not in rates:
                joining.say(f"{rate * 8 / 1e9:g} Gb/s, as --network says, for cards that do not tell", host)
    chosen = usable
    if network.cards is not None and len(usable) > network.cards:
        gpus = [gpu.id for gpu in topology.gpus if gpu.host == host]
        near = {card.id: min(paths.pcie_kind(gpu, card.id) for gpu in gpus) if gpus else PathKind.SYS for card in usable}
        best = sorted(usable, key=lambda card: (-card.rate, near[card.id]))[: network.cards]
        chosen = [card for card in usable if card in best]
        left = ", ".join(card.id.removeprefix(f"{host}/") for card in usable if card not in best)
        joining.say(f"--network joins {network.cards} cards a host, the fastest and those nearest to GPUs; {left} left out", host)
    joining.cards += chosen
    if network.cards is None or network.rate is None or len(usable) >= network.cards:
        return topology
    missing = network.cards - len(usable)
    rate_words = f"{network.rate * 8 / 1e9:g} Gb/s"
    joining.say(f"{missing} card{'s' * (missing > 1)} of {rate_words} that nobody saw, added because --network says so", host)
    topology, added = _with_cards(topology, paths, host, len(usable), network.cards)
    joining.cards += [Card(identifier, host, network.rate) for identifier in added]
    return topology


def _with_cards(topology: Topology, paths: Paths, host: str, first: int, total: int) -> tuple[Topology, list[str]]:
    """Cards ``first`` to ``total`` spread evenly over the GPUs: beside a GPU that hangs from a PCIe switch, else on its socket."""
    gpus = [gpu.id for gpu in topology.gpus if gpu.host == host]
    taken = {device.id for device in topology.devices}
    prefix = f"{host}/" if gpus and gpus[0].startswith(f"{host}/") else ""
    devices: list[Device] = []
    links: list[Link] = []

    def new(word: str, kind: DeviceKind) -> str:
        found = next(name for name in (f"{prefix}{word}{number}" for number in range(len(taken) + 1)) if name not in taken)
        taken.add(found)
        devices.append(Device(found, kind, host))
        return found

    added = []
    for number in range(first, total if gpus else first):
        chain = paths.ancestors(gpus[number * len(gpus) // total])
        above = chain[1]
        if topology.by_id[above].kind is not DeviceKind.PCIE_SWITCH:
            above = new("bridge", DeviceKind.HOST_BRIDGE)
            links.append(Link(chain[-1], above, LinkKind.PCIE))
        added.append(new("nic", DeviceKind.NIC))
        links.append(Link(above, added[-1], LinkKind.PCIE))
    return replace(topology, devices=(*topology.devices, *devices), links=(*topology.links, *links)), added


def _list(where: Sequence[str], most: int = 6) -> str:
    return ", ".join(where[:most]) + (f" and {len(where) - most} more" if len(where) > most else "")
