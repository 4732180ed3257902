from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

from planner import api
from planner.core.topology import Topology
from planner.render.scene import Scene, scene_of
from planner.render.svg import svg
from planner.render.svg_layout import Box, Drawing, layout
from planner.render.svg_wires import add_wires
from planner.render.svg_words import width_of

SHAPES = {"svg", "title", "rect", "g", "path", "text"}


def scene(topology: Topology) -> Scene:
    return scene_of(topology, api.equipped_for_display(topology))


def parsed(picture: str) -> ET.Element:
    return ET.fromstring(picture)  # noqa: S314 - written by us


def words(picture: str) -> list[str]:
    return [text.text or "" for text in parsed(picture).iter() if text.tag.endswith("}text")]


def drawings(name: str) -> list[Drawing]:
    found = []
    for host in scene(api.load_topology(name)).hosts:
        drawing = layout(host)
        add_wires(host, drawing)
        found.append(drawing)
    return found


@pytest.mark.parametrize("name", api.topology_names())
def test_it_is_one_file_that_loads_and_runs_nothing(name: str) -> None:
    picture = svg(scene(api.load_topology(name)))
    root = parsed(picture)
    for element in root.iter():
        assert element.tag.removeprefix("{http://www.w3.org/2000/svg}") in SHAPES
        assert not any(key.startswith("on") or "href" in key for key in element.attrib)
    assert "url(" not in picture
    assert picture.count("http") == 1  # the name space
    assert svg(scene(api.load_topology(name))) == picture


def test_it_has_its_own_background_and_says_what_it_is() -> None:
    root = parsed(svg(scene(api.load_topology("dgx-h100"))))
    title, background = list(root)[:2]
    assert title.text == "dgx-h100: 8× H100-SXM5-80GB"
    assert (background.get("width"), background.get("fill")) == ("100%", "#ffffff")


@pytest.mark.parametrize("name", api.topology_names())
def test_no_box_covers_another_and_no_words_overlap(name: str) -> None:
    def apart(one: Box, other: Box) -> bool:
        beside = one.x + one.width <= other.x + 0.1 or other.x + other.width <= one.x + 0.1
        return beside or one.bottom <= other.y + 0.1 or other.bottom <= one.y + 0.1

    for drawing in drawings(name):
        solid = [box for box in drawing.boxes if box.kind != "frame"]
        for one, other in combinations(solid, 2):
            assert apart(one, other), (one.words, other.words)
        for label, next_ in combinations(drawing.labels, 2):
            wide = (width_of(label.words) + width_of(next_.words)) * 0.45
            assert abs(label.x - next_.x) >= wide or abs(label.y - next_.y) >= 12, (label.words, next_.words)
        for box in solid:
            assert max(map(width_of, box.words)) <= box.width
            assert box.x >= 0
            assert box.x + box.width <= drawing.width + 0.1
            assert box.bottom <= drawing.height + 0.1


@pytest.mark.parametrize("name", api.topology_names())
def test_every_gpu_is_drawn_on_one_line(name: str) -> None:
    for drawing, host in zip(drawings(name), scene(api.load_topology(name)).hosts, strict=True):
        assert set(drawing.gpus) == {gpu.name for gpu in host.gpus}
        assert len({box.y for box in drawing.gpus.values()}) == 1


def test_links_say_their_class_and_bandwidth() -> None:
    said = words(svg(scene(api.load_topology("dgx-h100"))))
    for expected in ("nvswitch0: NV18 450 GB/s a GPU, one way", "between sockets: 22 GB/s", "gen5 x16*", "63 GB/s", "NV18"):
        assert expected in said
    assert "nic0 mlx5_0" in said
    assert any("* assumed" in one for one in said)


def test_bridges_are_arcs_and_a_cube_mesh_has_sixteen() -> None:
    for name, count in (("4x-rtx-3090-bridged", 2), ("dgx-1-v100", 16), ("4x-a100-sxm-mesh", 6)):
        (drawing,) = drawings(name)
        arcs = [stroke for stroke in drawing.strokes if stroke.rounded]
        assert len(arcs) == len(drawing.labels) == count
        floors = [(points[1][1], points[0][0], points[3][0]) for points in (arc.points for arc in arcs)]
        for (y, left, right), (other, start, end) in combinations(floors, 2):
            assert y != other or right < start or end < left


def test_alike_hosts_are_drawn_once_with_what_they_share() -> None:
    said = words(svg(scene(api.load_topology("gb200-nvl72"))))
    assert "tray0 ×18 (tray0-17): 4× GB200-NVL72, NVIDIA Grace" in said
    assert "nvswitch: 18 hosts" in said
    assert "network: 18 hosts" in said
    assert said.count("gpu0") == 1


def test_problems_are_marked_in_the_picture_and_in_words() -> None:
    topology = api.load_topology("dgx-h100")
    links = (
        replace(link, count=17, possible_count=18) if {link.a, link.b} == {"gpu3", "nvswitch0"} else link
        for link in topology.links
    )
    lame = replace(topology, links=tuple(links))
    filled = api.equipped_for_display(lame)
    picture = svg(scene_of(lame, filled, filled.findings))
    assert "! 17 of 18 up" in words(picture)
    assert any(one.startswith("! nvlink-down: ") for one in words(picture))
    assert picture.count("stroke-dasharray") == 1


def test_text_is_escaped() -> None:
    topology = api.load_topology("dgx-h100")
    odd = '<script>alert("1")</script>&\x00\x1b\ufffe'
    devices = (replace(device, label=odd if device.id == "nic0" else device.label) for device in topology.devices)
    picture = svg(scene_of(replace(topology, name="<b>&", devices=tuple(devices))))
    assert any("<script>" in one for one in words(picture))
    assert "<script" not in picture
    assert not re.search(r"[\x00-\x08\x1b\ufffe]", picture)
