"""Links fitted to copies and collectives of machines whose links are known."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured_box import GIGA, box, number_of, pair_rates, predicted, truth
from planner import api
from planner.core.topology import LinkKind
from planner.cost.interconnect import Interconnect
from planner.cost.link_fit import TOLERANCE, Ratio, class_of, fit_copies, fit_group, port_rate, with_rates
from planner.units import BytesPerSecond
from planner.validation import wires_of

LARGE = [2**power for power in range(24, 29)]
MACHINES = ("4x-rtx-3090-bridged", "8x-l40s", "8x-rtx-4090", "4xL40S:pcie-host-staged", "8x-a6000", "2x-l4")


def test_the_link_through_which_no_pair_is_faster_is_to_blame() -> None:
    """Slots at 26 GB/s but one at 13, 18 between the sockets; assumed were 24 and 16."""
    topology = box()
    machine = truth(topology, {"gpu0": 26, "gpu1": 26, "gpu2": 13, "gpu3": 26, "sockets": 18})
    rates = pair_rates(machine)
    assert {pair: rate / GIGA for pair, rate in rates.items() if pair in {(0, 1), (0, 3), (2, 3), (1, 2)}} == {
        (0, 1): 26, (0, 3): 18, (2, 3): 13, (1, 2): 13,
    }  # fmt: skip
    fit = fit_copies(wires_of(topology), rates)
    found = {name: fit.measured.get(number_of(topology, name)) for name in ("gpu0", "gpu1", "gpu2", "gpu3", "sockets", "bridge0")}
    # GPU 3 never got more than the 18 GB/s between the sockets: its slot stays as assumed, and so does the host bridge
    assert found == {"gpu0": 26e9, "gpu1": 26e9, "gpu2": 13e9, "gpu3": None, "sockets": 18e9, "bridge0": None}
    assert fit.seen[number_of(topology, "gpu3")] == 18e9
    assert fit.slow == ()


def test_a_copy_through_host_memory_crosses_links_twice() -> None:
    topology = api.load_topology("2xL40S:pcie-host-staged")
    fit = fit_copies(wires_of(topology), {(0, 1): BytesPerSecond(9e9), (1, 0): BytesPerSecond(9e9)})
    assert {fit.measured[number_of(topology, gpu)] for gpu in ("gpu0", "gpu1")} == {18e9}


def test_a_pair_that_is_slower_than_its_links_is_named() -> None:
    topology = box()
    rates = {**pair_rates(truth(topology, {})), (0, 1): BytesPerSecond(10e9)}
    fit = fit_copies(wires_of(topology), rates)
    # the other way, and over the other socket's links, more went through
    assert [(pair, rate, expected) for pair, rate, expected in fit.slow] == [((0, 1), 10e9, 24e9)]


@pytest.mark.parametrize(("share", "lowered"), [(1.2, False), (0.95, False), (0.8, True)])
def test_nvlinks_are_only_lowered_and_only_where_they_are_degraded(share: float, lowered: bool) -> None:
    topology = api.load_topology("4x-rtx-3090-bridged")
    wires = wires_of(topology)
    bridges = [number for number, link in enumerate(wires.topology.links) if link.kind is LinkKind.NVLINK]
    achieved = wires.topology.links[bridges[0]].achieved
    assert achieved is not None
    first = next(pair for pair in pair_rates(wires) if {number for number, _ in wires.path(*pair).links} == {bridges[0]})
    rates = {pair: BytesPerSecond(share * achieved) for pair in (first, first[::-1])}
    fit = fit_copies(wires, rates)
    assert fit.measured == ({bridges[0]: share * achieved} if lowered else {})


@given(machine=st.sampled_from(MACHINES), seed=st.randoms(use_true_random=False), share=st.floats(0.2, 1.0))
def test_copies_are_predicted_as_they_were_measured(machine: str, seed: random.Random, share: float) -> None:
    """Whatever PCIe and sockets carry, as much as the copies show of it is found again."""
    wires = wires_of(api.load_topology(machine))
    chosen = {
        number: BytesPerSecond(float(link.achieved or 0.0) * (share + (1.4 - share) * seed.random()))
        for number, link in enumerate(wires.topology.links)
        if link.kind is not LinkKind.NVLINK
    }
    rates = pair_rates(Interconnect(with_rates(wires.topology, chosen), wires.specs))
    fit = fit_copies(wires, rates)
    after = pair_rates(Interconnect(with_rates(wires.topology, fit.measured), wires.specs))
    for pair, rate in rates.items():
        assert rate * (1 - 1e-9) <= after[pair] <= rate * (1 + TOLERANCE) ** 2
    for number, rate in fit.measured.items():
        assert rate <= chosen[number] * (1 + 1e-9)


def ratio_to(machine: Interconnect, gpus: list[int]) -> Ratio:
    measured = predicted(machine, "all_reduce", gpus, LARGE)

    def ratio(wires: Interconnect) -> float:
        found = predicted(wires, "all_reduce", gpus, LARGE)
        return math.exp(sum(math.log(found[size] / measured[size]) for size in LARGE) / len(LARGE))

    return ratio


def lines_of(wires: Interconnect) -> dict[int, float]:
    return {
        number: float(link.bandwidth)
        for number, link in enumerate(wires.topology.links)
        if isinstance(link.bandwidth, float) and link.kind is not LinkKind.SOCKET
    }


@pytest.mark.parametrize("rate", [12, 18, 20])
def test_a_pair_settles_the_slots(rate: float) -> None:
    """NCCL's channels have speeds in steps; a slot at a step is found again."""
    topology = box()
    wires = wires_of(topology)
    machine = truth(topology, dict.fromkeys(("gpu0", "gpu1", "gpu2", "gpu3"), rate))
    fit = fit_group(wires, [0, 1], ratio_to(machine, [0, 1]), lines_of(wires), set())
    assert fit.rates == {number_of(topology, f"gpu{gpu}"): pytest.approx(rate * GIGA, rel=0.01) for gpu in range(4)}
    assert fit.left == pytest.approx(1, abs=0.03)


