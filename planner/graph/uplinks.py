"""What the switches above a host's network cards carry for a group of hosts."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

from planner.core.topology import DeviceKind, LinkKind, Topology

Rate = float


class Uplinks:
    """The network of an equipped topology as levels of switches: leaves hold cards, every other level joins the one below."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    @cached_property
    def cards(self) -> dict[str, list[tuple[Rate, str]]]:
        """For every host: what each of its network links achieves, and the leaf it ends at; the fastest first."""
        cards: dict[str, list[tuple[Rate, str]]] = {host.name: [] for host in self._topology.hosts}
        by_id = self._topology.by_id
        for link in self._topology.links:
            if link.kind is LinkKind.NETWORK:
                for card, leaf in ((link.a, link.b), (link.b, link.a)):
                    if by_id[card].kind is DeviceKind.NIC:
                        cards[by_id[card].host].append((float(link.achieved or 0.0), leaf))
        return {host: sorted(there, key=lambda one: -one[0]) for host, there in cards.items()}

    @cached_property
    def _up(self) -> dict[str, dict[str, Rate]]:
        """For every switch: the switches of the next level that it is joined to, with the rate up to each."""
        neighbours: dict[str, dict[str, Rate]] = {}
        for link in self._topology.links:
            ends = (link.a, link.b)
            if link.kind is LinkKind.NETWORK and all(self._topology.by_id[end].kind is DeviceKind.NETWORK for end in ends):
                for a, b in (ends, ends[::-1]):
                    there = neighbours.setdefault(a, {})
                    there[b] = there.get(b, 0.0) + float(link.achieved or 0.0)
        edge = list(dict.fromkeys(leaf for cards in self.cards.values() for _, leaf in cards))
        level = dict.fromkeys(edge, 0)
        for switch in edge:  # grows while it is walked
            for other in neighbours.get(switch, {}):
                if other not in level:
                    level[other] = level[switch] + 1
                    edge.append(other)
        return {
            switch: {other: rate for other, rate in neighbours.get(switch, {}).items() if level[other] > level[switch]}
            for switch in level
        }

    @cached_property
    def below(self) -> dict[str, frozenset[str]]:
        """For every switch: the hosts that hang from it, by however many switches."""
        found: dict[str, set[str]] = {switch: set() for switch in self._up}
        for host, cards in self.cards.items():
            edge = list(dict.fromkeys(leaf for _, leaf in cards))
            for switch in edge:
                found[switch].add(host)
                edge += [other for other in self._up[switch] if other not in edge]
        return {switch: frozenset(hosts) for switch, hosts in found.items()}

    def share(self, leaf: str, hosts: Collection[str]) -> Rate:
        """What one of ``hosts`` gets through ``leaf`` to the others, B/s: infinite where all of them hang from it.

        At every level on the way to a switch that all hang from, the uplinks are shared by the group's hosts below.
        """
        group = frozenset(hosts)
        share, edge = float("inf"), {leaf}
        while not any(group <= self.below[switch] for switch in edge):
            inside = group & frozenset().union(*(self.below[switch] for switch in edge))
            share = min(share, sum(sum(self._up[switch].values()) for switch in edge) / max(1, len(inside)))
            edge = {other for switch in edge for other in self._up[switch]}
            if not edge:
                return 0.0
        return share
