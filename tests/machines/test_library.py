"""The library of machines: each is drawn, priced, and says where it comes from."""

from __future__ import annotations

import pytest

from planner import api
from planner.core.topology import LinkKind
from planner.core.unknown import Unknown
from planner.core.workload import Workload
from planner.graph.paths import class_matrix

MATRICES = {
    "4x-rtx-3090-bridged": ["X PHB NV4 NODE", "PHB X NODE NV4", "NV4 NODE X PHB", "NODE NV4 PHB X"],
    "dgx-1-v100": [
        "X NV1 NV1 NV2 NV2 SYS SYS SYS",
        "NV1 X NV2 NV1 SYS NV2 SYS SYS",
        "NV1 NV2 X NV1 SYS SYS NV2 SYS",
        "NV2 NV1 NV1 X SYS SYS SYS NV2",
        "NV2 SYS SYS SYS X NV1 NV1 NV2",
        "SYS NV2 SYS SYS NV1 X NV2 NV1",
        "SYS SYS NV2 SYS NV1 NV2 X NV1",
        "SYS SYS SYS NV2 NV2 NV1 NV1 X",
    ],
}


def test_the_machines_that_were_promised() -> None:
    names = set(api.topology_names())
    assert len(names) >= 15
    assert names >= {
        "dgx-1-v100", "dgx-a100", "dgx-h100", "dgx-h200", "dgx-b200", "gb200-nvl72", "4x-a100-pcie-bridged", "2x-h100-nvl",
        "8x-l40s", "8x-rtx-4090", "4x-rtx-3090-bridged", "4x-a6000-pairs", "8x-a6000", "2x-l4", "8x-t4", "2x-dgx-h100",
    }  # fmt: skip


@pytest.mark.parametrize("name", api.topology_names())
def test_each_says_where_it_comes_from_and_serves_a_model(name: str) -> None:
    topology = api.load_topology(name)
    assert topology.name == name
    assert len(topology.origin.source) > 20
    equipped = api.equipped_for_display(topology)
    assert all(not isinstance(link.bandwidth, Unknown) and link.achieved for link in equipped.links)
    answer = api.recommend(api.load_model("qwen3-8b"), topology, Workload(), top=3)
    assert answer.plans


@pytest.mark.parametrize("name", sorted(MATRICES))
def test_the_matrices_of_the_irregular_ones(name: str) -> None:
    assert class_matrix(api.load_topology(name)) == [row.split() for row in MATRICES[name]]


@pytest.mark.parametrize(
    ("name", "word", "gpus"),
    [
        ("dgx-a100", "NV12", 8),
        ("dgx-h100", "NV18", 8),
        ("dgx-h200", "NV18", 8),
        ("dgx-b200", "NV18", 8),
        ("gb200-nvl72", "NV18", 72),
    ],
)
def test_the_matrices_of_the_switched_ones(name: str, word: str, gpus: int) -> None:
    matrix = class_matrix(api.load_topology(name))
    assert len(matrix) == gpus
    assert {cell for row in matrix for cell in row} == {"X", word}


def test_links_are_shared_resources_of_every_kind() -> None:
    kinds = {link.kind for name in api.topology_names() for link in api.load_topology(name).links}
    assert kinds >= {LinkKind.PCIE, LinkKind.NVLINK, LinkKind.SOCKET, LinkKind.NETWORK}


def test_a_short_spec_is_no_misspelt_name_of_the_library() -> None:
    assert api.load_topology("8xL40S").origin.kind == "short-spec"
    assert api.load_topology("8x-l40s").origin.kind != "short-spec"
    assert api.load_topology("8X-L40S").name == "8x-l40s"
    assert api.load_topology("dgxh100").name == "dgx-h100"