def test_a_pair_settles_its_own_nvlink_alone() -> None:
    wires = wires_of(api.load_topology("4x-rtx-3090-bridged"))
    (bridge,) = {number for number, _ in wires.path(0, 2).links}
    machine = Interconnect(with_rates(wires.topology, {bridge: BytesPerSecond(20e9)}), wires.specs)
    fit = fit_group(wires, [0, 2], ratio_to(machine, [0, 2]), lines_of(wires), set())
    assert fit.rates == {bridge: pytest.approx(20e9, rel=0.02)}
    # settled for this pair, it is not for the other
    (other,) = {number for number, _ in wires.path(1, 3).links}
    machine = Interconnect(with_rates(wires.topology, {other: BytesPerSecond(20e9)}), wires.specs)
    fit = fit_group(wires, [1, 3], ratio_to(machine, [1, 3]), lines_of(wires), {bridge})
    assert set(fit.rates) == {other}


def test_a_larger_group_settles_what_the_smaller_one_does_not_cross() -> None:
    topology = box()
    wires = wires_of(topology)
    machine = truth(topology, {**dict.fromkeys(("gpu0", "gpu1", "gpu2", "gpu3"), 20.0), "sockets": 9})
    pair = fit_group(wires, [0, 1], ratio_to(machine, [0, 1]), lines_of(wires), set())
    settled = {class_of(wires.topology, number) for number in pair.rates}
    wires = Interconnect(with_rates(wires.topology, pair.rates), wires.specs)
    whole = fit_group(wires, [0, 1, 2, 3], ratio_to(machine, [0, 1, 2, 3]), lines_of(wires), settled)
    assert whole.rates == {number_of(topology, "sockets"): pytest.approx(9e9, rel=0.01)}


def test_what_joins_sockets_is_raised_until_the_slots_limit() -> None:
    topology = box()
    wires = wires_of(topology)
    machine = truth(topology, {"sockets": 60})
    fit = fit_group(wires, [0, 1, 2, 3], ratio_to(machine, [0, 1, 2, 3]), lines_of(wires), set())
    assert fit.rates[number_of(topology, "sockets")] >= 23e9
    assert fit.left == pytest.approx(1, abs=0.03)


def test_settled_links_are_left_alone() -> None:
    topology = box()
    wires = wires_of(topology)
    machine = truth(topology, dict.fromkeys(("gpu0", "gpu1"), 12.0))
    settled = {class_of(wires.topology, number_of(topology, "gpu0"))}
    fit = fit_group(wires, [0, 1], ratio_to(machine, [0, 1]), lines_of(wires), settled)
    assert fit.rates == {}
    assert fit.left < 0.75
    assert "settled by other measurements" in fit.word


def test_a_fit_that_is_there_is_kept_to_the_last_digit() -> None:
    topology = box()
    wires = wires_of(topology)
    ratio = ratio_to(truth(topology, dict.fromkeys(("gpu0", "gpu1", "gpu2", "gpu3"), 14.3)), [0, 1])
    once = fit_group(wires, [0, 1], ratio, lines_of(wires), set())
    wires = Interconnect(with_rates(wires.topology, once.rates), wires.specs)
    again = fit_group(wires, [0, 1], ratio, lines_of(wires), set())
    assert again.rates == once.rates


def test_no_more_leaves_a_gpu_than_its_wires_carry() -> None:
    topology = box()
    wires = wires_of(topology)
    assert port_rate(wires, [0, 1, 2]) == wires.topology.links[number_of(topology, "gpu0")].bandwidth
    bridged = wires_of(api.load_topology("4x-rtx-3090-bridged"))
    pair = next(
        pair
        for pair in pair_rates(bridged)
        if bridged.path(*pair).links and bridged.topology.links[bridged.path(*pair).links[0][0]].kind is LinkKind.NVLINK
    )
    assert port_rate(bridged, pair) == bridged.peak(bridged.path(*pair))
    unknown = replace(
        wires.topology, links=tuple(replace(link, bandwidth=box().links[-1].bandwidth) for link in wires.topology.links)
    )
    assert math.isinf(port_rate(Interconnect(unknown, wires.specs), [0, 1]))
