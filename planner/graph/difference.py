"""What changed between two topologies of one machine, in words: the question after "it was faster last week"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from planner.core.facts import GpuFacts, PeerCapability
from planner.core.measured import MeasuredCurve
from planner.core.topology import PEER_LINKS, Device, DeviceKind, Host, Link, LinkKind, Topology
from planner.core.unknown import Unknown
from planner.graph.matching import Match, match
from planner.graph.paths import Paths, link_class
from planner.units import write_quantity

ChangeKind = Literal[
    "host-gone", "host-new", "host-fact", "gpu-gone", "gpu-new", "gpu-moved", "gpu-model", "gpu-memory", "gpu-replaced",
    "gpu-fact", "nic-gone", "nic-new", "nic-rate", "switch-gone", "switch-new", "link-gone", "link-new", "link-count",
    "link-generation", "link-bandwidth", "link-measured", "link-class", "peer-to-peer", "peer-status", "curve-measured",
]  # fmt: skip

SAME_MEMORY = 0.01
"""Memory sizes that differ by less are two programs' rounding of one number; ECC on or off is six per cent."""
SAME_BANDWIDTH = 0.001
SAME_MEASURED = 0.05
"""Two measurements of one link or collective that differ by less are one."""
SHOWN = 4
HOST_FACTS = {
    "driver": "driver", "cuda": "CUDA", "cpu_name": "CPU", "iommu": "IOMMU", "acs": "PCIe access control (ACS)",
    "virtual_machine": "hypervisor", "container": "container", "fabric_manager": "fabric manager",
}  # fmt: skip
GPU_FACTS = {
    "multi_instance": "MIG",
    "fabric": "NVSwitch fabric",
    "fabric_cluster": "fabric cluster",
    "fabric_clique": "fabric clique",
}
"""What is a difference. Free memory, performance state and the generation of a link at rest are not."""
CAPABILITIES: dict[PeerCapability, str] = {
    "read": "peer-to-peer reads", "write": "peer-to-peer writes", "nvlink": "peer-to-peer over NVLink",
    "atomics": "peer-to-peer atomics", "pcie": "peer-to-peer over PCIe",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. ``subject`` is the device, link or host; ``before`` and ``after`` are ``None`` where it is not there."""

    kind: ChangeKind
    subject: str
    before: str | None
    after: str | None
    message: str


def difference(before: Topology, after: Topology) -> tuple[Change, ...]:
    """What is so in ``after`` and was not in ``before``, hosts first, then GPUs, cards, links and what pairs can do.

    A device is the same where UUID, bus id or else its place among its kind agree. What only one of the two knows is no
    difference. Topologies are compared as they are stated, so without defaults.

    >>> from planner.core.topology import Origin
    >>> socket, gpu = Device("socket0", DeviceKind.SOCKET, "a"), Device("gpu0", DeviceKind.GPU, "a", 0)
    >>> def box(lanes: int) -> Topology:
    ...     link = Link("socket0", "gpu0", LinkKind.PCIE, count=lanes)
    ...     return Topology("box", (Host("a"),), (socket, gpu), (link,), Origin("written", "a test"))
    >>> [change.message for change in difference(box(16), box(8))]
    ['PCIe link of gpu0: x16 → x8, 50 % less bandwidth']
    """
    return tuple(_Comparison(before, after, match(before, after)).changes())


class _Comparison:
    def __init__(self, before: Topology, after: Topology, same: Match) -> None:
        self._before, self._after, self._same = before, after, same
        self._old, self._new = Paths(before), Paths(after)

    def changes(self) -> Iterator[Change]:
        yield from self._hosts()
        yield from self._there()
        for one, other in self._same.devices.items():
            old, new = self._before.by_id[one], self._after.by_id[other]
            if old.kind is DeviceKind.GPU:
                yield from _gpu(old, new)
            elif old.kind is DeviceKind.NIC:
                yield from _known("nic-rate", one, f"rate of {one}", _rate(old.rate), _rate(new.rate))
        yield from self._tree_links()
        yield from self._other_links()
        yield from self._between_sockets()
        yield from self._classes()
        yield from self._statuses()
        yield from self._curves()

    def _hosts(self) -> Iterator[Change]:
        for name in (host.name for host in self._before.hosts if host.name not in self._same.hosts):
            yield Change("host-gone", name, "there", None, f"gone: host {name}")
        for name in (host.name for host in self._after.hosts if host.name not in self._same.hosts.values()):
            yield Change("host-new", name, None, "there", f"new: host {name}")
        for one, other in self._same.hosts.items():
            old, new = self._before.host(one), self._after.host(other)
            for attribute, words in HOST_FACTS.items():
                yield from _known(
                    "host-fact",
                    one,
                    f"{words} of {one}",
                    _text(getattr(old.facts, attribute)),
                    _text(getattr(new.facts, attribute)),
                )
            if "unknown" not in (old.peer_to_peer, new.peer_to_peer):
                yield from _known("peer-to-peer", one, f"peer-to-peer over PCIe on {one}", old.peer_to_peer, new.peer_to_peer)

    def _there(self) -> Iterator[Change]:
        """Devices that are gone or new, of hosts that are in both."""
        kinds: dict[DeviceKind, tuple[str, ChangeKind, ChangeKind]] = {
            DeviceKind.GPU: ("GPU", "gpu-gone", "gpu-new"),
            DeviceKind.NIC: ("network card", "nic-gone", "nic-new"),
            DeviceKind.NVSWITCH: ("NVSwitch", "switch-gone", "switch-new"),
        }
        old_hosts, new_hosts = {*self._same.hosts, ""}, {*self._same.hosts.values(), ""}
        for device in self._before.devices:
            told_again = device.kind is DeviceKind.NVSWITCH and self._as_near(_members(self._before, device.id))
            if device.kind in kinds and device.host in old_hosts and device.id not in self._same.devices and not told_again:
                word, gone, _ = kinds[device.kind]
                yield Change(gone, device.id, "there", None, f"gone: {word} {_called(device)}")
        back = {other: one for one, other in self._same.devices.items()}
        for device in self._after.devices:
            members = [back.get(gpu, "") for gpu in _members(self._after, device.id)]
            told_before = device.kind is DeviceKind.NVSWITCH and self._as_near(members)
            if device.kind in kinds and device.host in new_hosts and device.id not in back and not told_before:
                word, _, new = kinds[device.kind]
                yield Change(new, device.id, None, "there", f"new: {word} {_called(device)}")

    def _as_near(self, gpus: Sequence[str]) -> bool:
        """Whether all pairs of GPUs of ``before`` are of one class in both: two captures may tell a switch or direct links."""
        same = self._same.devices
        return set(gpus) <= set(same) and all(
            link_class(self._old, a, b) == link_class(self._new, same[a], same[b]) for a in gpus for b in gpus
        )

    def _tree_links(self) -> Iterator[Change]:
        """PCIe and C2C from every GPU and card upwards, as far as both trees have the same shape."""
        done: set[int] = set()
        for one, other in self._same.devices.items():
            if self._before.by_id[one].kind not in {DeviceKind.GPU, DeviceKind.NIC}:
                continue
            chain, again = self._old.ancestors(one), self._new.ancestors(other)
            for place in range(min(len(chain), len(again)) - 1):
                ((number, _),) = self._old.up(chain[place], chain[place + 1])
                ((match_, _),) = self._new.up(again[place], again[place + 1])
                old, new = self._before.links[number], self._after.links[match_]
                if number in done or (place and len(chain) != len(again)) or old.kind is not new.kind:
                    continue
                done.add(number)
                what = one if place == 0 else f"{chain[place]} (above {one})"
                word = "PCIe" if old.kind is LinkKind.PCIE else "C2C"
                resting = place == 0 and _resting(self._before.by_id[one].facts, self._after.by_id[other].facts)
                yield from _link(old, new, f"{word} link of {what}", resting=resting)

    def _other_links(self) -> Iterator[Change]:
        """NVLinks, Infinity Fabric, networks and what joins sockets."""
        old = {self._ends(link): link for link in self._before.links if link.kind in {*PEER_LINKS, LinkKind.NETWORK}}
        new = {
            (frozenset((link.a, link.b)), link.kind): link
            for link in self._after.links
            if link.kind in {*PEER_LINKS, LinkKind.NETWORK}
        }
        back = {other: one for one, other in self._same.devices.items()}
        for key, link in old.items():
            other = new.get(key)
            if other is not None:
                yield from _link(link, other, link.name, down=self._down(link))
            elif {link.a, link.b} <= set(self._same.devices) and not self._as_near((link.a, link.b)):
                words = _what(link)
                yield Change(
                    "link-gone", link.name, words, None, f"{link.name}: {words} gone, nothing joins them directly any more"
                )
        for key, link in new.items():
            if key not in old and {link.a, link.b} <= set(back) and not self._as_near((back[link.a], back[link.b])):
                name, words = f"{back[link.a]}–{back[link.b]}", _what(link)
                yield Change("link-new", name, None, words, f"{name}: {words} that was not there before")

    def _between_sockets(self) -> Iterator[Change]:
        """What joins two sockets, where both sides have one such link: sockets have no name of their own."""
        for one, other in self._same.hosts.items():
            old, new = (
                [link for link in topology.links if link.kind is LinkKind.SOCKET and topology.by_id[link.a].host == host]
                for topology, host in ((self._before, one), (self._after, other))
            )
            if len(old) == len(new) == 1:
                yield from _measured(old[0], new[0], old[0].name)

    def _curves(self) -> Iterator[Change]:
        """Collectives that both measured over the same GPUs by the same stack, at the largest size both have."""
        same = self._same.devices
        after = {(curve.operation, curve.stack, _ranks(curve, curve.gpus)): curve for curve in self._after.measurements}
        for curve in self._before.measurements:
            if not set(curve.gpus) <= set(same):
                continue
            other = after.get((curve.operation, curve.stack, _ranks(curve, [same[gpu] for gpu in curve.gpus])))
            sizes = {size for size, _ in curve.points} & {size for size, _ in other.points} if other is not None else set()
            if other is None or not sizes:
                continue
            size = max(sizes)
            old, new = dict(curve.points)[size], dict(other.points)[size]
            if abs(new / old - 1) > SAME_MEASURED:
                name = f"{curve.operation} over {_some(curve.gpus)} by {curve.stack}"
                was, now = _duration(old), _duration(new)
                yield Change("curve-measured", name, was, now, f"{name}, {write_quantity(size, 'size')}: {was} → {now}")

    def _ends(self, link: Link) -> tuple[frozenset[str], LinkKind]:
        """A link of ``before`` by its ends in ``after``."""
        same = self._same.devices
        return frozenset((same.get(link.a, f"gone {link.a}"), same.get(link.b, f"gone {link.b}"))), link.kind

    def _down(self, link: Link) -> str:
        """Which NVLinks of the GPU at an end were up and are not."""
        for end in (link.a, link.b):
            old = self._before.by_id[end].facts.nvlinks
            new = self._after.by_id[self._same.devices[end]].facts.nvlinks
            if not isinstance(old, Unknown) and not isinstance(new, Unknown):
                up = {one.link for one in old if one.active is True}
                down = [str(one.link) for one in new if one.active is False and one.link in up]
                if down:
                    return f"link{'s' * (len(down) > 1)} {', '.join(down)} of {end} went down"
        return ""

    def _classes(self) -> Iterator[Change]:
        """Pairs of GPUs, and of a GPU and a card, whose PCIe class is another; NVLinks hide theirs."""
        leaves = [one for one in self._same.devices if self._before.by_id[one].kind in {DeviceKind.GPU, DeviceKind.NIC}]
        found: dict[tuple[str, str], list[str]] = {}
        for place, a in enumerate(leaves):
            for b in leaves[place + 1 :]:
                if DeviceKind.GPU not in (self._before.by_id[a].kind, self._before.by_id[b].kind):
                    continue
                old = link_class(self._old, a, b)
                new = link_class(self._new, self._same.devices[a], self._same.devices[b])
                if old != new and not {old[:2], new[:2]} & {"NV", "XG"}:
                    found.setdefault((old, new), []).append(f"{a}–{b}")
        for (old, new), pairs in found.items():
            yield Change("link-class", ", ".join(pairs), old, new, f"{_some(pairs)}: {old} → {new}")

    def _statuses(self) -> Iterator[Change]:
        for one, other in self._same.hosts.items():
            old, new = self._before.host(one), self._after.host(other)
            for capability, words in CAPABILITIES.items():
                found: dict[tuple[str, str], list[str]] = {}
                for pair, (was, now) in self._status_pairs(old, new, capability):
                    if was != now and "U" not in (was, now):
                        found.setdefault((was, now), []).append(pair)
                for (was, now), pairs in found.items():
                    yield Change("peer-status", ", ".join(pairs), was, now, f"{words} {_some(pairs)}: {was} → {now}")

    def _status_pairs(self, old: Host, new: Host, capability: PeerCapability) -> Iterator[tuple[str, tuple[str, str]]]:
        """Ordered pairs of GPUs of both hosts, with the driver's word before and after."""
        was, now = old.status(capability), new.status(capability)
        if was is None or now is None:
            return
        places = {self._after.gpus[gpu].id: place for place, gpu in enumerate(self._after.gpus_of_host[new.name])}
        ids = [self._before.gpus[gpu].id for gpu in self._before.gpus_of_host[old.name]]
        kept = [(place, one, places[self._same.devices[one]]) for place, one in enumerate(ids) if one in self._same.devices]
        for row, one, new_row in kept:
            for column, other, new_column in kept:
                if row != column:
                    yield f"{one}→{other}", (was[row][column], now[new_row][new_column])


def _members(topology: Topology, switch: str) -> list[str]:
    """What hangs from an NVSwitch."""
    return [end for link in topology.links if switch in (link.a, link.b) for end in (link.a, link.b) if end != switch]


def _gpu(old: Device, new: Device) -> Iterator[Change]:
    name = old.id
    if old.index != new.index:
        moved = f"{name} is GPU {new.index} now"
        yield Change("gpu-moved", name, f"index {old.index}", f"index {new.index}", moved)
    if old.hardware is None or old.hardware == new.hardware:
        yield from _known(
            "gpu-replaced", name, f"{name}: another GPU of the same model, UUID", _text(old.facts.uuid), _text(new.facts.uuid)
        )
    yield from _known("gpu-model", name, f"{name}", old.hardware, new.hardware)
    yield from _known("gpu-moved", name, f"bus id of {name}", old.bus_id, new.bus_id)
    if old.memory is not None and new.memory is not None and abs(new.memory / old.memory - 1) > SAME_MEMORY:
        was, now = f"{old.memory / 2**30:.1f} GiB", f"{new.memory / 2**30:.1f} GiB"
        yield Change("gpu-memory", name, was, now, f"memory of {name}: {was} → {now}")
    for attribute, words in GPU_FACTS.items():
        was_, now_ = _text(getattr(old.facts, attribute)), _text(getattr(new.facts, attribute))
        yield from _known("gpu-fact", name, f"{words} of {name}", was_, now_)


def _ranks(curve: MeasuredCurve, gpus: Sequence[str]) -> tuple[str, ...]:
    """The GPUs of a curve; their order matters for send/recv alone."""
    return tuple(gpus) if curve.operation == "send_recv" else tuple(sorted(gpus))


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.4g} µs"


