"""Groups and sends that share links: worked by hand, then laws for any machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import api
from planner.core.plan import EngineLimits, Infeasible, Parallelism, Placement
from planner.core.topology import Device, DeviceKind, Host, Link, LinkKind, Origin, Topology
from planner.core.workload import Workload
from planner.cost.contention import ALONE, Demand, Flow, Sharing, meetings, share_out, stretch
from planner.cost.placed import Placed
from planner.cost.pricer import Pricer
from planner.documents.calibration import load_calibration
from planner.documents.hardware import load_link_rates
from planner.engines import engines
from planner.graph.equip import equip
from planner.units import Bytes, BytesPerSecond
from random_machines import clusters, hosts, link, renumbered

GPU = "A100-PCIe-80GB"
LIMITS = EngineLimits(64, 2048, 0.9)
LONG = Workload(1024, 128, 64)


def box(socket: float = 16, lane: float = 24) -> Topology:
    """Two sockets with four GPUs each, every GPU on a root port of its own; copies go from GPU to GPU."""
    devices = [Device(f"so{number}", DeviceKind.SOCKET, "h") for number in range(2)]
    links = [link("so0", "so1", LinkKind.SOCKET, socket)]
    for number in range(8):
        devices += [Device(f"br{number}", DeviceKind.HOST_BRIDGE, "h"), Device(f"gpu{number}", DeviceKind.GPU, "h", number, GPU)]
        links += [
            link(f"so{number // 4}", f"br{number}", LinkKind.PCIE, 48),
            link(f"br{number}", f"gpu{number}", LinkKind.PCIE, lane),
        ]
    return Topology("box", (Host("h", "enabled"),), tuple(devices), tuple(links), Origin("written", "test"))


def nodes(cards: int, rate: float = 12, *, rails: bool = False) -> Topology:
    """Two hosts of two GPUs and so many network cards on one network; on ``rails`` each GPU has a switch with its own card."""
    devices = [Device("net", DeviceKind.NETWORK)]
    links: list[Link] = []
    for host in ("a", "b"):
        devices += [Device(f"{host}/so", DeviceKind.SOCKET, host), Device(f"{host}/br", DeviceKind.HOST_BRIDGE, host)]
        links.append(link(f"{host}/so", f"{host}/br", LinkKind.PCIE, 96))
        for number in range(2):
            devices.append(Device(f"{host}/gpu{number}", DeviceKind.GPU, host, number, GPU))
            if rails:
                devices.append(Device(f"{host}/sw{number}", DeviceKind.PCIE_SWITCH, host))
                links.append(link(f"{host}/br", f"{host}/sw{number}", LinkKind.PCIE, 24))
            links.append(link(f"{host}/{'sw' + str(number) if rails else 'br'}", f"{host}/gpu{number}", LinkKind.PCIE, 24))
        for number in range(cards):
            devices.append(Device(f"{host}/nic{number}", DeviceKind.NIC, host))
            links.append(link(f"{host}/{'sw' + str(number) if rails else 'br'}", f"{host}/nic{number}", LinkKind.PCIE, 24))
            links.append(link(f"{host}/nic{number}", "net", LinkKind.NETWORK, rate))
    every = (Host("a", "enabled"), Host("b", "enabled"))
    return Topology("nodes", every, tuple(devices), tuple(links), Origin("written", "test"))


def priced(
    topology: Topology, degrees: Parallelism, workload: Workload = LONG, engine: str = "vllm", model: str = "qwen3-8b"
) -> Placed:
    names = topology.hardware
    pricer = Pricer(
        topology, {name: api.load_gpu(name) for name in names}, api.load_model(model), workload, engines()[engine].traits,
        load_calibration(),
    )  # fmt: skip
    partition = pricer.traits.default_partition(len(pricer.model.layers), degrees.pipeline)
    strategy = pricer.strategy(degrees, partition, LIMITS, range(len(topology.gpus)))
    assert not isinstance(strategy, Infeasible)
    return pricer.placed(strategy)


def busy(sharing: Sharing) -> list[float]:
    return [flow.busy for flow in sharing.flows]


def test_two_groups_that_always_send_over_one_link_get_half_each() -> None:
    placed = priced(box(), Parallelism(2, 1, 2))
    demands = [placed.traffic.group(group) for group in ((0, 4), (1, 5))]
    flows = [Flow(frozenset(group), number, None, demand, 1.0) for number, (group, demand) in enumerate(
        zip(((0, 4), (1, 5)), demands, strict=True)
    )]  # fmt: skip
    assert [flow.demand.rate for flow in flows] == [16e9, 16e9]
    shares = share_out(flows, meetings(flows), placed.wires.capacity, 4)
    assert [share.kept for share in shares] == [0.5, 0.5]
    assert placed.wires.describe(shares[0].link or (0, True)) == "socket interconnect so0–so1 (16 GB/s)"


def test_groups_get_more_the_less_the_others_send() -> None:
    """At most one over one plus the others' busy time, each way over the one link both cross once."""
    sharing = priced(box(), Parallelism(2, 1, 2)).sharing((((0, 4),), ((1, 5),)))
    assert sharing.group((0, 4)) == pytest.approx(1 / (1 + busy(sharing)[1]))
    assert 0 < busy(sharing)[1] < 1
    three = priced(box(), Parallelism(2, 1, 3)).sharing((((0, 4),), ((1, 5),), ((2, 6),)))
    assert three.group((0, 4)) == pytest.approx(1 / (1 + sum(busy(three)[1:])))


