from __future__ import annotations

import pytest

from planner.core.capture import Capture, GpuSight, Matrix, NicSight, PcieHop, PeerLinkSight
from planner.core.facts import GpuFacts, NvlinkFacts
from planner.core.topology import DeviceKind, LinkKind, Topology
from planner.documents.topology import dump_topology, parse_topology
from planner.graph.assemble import assemble
from planner.graph.paths import PathKind, Paths, class_matrix
from support import look_up, read_capture


def build(**fields: object) -> Topology:
    topology = assemble(Capture(source="box.txt", format="test", **fields), "box", "capture", look_up)  # type: ignore[arg-type] # by name
    topology.check()
    assert parse_topology(dump_topology(topology), "box") == topology
    return topology


def hop(bus_id: str, generation: int = 5, width: int = 16) -> PcieHop:
    return PcieHop(bus_id=bus_id, generation=generation, width=width, possible_generation=5, possible_width=16)


def test_bus_paths_give_the_tree_without_a_matrix() -> None:
    switch, upper = hop("0000:10:00.0"), hop("0000:08:00.0")
    ways = {
        0: ("pci0000:00", 0, (upper, switch, hop("0000:11:00.0"))),
        1: ("pci0000:00", 0, (upper, switch, hop("0000:12:00.0", width=8))),
        2: ("pci0000:00", 0, (upper, hop("0000:20:00.0"), hop("0000:21:00.0"))),
        3: ("pci0000:00", 0, (hop("0000:30:00.0"),)),
        4: ("pci0000:40", 0, (hop("0000:41:00.0"),)),
        5: ("pci0000:80", 1, (hop("0000:81:00.0", generation=4),)),
    }
    gpus = tuple(GpuSight(index=index, root=root, numa_node=node, hops=hops) for index, (root, node, hops) in ways.items())
    topology = build(gpus=gpus, nics=(NicSight(label="mlx5_0", root="pci0000:80", numa_node=1, hops=(hop("0000:82:00.0"),)),))
    assert class_matrix(topology)[0] == ["X", "PIX", "PXB", "PHB", "NODE", "SYS"]
    paths = Paths(topology)
    assert paths.pcie_kind("gpu5", "nic0") is PathKind.PHB
    by_end = {link.b: link for link in topology.links}
    assert (by_end["gpu1"].count, by_end["gpu1"].possible_count) == (8, 16)
    assert (by_end["gpu5"].generation, by_end["gpu5"].possible_generation) == (4, 5)
    assert by_end[paths.ancestors("gpu0")[1]].count == 16  # the uplink of the switch was seen too
    assert not topology.findings


def test_a_card_whose_place_nobody_tells_is_left_out() -> None:
    topology = build(gpus=(GpuSight(index=0),), nics=(NicSight(label="eth0"),))
    assert not topology.nics("localhost")


def test_links_that_say_where_they_end() -> None:
    pairs = (PeerLinkSight(a=0, b=2, count=4), PeerLinkSight(a=1, b=3, count=4))
    topology = build(gpus=tuple(GpuSight(index=index, numa_node=0) for index in range(4)), links=pairs)
    assert class_matrix(topology)[0] == ["X", "NODE", "NV4", "NODE"]
    switched = build(
        gpus=(GpuSight(index=0), GpuSight(index=1)),
        links=(PeerLinkSight(a=0, b=None, count=12), PeerLinkSight(a=1, b=None, count=11)),
    )
    assert class_matrix(switched) == [["X", "NV11"], ["NV11", "X"]]
    amd = build(gpus=(GpuSight(index=0), GpuSight(index=1)), links=(PeerLinkSight(a=0, b=1, kind=LinkKind.XGMI),))
    assert class_matrix(amd) == [["X", "XGMI"], ["XGMI", "X"]]


def links_up(count: int) -> GpuFacts:
    return GpuFacts(nvlinks=tuple(NvlinkFacts(link=number, active=number < count) for number in range(max(count, 4))))


