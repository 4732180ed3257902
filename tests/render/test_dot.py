from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from planner import api
from planner.core.topology import Topology
from planner.render.dot import dot
from planner.render.scene import scene_of

STRING = r'"(?:[^"\\]|\\.)*"'
ATTRIBUTE = rf"\w+={STRING}"
ATTRIBUTES = rf"\[{ATTRIBUTE}(?:, {ATTRIBUTE})*\]"
LINES = (
    r"graph topology \{",
    r"subgraph cluster_\w+ \{",
    r"\}",
    rf"(?:{ATTRIBUTE}; ?)+",
    rf"(?:node|edge) {ATTRIBUTES};",
    rf"{STRING} {ATTRIBUTES};",
    rf"{STRING} -- {STRING} {ATTRIBUTES};",
    r"// .*",
)
GRAMMAR = re.compile("|".join(f"(?:{line})" for line in LINES))
NODE = re.compile(rf"({STRING}) \[")
EDGE = re.compile(rf"({STRING}) -- ({STRING}) \[label=({STRING})")


def graph(topology: Topology) -> str:
    return dot(scene_of(topology, api.equipped_for_display(topology)))


@pytest.mark.parametrize("name", api.topology_names())
def test_every_machine_is_a_graph_whose_edges_end_at_its_nodes(name: str) -> None:
    text = graph(api.load_topology(name))
    lines = [line.strip() for line in text.splitlines()]
    assert all(GRAMMAR.fullmatch(line) for line in lines)
    depth = 0
    for line in lines:
        depth += line.endswith("{") - (line == "}")
        assert depth >= 0
    assert depth == 0
    nodes = {match[1] for line in lines if (match := NODE.match(line))}
    ends = {end for line in lines if (match := EDGE.match(line)) for end in (match[1], match[2])}
    assert ends <= nodes
    assert len(nodes) == sum(NODE.match(line) is not None for line in lines)


def test_hosts_and_sockets_are_clusters_and_edges_say_class_and_bandwidth() -> None:
    text = graph(api.load_topology("dgx-h100"))
    assert text.count("subgraph cluster_host") == 3
    assert 'label="NUMA 1"' in text
    assert '"node0/gpu0" -- "node0/nvswitch0" [label="NV18\\n450 GB/s"' in text
    assert text.count(" -- ") == len(api.load_topology("dgx-h100").links)


def test_alike_hosts_once() -> None:
    text = graph(api.load_topology("gb200-nvl72"))
    assert "tray0 ×18 (tray0-17)" in text
    assert text.count('kind="') == 0
    assert '"tray0/gpu0" -- "/nvswitch"' in text


def test_names_of_a_stranger_stay_data() -> None:
    topology = api.load_topology("dgx-h100")
    odd = 'a"]; evil [x="\\'
    devices = (replace(device, label=odd if device.id == "nic0" else device.label) for device in topology.devices)
    text = graph(replace(topology, name='x"; }\n\\N', devices=tuple(devices)))
    assert all(GRAMMAR.fullmatch(line.strip()) for line in text.splitlines())


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("name", ["dgx-h100", "dgx-1-v100", "gb200-nvl72"])
def test_graphviz_takes_it(name: str) -> None:
    program = shutil.which("dot") or "dot"
    run = subprocess.run([program, "-Tcanon"], input=graph(api.load_topology(name)), capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
