"""What a machine's links carry, from copies between pairs of GPUs and from collectives.

Both ways change as little of what was assumed as explains the measurement. A link carries at least what was seen through it;
where a pair is slower than assumed, the link is to blame through which no other pair was faster.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from planner.core.topology import PEER_LINKS, DeviceKind, LinkKind, Topology
from planner.core.unknown import Unknown
from planner.cost.interconnect import Interconnect
from planner.units import BytesPerSecond

TOLERANCE = 0.02
"""Rates that differ by less are the noise of one measurement."""
DEGRADED = 0.9
"""A memcpy over sound NVLinks reaches 0.9 of what NCCL counts on, and more; below, some of them are down or slow."""
UNEXPLAINED = 0.15
LOWEST, HIGHEST = 0.01, 1.5
"""Shares of the line rate that a rate may be at which a link is said to be measured."""
_STEPS = 24
_EXACT = TOLERANCE / 4
"""Logarithms of predicted over measured below this are 0: tables are printed with two digits."""
_ROUNDS = 4

Pair = tuple[int, int]
ClassKey = tuple[str, LinkKind, tuple[str, str], float]
Settled = ClassKey | int
"""What is settled at once: a class of links, or one NVLink by number. A slow slot is how a host is built, a slow NVLink a fault."""


def class_of(topology: Topology, number: int) -> ClassKey:
    """What makes links alike: host, kind, kinds of ends, nominal rate (0 where it is not known). A network is of no host."""
    link = topology.links[number]
    ends = [topology.by_id[link.a], topology.by_id[link.b]]
    first, second = sorted(str(end.kind) for end in ends)
    host = next((end.host for end in ends if end.host and link.kind is not LinkKind.NETWORK), "")
    return host, link.kind, (first, second), 0.0 if isinstance(link.bandwidth, Unknown) else float(link.bandwidth)


def settled_with(topology: Topology, number: int) -> Settled:
    """What is settled once link ``number`` is."""
    return number if topology.links[number].kind in PEER_LINKS else class_of(topology, number)


def crossed_by(wires: Interconnect, gpus: Sequence[int]) -> set[int]:
    """The links between any two GPUs of a group, all its NVLinks, and the network links of its hosts where it is over several."""
    links, devices = wires.topology.links, wires.topology.by_id
    found = {number for a in gpus for b in gpus if a != b for number, _ in wires.path(a, b).links}
    members = {wires.topology.gpus[gpu].id for gpu in gpus}
    for number, link in enumerate(links):
        ends = {end for end in (link.a, link.b) if devices[end].kind is DeviceKind.GPU}
        if link.kind in PEER_LINKS and ends and ends <= members:
            found.add(number)
    if any(links[number].kind is LinkKind.NETWORK for number in found):
        hosts = {wires.topology.gpus[gpu].host for gpu in gpus}
        found |= set(_network_links(wires, hosts))
    return found


def port_rate(wires: Interconnect, gpus: Sequence[int]) -> BytesPerSecond:
    """The line rate of all wires by which the poorest GPU of a group reaches the others, B/s; infinite where one is not known.

    No ring, tree or copy brings more bytes out of a GPU, whatever the rest of the machine is like.
    """
    rates = []
    for gpu in gpus:
        paths = [wires.path(gpu, other) for other in gpus if other != gpu]
        first = {path.links[0][0] for path in paths if path.links}
        lines = [wires.topology.links[number].bandwidth for number in first]
        known = all(path.links for path in paths) and not any(isinstance(line, Unknown) for line in lines)
        rates.append(sum(float(line) for line in lines if not isinstance(line, Unknown)) if known else math.inf)
    return BytesPerSecond(min(rates, default=math.inf))


@dataclass(frozen=True)
class CopiesFit:
    """Links by number: the rate each is measured at, the most that was seen through each link that copies crossed, and pairs
    that are slower (rate) than the same links carry for others (expected).
    """

    measured: Mapping[int, BytesPerSecond]
    seen: Mapping[int, BytesPerSecond]
    slow: tuple[tuple[Pair, BytesPerSecond, BytesPerSecond], ...]


def fit_copies(wires: Interconnect, rates: Mapping[Pair, BytesPerSecond]) -> CopiesFit:
    """Links fitted to the rates of single copies, in one direction, by (from, to).

    Every link is raised to the most that was seen through it (a copy through host memory crosses it twice). Then, from the
    slowest pair on: where the links promise more than was measured, those are lowered to what they carried through which no
    pair was faster, of those the narrowest by assumption, all that are alike in both. A link that limits no pair stays as it
    was: one copy at a time does not fill a host bridge. NVLinks are only lowered, and only below 0.9 of what was counted on.
    """
    topology = wires.topology
    crossings = {pair: _crossings(wires, pair) for pair in rates}
    seen: dict[int, float] = {}
    for pair, links in crossings.items():
        for number, times in links.items():
            seen[number] = max(seen.get(number, 0.0), rates[pair] * times)
    carries = {number: float(topology.links[number].achieved or 0.0) for number in seen}
    measured: dict[int, float] = {}
    for number, most in seen.items():
        if topology.links[number].kind not in PEER_LINKS and most > carries[number]:
            carries[number] = measured[number] = most
    for pair, rate in sorted(rates.items(), key=lambda one: one[1]):
        links = crossings[pair]
        if links and _share(carries, links) > rate * (1 + TOLERANCE):
            for number in _to_blame(links, seen, carries):
                nvlink = topology.links[number].kind in PEER_LINKS
                if not nvlink or seen[number] < DEGRADED * carries[number]:
                    carries[number] = measured[number] = seen[number]
    for pair, rate in rates.items():
        links = crossings[pair]
        limit = _share(carries, links) if links else 0.0
        for number, times in links.items():
            binds = carries[number] / times <= limit * (1 + TOLERANCE) and limit <= rate * (1 + TOLERANCE)
            if binds and topology.links[number].kind not in PEER_LINKS:
                measured.setdefault(number, seen[number])
    after = {pair: _share(carries | measured, links) for pair, links in crossings.items() if links}
    peers = {pair for pair, links in crossings.items() if any(topology.links[number].kind in PEER_LINKS for number in links)}
    slow = tuple(
        (pair, rates[pair], BytesPerSecond(expected))
        for pair, expected in after.items()
        if expected > rates[pair] * (1 + UNEXPLAINED) and pair not in peers
    )
    return CopiesFit(
        {number: BytesPerSecond(rate) for number, rate in measured.items()},
        {number: BytesPerSecond(rate) for number, rate in seen.items()},
        slow,
    )


def _crossings(wires: Interconnect, pair: Pair) -> dict[int, int]:
    """How often a copy crosses each link, in the direction in which it does so more often."""
    found: dict[int, int] = {}
    for (number, _), times in Counter(wires.path(*pair).links).items():
        found[number] = max(found.get(number, 0), times)
    return found


def _share(carries: Mapping[int, float], links: Mapping[int, int]) -> float:
    return min(carries[number] / times for number, times in links.items())


def _to_blame(links: Mapping[int, int], seen: Mapping[int, float], carries: Mapping[int, float]) -> list[int]:
    least = min(seen[number] / times for number, times in links.items())
    slow = [number for number, times in links.items() if seen[number] / times <= least * (1 + TOLERANCE)]
    narrow = min(carries[number] / links[number] for number in slow)
    return [number for number in slow if carries[number] / links[number] <= narrow * (1 + TOLERANCE)]


def with_rates(topology: Topology, rates: Mapping[int, BytesPerSecond]) -> Topology:
    """An equipped topology whose links ``rates`` carry what it says."""
    links = tuple(
        replace(link, achieved=rates[number]) if number in rates else link for number, link in enumerate(topology.links)
    )
    return replace(topology, links=links)


@dataclass(frozen=True)
class GroupFit:
    """What a collective says of links: the rates of those it settles, by number; what the prediction is of the measured time
    with them, and a word on why that is not 1 where no link is left to explain it.
    """

    rates: Mapping[int, BytesPerSecond]
    left: float
    word: str = ""


Ratio = Callable[[Interconnect], float]
"""Predicted over measured time of a group's large messages on some wires."""