def test_groups_within_a_socket_share_nothing() -> None:
    placed = priced(box(), Parallelism(2, 1, 4))
    assert placed.sharing((((0, 1),), ((2, 3),), ((4, 5),), ((6, 7),))) is ALONE


def test_a_link_wide_enough_for_all_slows_nobody() -> None:
    """Each ring is held to 24 GB/s by its own lanes; four of them fit through 100 GB/s between the sockets."""
    placed = priced(box(socket=100), Parallelism(2, 1, 4))
    across: Placement = (((0, 4),), ((1, 5),), ((2, 6),), ((3, 7),))
    assert placed.sharing(across).groups == {}
    assert placed.estimate(across).communication.shared_link is None
    narrow = priced(box(socket=90), Parallelism(2, 1, 4)).sharing(across)
    assert narrow.groups == {} or min(share.kept for share in narrow.groups.values()) > 90 / 96 - 1e-9


def test_opposite_ways_over_a_link_do_not_meet() -> None:
    placed = priced(box(), Parallelism(1, 2, 2), Workload(1024, 128, 64))
    assert placed.sharing((((0,), (4,)), ((5,), (1,)))) is ALONE
    same = placed.sharing((((0,), (4,)), ((1,), (5,))))
    assert same.send(0, 4) == pytest.approx(1 / (1 + busy(same)[1]))


def test_the_sends_of_one_boundary_leave_at_once() -> None:
    placed = priced(box(), Parallelism(4, 2))
    assert placed.traffic.among_themselves((0, 1, 2, 3), (4, 5, 6, 7)) == (0.25,) * 4
    (across,) = placed.hops((0, 1, 2, 3), (4, 5, 6, 7))
    alone, gather = placed.times.pair(0, 4), placed.times.gather((4, 5, 6, 7))
    size = 2 * LONG.input_tokens * placed.strategy.model.hidden_size * 2 / 4
    assert across.prefill - gather[1] == pytest.approx(alone[1] + 3 * size / 16e9)


def test_flows_of_one_gpu_take_turns() -> None:
    """The sends into a stage and its all-reduces use the same lanes, one after the other."""
    placed = priced(box(socket=1000), Parallelism(2, 2))
    assert placed.sharing((((0, 1), (2, 3)),)) is ALONE


def test_stages_never_meet_while_there_is_one_micro_batch() -> None:
    replica: Placement = (((0, 4), (1, 5)),)
    alone = priced(box(), Parallelism(2, 2), Workload(1024, 128, 1)).sharing(replica)
    assert not alone.groups
    full = priced(box(), Parallelism(2, 2), Workload(1024, 128, 64)).sharing(replica)
    assert full.group((0, 4)) == pytest.approx(1 / (1 + full.flows[1].busy / 2))


def test_replicas_that_step_together_meet_at_every_all_reduce() -> None:
    placed = priced(box(), Parallelism(2, 1, 2, 4), model="qwen3-30b-a3b")
    assert placed.sharing((((0, 4),), ((1, 5),))).group((0, 4)) == pytest.approx(0.5)


def test_pairs_over_one_network_card_lose() -> None:
    placed = priced(nodes(1), Parallelism(2, 1, 2))
    crossing, inside = (((0, 2),), ((1, 3),)), (((0, 1),), ((2, 3),))
    sharing = placed.sharing(crossing)
    assert sharing.group((0, 2)) == pytest.approx(1 / (1 + busy(sharing)[1]))
    assert placed.sharing(inside) is ALONE
    assert placed.estimate(crossing).tpot > placed.estimate(inside).tpot
    found = placed.estimate(crossing).communication.shared_link
    assert found is not None
    assert found.link.startswith("network a/nic0–net")
    assert found.carries == "the all-reduces of 2 replicas"


