from __future__ import annotations

import pytest

from planner import api
from planner.core.topology import Topology
from planner.graph.paths import PathKind, Paths, class_matrix, link_class
from planner.graph.symmetry import interchangeable


@pytest.fixture(scope="module")
def bridged() -> Topology:
    return api.load_topology("4x-rtx-3090-bridged")


def test_the_matrix_of_a_bridged_machine_is_the_one_nvidia_smi_prints(bridged: Topology) -> None:
    assert class_matrix(bridged) == [
        ["X", "PHB", "NV4", "NODE"],
        ["PHB", "X", "NODE", "NV4"],
        ["NV4", "NODE", "X", "PHB"],
        ["NODE", "NV4", "PHB", "X"],
    ]


def test_kinds_are_ordered_from_good_to_bad() -> None:
    assert list(PathKind) == sorted(PathKind)
    assert PathKind.NVLINK < PathKind.PIX < PathKind.PXB < PathKind.PHB < PathKind.NODE < PathKind.SYS < PathKind.NETWORK


def test_nvlink_is_taken_before_pcie(bridged: Topology) -> None:
    path = Paths(bridged).between("gpu0", "gpu2")
    assert (path.kind, len(path.links), path.staged) == (PathKind.NVLINK, 1, False)


def test_a_path_and_its_way_back_take_the_same_links_the_other_way(bridged: Topology) -> None:
    paths = Paths(bridged)
    there, back = paths.between("gpu0", "gpu2"), paths.between("gpu2", "gpu0")
    assert [(number, not forward) for number, forward in there.links] == list(reversed(back.links))


def test_without_peer_to_peer_bytes_rest_in_host_memory_and_cross_every_link_twice(bridged: Topology) -> None:
    path = Paths(bridged).between("gpu0", "gpu1")
    assert path.staged
    assert all(path.links.count(link) == 2 for link in path.links)
    sockets = {bridged.links[number].a for number, _ in path.links}
    assert "socket0" in sockets  # through the host bridge, up to memory


def test_with_peer_to_peer_the_bytes_turn_round_at_the_bridge() -> None:
    topology = api.load_topology("4xL40S")
    path = Paths(topology).between("gpu0", "gpu1")
    assert (path.kind, path.staged, len(path.links)) == (PathKind.PHB, False, 2)


def test_nccl_copies_directly_up_to_pxb_where_nobody_says() -> None:
    topology = api.load_topology("8x-a6000")
    paths = Paths(topology)
    assert link_class(paths, "gpu2", "gpu3") == "PIX"
    assert not paths.between("gpu2", "gpu3").staged
    assert link_class(paths, "gpu0", "gpu1") == "PXB"
    assert not paths.between("gpu0", "gpu1").staged
    assert link_class(paths, "gpu0", "gpu4") == "SYS"
    assert paths.between("gpu0", "gpu4").staged


def test_hosts_reach_each_other_over_their_nearest_cards() -> None:
    topology = api.load_topology("2x-dgx-h100")
    path = Paths(topology).between("node0/gpu3", "node1/gpu3")
    assert path.kind is PathKind.NETWORK
    crossed = [topology.links[number] for number, _ in path.links]
    assert {link.a for link in crossed if link.kind == "network"} == {"node0/nic3", "node1/nic3"}


def test_an_nvlink_domain_over_hosts_needs_no_network() -> None:
    topology = api.load_topology("gb200-nvl72")
    path = Paths(topology).between("tray0/gpu0", "tray17/gpu3")
    assert (path.kind, len(path.links)) == (PathKind.NVLINK, 2)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("dgx-h100", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("4x-rtx-3090-bridged", [[0], [1], [2], [3]]),
        ("8xL40S", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("8x-l40s", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("4xRTX-3090:nvlink-pairs", [[0, 1], [2, 3]]),
        ("4x-a100-pcie-bridged", [[0, 1], [2, 3]]),
    ],
)
def test_gpus_that_can_be_swapped_are_found(name: str, classes: list[list[int]]) -> None:
    topology = api.load_topology(name)
    assert interchangeable(topology, range(len(topology.gpus))) == classes