def _measured(old: Link, new: Link, name: str) -> Iterator[Change]:
    """Where both were measured, what was."""
    if old.measured is not None and new.measured is not None and abs(new.measured / old.measured - 1) > SAME_MEASURED:
        was, now = f"{old.measured / 1e9:.4g} GB/s", f"{new.measured / 1e9:.4g} GB/s"
        message = f"{name}: measured {was} → {now}, {_share(new.measured / old.measured)}"
        yield Change("link-measured", name, was, now, message)


def _link(old: Link, new: Link, name: str, *, resting: bool = False, down: str = "") -> Iterator[Change]:
    """A link that both have: lanes or NVLinks, generation, where those are the same its bandwidth, and what was measured."""
    yield from _measured(old, new, name)
    lanes = old.kind is LinkKind.PCIE
    changed = False
    if old.count and new.count and old.count != new.count:
        changed = True
        words = f"x{old.count} → x{new.count}" if lanes else f"{old.count} → {new.count} links"
        message = f"{name}: {words}, {_share(new.count / old.count)}" + (f" ({down})" if down and new.count < old.count else "")
        yield Change("link-count", name, str(old.count), str(new.count), message)
    if old.generation and new.generation and old.generation != new.generation and not resting:
        changed = True
        # every generation of PCIe carries about twice what the one before does
        message = f"{name}: gen{old.generation} → gen{new.generation}, about {_share(2.0 ** (new.generation - old.generation))}"
        yield Change("link-generation", name, str(old.generation), str(new.generation), message)
    if changed or isinstance(old.bandwidth, Unknown) or isinstance(new.bandwidth, Unknown) or old.basis != new.basis:
        return
    if abs(new.bandwidth / old.bandwidth - 1) > SAME_BANDWIDTH:
        was, now = f"{old.bandwidth / 1e9:.4g} GB/s", f"{new.bandwidth / 1e9:.4g} GB/s"
        yield Change("link-bandwidth", name, was, now, f"{name}: {was} → {now}, {_share(new.bandwidth / old.bandwidth)}")


