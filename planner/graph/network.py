"""The network that joins hosts: what people say of it, and the switches and links that it means.

    8x400                      every host has 8 cards of 400 Gb/s on one flat network
    8x400,leaf=16              a leaf switch for 16 hosts, a spine above
    8x400,leaf=16,oversubscription=2
    8x400,rail                 rail-optimised: leaf i joins card i of every host, a spine joins the leaves
    8x400,rail,leaf=32         the same for every 32 hosts
    8x400,tree=topology.conf   the switches of a Slurm file
    topology.conf              the same with the cards that were seen
    none                       no network: hosts that share an NVSwitch

A leaf's uplink carries what its cards carry together, divided by the oversubscription.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from planner.core.topology import Device, DeviceKind, Link, LinkKind
from planner.errors import BadInput
from planner.units import BytesPerSecond

MAX_CARDS = 128
NETWORK = "network"
SPINE = "spine"
HOW_TO_SAY = (
    "write NICSxGBPS, for example 8x400; 8x400,leaf=16,oversubscription=2; 8x400,rail; "
    "or the path of Slurm's topology.conf or topology.yaml"
)

Wiring = Literal["flat", "leaves", "rails", "tree", "none"]


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch with the nodes and the switches below it, by name."""

    name: str
    nodes: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What is said of a network.

    ``cards`` a host (``None``: those that were seen), ``rate`` of a card where it does not tell, ``hosts_a_leaf``
    (``None``: all of them), ``oversubscription`` of every uplink (``None``: not said, taken as 1), ``switches`` of a tree.
    """

    wiring: Wiring = "flat"
    cards: int | None = None
    rate: BytesPerSecond | None = None
    hosts_a_leaf: int | None = None
    oversubscription: float | None = None
    switches: tuple[Switch, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """A network card that is joined: the device, its host, its rate in one direction."""

    id: str
    host: str
    rate: BytesPerSecond


AS_SEEN = Network()
"""Nobody said anything: the cards that were seen, on one flat network."""

_CARDS = re.compile(r"(?P<cards>\d+)x(?P<rate>\d+(?:\.\d+)?)", re.IGNORECASE)


def parse_network(text: str, read_tree: Callable[[str], tuple[Switch, ...]]) -> Network:
    """The network a SPEC means; ``read_tree`` reads the file that a path names. Raises ``BadInput``.

    >>> network = parse_network("8x400,leaf=16,oversubscription=2", lambda path: ())
    >>> network.cards, network.rate, network.hosts_a_leaf, network.oversubscription
    (8, 50000000000.0, 16, 2.0)
    """
    text = text.strip()
    if text == "none":
        return Network(wiring="none")
    first, *rest = text.split(",")
    match = _CARDS.fullmatch(first.strip())
    if match is None:
        return Network(wiring="tree", switches=read_tree(text))
    cards, gigabits = int(match["cards"]), float(match["rate"])
    if not 1 <= cards <= MAX_CARDS or not 0 < gigabits < 1e6:
        raise BadInput(f"{first!r} is not a number of cards and their Gb/s", path=text, hint=HOW_TO_SAY)
    words = [word.strip().partition("=")[::2] for word in rest]
    options = dict(words)
    for word, _ in words:
        if word not in {"rail", "leaf", "oversubscription", "tree"} or [one for one, _ in words].count(word) > 1:
            raise BadInput(f"{word!r} is not understood, or there twice", path=text, hint=HOW_TO_SAY)
    if "tree" in options and ("leaf" in options or "rail" in options):
        raise BadInput("a tree says itself what its leaves are", path=text, hint=HOW_TO_SAY)
    if options.get("rail"):
        raise BadInput("'rail' takes no value", path=text, hint=HOW_TO_SAY)
    wiring: Wiring = "rails" if "rail" in options else "leaves" if "leaf" in options else "tree" if "tree" in options else "flat"
    if wiring == "flat" and "oversubscription" in options:
        raise BadInput("a flat network has no uplinks to oversubscribe", path=text, hint=HOW_TO_SAY)
    return Network(
        wiring=wiring,
        cards=cards,
        rate=BytesPerSecond(gigabits * 1e9 / 8),
        hosts_a_leaf=int(_number(options["leaf"], text, r"[1-9]\d{0,5}")) if "leaf" in options else None,
        oversubscription=(
            _number(options["oversubscription"], text, r"\d{1,3}(?:\.\d{1,6})?") if "oversubscription" in options else None
        ),
        switches=read_tree(options["tree"]) if "tree" in options else (),
    )


def _number(word: str, text: str, pattern: str) -> float:
    if re.fullmatch(pattern, word) is None or float(word) < 1:
        raise BadInput(f"{word!r} is not a number of 1 or more", path=text, hint=HOW_TO_SAY)
    return float(word)


@dataclass(frozen=True, slots=True)
class Wires:
    """Switches and links between hosts, and what was assumed for them."""

    devices: tuple[Device, ...] = ()
    links: tuple[Link, ...] = ()
    assumptions: tuple[str, ...] = ()


def wire(network: Network, cards: Sequence[Card]) -> Wires:
    """The switches of ``network`` and the links that ``cards`` (by host, in order) and switches are joined by.

    Raises ``BadInput`` for a host that is not in the tree.
    """
    if network.wiring == "none" or not cards:
        return Wires()
    if network.wiring == "flat":
        return Wires((Device(NETWORK, DeviceKind.NETWORK),), tuple(_link(card.id, NETWORK, card.rate) for card in cards))
    wiring = _Wiring(network)
    if network.wiring == "tree":
        wiring.tree(cards)
    else:
        wiring.leaves(cards)
    return wiring.wires()


def _link(a: str, b: str, rate: float) -> Link:
    return Link(a, b, LinkKind.NETWORK, BytesPerSecond(rate))


class _Wiring:
    """Leaves and what is above them, put together one by one."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._devices: list[Device] = []
        self._links: list[Link] = []
        self._uplinks = 0

    def wires(self) -> Wires:
        said = []
        if self._uplinks and self._network.oversubscription is None:
            said.append("every leaf's uplinks carry what its cards carry together (no oversubscription was stated)")
        return Wires(tuple(self._devices), tuple(self._links), tuple(said))

    def leaves(self, cards: Sequence[Card]) -> None:
        """Leaves of so many hosts, with rails one for each card of a host; a spine if there are several."""
        hosts = list(dict.fromkeys(card.host for card in cards))
        each = self._network.hosts_a_leaf or len(hosts)
        rails = self._network.wiring == "rails"
        members: dict[tuple[int, int], list[Card]] = {}
        for place, host in enumerate(hosts):
            for number, card in enumerate(one for one in cards if one.host == host):
                members.setdefault((place // each, number if rails else 0), []).append(card)
        several_pods = len(hosts) > each
        for (pod, rail), there in sorted(members.items()):
            name = f"leaf{pod}" if not rails else f"leaf{pod}-rail{rail}" if several_pods else f"rail{rail}"
            self._switch(name)
            self._links += [_link(card.id, name, card.rate) for card in there]
            if len(members) > 1:
                self._uplink(name, SPINE, sum(card.rate for card in there))
        if len(members) > 1:
            self._switch(SPINE)

    def tree(self, cards: Sequence[Card]) -> None:
        """The switches of a tree that have a host below them; the cards of a host take turns over its leaves."""
        nodes = _Tree(self._network.switches)
        below: dict[str, float] = {}
        links: list[Link] = []
        hosts = list(dict.fromkeys(card.host for card in cards))
        for host, leaves in zip(hosts, nodes.leaves_of(hosts), strict=True):
            for number, card in enumerate(one for one in cards if one.host == host):
                leaf = leaves[number % len(leaves)]
                links.append(_link(card.id, identifier(leaf.name), card.rate))
                for name in {leaf.name, *nodes.above(leaf.name)}:
                    below[name] = below.get(name, 0.0) + card.rate
        top = nodes.needed(below, max(below.values()))
        for switch in self._network.switches:
            if switch.name in below and switch.name not in top:
                self._switch(identifier(switch.name), switch.name)
        self._links += links
        for switch in self._network.switches:
            for child in switch.switches:
                if child in below and switch.name in below and switch.name not in top:
                    self._uplink(identifier(child), identifier(switch.name), below[child] / len(nodes.parents[child]))

    def _switch(self, name: str, label: str = "") -> None:
        self._devices.append(Device(name, DeviceKind.NETWORK, label="" if label == name else label))

    def _uplink(self, switch: str, above: str, rate: float) -> None:
        self._uplinks += 1
        self._links.append(_link(switch, above, rate / (self._network.oversubscription or 1.0)))


def identifier(name: str) -> str:
    """A name as the id of a device, or the name of a host: letters, digits, ``_``, ``.`` and ``-``, starting with one of the former.

    >>> identifier("sw root"), identifier("-x"), identifier("//")
    ('sw-root', 'x', 'x')
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-_.") or "x"


class _Tree:
    """Questions about a tree of switches."""

    def __init__(self, switches: Sequence[Switch]) -> None:
        self.by_name = {switch.name: switch for switch in switches}
        self.parents: dict[str, list[str]] = {switch.name: [] for switch in switches}
        for switch in switches:
            for child in switch.switches:
                self.parents.setdefault(child, []).append(switch.name)

    def leaves_of(self, hosts: Sequence[str]) -> Iterator[list[Switch]]:
        """The leaf switches of each host, which is known by its full name or by what stands before the first dot."""
        full: dict[str, list[Switch]] = {}
        short: dict[str, list[Switch]] = {}
        for switch in self.by_name.values():
            for node in switch.nodes:
                full.setdefault(node, []).append(switch)
                short.setdefault(node.split(".")[0], []).append(switch)
        for host in hosts:
            found = full.get(host) or short.get(host.split(".")[0])
            if not found:
                known = ", ".join(list(full)[:4]) + (" …" if len(full) > 4 else "")
                raise BadInput(
                    f"host {host!r} hangs from no switch",
                    path="--network",
                    hint=f"its nodes are {known}; a host is called by its own name, else by the name of its file",
                )
            yield found

    def above(self, name: str) -> set[str]:
        """All switches above one."""
        found: set[str] = set()
        edge = [name]
        while edge:
            for parent in self.parents.get(edge.pop(), []):
                if parent not in found:
                    found.add(parent)
                    edge.append(parent)
        return found

    def needed(self, below: dict[str, float], everything: float) -> set[str]:
        """Switches at the top that join nothing: all hosts hang from one switch below them."""
        idle: set[str] = set()
        for name, rate in below.items():
            lower = [child for child in self.by_name[name].switches if child in below]
            if rate >= everything and any(below[child] >= everything for child in lower) and not self.by_name[name].nodes:
                idle.add(name)
        return idle
