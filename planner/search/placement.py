"""Which GPU becomes which rank: exactly on one host, host by host over several.

Over several hosts a replica stays on one host where it fits, else it takes the same number of GPUs on as few hosts as
can be (engines want equal shares), whole stages on each or whole hosts for each stage; within a host the choice is
again exact. What replicas that span hosts take from each other is in their price, but moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.core.plan import Group, Infeasible, Parallelism, Placement, Replica
from planner.core.topology import DeviceKind, Topology
from planner.core.workload import Objective
from planner.cost.placed import Placed
from planner.graph.paths import Paths
from planner.graph.symmetry import interchangeable
from planner.search.contended import ContendedSearch
from planner.search.host import HostSearch, TooIrregular


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement, and whether no other is better under the cost model: at all where nobody shares a link, else by more
    than a tenth of a percent. How a stage is cut into tensor groups that split prompts is the best found.
    """

    placement: Placement
    proven: bool


class Placer:
    """Places strategies on the GPUs of one topology."""

    def __init__(self, topology: Topology, objective: Objective) -> None:
        self._topology = topology
        self._objective = objective
        self._classes: dict[tuple[int, ...], list[list[int]]] = {}

    def place(self, placed: Placed, gpus: Sequence[int]) -> Choice | Infeasible:
        """The placement of the strategy of ``placed`` on (some of) ``gpus``."""
        islands = [[gpu for gpu in host if gpu in set(gpus)] for host in self._topology.gpus_of_host.values()]
        islands = [island for island in islands if island]
        degrees = placed.strategy.parallelism
        if len(islands) == 1:
            try:
                search = self._search(placed, islands[0])
                best = search.best(self._objective, degrees.data)
            except TooIrregular:
                islands = self._sockets(islands[0])
            else:
                if best is not None:
                    placement, proven = ContendedSearch(search, placed, self._objective).improved(best)
                    return Choice(placement, proven and degrees.prefill_context == 1)
        several = self._several(placed, islands)
        if several is None and self._confined(placed):
            return _one_host(placed.strategy.traits.name, degrees, [len(island) for island in islands])
        if several is None:
            sizes = ", ".join(str(len(island)) for island in islands[:4]) + (", …" if len(islands) > 4 else "")
            return Infeasible(
                degrees,
                "node-boundary",
                have=max(len(island) for island in islands),
                need=degrees.gpus_per_replica,
                unit="GPUs",
                message=f"{degrees.data} replicas of {degrees.gpus_per_replica} GPUs do not divide evenly over hosts of {sizes}",
            )
        return Choice(several, proven=False)

    def _search(self, placed: Placed, gpus: Sequence[int], stages: range | None = None) -> HostSearch:
        key = tuple(gpus)
        if key not in self._classes:
            self._classes[key] = interchangeable(self._topology, gpus)
        return HostSearch(placed, self._classes[key], stages)

    def _sockets(self, gpus: Sequence[int]) -> list[list[int]]:
        """The GPUs of one host by socket."""
        paths = Paths(self._topology)
        sockets: dict[str, list[int]] = {}
        for gpu in gpus:
            top = paths.ancestors(self._topology.gpus[gpu].id)[-1]
            if self._topology.by_id[top].kind is DeviceKind.SOCKET:
                sockets.setdefault(top, []).append(gpu)
        return list(sockets.values())

    def _several(self, placed: Placed, islands: Sequence[Sequence[int]]) -> Placement | None:
        degrees = placed.strategy.parallelism
        size = degrees.gpus_per_replica
        if sum(len(island) // size for island in islands) >= degrees.data:
            replicas: list[Replica] = []
            for island in islands:
                count = min(len(island) // size, degrees.data - len(replicas))
                if count:
                    replicas += self._on_island(placed, island, count)
            return tuple(replicas)
        return None if self._confined(placed) else self._spanning(placed, islands)

    def _confined(self, placed: Placed) -> bool:
        """Whether the engine keeps each replica on one host, where there are several."""
        return not placed.strategy.traits.spans_hosts and len(self._topology.hosts) > 1

    def _on_island(self, placed: Placed, island: Sequence[int], count: int, stages: range | None = None) -> Sequence[Replica]:
        try:
            search = self._search(placed, island, stages)
            best = search.best(self._objective, count)
        except TooIrregular:
            best = None
        if best is not None:
            # part of a pipeline has no time of its own to weigh
            return best if stages else ContendedSearch(search, placed, self._objective).improved(best)[0]
        degrees, gpus = placed.strategy.parallelism, iter(island)
        depth = len(stages) if stages else degrees.pipeline
        return tuple(tuple(tuple(next(gpus) for _ in range(degrees.gpus_per_stage)) for _ in range(depth)) for _ in range(count))

    def _spanning(self, placed: Placed, islands: Sequence[Sequence[int]]) -> Placement | None:
        degrees = placed.strategy.parallelism
        share = _share(degrees, islands)
        if share is None:
            return None
        hosts_each = degrees.gpus_per_replica // share
        slots = [(island, number) for island in islands for number in range(len(island) // share)]
        placement = []
        for replica in range(degrees.data):
            taken = self._pick(slots, hosts_each)
            if taken is None:
                return None
            del replica
            placement.append(self._span(placed, taken, share))
        return tuple(placement)

    @staticmethod
    def _pick(slots: list[tuple[Sequence[int], int]], count: int) -> list[tuple[Sequence[int], int]] | None:
        """The next ``count`` slots on different hosts, taken out of ``slots``."""
        taken: list[tuple[Sequence[int], int]] = []
        for slot in list(slots):
            if len(taken) < count and all(slot[0] is not other[0] for other in taken):
                taken.append(slot)
                slots.remove(slot)
        return taken if len(taken) == count else None

    def _span(self, placed: Placed, taken: Sequence[tuple[Sequence[int], int]], share: int) -> Replica:
        degrees = placed.strategy.parallelism
        parts = [list(island[number * share : (number + 1) * share]) for island, number in taken]
        stage = degrees.gpus_per_stage
        if share % stage == 0:
            depth = share // stage
            groups: list[Group] = []
            for place, part in enumerate(parts):
                groups += self._on_island(placed, part, 1, range(place * depth, (place + 1) * depth))[0]
            return tuple(groups)
        flat = [gpu for part in parts for gpu in part]
        return tuple(tuple(flat[start : start + stage]) for start in range(0, len(flat), stage))


def _one_host(engine: str, degrees: Parallelism, sizes: Sequence[int]) -> Infeasible:
    """Why replicas that may not span hosts do not fit hosts of these ``sizes``: one is too large, or they are too many."""
    have, need, unit = max(sizes), degrees.gpus_per_replica, "GPUs"
    problem = f"a replica takes {need} GPUs, the largest host has {have}: lower TP, or take an engine that spans hosts"
    if need <= have:
        room = sum(size // need for size in sizes)
        problem = f"the hosts have room for {room} replicas of {need} GPUs, not {degrees.data}: lower DP"
        have, need, unit = room, degrees.data, "replicas"
    message = f"{engine} keeps a replica on one host; {problem}"
    return Infeasible(degrees, "one-host", have=have, need=need, unit=unit, message=message)


def _share(degrees: Parallelism, islands: Sequence[Sequence[int]]) -> int | None:
    """GPUs a replica takes on each of its hosts: the most that divide it evenly, in whole stages or whole fractions."""
    size, tensor = degrees.gpus_per_replica, degrees.gpus_per_stage
    for share in range(min(size, max(len(island) for island in islands)), 0, -1):
        even = size % share == 0 and (share % tensor == 0 or tensor % share == 0)
        room = sum(len(island) // share for island in islands)
        hosts = size // share
        if even and room >= degrees.data * hosts and sum(len(island) >= share for island in islands) >= hosts:
            return share
    return None
