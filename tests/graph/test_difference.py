from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import api
from planner.core.facts import GpuFacts, HostFacts, NvlinkFacts, PeerStatus
from planner.core.topology import Device, DeviceKind, Host, Link, LinkKind, Origin, Topology
from planner.core.unknown import Unknown
from planner.graph.difference import Change, difference
from planner.units import Bytes, BytesPerSecond
from support import read_capture

GIB = 2**30


def box(gpus: int = 4, **links: Any) -> Topology:
    """A host of ``gpus`` GPUs under one bridge, with a card, on one NVSwitch; ``links`` are fields of all PCIe links."""
    facts = [GpuFacts(uuid=f"GPU-{i}", multi_instance="disabled") for i in range(gpus)]
    leaves = [
        Device(
            f"gpu{i}", DeviceKind.GPU, "a", i, "H100-SXM5-80GB", Bytes(80 * GIB), bus_id=f"0000:{i + 1:02x}:00.0", facts=facts[i]
        )
        for i in range(gpus)
    ]
    inner = [
        Device("socket0", DeviceKind.SOCKET, "a"),
        Device("bridge0", DeviceKind.HOST_BRIDGE, "a"),
        Device("nvswitch0", DeviceKind.NVSWITCH, "a"),
        Device("nic0", DeviceKind.NIC, "a", label="mlx5_0", rate=BytesPerSecond(50e9)),
    ]
    wires = [Link("socket0", "bridge0", LinkKind.PCIE), Link("bridge0", "nic0", LinkKind.PCIE)]
    wires += [Link("bridge0", gpu.id, LinkKind.PCIE, **{"count": 16, "generation": 5, **links}) for gpu in leaves]
    wires += [Link(gpu.id, "nvswitch0", LinkKind.NVLINK, count=18) for gpu in leaves]
    statuses = tuple(tuple("X" if a == b else "OK" for b in range(gpus)) for a in range(gpus))
    host = Host("a", "enabled", (PeerStatus("read", statuses),), HostFacts(driver="570.1", iommu="off"))
    return Topology("box", (host,), (*inner, *leaves), tuple(wires), Origin("probed", "a test"))


def with_device(topology: Topology, identifier: str, **fields: Any) -> Topology:
    devices = (replace(one, **fields) if one.id == identifier else one for one in topology.devices)
    return replace(topology, devices=tuple(devices))


def with_facts(topology: Topology, identifier: str, **fields: Any) -> Topology:
    return with_device(topology, identifier, facts=replace(topology.by_id[identifier].facts, **fields))


def with_link(topology: Topology, a: str, b: str, **fields: Any) -> Topology:
    links = (replace(one, **fields) if (one.a, one.b) == (a, b) else one for one in topology.links)
    return replace(topology, links=tuple(links))


def without(topology: Topology, identifier: str) -> Topology:
    """The host after a GPU fell off the bus: the driver numbers those behind it anew."""
    gone = topology.by_id[identifier]
    assert gone.index is not None
    names = {}
    devices = []
    for one in topology.devices:
        if one.id == identifier:
            continue
        moved = one.index is not None and one.index > gone.index
        names[one.id] = f"gpu{(one.index or 0) - 1}" if moved else one.id
        devices.append(replace(one, id=names[one.id], index=(one.index or 0) - 1) if moved else one)
    links = [replace(one, a=names[one.a], b=names[one.b]) for one in topology.links if identifier not in (one.a, one.b)]
    (host,) = topology.hosts
    place = topology.gpus.index(gone)
    cut = tuple(
        PeerStatus(
            one.capability,
            tuple(tuple(w for j, w in enumerate(row) if j != place) for i, row in enumerate(one.statuses) if i != place),
        )
        for one in host.peer_status
    )
    return replace(topology, devices=tuple(devices), links=tuple(links), hosts=(replace(host, peer_status=cut),))


def only(changes: tuple[Change, ...]) -> Change:
    (change,) = changes
    return change


@pytest.mark.parametrize("name", api.topology_names())
def test_a_machine_is_no_different_from_itself(name: str) -> None:
    topology = api.load_topology(name)
    assert difference(topology, topology) == ()
    assert difference(topology, replace(topology, name="other", origin=Origin("probed", "now"))) == ()