@pytest.mark.parametrize(
    ("models", "counts", "classes"),
    [
        (["RTX-A6000", "RTX-A6000"], [4, 4], "NV4"),
        (["RTX-A6000", "RTX-A6000"], [4, 3], "NV3"),
        (["B300-SXM-288GB", "B300-SXM-288GB"], [18, 18], "NV18"),
        (["RTX-A6000"] * 4, [4, 4, 4, 4], "NODE"),
    ],
)
def test_links_that_only_say_how_many_they_are(models: list[str], counts: list[int], classes: str) -> None:
    gpus = (GpuSight(index=index, model=model, facts=links_up(counts[index])) for index, model in enumerate(models))
    topology = build(gpus=tuple(gpus))
    assert class_matrix(topology)[0][1] == classes
    unknown = "nvlink-peers-unknown" in {finding.code for finding in topology.findings}
    assert unknown == (classes == "NODE")


def test_two_of_eight_gpus_of_a_switched_board_are_on_the_switch() -> None:
    text = "GPU 0,1: H100-SXM5-80GB\nGPU0 GPU1 CPU Affinity\nGPU0 X NV18 0-7\nGPU1 NV18 X 0-7\n"
    assert any(device.kind is DeviceKind.NVSWITCH for device in read_capture(text).devices)
    bridged = text.replace("H100-SXM5-80GB", "RTX-A6000").replace("NV18", "NV4")
    assert not any(device.kind is DeviceKind.NVSWITCH for device in read_capture(bridged).devices)


def test_the_drivers_word_on_a_pair_decides_whether_it_copies_directly() -> None:
    cells = {("GPU0", "GPU1"): "PIX", ("GPU1", "GPU0"): "PIX", ("GPU0", "GPU0"): "X", ("GPU1", "GPU1"): "X"}
    matrix = Matrix(("GPU0", "GPU1"), cells)
    for word, staged in (("OK", False), ("U", False), ("CNS", True), ("NS", True)):
        topology = build(matrix=matrix, peers={"read": {(0, 1): word, (1, 0): "OK"}})
        assert Paths(topology).between("gpu0", "gpu1").staged is staged, word


def test_a_grace_gpu_hangs_from_its_cpu() -> None:
    text = "\tGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\nGPU0\t X \t0-71\t0\t\t1\n"
    topology = read_capture(text)
    assert [link.kind for link in topology.links] == [LinkKind.C2C]
    assert Paths(topology).ancestors("gpu0") == ["gpu0", "socket0"]


def test_what_nothing_tells_is_said() -> None:
    topology = build(gpus=(GpuSight(index=0), GpuSight(index=1)))
    assert [finding.code for finding in topology.findings] == ["pcie-unknown"]
    assert class_matrix(topology) == [["X", "NODE"], ["NODE", "X"]]


def test_an_idle_link_counts_as_what_it_can_do() -> None:
    idle = GpuFacts(performance_state=8, pcie_generation=1, pcie_generation_possible=4, pcie_width=8, pcie_width_possible=16)
    topology = build(gpus=(GpuSight(index=0, facts=idle),))
    link = next(link for link in topology.links if link.b == "gpu0")
    assert (link.generation, link.count, link.possible_count) == (4, 8, 16)


def test_host_bridges_of_a_host_without_numa_nodes_are_in_one_socket() -> None:
    ways = [GpuSight(index=index, root=f"pci0000:{index}0", hops=(hop(f"0000:{index}1:00.0"),)) for index in range(2)]
    topology = build(gpus=tuple(ways))
    assert class_matrix(topology)[0] == ["X", "NODE"]
    assert not topology.findings
    numbered = build(gpus=(*ways, GpuSight(index=2, numa_node=1)))
    assert "pcie-unknown" in {finding.code for finding in numbered.findings}


def test_a_switch_with_one_gpu_below_it_limits_the_gpu_and_not_the_host_bridge() -> None:
    narrow = (hop("0000:10:00.0", generation=4), hop("0000:11:00.0"))
    gpus = (
        GpuSight(index=0, root="pci0000:00", numa_node=0, hops=narrow),
        GpuSight(index=1, root="pci0000:00", numa_node=0, hops=(hop("0000:20:00.0"),)),
    )
    topology = build(gpus=gpus)
    by_end = {link.b: link for link in topology.links}
    assert (by_end["gpu0"].generation, by_end["gpu1"].generation) == (4, 5)
    assert by_end["bridge0"].count is None