def test_a_card_for_each_keeps_pairs_apart() -> None:
    placed = priced(nodes(2, rails=True), Parallelism(2, 1, 2))
    assert placed.sharing((((0, 2),), ((1, 3),))) is ALONE
    assert placed.traffic.among_themselves((0, 1), (2, 3)) == (1.0, 1.0)
    one = priced(nodes(1), Parallelism(2, 2)).traffic
    halves = [kept * one.send(0, 2).rate for kept in one.among_themselves((0, 1), (2, 3))]
    assert halves == pytest.approx([6e9, 6e9])


def test_pairs_near_the_same_two_cards_use_both() -> None:
    """Alone a pair gets 24 GB/s from two cards of 12; beside another that always sends, half of that."""
    placed = priced(nodes(2), Parallelism(2, 1, 2))
    assert placed.traffic.group((0, 2)).rate == pytest.approx(24e9)
    sharing = placed.sharing((((0, 2),), ((1, 3),)))
    assert sharing.group((0, 2)) == pytest.approx(1 / (1 + busy(sharing)[1]))


def test_only_bandwidth_is_shared() -> None:
    wires = priced(box(), Parallelism(2)).wires
    group = wires.group((0, 4))
    assert stretch(group, Bytes(64), 0.5) < 1.01
    assert stretch(group, Bytes(2**30), 0.5) == pytest.approx(2, rel=0.01)
    assert stretch(group, Bytes(2**30), 1.0) == 1.0


def test_the_estimate_says_what_sharing_costs_and_where() -> None:
    placed = priced(box(), Parallelism(2, 1, 2))
    across: Placement = (((0, 4),), ((1, 5),))
    one = placed.estimate(across)
    kept = placed.sharing(across).group((0, 4))
    alone, slowed = placed.stage(0, (0, 4)), placed.stage(0, (0, 4), kept)
    assert one.decode.parts["shared_links"] == pytest.approx(slowed[0] - alone[0])
    assert one.prefill.parts["shared_links"] == pytest.approx(slowed[1] - alone[1])
    assert one.decode.parts["shared_links"] > 0
    shared = one.communication.shared_link
    assert shared is not None
    assert shared.slowdown == pytest.approx(1 / kept)
    assert str(shared).startswith("socket interconnect so0–so1 (16 GB/s) carries the all-reduces of 2 replicas: ")
    inside = placed.estimate((((0, 1),), ((2, 3),)))
    assert inside.communication.shared_link is None
    assert "shared_links" not in inside.decode.parts


def test_more_of_a_link_is_left_by_those_who_need_little() -> None:
    wide, narrow = Demand(24e9, {(0, True): 1}), Demand(3e9, {(0, True): 1})
    flows = [Flow(frozenset({0, 1}), 0, None, wide, 1.0), Flow(frozenset({2, 3}), 1, None, narrow, 1.0)]
    shares = share_out(flows, meetings(flows), {(0, True): 24e9}, 1)
    assert [share.kept for share in shares] == [pytest.approx(21 / 24), 1.0]


def on(topology: Topology) -> Topology:
    return equip(topology, {name: api.load_gpu(name) for name in topology.hardware}, load_link_rates())


SHAPES = [Parallelism(1, 2, 1), Parallelism(1, 2, 2), Parallelism(2, 1, 2), Parallelism(2, 1, 3), Parallelism(2, 2, 1)]
WORKLOADS = st.builds(Workload, st.sampled_from([64, 1024, 5000]), st.sampled_from([16, 128]), st.sampled_from([1, 8, 64]))


def placements(draw: st.DrawFn, gpus: int, degrees: Parallelism) -> Placement:
    order = iter(draw(st.permutations(range(gpus))))
    return tuple(
        tuple(tuple(next(order) for _ in range(degrees.tensor)) for _ in range(degrees.pipeline)) for _ in range(degrees.data)
    )


@st.composite
def plans(draw: st.DrawFn, machines: st.SearchStrategy[Topology]) -> tuple[Topology, Parallelism, Placement]:
    topology = draw(machines.filter(lambda one: len(one.gpus) > 1))
    degrees = draw(st.sampled_from([one for one in SHAPES if one.gpus <= len(topology.gpus)] or [Parallelism(2)]))
    return topology, degrees, placements(draw, len(topology.gpus), degrees)


def kept_by_all(placed: Placed, placement: Placement) -> list[float]:
    sharing = placed.sharing(placement)
    groups = [sharing.group(group) for replica in placement for group in replica]
    return groups + [
        sharing.send(a, b) for replica in placement for one, other in pairwise(replica)
        for a, b in zip(one, other, strict=True)
    ]  # fmt: skip