def fit_group(
    wires: Interconnect, gpus: Sequence[int], ratio: Ratio, lines: Mapping[int, float], settled: Collection[Settled]
) -> GroupFit:
    """The class of links that limits a group, scaled so that its large messages take as long as was measured.

    Of NVLinks those alone that the group crosses: one that is slow says nothing of the others. ``lines`` are line rates by number,
    where one is known. Classes in ``settled`` are left alone: where the group is slower than they allow, the blame is on the next
    one that its rings fill, a host bridge or what joins sockets; where it is faster, on nothing. A class is raised no further than
    where another one limits, and then that one is looked at.
    """
    done, start, rates = set(settled), wires, dict[int, BytesPerSecond]()
    topology, word = wires.topology, ""
    for _ in range(_ROUNDS):
        off = math.log(ratio(wires))
        slower = off < 0  # the machine is slower than its links promise
        chosen = _limiting_link(wires, gpus, done, below=slower)
        if chosen is None:
            word = "" if abs(off) <= math.log1p(TOLERANCE) else "the links that limit it are settled by other measurements"
            break
        nvlink = topology.links[chosen].kind in PEER_LINKS
        among = sorted(crossed_by(wires, gpus) - done) if nvlink else range(len(topology.links))
        numbers = [number for number in among if class_of(topology, number) == class_of(topology, chosen)]
        if nvlink and off > math.log(DEGRADED):
            word = "its NVLinks carry what NCCL counts on"
            break
        if abs(off) <= math.log1p(TOLERANCE):
            rates |= {number: _carried(wires, number) for number in numbers}
            break
        factor, met = _scaled_to(wires, numbers, ratio, lines, up=not slower)
        if factor is None:
            word = "no rate of the links that limit it explains the times"
            break
        found = {number: BytesPerSecond(float(f"{_carried(wires, number) * factor:.4g}")) for number in numbers}
        rates |= found
        wires = Interconnect(with_rates(wires.topology, found), start.specs)
        done |= {settled_with(topology, number) for number in numbers}
        if met:
            break
    return GroupFit(rates, ratio(wires), word)