@given(st.data())
def test_whatever_changes_is_seen_both_ways_and_names_both_values(data: st.DataObject) -> None:
    lanes = data.draw(st.sampled_from([1, 2, 4, 8]))
    gpu = data.draw(st.integers(0, 3))
    before, after = box(), with_link(box(), "bridge0", f"gpu{gpu}", count=lanes)
    there, back = only(difference(before, after)), only(difference(after, before))
    assert (there.before, there.after) == (back.after, back.before) == ("16", str(lanes))
    assert there.subject == f"PCIe link of gpu{gpu}"


def test_an_nvlink_that_went_down_is_said_with_what_it_costs() -> None:
    def state(up: int) -> tuple[NvlinkFacts, ...]:
        return tuple(NvlinkFacts(link=number, active=number < up) for number in range(18))

    before = with_facts(box(), "gpu3", nvlinks=state(18))
    after = with_facts(with_link(box(), "gpu3", "nvswitch0", count=17, possible_count=18), "gpu3", nvlinks=state(17))
    change = only(difference(before, after))
    assert change.kind == "link-count"
    assert change.message == "gpu3–nvswitch0: 18 → 17 links, 5.6 % less bandwidth (link 17 of gpu3 went down)"


def test_width_and_generation_say_what_they_cost() -> None:
    changes = difference(box(), with_link(box(), "bridge0", "gpu1", count=8, generation=4))
    assert [change.message for change in changes] == [
        "PCIe link of gpu1: x16 → x8, 50 % less bandwidth",
        "PCIe link of gpu1: gen5 → gen4, about 50 % less bandwidth",
    ]


def test_a_gpu_that_fell_off_the_bus_is_the_one_that_is_gone() -> None:
    changes = difference(box(), without(box(), "gpu1"))
    assert [change.message for change in changes] == [
        "gone: GPU gpu1 (H100-SXM5-80GB, 0000:02:00.0)",
        "gpu2 is GPU 1 now",
        "gpu3 is GPU 2 now",
    ]
    assert [change.kind for change in difference(without(box(), "gpu1"), box())] == ["gpu-new", "gpu-moved", "gpu-moved"]


def test_without_any_identity_the_last_one_counts_as_gone() -> None:
    def nameless(topology: Topology) -> Topology:
        devices = (replace(one, bus_id=None, facts=GpuFacts()) for one in topology.devices)
        return replace(topology, devices=tuple(devices))

    assert [change.message for change in difference(nameless(box()), nameless(without(box(), "gpu1")))] == [
        "gone: GPU gpu3 (H100-SXM5-80GB)"
    ]


def test_a_gpu_that_was_replaced() -> None:
    change = only(difference(box(), with_facts(box(), "gpu2", uuid="GPU-new")))
    assert (change.kind, change.before, change.after) == ("gpu-replaced", "GPU-2", "GPU-new")
    other = with_device(with_facts(box(), "gpu2", uuid="GPU-new"), "gpu2", hardware="H200-SXM5-141GB", memory=Bytes(141 * GIB))
    assert [change.kind for change in difference(box(), other)] == ["gpu-model", "gpu-memory"]


def test_what_gpus_and_hosts_say_of_themselves() -> None:
    after = with_facts(box(), "gpu0", multi_instance="enabled")
    (host,) = after.hosts
    after = replace(after, hosts=(replace(host, peer_to_peer="disabled", facts=replace(host.facts, driver="575.2")),))
    assert [change.message for change in difference(box(), after)] == [
        "driver of a: 570.1 → 575.2",
        "peer-to-peer over PCIe on a: enabled → disabled",
        "MIG of gpu0: disabled → enabled",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"memory_free": Bytes(1.0), "memory_used": Bytes(2.0)},
        {"performance_state": 8},
        {"pcie_generation": 1, "pcie_generation_possible": 5},
        {"nvlinks": Unknown("the driver does not say")},
        {"uuid": Unknown("not permitted")},
    ],
)
def test_what_changes_by_itself_is_no_difference(fields: dict[str, Any]) -> None:
    assert difference(box(), with_facts(box(), "gpu0", **fields)) == ()
    assert difference(with_facts(box(), "gpu0", **fields), box()) == ()


def test_an_idle_link_of_which_nobody_says_what_it_could_do_is_no_difference() -> None:
    idle = with_link(with_facts(box(), "gpu0", performance_state=8, pcie_generation=1), "bridge0", "gpu0", generation=1)
    assert difference(box(), idle) == ()
    busy = with_facts(idle, "gpu0", performance_state=0)
    assert only(difference(box(), busy)).kind == "link-generation"


