"""The cache of a prompt on its way from the ranks of a prefill replica to those of a decode replica.

A decode rank reads what it will hold from the prefill ranks that have it: its layers from the stages they are in, its heads from the
tensor ranks they are on. A latent is whole on every rank, so one of them is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from planner.core.model import Attention, Layer, LinearAttention, Mixer, ModelSpec, kinds
from planner.core.plan import Plan, Replica
from planner.core.topology import PEER_LINKS, LinkKind
from planner.core.unknown import Unknown
from planner.core.workload import Workload
from planner.cost.calibration import PointToPointFit
from planner.cost.disaggregated import together_time
from planner.cost.interconnect import Interconnect
from planner.cost.memory import kv_bytes, rounded_tokens
from planner.cost.point_to_point import hop_rate
from planner.cost.strategy import stages_of
from planner.graph.paths import DirectedLink, PathKind
from planner.units import Bytes, Seconds

Sends = Mapping[tuple[int, int], float]
"""Bytes from one GPU to another."""
_Rank = tuple[int, int]
"""Stage and tensor rank."""


def sources(rank: int, reading: int, holding: int, mixer: Mixer) -> tuple[int, ...]:
    """Of ``holding`` tensor ranks those that decode rank ``rank`` of ``reading`` reads from; of ranks that hold the same head the first
    (vLLM 0.33 nixl/tp_mapping.py; SGLang 0.5.23 disaggregation/common/conn.py pairs ranks alike).

    >>> heads = Attention(64, 8, 128)
    >>> sources(1, 4, 2, heads), sources(1, 2, 4, heads), sources(0, 1, 16, heads), sources(3, 4, 1, heads)
    ((0,), (2, 3), (0, 2, 4, 6, 8, 10, 12, 14), (0,))
    """
    if reading >= holding or not isinstance(mixer, Attention | LinearAttention):
        return (rank * holding // reading,)
    share = holding // reading
    ranks = range(rank * share, (rank + 1) * share)
    if isinstance(mixer, LinearAttention):
        return tuple(ranks)
    first: dict[int, int] = {}
    for one in ranks:
        first.setdefault(one * mixer.kv_heads // holding, one)
    return tuple(first.values())


def regrouping(model: ModelSpec, holding: int, reading: int) -> str:
    """Who reads from whom, in words.

    >>> from planner.core.model import LatentAttention
    >>> one = ModelSpec("m", "llama", 64, 64, (Layer(Attention(64, 8, 128), None),), False, 64)
    >>> regrouping(one, 4, 4), regrouping(one, 4, 2)
    ('each rank reads the heads of one', 'each decode rank reads the heads of 2 prefill ranks')
    >>> regrouping(one, 2, 4), regrouping(one, 16, 16)
    ('the heads of each prefill rank are divided over 2 decode ranks', 'each rank reads the heads of one')
    """
    mixers = [layer.attention for layer, _ in kinds(model.layers) if layer.attention is not None]
    if not any(isinstance(mixer, Attention) for mixer in mixers):
        return "every rank holds the whole latent: each decode rank reads it from one prefill rank"
    if holding == reading:
        return "each rank reads the heads of one"
    if reading > holding:
        heads = max(mixer.kv_heads for mixer in mixers if isinstance(mixer, Attention))
        if heads <= holding:
            return f"each prefill rank is read by {reading // holding} decode ranks, which hold copies of its head"
        return f"the heads of each prefill rank are divided over {reading // holding} decode ranks"
    read = max(len(sources(0, reading, holding, mixer)) for mixer in mixers)
    return f"each decode rank reads the heads of {read} prefill rank{'s' * (read > 1)}"


@dataclass(frozen=True, slots=True)
class Crossing:
    """One prompt's cache from one replica to another: how many bytes, how long on empty links, what takes longest, which ways."""

    size: Bytes
    time: Seconds
    link: DirectedLink | None
    latency: Seconds
    kinds: tuple[str, ...]


