"""The linear programme proves its own answers: strong duality, checked independently of how it was solved."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.cycles import Cycles
from planner.cost.packing import fractional_packing
from planner.graph.paths import DirectedLink

Hops = dict[tuple[str, str], Counter[DirectedLink]]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], Hops, dict[DirectedLink, float]]:
    """Three to five GPUs; every hop crosses one to three of a handful of links."""
    members = [f"g{number}" for number in range(draw(st.integers(3, 5)))]
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
def test_the_packing_is_proved_optimal_by_its_prices(graph: tuple[list[str], Hops, dict[DirectedLink, float]]) -> None:
    members, hops, capacity = graph
    cycles = Cycles(members, hops)
    order, rate = cycles.best(capacity)
    packing = fractional_packing([cycles.crossings(order)], capacity, cycles.cheapest)
    rings = [cycles.crossings([members[0], *rest]) for rest in permutations(members[1:])]
    assert min(sum(packing.prices[link] * times for link, times in ring.items()) for ring in rings) >= 1 - 1e-6
    assert sum(packing.prices[link] * capacity[link] for link in capacity) == pytest.approx(packing.rate, rel=1e-6)
    assert rate * (1 - 1e-9) <= packing.rate <= cycles.cut_bound(capacity) * (1 + 1e-9)


@given(graphs())
def test_the_best_ring_is_the_best_of_all(graph: tuple[list[str], Hops, dict[DirectedLink, float]]) -> None:
    members, hops, capacity = graph
    cycles = Cycles(members, hops)
    rings = [cycles.crossings([members[0], *rest]) for rest in permutations(members[1:])]
    best = max(min(capacity[link] / times for link, times in ring.items()) for ring in rings)
    assert cycles.best(capacity)[1] == pytest.approx(best)


@given(graphs(), st.data())
def test_the_cheapest_ring_is_the_cheapest_of_all(
    graph: tuple[list[str], Hops, dict[DirectedLink, float]], data: st.DataObject
) -> None:
    members, hops, capacity = graph
    prices = {link: data.draw(st.floats(0, 5)) for link in capacity}
    cycles = Cycles(members, hops)
    ring, cost = cycles.cheapest(prices)
    every = (cycles.crossings([members[0], *rest]) for rest in permutations(members[1:]))
    assert cost == pytest.approx(min(sum(prices[link] * times for link, times in one.items()) for one in every))
    assert cost == pytest.approx(sum(prices[link] * times for link, times in ring.items()))


def test_two_rings_the_two_ways_round() -> None:
    members = ["a", "b", "c"]
    hops: Hops = {
        (x, y): Counter({(members.index(x) * 3 + members.index(y), True): 1}) for x in members for y in members if x != y
    }
    capacity = dict.fromkeys((link for hop in hops.values() for link in hop), 10.0)
    cycles = Cycles(members, hops)
    assert fractional_packing([], capacity, cycles.cheapest).rate == pytest.approx(20)
