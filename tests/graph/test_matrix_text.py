from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from planner import api
from planner.core.topology import LinkKind, Topology
from planner.documents.topology import dump_topology, parse_topology
from planner.errors import BadInput
from planner.graph.difference import difference
from planner.graph.matrix_text import matrix_text
from planner.graph.paths import Paths, class_matrix, link_class
from support import read_capture

BRIDGED = (
    "\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
    "GPU0\t X \tPHB\tNV4\tNODE\tN/A\t0\t\tN/A\n"
    "GPU1\tPHB\t X \tNODE\tNV4\tN/A\t0\t\tN/A\n"
    "GPU2\tNV4\tNODE\t X \tPHB\tN/A\t0\t\tN/A\n"
    "GPU3\tNODE\tNV4\tPHB\t X \tN/A\t0\t\tN/A\n"
    "\nLegend:\n\n  X    = Self\n"
)


def infinity_fabric(topology: Topology) -> bool:
    return any(link.kind is LinkKind.XGMI for link in topology.links)


def test_the_layout_is_that_of_the_program() -> None:
    assert matrix_text(api.load_topology("4x-rtx-3090-bridged")).startswith(BRIDGED)


def test_cards_have_columns_and_a_legend() -> None:
    text = matrix_text(api.load_topology("dgx-h100"))
    lines = text.splitlines()
    assert lines[0].split("\t")[1:17] == [*(f"GPU{i}" for i in range(8)), *(f"NIC{i}" for i in range(8))]
    assert lines[9].startswith("NIC0\tPIX\tNODE\tNODE\tNODE\tSYS")
    assert lines[9].endswith("\t\t\t\t")
    assert text.endswith("\nNIC Legend:\n\n" + "".join(f"  NIC{i}: mlx5_{i}\n" for i in range(8)))


@pytest.mark.parametrize("name", api.topology_names())
def test_graph_to_yaml_to_graph(name: str) -> None:
    topology = api.load_topology(name)
    text = dump_topology(topology)
    assert parse_topology(text, name) == topology
    assert dump_topology(parse_topology(text, name)) == text


@pytest.mark.parametrize("name", api.topology_names())
def test_graph_to_text_to_graph(name: str) -> None:
    topology = api.load_topology(name)
    whole, paths = class_matrix(topology), Paths(topology)
    for host in topology.hosts:
        again = read_capture(matrix_text(topology, host.name))
        gpus = topology.gpus_of_host[host.name]
        assert class_matrix(again) == [[whole[a][b] for b in gpus] for a in gpus]
        if infinity_fabric(topology):
            continue  # rocm-smi shows no cards
        # the cards are as near as they were, and are called the same
        nics, read = topology.nics(host.name), again.nics(again.hosts[0].name)
        assert [nic.label for nic in nics] == [nic.label for nic in read]
        back = Paths(again)
        for gpu, same in zip(gpus, again.gpus, strict=True):
            for nic, card in zip(nics, read, strict=True):
                assert link_class(paths, topology.gpus[gpu].id, nic.id) == link_class(back, same.id, card.id)
        assert {link.kind for link in again.links} >= {
            link.kind for link in topology.links if link.kind is LinkKind.C2C and link.a.startswith(("socket", f"{host.name}/"))
        }


def test_what_a_capture_states_and_no_tree_gives_comes_back_as_it_was() -> None:
    text = (
        "\tGPU0\tGPU1\tGPU2\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
        "GPU0\t X \tPIX\tPHB\t0-7,16-23\t0\t\tN/A\n"
        "GPU1\tPIX\t X \tSYS\t0-7,16-23\t0\t\tN/A\n"
        "GPU2\tPHB\tSYS\t X \t8-15\t0\t\tN/A\n"
    )
    written = matrix_text(read_capture(text))
    assert written.startswith(text)
    assert matrix_text(read_capture(written)) == written


def test_the_layout_of_a_partial_mesh_of_another_vendor() -> None:
    text = (
        "= ROCm System Management Interface =\n= Link Type between two GPUs =\n       GPU0   GPU1   GPU2   GPU3\n"
        "GPU0   0      XGMI   PCIE   PCIE\nGPU1   XGMI   0      PCIE   PCIE\n"
        "GPU2   PCIE   PCIE   0      XGMI\nGPU3   PCIE   PCIE   XGMI   0\n= Numa Nodes =\n"
        + "".join(f"GPU[{gpu}]\t\t: (Topology) Numa Node: {gpu // 2}\n" for gpu in range(4))
        + "= End of ROCm SMI Log =\n"
    )
    topology = read_capture(text)
    assert class_matrix(topology)[0] == ["X", "XGMI", "SYS", "SYS"]
    written = matrix_text(topology)
    assert "GPU0   0            15           72           72\n" in written
    assert class_matrix(read_capture(written)) == class_matrix(topology)


def test_one_host_at_a_time() -> None:
    with pytest.raises(BadInput, match="several hosts"):
        matrix_text(api.load_topology("2x-dgx-h100"))


def test_a_bridge_whose_links_nobody_counted_is_refused() -> None:
    topology = api.load_topology("2x-rtx-3090-bridged")
    uncounted = (replace(link, count=None) if link.kind is LinkKind.NVLINK else link for link in topology.links)
    with pytest.raises(BadInput, match="how many NVLinks"):
        matrix_text(replace(topology, links=tuple(uncounted)))


def test_a_label_cannot_break_the_table() -> None:
    topology = api.load_topology("dgx-1-v100")
    devices = (replace(one, label="a b\nGPU9\tX") if one.id == "nic0" else one for one in topology.devices)
    again = read_capture(matrix_text(replace(topology, devices=tuple(devices))))
    assert len(again.gpus) == 8
    assert again.nics(again.hosts[0].name)[0].label == "a_b_GPU9_X"


def test_captures_come_back_as_they_were(shared: Path) -> None:
    right = 0
    for path in sorted((shared / "machines" / "topo-m").glob("*.txt")):
        try:
            topology = read_capture(path.read_text("utf-8", errors="replace"), path.name)
        except BadInput:
            continue
        again = read_capture(matrix_text(topology), path.name)
        assert class_matrix(again) == class_matrix(topology), path.name
        assert difference(topology, again) == (), path.name
        right += 1
    assert right >= 150