class Handovers:
    """Transfers between the replicas of two pools on one machine, memoised."""

    def __init__(self, wires: Interconnect, fit: PointToPointFit, model: ModelSpec, workload: Workload, block: int) -> None:
        self._wires = wires
        self._fit = fit
        self._model = model
        self._tokens = rounded_tokens(workload.input_tokens, block)
        self._templates: dict[tuple[int, tuple[int, ...], int, tuple[int, ...]], list[tuple[_Rank, _Rank, float]]] = {}

    @cached_property
    def _capacity(self) -> dict[DirectedLink, float]:
        """What sends reach of each directed link: as hop_rate has it where they are alone, never more than was measured."""
        fit, found = self._fit, {}
        shares = dict.fromkeys(PEER_LINKS, fit.nvlink_efficiency) | {LinkKind.NETWORK: fit.network_efficiency}
        for directed, achieved in self._wires.capacity.items():
            link = self._wires.topology.links[directed[0]]
            found[directed] = achieved
            if link.kind in shares and not isinstance(link.bandwidth, Unknown):
                line = shares[link.kind] * link.bandwidth
                found[directed] = line if link.measured is None else min(line, float(link.measured))
        return found

    def sends(self, prefill: Plan, sender: Replica, decode: Plan, receiver: Replica) -> Sends:
        """Who sends how much to whom."""
        found: Counter[tuple[int, int]] = Counter()
        for (held, one), (wanted, rank), size in self._shares(prefill, decode):
            found[sender[held][one], receiver[wanted][rank]] += size  # type: ignore[assignment]
        return found

    def _shares(self, prefill: Plan, decode: Plan) -> list[tuple[_Rank, _Rank, float]]:
        """From which rank of any prefill replica to which of any decode replica go how many bytes."""
        holding, reading = prefill.parallelism.tensor, decode.parallelism.tensor
        key = holding, prefill.layer_partition, reading, decode.layer_partition
        found = self._templates.get(key)
        if found is None:
            found = self._templates[key] = []
            for (held, wanted), layers in _overlaps(self._model, prefill.layer_partition, decode.layer_partition).items():
                for mixer, size in self._by_mixer(layers, reading).items():
                    for rank in range(reading):
                        read = sources(rank, reading, holding, mixer)
                        found += [((held, one), (wanted, rank), size / len(read)) for one in read]
        return found

    def _by_mixer(self, layers: Sequence[Layer], tensor: int) -> dict[Mixer, float]:
        """What one decode rank reads of so many layers, by kind of mixer: a window's layers have but their window."""
        sizes: dict[Mixer, float] = {}
        for layer, count in kinds(layers):
            if layer.attention is not None:
                size = kv_bytes((layer,) * count, tensor, self._tokens, 0, self._model.kv_element_bytes)
                sizes[layer.attention] = sizes.get(layer.attention, 0.0) + size
        return sizes

    def crossing(self, prefill: Plan, sender: Replica, decode: Plan, receiver: Replica) -> Crossing:
        """One prompt from one replica to another while nobody else sends."""
        sends = self.sends(prefill, sender, decode, receiver)
        loads, alone = self.loads(sends), 0.0
        fit, latency, ways = self._fit, 0.0, {}
        for (a, b), size in sends.items():
            path = self._wires.path(a, b)
            rate = hop_rate(self._wires, fit, a, b)
            alone = max(alone, size / rate if rate else float("inf"))
            delays = {PathKind.NVLINK: fit.nvlink, PathKind.NETWORK: fit.network}
            latency = max(latency, delays.get(path.kind, fit.staged if path.staged else fit.pcie))
            ways[_way(path.kind, staged=path.staged)] = True
        time, slowest = together_time(loads, self._capacity)
        return Crossing(Bytes(sum(sends.values())), Seconds(max(time, alone)), slowest, Seconds(latency), tuple(ways))

    def loads(self, sends: Sends) -> Counter[DirectedLink]:
        """Bytes on every directed link; a link that a send crosses twice carries it twice."""
        total: Counter[DirectedLink] = Counter()
        for (a, b), size in sends.items():
            for link in self._wires.path(a, b).links:
                total[link] += size  # type: ignore[assignment]
        return total

    def most(self, prefill: Plan, decode: Plan) -> tuple[float, DirectedLink | None]:
        """Prompts a second that the links carry where every prefill replica serves every decode replica alike, and what limits them."""
        pairs = [(one, other) for one in prefill.placement for other in decode.placement]
        total: Counter[DirectedLink] = Counter()
        for one, other in pairs:
            for link, size in self.loads(self.sends(prefill, one, decode, other)).items():
                total[link] += size / len(pairs)  # type: ignore[assignment]
        time, slowest = together_time(total, self._capacity)
        return (1 / time if time else float("inf")), slowest

    def words(self, link: DirectedLink | None) -> str:
        """A link as a person reads it."""
        return "no link" if link is None else self._wires.describe(link)

    def farthest(self, prefill: Plan, decode: Plan) -> Crossing:
        """The crossing that takes longest."""
        return max(
            (self.crossing(prefill, one, decode, other) for one in prefill.placement for other in decode.placement),
            key=lambda found: found.time + found.latency,
        )


def _way(kind: PathKind, *, staged: bool) -> str:
    if kind is PathKind.NVLINK:
        return "NVLink"
    if kind is PathKind.NETWORK:
        return "network"
    return "PCIe through host memory" if staged else "PCIe"


def _overlaps(model: ModelSpec, held: Sequence[int], wanted: Sequence[int]) -> dict[tuple[int, int], list[Layer]]:
    """The layers that a prefill stage has and a decode stage wants, by the two stages."""
    first = [number for number, layers in enumerate(stages_of(model, held)) for _ in layers]
    second = [number for number, layers in enumerate(stages_of(model, wanted)) for _ in layers]
    found: dict[tuple[int, int], list[Layer]] = {}
    for layer, stages in zip(model.layers, zip(first, second, strict=True), strict=True):
        found.setdefault(stages, []).append(layer)
    return found