def _resting(old: GpuFacts, new: GpuFacts) -> bool:
    """Whether a GPU's PCIe generation may be that of a link at rest: it is idle, and nobody says what it could do."""
    return any(
        isinstance(facts.pcie_generation_possible, Unknown)
        and not isinstance(facts.performance_state, Unknown)
        and facts.performance_state != 0
        for facts in (old, new)
    )


def _share(ratio: float) -> str:
    """A ratio of bandwidths in words.

    >>> _share(17 / 18), _share(2.0)
    ('5.6 % less bandwidth', '100 % more bandwidth')
    """
    change = abs(ratio - 1) * 100
    number = f"{change:.1f}".rstrip("0").rstrip(".")
    return f"{number} % {'less' if ratio < 1 else 'more'} bandwidth"


def _known(kind: ChangeKind, subject: str, words: str, old: str | None, new: str | None) -> Iterator[Change]:
    """The change where both sides know the value and it is another."""
    if old is not None and new is not None and old != new:
        yield Change(kind, subject, old, new, f"{words}: {old} → {new}")


def _text(value: object) -> str | None:
    return None if isinstance(value, Unknown) else str(value)


def _rate(rate: float | None) -> str | None:
    return None if rate is None else f"{rate / 1e9:.4g} GB/s"


def _called(device: Device) -> str:
    more = [part for part in (device.hardware, device.label, device.bus_id) if part]
    return f"{device.id} ({', '.join(more)})" if more else device.id


def _what(link: Link) -> str:
    words: Mapping[LinkKind, str] = {LinkKind.NVLINK: "NVLinks", LinkKind.XGMI: "Infinity Fabric links"}
    count = f"{link.count} " if link.count and link.kind in words else ""
    return f"{count}{words.get(link.kind, f'{link.kind} link')}"


def _some(pairs: Sequence[str]) -> str:
    shown = ", ".join(pairs[:SHOWN])
    return shown if len(pairs) <= SHOWN else f"{shown} and {len(pairs) - SHOWN} more"
