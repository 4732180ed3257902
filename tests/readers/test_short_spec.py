from __future__ import annotations

import pytest

from planner import api
from planner.core.topology import LinkKind
from planner.errors import BadInput
from planner.graph.paths import class_matrix
from planner.readers.short_spec import DGX1_LINKS, looks_like_spec, read_short_spec


def test_eight_sxm_gpus_hang_from_one_nvswitch() -> None:
    topology = read_short_spec("8xH100-SXM5-80GB", api.load_gpu)
    assert class_matrix(topology)[0] == ["X", *["NV18"] * 7]
    assert topology.origin.kind == "short-spec"


def test_up_to_four_pcie_gpus_share_a_socket_and_more_are_split_over_two() -> None:
    assert class_matrix(read_short_spec("4xL40S", api.load_gpu))[0] == ["X", "PHB", "PHB", "PHB"]
    assert class_matrix(read_short_spec("8xL40S", api.load_gpu))[0] == ["X", "PHB", "PHB", "PHB", "SYS", "SYS", "SYS", "SYS"]


def test_peer_to_peer_is_the_gpus_own_unless_said() -> None:
    assert read_short_spec("2xL40S", api.load_gpu).hosts[0].peer_to_peer == "enabled"
    assert read_short_spec("2xRTX-3090", api.load_gpu).hosts[0].peer_to_peer == "disabled"
    assert read_short_spec("2xRTX-3090:pcie-p2p", api.load_gpu).hosts[0].peer_to_peer == "enabled"
    assert read_short_spec("2xL40S:pcie-host-staged", api.load_gpu).hosts[0].peer_to_peer == "disabled"


def test_bridged_pairs_are_neighbours_with_all_their_links() -> None:
    topology = read_short_spec("4xA100-PCIe-80GB:nvlink-pairs", api.load_gpu)
    assert class_matrix(topology) == [
        ["X", "NV12", "PHB", "PHB"],
        ["NV12", "X", "PHB", "PHB"],
        ["PHB", "PHB", "X", "NV12"],
        ["PHB", "PHB", "NV12", "X"],
    ]


def test_the_hybrid_mesh_gives_every_v100_its_six_links() -> None:
    for gpu in range(8):
        assert sum(count for pair, count in DGX1_LINKS.items() if gpu in pair) == 6
    assert class_matrix(read_short_spec("8xV100-SXM2-32GB", api.load_gpu))[0][1:5] == ["NV1", "NV1", "NV2", "NV2"]


def test_nodes_are_joined_by_their_cards() -> None:
    topology = read_short_spec("2x8xA100-SXM4-80GB@4x200", api.load_gpu)
    network = [link for link in topology.links if link.kind is LinkKind.NETWORK]
    assert (len(topology.gpus), len(network), network[0].bandwidth) == (16, 8, 25e9)
    assert read_short_spec("2x8xA100-SXM4-80GB", api.load_gpu).links[-1].bandwidth == 25e9  # 200 Gb/s by default on Ampere
    assert read_short_spec("2x8xH100-SXM5-80GB", api.load_gpu).links[-1].bandwidth == 50e9


def test_an_nvl72_domain_spans_its_nodes() -> None:
    topology = read_short_spec("2x4xGB200-NVL72", api.load_gpu)
    assert class_matrix(topology)[0][7] == "NV18"


def test_one_gpu_is_a_machine() -> None:
    assert class_matrix(read_short_spec("1xL40S", api.load_gpu)) == [["X"]]
    assert class_matrix(read_short_spec("1xH100-SXM5-80GB", api.load_gpu)) == [["X"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0xL40S", "0 GPUs"),
        ("-2xL40S", "-2 GPUs"),
        ("0x8xL40S", "0 nodes"),
        ("8xL40Z", "unknown GPU"),
        ("8xL40S:nvlink", "unknown fabric"),
        ("8xL40S:nvswitch", "has no NVLink"),
        ("16xV100-SXM2-32GB:nvlink-hybrid", "up to 8"),
        ("2x8xL40S@8", "is not a network"),
        ("2x8xL40S@0x200", "is not a network"),
        ("2x8xL40S@8x0", "is not a network"),
        ("1000x8xL40S", "plans up to"),
        ("8L40S", "not a short topology spec"),
    ],
)
def test_a_mistake_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_short_spec(text, api.load_gpu)


def test_names_of_machines_are_not_mistaken_for_specs() -> None:
    assert not looks_like_spec("dgx-h100")
    assert looks_like_spec("8xH100-SXM5-80GB")


@pytest.mark.parametrize("name", ["8x-l40s", "4x-rtx-3090-bridged", "2x-h100-nvl"])
def test_a_library_name_goes_before_a_spec(name: str) -> None:
    assert api.load_topology(name).origin.kind == "written"
