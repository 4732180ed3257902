"""Ways from GPUs to the network: which cards a group uses, what the PCIe between carries, GPUDirect, relays over NVLink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from planner import api
from planner.core.topology import Device, DeviceKind, Host, LinkKind, Origin, Stated, Topology
from planner.cost.interconnect import GroupFacts, Interconnect
from planner.documents.hardware import load_link_rates
from planner.documents.topology import dump_topology, parse_topology
from planner.graph.equip import equip
from planner.graph.paths import Paths
from random_machines import link

GPU = "A100-PCIe-80GB"


def pair_of_hosts(
    tree: dict[str, list[str]],
    *,
    slots: dict[str, float] | None = None,
    card: float = 25.0,
    nvlinks: Sequence[tuple[int, int]] = (),
    gpu: str = GPU,
    gpudirect: Stated = "unknown",
    pxn: Stated = "unknown",
) -> Topology:
    """Two hosts alike out of parent → children below socket ``so0``; links carry 24 GB/s, 96 up to the socket, or as ``slots``
    says by the lower end.
    """
    kinds = {"gpu": DeviceKind.GPU, "sw": DeviceKind.PCIE_SWITCH, "br": DeviceKind.HOST_BRIDGE, "nic": DeviceKind.NIC}
    devices, links, hosts = [Device("net", DeviceKind.NETWORK)], [], []
    for host in ("a", "b"):
        hosts.append(Host(host, gpudirect=gpudirect, pxn=pxn))
        devices.append(Device(f"{host}/so0", DeviceKind.SOCKET, host))
        for parent, children in tree.items():
            for child in children:
                kind = kinds[child.rstrip("0123456789")]
                is_gpu = kind is DeviceKind.GPU
                devices.append(Device(f"{host}/{child}", kind, host, int(child[3:]) if is_gpu else None, gpu if is_gpu else None))
                usual = 96.0 if parent == "so0" else 24.0
                links.append(link(f"{host}/{parent}", f"{host}/{child}", LinkKind.PCIE, (slots or {}).get(child, usual)))
                if kind is DeviceKind.NIC:
                    links.append(link(f"{host}/{child}", "net", LinkKind.NETWORK, card))
        links += [link(f"{host}/gpu{a}", f"{host}/gpu{b}", LinkKind.NVLINK, 200) for a, b in nvlinks]
    topology = Topology("pair", tuple(hosts), tuple(devices), tuple(links), Origin("written", "test"))
    topology.check()
    return topology


def facts(topology: Topology, gpus: Sequence[int]) -> GroupFacts:
    return Interconnect(topology, {name: api.load_gpu(name) for name in topology.hardware}).group(gpus)


def names(topology: Topology, a: str, b: str) -> list[str]:
    return [topology.links[number].name for number, _ in Paths(topology).between(a, b).links]


SWITCHED = {"so0": ["br0"], "br0": ["sw0"], "sw0": ["gpu0", "nic0"]}
TWO_SWITCHES = {"so0": ["br0"], "br0": ["sw0", "sw1"], "sw0": ["gpu0", "nic0"], "sw1": ["gpu1"]}


@pytest.mark.parametrize(("a_node", "cards"), [(1, 1), (2, 2), (4, 4), (8, 8)])
def test_a_group_uses_the_rails_of_its_own_gpus(a_node: int, cards: int) -> None:
    topology = api.load_topology("2x8xH100-SXM5-80GB@8x400")
    specs = {name: api.load_gpu(name) for name in topology.hardware}
    wires = Interconnect(equip(topology, specs, load_link_rates()), specs)
    group = wires.group([*range(a_node), *range(8, 8 + a_node)])
    assert group.network_cards == cards
    assert group.network == pytest.approx(cards * 48e9)  # PCIe 5 x16 as NCCL counts it, just below 400 Gb/s
    limited_inside = a_node == 8  # eight cards carry more than one GPU's NVLinks
    assert ("on the way to the network" in (group.limiting_link or "")) is not limited_inside


def test_fewer_cards_than_gpus_serve_all_of_them() -> None:
    topology = api.load_topology("2x8xH100-SXM5-80GB@2x200")
    specs = {name: api.load_gpu(name) for name in topology.hardware}
    wires = Interconnect(equip(topology, specs, load_link_rates()), specs)
    whole = wires.group(range(16))
    assert whole.network_cards == 2
    assert whole.network == pytest.approx(50e9)
    assert (whole.limiting_link or "").startswith("network between node0, node1 (50 GB/s a node)")


def test_one_gpu_drives_as_many_cards_as_its_slot_carries() -> None:
    four = {"so0": ["br0"], "br0": ["sw0"], "sw0": ["gpu0", "nic0", "nic1", "nic2", "nic3"]}
    group = facts(pair_of_hosts(four, card=12.5), [0, 1])
    assert group.network_cards == 4
    assert group.network == pytest.approx(24e9)
    assert group.limiting_link == "PCIe a/sw0–a/gpu0 (24 GB/s) on the way to the network (24 GB/s a node)"


def test_without_gpudirect_every_byte_goes_up_to_host_memory_and_down_again() -> None:
    direct = facts(pair_of_hosts(SWITCHED), [0, 1])
    assert direct.network == pytest.approx(24e9)
    around = facts(pair_of_hosts(SWITCHED, gpudirect="disabled"), [0, 1])
    # out and in at once, the switch's uplink is crossed twice each way
    assert around.network == pytest.approx(12e9)
    assert around.limiting_link == "PCIe a/br0–a/sw0 (24 GB/s) on the way to the network, through host memory (12 GB/s a node)"
    beside = {"so0": ["br0"], "br0": ["gpu0", "nic0"]}
    assert facts(pair_of_hosts(beside), [0, 1]).network == pytest.approx(24e9)  # beyond PXB: through memory by NCCL's rule
    narrow = {"br0": 24.0}
    assert facts(pair_of_hosts(beside, slots=narrow), [0, 1]).network == pytest.approx(12e9)
    assert facts(pair_of_hosts(beside, slots=narrow, gpudirect="enabled"), [0, 1]).network == pytest.approx(24e9)


def test_cards_beyond_gpudirect_are_left_alone_where_others_are_within() -> None:
    mixed = {"so0": ["br0"], "br0": ["sw0", "gpu1", "nic1"], "sw0": ["gpu0", "nic0"]}
    group = facts(pair_of_hosts(mixed, card=12.0), [0, 1, 2, 3])
    assert group.network_cards == 1
    assert group.network == pytest.approx(12e9)
    far = facts(pair_of_hosts(mixed, card=12.0), [1, 3])
    # gpu1 sees both cards through the bridge: neither within GPUDirect's reach, so both are used
    assert far.network_cards == 2
    assert far.network == pytest.approx(24e9)


def test_before_ampere_cards_read_gpus_only_where_those_have_nvlinks() -> None:
    """A send then goes through host memory, a receive does not: the switch's uplink is crossed once each way."""
    two = {"so0": ["br0"], "br0": ["sw0"], "sw0": ["gpu0", "gpu1", "nic0"]}
    slow = {"sw0": 12.0}
    every = [0, 1, 2, 3]
    assert facts(pair_of_hosts(two, gpu="V100-PCIe-32GB", slots=slow), every).network == pytest.approx(12e9)
    assert facts(pair_of_hosts(two, gpu="V100-PCIe-32GB", slots=slow, nvlinks=[(0, 1)]), every).network == pytest.approx(24e9)
    assert facts(pair_of_hosts(two, slots=slow), every).network == pytest.approx(24e9)
    assert facts(pair_of_hosts(two, gpu="V100-PCIe-32GB", slots=slow), [0, 2]).network == pytest.approx(24e9)


