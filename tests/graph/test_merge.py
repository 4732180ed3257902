"""Hosts become a cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import api
from planner.core.facts import GpuFacts
from planner.core.finding import Finding
from planner.core.topology import DeviceKind, LinkKind, Topology
from planner.core.workload import Workload
from planner.cost.interconnect import Interconnect
from planner.documents.topology import dump_topology, parse_topology
from planner.errors import BadInput
from planner.graph.merge import merge, node_missing
from planner.graph.network import AS_SEEN, Network, Switch, parse_network
from planner.graph.nvlink_domain import domain_of
from planner.graph.paths import PathKind, Paths, class_matrix
from planner.graph.relabel import relabelled
from planner.graph.uplinks import Uplinks
from planner.units import BytesPerSecond

GB = 1e9
TREE = (
    Switch("spine", (), ("leaf1", "leaf2")),
    Switch("leaf1", ("a", "b")),
    Switch("leaf2", ("c", "d")),
    Switch("core", (), ("spine",)),
)


def network(spec: str) -> Network:
    return parse_network(spec, lambda _: TREE)


def hosts(*names: str, machine: str = "dgx-h100") -> list[tuple[str, Topology]]:
    return [(name, api.load_topology(machine)) for name in names]


def shared(topology: Topology) -> list[str]:
    return [device.id for device in topology.devices if not device.host]


def uplinks(topology: Topology) -> dict[str, float]:
    kinds = {device.id: device.kind for device in topology.devices}
    return {
        f"{link.a}-{link.b}": float(link.bandwidth)
        for link in topology.links
        if kinds[link.a] is kinds[link.b] is DeviceKind.NETWORK and isinstance(link.bandwidth, float)
    }


@pytest.mark.parametrize(
    ("spec", "switches", "up"),
    [
        ("8x400", ["network"], {}),
        ("8x400,leaf=2", ["leaf0", "leaf1", "spine"], {"leaf0-spine": 800 * GB, "leaf1-spine": 800 * GB}),
        (
            "8x400,leaf=3,oversubscription=2",
            ["leaf0", "leaf1", "spine"],
            {"leaf0-spine": 600 * GB, "leaf1-spine": 200 * GB},
        ),
        ("8x400,leaf=4", ["leaf0"], {}),
        ("2x200,rail", ["rail0", "rail1", "spine"], {"rail0-spine": 100 * GB, "rail1-spine": 100 * GB}),
        (
            "2x400,rail,leaf=2",
            ["leaf0-rail0", "leaf0-rail1", "leaf1-rail0", "leaf1-rail1", "spine"],
            {f"leaf{pod}-rail{rail}-spine": 100 * GB for pod in (0, 1) for rail in (0, 1)},
        ),
        ("8x400,tree=x", ["spine", "leaf1", "leaf2"], {"leaf1-spine": 800 * GB, "leaf2-spine": 800 * GB}),
    ],
)
def test_the_switches_a_network_means(spec: str, switches: list[str], up: dict[str, float]) -> None:
    # a host without cards of its own, so that the rate is the network's
    bare = api.load_topology("8xH100-SXM5-80GB")
    cluster = merge("c", [(name, bare) for name in "abcd"], network(spec))
    assert shared(cluster) == switches
    assert uplinks(cluster) == up
    assert [host.name for host in cluster.hosts] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "spec",
    ["8x", "0x400", "8x0", "999x400", "8x400,leaf", "8x400,leaf=0", "8x400,leaf=2,leaf=3", "8x400,rail=1", "8x400,oversubscription=2",
     "8x400,leaf=2,oversubscription=0.5", "8x400,rail,tree=x", "8x400,colour=red", "8x400,leaf=2,oversubscription=nan"],
)  # fmt: skip
def test_a_network_that_is_none_is_refused_with_how_to_say_it(spec: str) -> None:
    def no_file(path: str) -> tuple[Switch, ...]:
        raise BadInput(f"no such file: {path}", hint="8x400")

    with pytest.raises(BadInput) as refusal:
        parse_network(spec, no_file)
    assert "8x400" in refusal.value.hint


@pytest.mark.parametrize("spec", ["8x400", "8x400,leaf=1", "8x400,rail", "12x100,rail,leaf=1,oversubscription=3", "8x400,tree=x"])
@pytest.mark.parametrize("machine", ["dgx-h100", "4x-rtx-3090-bridged", "gb200-tray"])
def test_what_is_merged_is_sound_and_round_trips(spec: str, machine: str) -> None:
    cluster = merge("c", hosts("a", "b", "c", machine=machine), network(spec))
    cluster.check()
    assert parse_topology(dump_topology(cluster), "again") == cluster
    one = api.load_topology(machine)
    matrix = class_matrix(cluster)
    size = len(one.gpus)
    assert [row[size : 2 * size] for row in matrix[size : 2 * size]] == class_matrix(one)
    assert {cell for row in matrix[:size] for cell in row[size:]} == {"NET"}


@given(st.permutations(range(3)), st.sampled_from(["8x400", "8x400,leaf=2,oversubscription=3", "8x400,rail"]))
def test_what_hosts_are_called_changes_nothing(order: list[int], spec: str) -> None:
    """Merging relabelled hosts is merging hosts and relabelling them."""
    plain = merge("c", hosts("a", "b", "c"), network(spec))
    new = dict(zip("abc", [f"x{number}" for number in order], strict=True))
    one = api.load_topology("dgx-h100")
    members = [(new[name], relabelled(one, {one.hosts[0].name: new[name]}, prefixed=False)) for name in "abc"]
    again = merge("c", members, network(spec))
    expected = relabelled(plain, new, prefixed=True)
    assert replace(again, origin=expected.origin) == expected


def test_merging_in_another_order_is_the_same_cluster_with_its_hosts_in_that_order() -> None:
    one, other = hosts("a", machine="dgx-h100"), hosts("b", machine="dgx-a100")
    left, right = merge("c", one + other, network("8x400")), merge("c", other + one, network("8x400"))
    assert set(left.devices) == set(right.devices)
    assert set(left.links) == set(right.links)


def test_a_host_keeps_a_name_that_is_its_own_else_gets_that_of_its_file_else_a_number() -> None:
    one = api.load_topology("dgx-h100")
    named = relabelled(one, {one.hosts[0].name: "gpu-07"}, prefixed=False)
    cluster = merge("c", [("rack1.a", one), ("rack2 b", one), ("x", named), ("x", one), ("x", one)], network("8x400"))
    assert [host.name for host in cluster.hosts] == ["rack1.a", "rack2-b", "gpu-07", "node0", "node1"]


def test_the_hosts_of_a_cluster_come_in_and_its_network_is_drawn_anew() -> None:
    pair = api.load_topology("2x-dgx-h100")
    cluster = merge("c", [("pair", pair), ("third", api.load_topology("dgx-h100"))], network("8x200"))
    assert [host.name for host in cluster.hosts] == ["node0", "node1", "third"]
    assert shared(cluster) == ["network"]
    rates = {link.bandwidth for link in cluster.links if link.kind is LinkKind.NETWORK}
    assert rates == {50 * GB}  # the cards tell their own rate


def test_cards_that_were_seen_come_first_and_missing_ones_are_added_and_said() -> None:
    one = api.load_topology("4x-rtx-3090-bridged")
    assert not one.nics(one.hosts[0].name)
    cluster = merge("c", [("a", one), ("b", one)], network("2x100"))
    assert len(cluster.nics("a")) == 2
    assert any("2 cards of 100 Gb/s that nobody saw" in said and "a, b" in said for said in cluster.origin.assumptions)
    paths = Paths(cluster)
    near = [paths.nearest_nic(f"a/gpu{number}") for number in range(4)]
    assert {card for _, card in near if card} == {"a/nic0", "a/nic1"}  # type: ignore[misc] # none of them is without a card


def with_rates(*gigabits: float | None) -> Topology:
    """Two GPUs and as many cards, on one socket."""
    bare = api.load_topology(f"2xH100-SXM5-80GB@{len(gigabits)}x400")
    rates = iter(gigabits)
    devices = []
    for device in bare.devices:
        if device.kind is DeviceKind.NIC:
            said = next(rates)
            devices.append(replace(device, rate=None if said is None else BytesPerSecond(said * 1e9 / 8)))
        else:
            devices.append(device)
    links = [link for link in bare.links if link.kind is not LinkKind.NETWORK]
    kept = [device for device in devices if device.kind is not DeviceKind.NETWORK]
    return replace(bare, devices=tuple(kept), links=tuple(links))


def joined(topology: Topology) -> dict[str, float]:
    return {
        link.a: float(link.bandwidth) * 8e-9
        for link in topology.links
        if link.b == "network" and isinstance(link.bandwidth, float)
    }


def test_cards_keep_their_rate_management_cards_and_unknown_ones_are_left_out_and_said() -> None:
    one = with_rates(200, 10, None)
    seen = merge("c", [("a", one), ("b", one)], AS_SEEN)
    assert joined(seen) == {"a/nic0": 200, "b/nic0": 200}
    assert any("below 25 Gb/s" in said and "a/nic1" in said for said in seen.origin.assumptions)
    assert any("nobody says how fast" in said and "b/nic2" in said for said in seen.origin.assumptions)
    told = merge("c", [("a", one), ("b", one)], network("2x400"))
    assert joined(told) == {"a/nic0": 200, "a/nic2": 400, "b/nic0": 200, "b/nic2": 400}


def test_of_too_many_cards_the_fastest_are_joined() -> None:
    one = with_rates(100, 400, 100, 400)
    cluster = merge("c", [("a", one), ("b", one)], network("2x400"))
    assert joined(cluster) == {"a/nic1": 400, "a/nic3": 400, "b/nic1": 400, "b/nic3": 400}
    assert any("nic0, nic2 left out" in said for said in cluster.origin.assumptions)


def test_hosts_that_nothing_joins_are_no_cluster_and_it_is_said_what_to_add() -> None:
    with pytest.raises(BadInput, match="nothing joins hosts a, b") as refusal:
        merge("c", hosts("a", "b", machine="4x-rtx-3090-bridged"))
    assert "8x400" in refusal.value.hint


def test_a_host_that_is_not_in_the_tree_is_named() -> None:
    with pytest.raises(BadInput, match="host 'z' hangs from no switch") as refusal:
        merge("c", hosts("a", "z"), network("8x400,tree=x"))
    assert "a, b, c, d" in refusal.value.hint


def test_a_host_is_found_in_the_tree_without_its_domain_and_on_several_leaves() -> None:
    rails = (Switch("r0", ("a", "b")), Switch("r1", ("a", "b")), Switch("top", (), ("r0", "r1")))
    cluster = merge(
        "c", hosts("a.example.com", "b"), Network(wiring="tree", cards=4, rate=BytesPerSecond(50 * GB), switches=rails)
    )
    ends = [link.b for link in cluster.links if link.a.startswith("a.example.com/nic") and link.kind is LinkKind.NETWORK]
    assert ends == ["r0", "r1", "r0", "r1"]
    assert shared(cluster) == ["r0", "r1", "top"]


def tray(cluster: str, clique: int, state: str = "completed") -> Topology:
    """A GB200 tray as a probe sees it on its own."""
    one = api.load_topology("gb200-tray")
    facts = GpuFacts(fabric=state, fabric_cluster=cluster, fabric_clique=clique)
    return replace(
        one, devices=tuple(replace(device, facts=facts) if device.kind is DeviceKind.GPU else device for device in one.devices)
    )


FABRIC = "3f6c2a10-0000-4000-8000-000000000001"
NO_FABRIC = "00000000-0000-0000-0000-000000000000"


def test_trays_of_one_nvlink_fabric_share_one_switch() -> None:
    cluster = merge("c", [(f"tray{number}", tray(FABRIC, 32766)) for number in range(3)], Network(wiring="none"))
    assert shared(cluster) == ["nvswitch"]
    assert [device.id for device in cluster.devices if device.kind is DeviceKind.NVSWITCH] == ["nvswitch"]
    assert {cell for row in class_matrix(cluster) for cell in row} == {"X", "NV18"}
    assert parse_topology(dump_topology(cluster), "again") == cluster
    library = api.load_topology("gb200-nvl72")
    path = Paths(cluster).between("tray0/gpu0", "tray2/gpu3")
    assert path.kind is PathKind.NVLINK
    assert [cluster.links[number].count for number, _ in path.links] == [18, 18]
    assert class_matrix(cluster) == [row[:12] for row in class_matrix(library)[:12]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (tray(FABRIC, 1), tray(FABRIC, 2)),
        (tray(FABRIC, 1), tray(FABRIC.replace("1", "2"), 1)),
        (tray(NO_FABRIC, 0), tray(NO_FABRIC, 0)),
        (tray(FABRIC, 1, "in-progress"), tray(FABRIC, 1, "in-progress")),
    ],
    ids=["other clique", "other cluster", "zeros", "not completed"],
)
def test_trays_of_different_fabrics_do_not(one: Topology, other: Topology) -> None:
    cluster = merge("c", [("a", one), ("b", other)], network("4x400"))
    assert shared(cluster) == ["network"]
    assert "NET" in {cell for row in class_matrix(cluster) for cell in row}


def test_two_fabrics_are_two_switches() -> None:
    members = [(name, tray(FABRIC, clique)) for name, clique in (("a", 1), ("b", 1), ("c", 2), ("d", 2))]
    cluster = merge("c", members, network("4x400"))
    assert [one for one in shared(cluster) if one.startswith("nvswitch")] == ["nvswitch0", "nvswitch1"]
    assert Paths(cluster).between("a/gpu0", "b/gpu0").kind is PathKind.NVLINK
    assert Paths(cluster).between("b/gpu0", "c/gpu0").kind is PathKind.NETWORK


def test_gpus_whose_host_saw_no_switch_are_joined_to_it_all_the_same() -> None:
    one = tray(FABRIC, 7)
    blind = replace(
        one,
        devices=tuple(device for device in one.devices if device.kind is not DeviceKind.NVSWITCH),
        links=tuple(link for link in one.links if link.kind is not LinkKind.NVLINK),
    )
    cluster = merge("c", [("a", one), ("b", blind)], Network(wiring="none"))
    assert Paths(cluster).between("a/gpu0", "b/gpu0").kind is PathKind.NVLINK
    assert domain_of(cluster.gpus[0]) == (FABRIC, 7)


def test_findings_and_facts_are_carried_over() -> None:
    one = api.load_topology("4x-rtx-3090-bridged")
    finding = Finding("nvlink-down", "an NVLink of gpu1 is down", devices=("gpu1",))
    bad = replace(one, findings=(finding,), observed=(("gpu0", "gpu1", "PXB"),))
    cluster = merge("c", [("a", bad), ("b", bad), ("c", one)], network("1x100"), [node_missing("d", "no answer")])
    assert [found.code for found in cluster.findings] == ["node-missing", "nvlink-down"]
    assert cluster.findings[0].message == "d is not in it: no answer"
    assert cluster.findings[1].devices == ("a/gpu1", "b/gpu1")
    assert cluster.findings[1].message == "an NVLink of gpu1 is down (on a, b)"
    assert cluster.observed == (("a/gpu0", "a/gpu1", "PXB"), ("b/gpu0", "b/gpu1", "PXB"))


def test_a_machine_that_is_there_twice_is_taken_once() -> None:
    one = api.load_topology("2x-l4")
    devices = (
        replace(one, facts=GpuFacts(uuid=f"GPU-{one.index}")) if one.kind is DeviceKind.GPU else one for one in one.devices
    )
    known = replace(one, devices=tuple(devices))
    cluster = merge("c", [("a", known), ("alias", known)], network("1x100"))
    assert [host.name for host in cluster.hosts] == [one.hosts[0].name if one.hosts[0].name == "a" else "a"]
    assert [finding.code for finding in cluster.findings] == ["node-twice"]


def test_one_host_is_a_cluster_of_one_and_none_is_none() -> None:
    one = merge("c", hosts("a"), network("8x400"), [node_missing("b", "down")])
    assert [gpu.id for gpu in one.gpus] == [f"gpu{number}" for number in range(8)]
    assert parse_topology(dump_topology(one), "again") == one
    with pytest.raises(BadInput, match="no node is left to merge: b is not in it: down"):
        merge("c", [], network("8x400"), [node_missing("b", "down")])


def interconnect(topology: Topology) -> Interconnect:
    equipped = api.equipped_for_display(topology)
    return Interconnect(equipped, {name: api.load_gpu(name) for name in equipped.hardware})


def of_cards(wires: Interconnect, host: str) -> float:
    """What the network links of a host carry; PCIe carries a little less."""
    links = [one for one in wires.topology.links if one.kind is LinkKind.NETWORK and one.a.startswith(f"{host}/")]
    return sum(float(one.achieved or 0) for one in links)


def test_ways_between_hosts_cross_the_uplinks_of_their_leaves_only_where_they_must() -> None:
    cluster = merge("c", hosts("a", "b", "c", "d"), network("8x400,leaf=2"))
    paths = Paths(cluster)

    def switches(a: str, b: str) -> list[str]:
        ends = [end for number, _ in paths.between(a, b).links for end in (cluster.links[number].a, cluster.links[number].b)]
        return [one for one in shared(cluster) if one in ends]

    assert switches("a/gpu0", "b/gpu0") == ["leaf0"]
    assert switches("a/gpu0", "c/gpu0") == ["leaf0", "leaf1", "spine"]
    rails = merge("c", hosts("a", "b"), network("8x400,rail"))
    route = Paths(rails).between("a/gpu3", "b/gpu3").links
    assert [rails.links[number].name for number, _ in route if rails.links[number].kind is LinkKind.NETWORK] == [
        "a/nic3–rail3",
        "b/nic3–rail3",
    ]


def test_an_oversubscribed_spine_limits_groups_over_several_leaves_and_no_others() -> None:
    free = interconnect(merge("c", hosts("a", "b", "c", "d"), network("8x400,leaf=2")))
    narrow = interconnect(merge("c", hosts("a", "b", "c", "d"), network("8x400,leaf=2,oversubscription=4")))
    inside, across, alone = range(16), range(32), [*range(8), *range(16, 24)]
    assert narrow.group(inside).network == free.group(inside).network
    assert narrow.group(across).network == pytest.approx(of_cards(narrow, "a") / 4)
    # one host of each leaf has its leaf's uplinks to itself
    assert narrow.group(alone).network == pytest.approx(of_cards(narrow, "a") / 2)


def test_on_rails_a_spine_limits_nothing_that_keeps_to_its_rail() -> None:
    narrow = interconnect(merge("c", hosts("a", "b", "c", "d"), network("8x400,rail,oversubscription=8")))
    free = interconnect(merge("c", hosts("a", "b", "c", "d"), network("8x400")))
    assert narrow.group(range(32)).network == free.group(range(32)).network
    pods = interconnect(merge("c", hosts("a", "b", "c", "d"), network("8x400,rail,leaf=2,oversubscription=8")))
    assert pods.group(range(16)).network == free.group(range(16)).network
    assert pods.group(range(32)).network == pytest.approx(of_cards(pods, "a") / 8)


def test_levels_of_switches_and_what_each_leaves_to_a_host() -> None:
    three = (
        Switch("core", (), ("s1", "s2")),
        Switch("s1", (), ("l1", "l2")),
        Switch("s2", (), ("l3",)),
        Switch("l1", ("a",)),
        Switch("l2", ("b",)),
        Switch("l3", ("c",)),
    )
    wide = Network(wiring="tree", cards=8, rate=BytesPerSecond(50 * GB), switches=three, oversubscription=2.0)
    equipped = api.equipped_for_display(merge("c", hosts("a", "b", "c"), wide))
    ups = Uplinks(equipped)
    assert ups.below["core"] == {"a", "b", "c"}
    assert ups.below["s1"] == {"a", "b"}
    reached = {link.name: float(link.achieved or 0) for link in equipped.links}
    assert ups.share("l1", ["a"]) == float("inf")
    assert ups.share("l1", ["a", "b"]) == reached["l1–s1"]
    assert ups.share("l1", ["a", "b", "c"]) == min(reached["l1–s1"], reached["s1–core"] / 2)
    assert ups.share("l3", ["a", "b", "c"]) == min(reached["l3–s2"], reached["s2–core"])


@pytest.mark.parametrize("spec", ["8x400", "8x400,rail", "8x400,leaf=1,oversubscription=4"])
def test_plans_are_made_on_what_is_merged(spec: str) -> None:
    cluster = merge("c", hosts("a", "b"), network(spec))
    answer = api.recommend(api.load_model("llama-3.1-405b"), cluster, Workload(), top=1)
    assert len({gpu for replica in answer.plans[0].ranked.plan.placement for stage in replica for gpu in stage}) == 16


def test_a_merged_pair_plans_as_the_pair_of_the_library() -> None:
    cluster = merge("2x-dgx-h100", hosts("node0", "node1"), network("8x400"))
    model = api.load_model("llama-3.1-405b")
    ours = api.recommend(model, cluster, Workload(), top=3)
    theirs = api.recommend(model, api.load_topology("2x-dgx-h100"), Workload(), top=3)
    assert [one.ranked.estimate for one in ours.plans] == [one.ranked.estimate for one in theirs.plans]


def test_more_oversubscription_is_never_faster() -> None:
    times = []
    for ratio in (1, 2, 8):
        wires = interconnect(merge("c", hosts("a", "b"), network(f"8x400,leaf=1,oversubscription={ratio}")))
        times.append(wires.group(range(16)).network)
    assert times == sorted(times, reverse=True)