def _carried(wires: Interconnect, number: int) -> BytesPerSecond:
    return BytesPerSecond(float(wires.topology.links[number].achieved or 0.0))


def _limiting_link(wires: Interconnect, gpus: Sequence[int], settled: Collection[Settled], *, below: bool) -> int | None:
    """The link that limits a group's rings; where that is settled and something is ``below`` it, the fullest that is not.

    Over several nodes it is the network.
    """
    group = wires.group(gpus)
    if group.nodes > 1:
        network = next(iter(_network_links(wires, {wires.topology.gpus[gpu].host for gpu in group.gpus})), None)
        return None if network is None or settled_with(wires.topology, network) in settled else network
    limiting = None if group.packing.limiting is None else group.packing.limiting[0]
    if limiting is not None and settled_with(wires.topology, limiting) not in settled:
        return limiting
    if limiting is None or not below:
        return None
    order = sorted(gpus, key=lambda gpu: (wires.paths.ancestors(wires.topology.gpus[gpu].id)[::-1], gpu))
    loads = Counter(link for a, b in pairwise([*order, order[0]]) for link in wires.path(a, b).links)
    by_fullness = sorted(loads, key=lambda link: wires.capacity[link] / loads[link])
    tree = (number for number, _ in by_fullness if wires.topology.links[number].kind not in PEER_LINKS)
    return next((number for number in tree if class_of(wires.topology, number) not in settled), None)


def _network_links(wires: Interconnect, hosts: Collection[str]) -> Iterator[int]:
    """The links of the hosts' cards: over several nodes the network is to blame, what is inside them is better known."""
    for number, link in enumerate(wires.topology.links):
        if link.kind is LinkKind.NETWORK and any(wires.topology.by_id[end].host in hosts for end in (link.a, link.b)):
            yield number


def _scaled_to(
    wires: Interconnect, numbers: Sequence[int], ratio: Ratio, lines: Mapping[int, float], *, up: bool
) -> tuple[float | None, bool]:
    """The factor on a class of links that meets the measured times best, and whether it meets them.

    ``None`` where no factor between 0.01 and 1.5 of the line rate changes the prediction, or none is low enough.
    """

    def off(factor: float) -> float:
        rates = {number: BytesPerSecond(_carried(wires, number) * factor) for number in numbers}
        return math.log(ratio(Interconnect(with_rates(wires.topology, rates), wires.specs)))

    carried = [_carried(wires, number) for number in numbers]
    if min(carried) <= 0:
        return None, False
    known = [(lines[number], rate) for number, rate in zip(numbers, carried, strict=True) if number in lines]
    now = off(1.0)
    if up:
        far = min((HIGHEST * line / rate for line, rate in known), default=1 / LOWEST)
        if far <= 1:
            return None, False
        least = off(far)
        if now - least <= TOLERANCE / 2:
            return None, False
        # where another link limits before the times are met, the class goes as far as it matters
        target = max(_EXACT, least + TOLERANCE / 2)
        low, high = 1.0, far
        met = least <= 0
    else:
        far = max((LOWEST * line / rate for line, rate in known), default=LOWEST)
        least = 0.0
        if far >= 1 or off(far) < 0:
            return None, False
        target, low, high, met = _EXACT, far, 1.0, True
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        if off(middle) > target:
            low = middle
        else:
            high = middle
    # a ring's speed goes in NCCL's steps: the nearer side of a step, its lowest rate; and what was there where that is no nearer
    aim = 0.0 if met else least
    best = min((low, high), key=lambda factor: abs(off(factor) - aim))
    return (1.0 if abs(now - aim) - abs(off(best) - aim) <= TOLERANCE / 2 else best), met
