from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from planner import api
from planner.core.finding import Finding
from planner.core.topology import LinkKind, Topology
from planner.errors import BadInput
from planner.render.picture import lines
from planner.render.scene import Scene, ranges, scene_of
from support import Planner

DGX_H100 = """\
node0: Intel Xeon Platinum 8480C
┌─ socket0 · NUMA 0 ────┐ ┌─ socket1 · NUMA 1 ────┐
│ bridge0 ─ switch0     │ │ bridge4 ─ switch4     │
│ ├ gpu0                │ │ ├ gpu4                │
│ └ nic0 mlx5_0 50 GB/s │ │ └ nic4 mlx5_4 50 GB/s │
│ bridge1 ─ switch1     │ │ bridge5 ─ switch5     │
│ ├ gpu1                │ │ ├ gpu5                │
│ └ nic1 mlx5_1 50 GB/s │ │ └ nic5 mlx5_5 50 GB/s │
│ bridge2 ─ switch2     │ │ bridge6 ─ switch6     │
│ ├ gpu2                │ │ ├ gpu6                │
│ └ nic2 mlx5_2 50 GB/s │ │ └ nic6 mlx5_6 50 GB/s │
│ bridge3 ─ switch3     │ │ bridge7 ─ switch7     │
│ ├ gpu3                │ │ ├ gpu7                │
│ └ nic3 mlx5_3 50 GB/s │ │ └ nic7 mlx5_7 50 GB/s │
└───────────────────────┘ └───────────────────────┘
nvswitch0: gpu0-7, NV18 each, 450 GB/s one way (371 reached)
between sockets: 22 GB/s one way
gpu0-7: PCIe gen5 x16 assumed, 63 GB/s one way (48 reached)
"""


def scene(name: str) -> Scene:
    topology = api.load_topology(name)
    return scene_of(topology, api.equipped_for_display(topology))


def drawn(name: str, width: int = 80, *, ascii_only: bool = False) -> str:
    return "".join(f"{line}\n" for line in lines(scene(name), width, ascii_only=ascii_only))


def with_link(topology: Topology, a: str, b: str, **changes: int) -> Topology:
    links = (
        replace(link, **changes) if {link.a, link.b} == {a, b} else link  # type: ignore[arg-type] # counts and generations
        for link in topology.links
    )
    return replace(topology, links=tuple(links))


def test_eight_gpus_with_cards_fit_80_columns() -> None:
    assert drawn("dgx-h100") == DGX_H100


def test_what_is_assumed_is_not_drawn_as_if_it_were_known() -> None:
    topology = api.load_topology("dgx-h100")
    known = with_link(topology, "switch0", "gpu0", generation=5, count=16)
    picture = "\n".join(lines(scene_of(known, api.equipped_for_display(known))))
    assert "├ gpu0 gen5 x16" in picture
    assert "gpu1-7: PCIe gen5 x16 assumed" in picture


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120])
@pytest.mark.parametrize("name", api.topology_names())
def test_every_machine_fits_and_shows_every_gpu(name: str, width: int) -> None:
    picture = lines(scene(name), width)
    assert max(map(len, picture)) <= width
    assert all(line == line.rstrip() for line in picture)
    boxes = "\n".join(line for line in picture if line.startswith("│"))
    topology = api.load_topology(name)
    for gpu in topology.gpus_of_host[topology.hosts[0].name]:
        assert re.search(rf"\bgpu{topology.gpus[gpu].index}\b", boxes)


def test_a_narrow_terminal_gets_the_boxes_one_below_the_other() -> None:
    picture = drawn("dgx-h100", 40)
    assert "socket1" in picture
    assert not re.search(r"socket0.*socket1", picture)


@pytest.mark.parametrize("name", ["dgx-h100", "dgx-1-v100", "gb200-nvl72"])
def test_it_degrades_to_ascii(name: str) -> None:
    fine, plain = drawn(name), drawn(name, ascii_only=True)
    assert plain.isascii()
    assert [len(line) for line in plain.splitlines()] == [len(line) for line in fine.splitlines()]
    assert "+ gpu0" in plain or "| gpu0" in plain


def test_alike_hosts_are_drawn_once() -> None:
    picture = drawn("gb200-nvl72")
    assert "tray0 and 17 more like it (tray1-17): 4 GPUs each" in picture
    assert picture.count("gpu0 C2C 225 GB/s") == 1
    assert "nvswitch: gpu0-3, NV18 each, 900 GB/s one way" in picture


def test_a_host_that_differs_is_drawn_apart() -> None:
    topology = with_link(api.load_topology("2x-dgx-h100"), "node1/gpu3", "node1/nvswitch0", count=17, possible_count=18)
    hosts = scene_of(topology).hosts
    assert [host.names for host in hosts] == [("node0",), ("node1",)]