@settings(max_examples=200)
@given(plans(st.one_of(hosts(), clusters())), WORKLOADS, st.sampled_from(["vllm", "tensorrt-llm"]))
def test_another_replica_never_makes_anybody_faster(
    drawn: tuple[Topology, Parallelism, Placement], workload: Workload, engine: str
) -> None:
    topology, degrees, placement = drawn
    placed = priced(topology, degrees, workload, engine)
    for fewer in range(1, len(placement)):
        before, after = placed.sharing(placement[:fewer]), placed.sharing(placement)
        for replica in placement[:fewer]:
            for group in replica:
                assert after.group(group) <= before.group(group) <= 1
            slower, faster = placed.replica_times(replica, after), placed.replica_times(replica, before)
            assert slower.decode_sum >= faster.decode_sum * (1 - 1e-12)
            assert slower.prefill_sum >= faster.prefill_sum * (1 - 1e-12)
            assert slower.hops_prefill >= faster.hops_prefill * (1 - 1e-12)


@settings(max_examples=150)
@given(plans(hosts()), WORKLOADS, st.data())
def test_the_numbers_of_gpus_do_not_matter(
    drawn: tuple[Topology, Parallelism, Placement], workload: Workload, data: st.DataObject
) -> None:
    topology, degrees, placement = drawn
    names = [gpu.id for gpu in topology.gpus]
    index = dict(zip(names, data.draw(st.permutations(range(len(names)))), strict=True))
    other = renumbered(topology, index)
    place = {gpu.id: number for number, gpu in enumerate(other.gpus)}
    same: Placement = tuple(tuple(tuple(place[names[gpu]] for gpu in group) for group in replica) for replica in placement)
    found, again = priced(topology, degrees, workload), priced(other, degrees, workload)
    assert kept_by_all(again, same) == pytest.approx(kept_by_all(found, placement), rel=1e-9)
    assert again.estimate(same).tpot == pytest.approx(found.estimate(placement).tpot, rel=1e-9)


@settings(max_examples=100)
@given(plans(st.one_of(hosts(), clusters())), WORKLOADS)
def test_nobody_is_slowed_by_himself_and_shares_are_shares(
    drawn: tuple[Topology, Parallelism, Placement], workload: Workload
) -> None:
    topology, degrees, placement = drawn
    placed = priced(topology, degrees, workload)
    assert all(0 < kept <= 1 for kept in kept_by_all(placed, placement))
    for replica in placement:
        for group in replica:
            demand = placed.traffic.group(group)
            assert all(times * demand.rate <= placed.wires.capacity[one] * (1 + 1e-9) for one, times in demand.crossings.items())
    estimate = placed.estimate(placement)
    assert math.isfinite(estimate.ttft)
    assert estimate.decode.total <= estimate.tpot * (1 + 1e-9)


def natural(degrees: Parallelism) -> Placement:
    gpus = iter(range(degrees.gpus))
    return tuple(
        tuple(tuple(next(gpus) for _ in range(degrees.tensor)) for _ in range(degrees.pipeline)) for _ in range(degrees.data)
    )


@pytest.mark.parametrize("spec", ["8xH100-SXM5-80GB", "8xA100-SXM4-80GB", "8xB200-SXM-180GB"])
@pytest.mark.parametrize("degrees", [Parallelism(2, 1, 4), Parallelism(4, 2), Parallelism(2, 2, 2), Parallelism(8)])
def test_ports_into_an_nvswitch_are_private(spec: str, degrees: Parallelism) -> None:
    placed = priced(on(api.load_topology(spec)), degrees)
    assert placed.sharing(natural(degrees)) is ALONE


def test_an_hgx_cluster_has_a_card_for_every_rank_that_sends() -> None:
    placed = priced(on(api.load_topology("2x8xH100-SXM5-80GB")), Parallelism(8, 2))
    assert placed.sharing(natural(Parallelism(8, 2))) is ALONE


def without(topology: Topology, kind: LinkKind) -> Sequence[Link]:
    return [one for one in topology.links if one.kind is not kind]


def test_a_link_of_unknown_rate_is_nobodys_bottleneck() -> None:
    topology = box()
    unknown = replace(topology.links[0], bandwidth=BytesPerSecond(1.0), achieved=None)
    bare = replace(topology, links=(unknown, *without(topology, LinkKind.SOCKET)))
    placed = priced(bare, Parallelism(2, 1, 2))
    assert placed.sharing((((0, 1),), ((4, 5),))) is ALONE
