"""Groups and sends that run at the same time share the links they meet on.

A flow is the all-reduces of one tensor-parallel group, or one send from stage to stage. On a link that others use as
well a flow gets its fair share by how often each crosses it and how much of the time each is busy, or what the others
leave if that is more; the poorest of its links decides. Only bandwidth is shared: latencies stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.core.estimate import SharedLink
from planner.cost import nccl
from planner.cost.collectives import fabric_of
from planner.cost.formula import formula
from planner.cost.interconnect import GroupFacts, Interconnect
from planner.graph.paths import DirectedLink
from planner.units import Bytes, BytesPerSecond

WORTH_NAMING = 1.01
"""A slowdown below this is not worth a word."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What somebody sends: ``rate`` (B/s) when alone, and how often each byte of it crosses each directed link."""

    rate: float
    crossings: Mapping[DirectedLink, float]


@dataclass(frozen=True, slots=True)
class Flow:
    """Who sends what, and for what share of the time. ``boundary`` is that of a send: the number of its first stage."""

    gpus: frozenset[int]
    replica: int
    boundary: int | None
    demand: Demand
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """What a flow keeps of its bandwidth, the link that takes the rest, and the flows (by place) that meet there."""

    kept: float = 1.0
    link: DirectedLink | None = None
    flows: tuple[int, ...] = ()


WHOLE = Share()


@dataclass(frozen=True)
class Sharing:
    """The shares of all flows of a placement: groups by their GPUs, sends by sender and receiver. Who is missing keeps all."""

    groups: Mapping[frozenset[int], Share] = field(default_factory=dict)
    sends: Mapping[tuple[int, int], Share] = field(default_factory=dict)
    flows: Sequence[Flow] = ()

    def group(self, gpus: Sequence[int]) -> float:
        """What the group of these GPUs keeps of its bandwidth."""
        return self.groups.get(frozenset(gpus), WHOLE).kept if self.groups else 1.0

    def send(self, sender: int, receiver: int) -> float:
        """What a send keeps."""
        return self.sends.get((sender, receiver), WHOLE).kept if self.sends else 1.0

    def describe(self, wires: Interconnect, share: Share) -> SharedLink | None:
        """The link on which a flow is held up, and what else it carries; ``None`` where that is not worth a word."""
        if share.link is None or share.kept * WORTH_NAMING > 1:
            return None
        met = [self.flows[place] for place in share.flows]
        groups = [flow for flow in met if flow.boundary is None]
        sends = [flow for flow in met if flow.boundary is not None]
        replicas = len({flow.replica for flow in groups})
        words = []
        if groups:
            of = "replica" if replicas == len(groups) else "group"
            words.append(f"the all-reduces of {len(groups)} {of}{'s' * (len(groups) > 1)}")
        if sends:
            words.append(f"{len(sends)} send{'s' * (len(sends) > 1)} between stages")
        return SharedLink(wires.describe(share.link), " and ".join(words), 1 / share.kept)


ALONE = Sharing()


@formula(
    source="processor sharing of a link by crossings and busy time; fair share, or what the others leave (Bertsekas and "
    "Gallager 1992, section 6.5.2, max-min fairness)",
    valid="flows in steady state; one link",
)
def shared_rate(capacity: float, crossings: float, others: Sequence[tuple[float, float, float]]) -> float:
    """The rate (B/s) at which a flow that crosses a link of ``capacity`` ``crossings`` times is served there.

    ``others`` are (share of the time it is busy, crossings, rate when alone) of whoever else uses the link.

    >>> shared_rate(22e9, 1, [(1.0, 1, 22e9)]), shared_rate(22e9, 1, [(0.5, 2, 11e9)])
    (11000000000.0, 11000000000.0)
    >>> shared_rate(24e9, 1, [(1.0, 1, 6e9)])
    18000000000.0
    """
    fair = capacity / (crossings + sum(busy * times for busy, times, _ in others))
    left = (capacity - sum(busy * times * rate for busy, times, rate in others)) / crossings
    return max(fair, left)


def overlap(one: Flow, other: Flow, micro_batches: int, *, together: bool) -> float:
    """For what share of the time that ``one`` sends, ``other`` does too.

    The sends of a stage boundary leave at once; flows with a GPU in common take turns. Stages of one replica hold
    different micro-batches, so with a single one they never meet. Replicas that step ``together`` do so at every
    all-reduce; others know nothing of each other.
    """
    if one.replica == other.replica:
        if one.boundary is not None and one.boundary == other.boundary:
            return 1.0
        if one.gpus & other.gpus:
            return 0.0
        return other.busy * (micro_batches - 1) / micro_batches
    return 1.0 if together else other.busy


def meetings(flows: Sequence[Flow]) -> dict[DirectedLink, list[int]]:
    """The links that two flows use that can run at the same time, and all flows there by place."""
    users: dict[DirectedLink, list[int]] = {}
    for place, flow in enumerate(flows):
        for link in flow.demand.crossings:
            users.setdefault(link, []).append(place)
    return {
        link: places
        for link, places in users.items()
        if len(places) > 1
        and any(not flows[a].gpus & flows[b].gpus for number, a in enumerate(places) for b in places[number + 1 :])
    }


def share_out(
    flows: Sequence[Flow],
    meeting: Mapping[DirectedLink, Sequence[int]],
    capacity: Mapping[DirectedLink, float],
    micro_batches: int,
    *,
    together: bool = False,
) -> list[Share]:
    """What each flow keeps, given on which links it is ``meeting`` which others (:func:`meetings`)."""
    shares = [WHOLE] * len(flows)
    for link, places in meeting.items():
        for place in places:
            flow = flows[place]
            others = []
            for number in places:
                if number != place:
                    other = flows[number]
                    busy = overlap(flow, other, micro_batches, together=together)
                    if busy:
                        others.append((busy, other.demand.crossings[link], other.demand.rate))
            if others:
                kept = shared_rate(capacity[link], flow.demand.crossings[link], others) / flow.demand.rate
                if kept < shares[place].kept:
                    shares[place] = Share(kept, link, tuple(places))
    return shares


def stretch(group: GroupFacts, size: Bytes, kept: float) -> float:
    """How many times longer an all-reduce of ``size`` bytes takes where its rings keep ``kept`` of their bandwidth: by
    NCCL's model, so that measured and calibrated times grow by as much.
    """
    if kept >= 1 or size <= 0:
        return 1.0
    fabric = fabric_of(group)
    slowed = replace(fabric, channel_bandwidth=BytesPerSecond(kept * fabric.channel_bandwidth))
    return nccl.all_reduce(size, slowed)[0] / nccl.all_reduce(size, fabric)[0]