def test_what_only_one_of_them_knows_is_no_difference() -> None:
    for fields in ({"count": None}, {"generation": None}, {"possible_count": 16}):
        assert difference(box(), box(**fields)) == ()
    bare = with_device(box(), "gpu0", memory=None, hardware=None, bus_id=None)
    assert difference(box(), bare) == ()


def test_rounding_of_memory_is_no_difference_and_ecc_is() -> None:
    assert difference(box(), with_device(box(), "gpu0", memory=Bytes(79.6 * GIB))) == ()
    assert (
        only(difference(box(), with_device(box(), "gpu0", memory=Bytes(75 * GIB)))).message
        == "memory of gpu0: 80.0 GiB → 75.0 GiB"
    )


def test_cards() -> None:
    slower = with_device(box(), "nic0", rate=BytesPerSecond(25e9))
    assert only(difference(box(), slower)).message == "rate of nic0: 50 GB/s → 25 GB/s"
    gone = replace(
        box(),
        devices=tuple(one for one in box().devices if one.id != "nic0"),
        links=tuple(one for one in box().links if one.b != "nic0"),
    )
    assert only(difference(box(), gone)).message == "gone: network card nic0 (mlx5_0)"
    renamed = with_device(box(), "nic0", label="mlx5_9")
    assert {change.kind for change in difference(box(), renamed)} == {"nic-gone", "nic-new"}


def test_what_the_driver_says_of_pairs() -> None:
    (host,) = box().hosts
    statuses = tuple(tuple("X" if a == b else "CNS" if 0 in (a, b) else "OK" for b in range(4)) for a in range(4))
    after = replace(box(), hosts=(replace(host, peer_status=(PeerStatus("read", statuses),)),))
    change = only(difference(box(), after))
    assert (change.kind, change.before, change.after) == ("peer-status", "OK", "CNS")
    assert change.message == "peer-to-peer reads gpu0→gpu1, gpu0→gpu2, gpu0→gpu3, gpu1→gpu0 and 2 more: OK → CNS"


def test_bridges_and_places_on_pcie() -> None:
    header = "\tGPU0\tGPU1\tGPU2\n"
    before = read_capture(header + "GPU0\t X \tNV4\tNODE\nGPU1\tNV4\t X \tNODE\nGPU2\tNODE\tNODE\t X \n")
    after = read_capture(header + "GPU0\t X \tNODE\tSYS\nGPU1\tNODE\t X \tSYS\nGPU2\tSYS\tSYS\t X \n")
    assert [change.message for change in difference(before, after)] == [
        "gpu0–gpu1: 4 NVLinks gone, nothing joins them directly any more",
        "gpu0–gpu2, gpu1–gpu2: NODE → SYS",
    ]
    assert [change.kind for change in difference(after, before)] == ["link-new", "link-class"]


def test_hosts_of_a_cluster() -> None:
    two = api.load_topology("2x-dgx-h100")
    lame = with_link(two, "node1/gpu3", "node1/nvswitch0", count=17)
    assert only(difference(two, lame)).message == "node1/gpu3–node1/nvswitch0: 18 → 17 links, 5.6 % less bandwidth"
    one = api.load_topology("8xH100-SXM5-80GB")
    assert {change.kind for change in difference(two, one)} >= {"host-gone"}


def test_a_switch_told_as_direct_links_is_no_difference() -> None:
    matrix = "\tGPU0\tGPU1\nGPU0\t X \tNV18\nGPU1\tNV18\t X \n"
    direct, switched = read_capture(matrix), read_capture(matrix + "GPU 0,1: NVIDIA H100 80GB HBM3\n")
    assert {device.kind for device in switched.devices} - {device.kind for device in direct.devices} == {DeviceKind.NVSWITCH}
    assert difference(direct, switched) == difference(switched, direct) == ()


def test_a_gpu_that_lost_its_fabric() -> None:
    lost = replace(box(), links=tuple(link for link in box().links if (link.a, link.b) != ("gpu3", "nvswitch0")))
    assert only(difference(box(), lost)).message == "gpu3–nvswitch0: 18 NVLinks gone, nothing joins them directly any more"
