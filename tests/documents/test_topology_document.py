from __future__ import annotations

import pytest

from planner import api
from planner.documents.topology import dump_topology, parse_topology
from planner.errors import BadInput
from planner.readers.short_spec import read_short_spec

SMALL = """\
schema_version: 1
name: box
origin: {kind: written, source: by hand}
hosts:
- name: node0
  devices:
  - {id: socket0, kind: socket}
  - {id: bridge0, kind: host-bridge}
  - {id: gpu0, kind: gpu, index: 0, gpu: RTX-3090}
  - {id: gpu1, kind: gpu, index: 1, gpu: RTX-3090}
  links:
  - {between: [socket0, bridge0], kind: pcie}
  - {between: [bridge0, gpu0], kind: pcie}
  - {between: [bridge0, gpu1], kind: pcie}
  - {between: [gpu0, gpu1], kind: nvlink, count: 4, bandwidth: 56.25 GB/s}
"""


def test_a_small_document_is_read() -> None:
    topology = parse_topology(SMALL, "box.yaml")
    assert [gpu.id for gpu in topology.gpus] == ["gpu0", "gpu1"]
    assert topology.links[-1].bandwidth == 56.25e9


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("56.25 GB/s", "56.25", "$.hosts[0].links[3].bandwidth", "no unit"),
        ("56.25 GB/s", "56.25 GB", "$.hosts[0].links[3].bandwidth", "not a unit"),
        ("56.25 GB/s", "0 GB/s", "box.yaml", "no bandwidth"),
        ("count: 4", "count: 0", "$.hosts[0].links[3].count", "greater than"),
        ("count: 4", "count: '4'", "$.hosts[0].links[3].count", "integer"),
        ("kind: nvlink", "kind: nvlnk", "$.hosts[0].links[3].kind", "nvlnk"),
        ("[gpu0, gpu1], kind: nvlink", "[gpu0, gpu7], kind: nvlink", "box.yaml", "'gpu7', which is no device"),
        ("[gpu0, gpu1], kind: nvlink", "[gpu0, gpu0], kind: nvlink", "box.yaml", "to itself"),
        ("[gpu0, gpu1], kind: nvlink", "[gpu0, bridge0], kind: nvlink", "box.yaml", "cannot end at host-bridge"),
        ("[gpu0, gpu1], kind: nvlink", "[gpu0, gpu1], kind: pcie", "box.yaml", "closes a loop"),
        ("  - {between: [bridge0, gpu1], kind: pcie}\n", "", "box.yaml", "hangs from 0 sockets"),
        ("index: 1", "index: 0", "box.yaml", "all different"),
        ("id: gpu1, kind", "id: gpu0, kind", "box.yaml", "is there 2 times"),
        ("schema_version: 1", "schema_version: 2", "$.schema_version", "this release reads 1"),
        ("name: box\n", "name: box\ncolour: red\n", "$.colour", "not a known key"),
        ("origin: {kind: written, source: by hand}\n", "", "$.origin", "is missing"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, where: str, what: str) -> None:
    assert old in SMALL
    with pytest.raises(BadInput) as refusal:
        parse_topology(SMALL.replace(old, new), "box.yaml")
    assert where in refusal.value.path
    assert what in refusal.value.problem


@pytest.mark.parametrize("name", api.topology_names())
def test_every_library_machine_round_trips(name: str) -> None:
    topology = api.load_topology(name)
    again = parse_topology(dump_topology(topology), "again")
    assert again == topology
    assert topology.origin.source


@pytest.mark.parametrize(
    "spec",
    [
        "8xH100-SXM5-80GB",
        "2x8xA100-SXM4-80GB@8x200",
        "4xA100-PCIe-80GB:nvlink-pairs",
        "8xV100-SXM2-32GB",
        "3xMI300X",
        "2x4xGB200-NVL72",
    ],
)
def test_every_short_spec_round_trips(spec: str) -> None:
    topology = read_short_spec(spec, api.load_gpu)
    topology.check()
    assert parse_topology(dump_topology(topology), "again") == topology


def test_hosts_alike_are_written_once() -> None:
    text = dump_topology(read_short_spec("16x8xH100-SXM5-80GB", api.load_gpu))
    assert "count: 16" in text
    assert text.count("kind: gpu,") == 8


def test_an_ambiguous_label_is_quoted() -> None:
    topology = parse_topology(SMALL.replace("{id: gpu0, kind: gpu,", "{id: gpu0, kind: gpu, label: 'off',"), "box.yaml")
    assert parse_topology(dump_topology(topology), "again").by_id["gpu0"].label == "off"


def test_hosts_that_nothing_joins_are_no_machine() -> None:
    second = SMALL[SMALL.index("- name: node0") :].replace("node0", "node1")
    with pytest.raises(BadInput, match="nothing joins hosts node0, node1"):
        parse_topology(SMALL + second, "box.yaml").check()
