"""Measured links and curves through relabelling, merging, comparing and diagnosing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from measured_box import GIGA, box, number_of
from planner import api
from planner.core.measured import MeasuredCurve
from planner.core.topology import Topology
from planner.documents.topology import dump_topology, parse_topology
from planner.errors import BadInput
from planner.graph.merge import merge
from planner.graph.network import parse_network
from planner.graph.relabel import relabelled
from planner.units import Bytes, BytesPerSecond, Seconds
from planner.validation import predict_collective


def measured(topology: Topology, by: str = "copies, bw.txt", scale: float = 1.0, **rates: float) -> Topology:
    """The topology with links measured (GB/s), and an all-reduce of its first two GPUs."""
    numbers = {number_of(topology, name): rate for name, rate in rates.items()}
    links = tuple(
        replace(link, measured=BytesPerSecond(numbers[number] * GIGA), measured_by=by) if number in numbers else link
        for number, link in enumerate(topology.links)
    )
    points = tuple((Bytes(float(size)), Seconds(round(scale * (10 + size / 20e3), 4) * 1e-6)) for size in (2**10, 2**20, 2**24))
    curve = MeasuredCurve("all_reduce", tuple(gpu.id for gpu in topology.gpus[:2]), "nccl", points, "nccl.txt")
    return replace(topology, links=links, measurements=(curve,))


def test_a_curve_follows_its_gpus() -> None:
    topology = relabelled(measured(box(), gpu2=13), {"node0": "left"}, prefixed=True)
    topology.check()
    assert topology.measurements[0].gpus == ("left/gpu0", "left/gpu1")
    assert [link.name for link in topology.links if link.measured is not None] == ["left/bridge1–left/gpu2"]
    back = relabelled(topology, {"left": "node0"}, prefixed=False)
    assert back == measured(box(), gpu2=13)


def test_a_cluster_keeps_what_its_hosts_measured() -> None:
    one, other = measured(box(), gpu2=13, sockets=18), measured(box(), scale=3.0, gpu0=20)
    cluster = merge("pair", [("left", one), ("right", other)], parse_network("4x200", lambda _: ()))
    assert {(curve.gpus, curve.points[0][1]) for curve in cluster.measurements} == {
        (("left/gpu0", "left/gpu1"), one.measurements[0].points[0][1]),
        (("right/gpu0", "right/gpu1"), other.measurements[0].points[0][1]),
    }
    assert {link.name: link.measured for link in cluster.links if link.measured is not None} == {
        "left/bridge1–left/gpu2": 13e9,
        "left/socket0–left/socket1": 18e9,
        "right/bridge0–right/gpu0": 20e9,
    }
    assert parse_topology(dump_topology(cluster), "pair.yaml") == cluster
    # GPUs 4 and 5 are the right host's first two
    found = predict_collective(cluster, "all-reduce", [2**20], gpus=[4, 5], implementation="nccl").predictions[0].taken
    assert found.time == pytest.approx(3 * (10e-6 + 2**20 / 20e9))
    assert found.basis == "here"


def test_both_measured_and_apart_is_a_difference() -> None:
    before = measured(box(), gpu2=24, sockets=18)
    after = measured(box(), "copies, later.txt", 1.5, gpu2=12, sockets=12, gpu0=20)
    messages = [change.message for change in api.compare(before, after)]
    assert messages == [
        "PCIe link of gpu2: measured 24 GB/s → 12 GB/s, 50 % less bandwidth",
        "socket0–socket1: measured 18 GB/s → 12 GB/s, 33.3 % less bandwidth",
        "all_reduce over gpu0, gpu1 by nccl, 16 MiB: 848.9 µs → 1.273 ms",
    ]


def test_what_only_one_measured_and_noise_are_no_difference() -> None:
    assert api.compare(box(), measured(box(), gpu2=12)) == ()
    assert api.compare(measured(box(), gpu2=24), measured(box(), scale=1.03, gpu2=23.5)) == ()


def test_the_doctor_names_slow_links() -> None:
    def told(topology: Topology) -> list[str]:
        return [finding.message for finding in api.diagnose(topology) if finding.code == "link-slow"]

    assert told(measured(box(), gpu0=22, gpu1=26)) == []
    assert told(measured(box(), gpu2=13, gpu3=13)) == [
        "bridge1–gpu2, bridge1–gpu3 carry 13 GB/s where such links usually carry 24 GB/s"
    ]
    # what joins sockets is assumed; through host memory the host limits
    assert told(measured(box(), sockets=5)) == []
    staged = replace(box(), hosts=tuple(replace(host, peer_to_peer="disabled") for host in box().hosts))
    assert told(measured(staged, gpu2=13)) == []


def test_what_was_measured_is_no_assumption_any_more() -> None:
    def assumed(topology: Topology) -> str:
        return " ".join(api.equipped_for_display(topology).origin.assumptions)

    assert "socket interconnect 16 GB/s" in assumed(box())
    assert "socket interconnect" not in assumed(measured(box(), sockets=18))


def test_a_document_keeps_them() -> None:
    topology = measured(box(), gpu2=13.25, sockets=17.3)
    text = dump_topology(topology)
    assert parse_topology(text, "box.yaml") == topology
    assert "microseconds: [10.0512, 62.4288, 848.8608]" in text
    assert "measured: 13.25 GB/s, measured_by: 'copies, bw.txt'" in text


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("gpus: [gpu0, gpu1]", "gpus: [gpu0, gpu7]", "a measurement names 'gpu7', which is no GPU of it"),
        ("gpus: [gpu0, gpu1]", "gpus: [gpu0, socket0]", "a measurement names 'socket0', which is no GPU of it"),
        ("bytes: [1024, 1048576,", "bytes: [1048576, 1024,", "bytes must rise"),
        ("bytes: [1024, 1048576,", "bytes: [1024,", "bytes must rise, and have a time each"),
        ("measured: 13 GB/s", "measured: 0 GB/s", "was measured without bandwidth"),
        ("measured: 13 GB/s", "measured: 13", "no unit"),
        ("operation: all_reduce", "operation: all_produce", "all_produce"),
    ],
)
def test_a_mistake_in_one_is_named(old: str, new: str, what: str) -> None:
    text = dump_topology(measured(box(), gpu2=13))
    assert old in text
    with pytest.raises(BadInput) as refusal:
        parse_topology(text.replace(old, new), "box.yaml")
    assert what in str(refusal.value)