def test_a_card_on_the_socket_of_a_grace_gpu_is_within_reach() -> None:
    topology = api.load_topology("gb200-nvl72")
    paths = Paths(topology)
    gpu = topology.gpus[0]
    near = paths.near_cards(gpu.id)
    assert near is not None
    assert paths.gpudirect(gpu.id, near[1][0])
    silent = Paths(replace(topology, hosts=tuple(replace(host, gpudirect="disabled") for host in topology.hosts)))
    assert not silent.gpudirect(gpu.id, near[1][0])


def test_a_gpu_without_a_card_sends_over_the_one_of_a_gpu_it_has_nvlinks_to() -> None:
    bridged = pair_of_hosts(TWO_SWITCHES, nvlinks=[(0, 1)])
    relayed = names(bridged, "a/gpu1", "b/gpu0")
    assert relayed[:2] == ["a/gpu0–a/gpu1", "a/sw0–a/gpu0"]
    assert names(bridged, "b/gpu0", "a/gpu1") == relayed[::-1]
    alone = pair_of_hosts(TWO_SWITCHES, nvlinks=[(0, 1)], pxn="disabled")
    # through the memory of its socket, as without the NVLink
    assert names(alone, "a/gpu1", "b/gpu0") == names(pair_of_hosts(TWO_SWITCHES), "a/gpu1", "b/gpu0")
    assert names(alone, "a/gpu1", "b/gpu0")[:4] == ["a/sw1–a/gpu1", "a/br0–a/sw1", "a/so0–a/br0", "a/so0–a/br0"]


def test_hosts_without_cards_offer_nothing() -> None:
    bare = pair_of_hosts(SWITCHED)
    unjoined = replace(bare, links=tuple(one for one in bare.links if one.kind is not LinkKind.NETWORK))
    group = facts(unjoined, [0, 1])
    assert (group.network, group.network_cards, group.limiting_link) == (0.0, 0, None)


@pytest.mark.parametrize("word", ["enabled", "disabled"])
def test_what_a_host_states_is_written_and_read(word: Stated) -> None:
    stated = pair_of_hosts(SWITCHED, gpudirect=word, pxn=word)
    again = parse_topology(dump_topology(stated), "again")
    assert [(host.gpudirect, host.pxn) for host in again.hosts] == [(word, word)] * 2
    assert "gpudirect" not in dump_topology(pair_of_hosts(SWITCHED))
