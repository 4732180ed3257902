"""The linear programme proves its own answers: strong duality, checked independently of how it was solved."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.topology import Topology
from planner.cost.cycles import Cycles
from planner.cost.packing import fractional_packing
from planner.cost.rings import pack_shape
from planner.cost.shapes import Shapes
from planner.graph.paths import DirectedLink, Paths
from random_machines import checked, hosts

Hops = dict[tuple[int, int], Counter[DirectedLink]]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int], Hops, dict[DirectedLink, float]]:
    """Three to five GPUs; every hop crosses one to three of a handful of links."""
    members = list(range(draw(st.integers(3, 5))))
    links: list[DirectedLink] = [(number, True) for number in range(draw(st.integers(3, 9)))]
    hops = {
        (a, b): Counter(draw(st.lists(st.sampled_from(links), min_size=1, max_size=3)))
        for a in members
        for b in members
        if a != b
    }
    capacity = {link: float(draw(st.integers(1, 40))) for link in links}
    return members, hops, capacity


@given(graphs())
def test_the_packing_is_proved_optimal_by_its_prices(graph: tuple[list[int], Hops, dict[DirectedLink, float]]) -> None:
    members, hops, capacity = graph
    cycles = Cycles(members, hops)
    order, rate = cycles.best(capacity)
    packing = fractional_packing([cycles.crossings(order)], capacity, cycles.cheapest)
    rings = [cycles.crossings([members[0], *rest]) for rest in permutations(members[1:])]
    assert min(sum(packing.prices[link] * times for link, times in ring.items()) for ring in rings) >= 1 - 1e-6
    assert sum(packing.prices[link] * capacity[link] for link in capacity) == pytest.approx(packing.rate, rel=1e-6)
    assert rate * (1 - 1e-9) <= packing.rate <= cycles.cut_bound(capacity) * (1 + 1e-9)


@given(graphs())
def test_the_best_ring_is_the_best_of_all(graph: tuple[list[int], Hops, dict[DirectedLink, float]]) -> None:
    members, hops, capacity = graph
    cycles = Cycles(members, hops)
    rings = [cycles.crossings([members[0], *rest]) for rest in permutations(members[1:])]
    best = max(min(capacity[link] / times for link, times in ring.items()) for ring in rings)
    assert cycles.best(capacity)[1] == pytest.approx(best)


@given(graphs(), st.data())
def test_the_cheapest_ring_is_the_cheapest_of_all(
    graph: tuple[list[int], Hops, dict[DirectedLink, float]], data: st.DataObject
) -> None:
    members, hops, capacity = graph
    prices = {link: data.draw(st.floats(0, 5)) for link in capacity}
    cycles = Cycles(members, hops)
    found = cycles.cheapest(prices)
    ring, cost = found[0]
    every = (cycles.crossings([members[0], *rest]) for rest in permutations(members[1:]))
    assert cost == pytest.approx(min(sum(prices[link] * times for link, times in one.items()) for one in every))
    for ring, cost in found:
        assert cost == pytest.approx(sum(prices[link] * times for link, times in ring.items()))


@given(hosts(most=6).map(checked))
def test_a_link_counted_both_ways_together_leaves_the_packing_what_it_is(topology: Topology) -> None:
    """What is packed with the two directions of links as one is what the programme over every directed link gives."""
    capacity = {(number, way): float(one.achieved or 0) for number, one in enumerate(topology.links) for way in (True, False)}
    shape = Shapes(Paths(topology), capacity).of([gpu.id for gpu in topology.gpus]).shape
    members = range(shape.count)
    cycles = Cycles(members, {(a, b): Counter(shape.way(a, b).links) for a in members for b in members if a != b})
    directed = fractional_packing([], {link: shape.capacity[link] for link in cycles.links}, cycles.cheapest)
    packed = pack_shape(shape)
    assert packed.bandwidth == pytest.approx(directed.rate, rel=1e-6)
    assert packed.fastest <= packed.bandwidth * (1 + 1e-9)


def test_two_rings_the_two_ways_round() -> None:
    members = [0, 1, 2]
    hops: Hops = {(x, y): Counter({(x * 3 + y, True): 1}) for x in members for y in members if x != y}
    capacity = dict.fromkeys((link for hop in hops.values() for link in hop), 10.0)
    cycles = Cycles(members, hops)
    assert fractional_packing([], capacity, cycles.cheapest).rate == pytest.approx(20)