def test_problems_are_marked_where_they_are() -> None:
    topology = with_link(api.load_topology("dgx-h100"), "gpu3", "nvswitch0", count=17, possible_count=18)
    topology = with_link(topology, "switch5", "gpu5", count=8, possible_count=16, generation=4, possible_generation=5)
    finding = Finding("gpu-lost", "gone", devices=("gpu6",))
    notice = Finding("worth-knowing", "so it is", severity="notice", devices=("gpu7",))
    picture = "\n".join(lines(scene_of(topology, api.equipped_for_display(topology), [finding, notice])))
    assert "gpu3, NV17, 425 GB/s one way" in " ".join(picture.split())
    assert "! 17 of 18 up" in picture
    assert "├ gpu5 ! gen4 of 5, x8 of x16" in picture
    assert "├ gpu6 ! gpu-lost" in picture
    assert "worth-knowing" not in picture


def test_a_problem_of_all_gpus_is_marked_once_at_the_host() -> None:
    topology = api.load_topology("2x-l4")
    finding = Finding("iommu", "translates", devices=("gpu0", "gpu1"))
    picture = "\n".join(lines(scene_of(topology, findings=[finding])))
    assert picture.count("! iommu") == 1
    assert picture.startswith("node0: ! iommu")


def test_bridges_cube_mesh_and_full_mesh_have_their_words() -> None:
    assert "NVLinks: gpu0–gpu2 (×4, 48 GB/s), gpu1–gpu3 (×4, 48 GB/s)" in drawn("4x-rtx-3090-bridged")
    cube = " ".join(drawn("dgx-1-v100").split())
    assert "NVLinks (×2, 40 GB/s): gpu0–gpu3, gpu0–gpu4" in cube
    assert cube.count("–") == 16
    assert "gpu0-7 each with each: xGMI" in drawn("azure-nd96isr-mi300x-v5")
    assert "nic0-3 12.5 GB/s each" in drawn("aws-p5-48xlarge")


def test_labels_of_a_stranger_steer_nothing_and_stay_in_their_box() -> None:
    topology = api.load_topology("dgx-h100")
    odd = {"nic0": "\x1b[31mred\n\u202e", "nic1": "网卡" * 30, "nic2": "x" * 300}
    devices = tuple(replace(device, label=odd.get(device.id, device.label)) for device in topology.devices)
    for width in (40, 80):
        picture = lines(scene_of(replace(topology, devices=devices)), width)
        assert max(map(cell_len, picture)) <= width
        assert not any("\x1b" in line or "\u202e" in line for line in picture)


def test_mixed_models_are_named_at_each_gpu() -> None:
    topology = api.load_topology("2x-l4")
    mixed = (replace(device, hardware="T4") if device.id == "gpu1" else device for device in topology.devices)
    picture = "\n".join(lines(scene_of(replace(topology, devices=tuple(mixed)))))
    assert "gpu0 L4" in picture
    assert "gpu1 T4" in picture


def test_kinds_of_wire_in_a_scene_are_said_once_in_a_fixed_order() -> None:
    assert scene("dgx-h100").kinds == (LinkKind.NVLINK, LinkKind.PCIE, LinkKind.SOCKET)


def test_ranges_never_join_what_only_looks_like_a_number() -> None:
    assert ranges(["gpu00", "gpu01"]) == "gpu00, gpu01"
    assert ranges(["gpu9", "gpu10"]) == "gpu9-10"
    assert ranges([]) == ""


def test_captures_of_real_machines_fit(shared: Path) -> None:
    for path in sorted((shared / "machines" / "topo-m").glob("*.txt")):
        try:
            topology = api.load_topology(str(path))
        except BadInput:
            continue
        filled = api.equipped_for_display(topology)
        for width in (60, 80):
            assert max(map(cell_len, lines(scene_of(topology, filled, filled.findings), width))) <= width, path.name


def test_leaves_and_rails_that_are_alike_are_one_line(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    planner("topology", "merge", *["dgx-h100"] * 4, "--network", "8x400,leaf=2", "-o", str(path))
    picture = drawn(str(path))
    assert "node0 and 3 more like it (node1-3)" in picture
    assert "nic0-7 to leaf0-1, 50 GB/s one way each\n" in picture
    assert picture.endswith("leaf0-1 to spine: 800 GB/s one way each\n")
    planner("topology", "merge", "2x-dgx-h100", "--network", "8x400,rail", "-o", str(path), "--force")
    assert "nic0-7 to rail0-7, 50 GB/s one way each\n" in drawn(str(path))
