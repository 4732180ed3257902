from __future__ import annotations

import pytest

from planner import api
from planner.core.topology import LinkKind, Topology
from planner.documents.hardware import load_link_rates
from planner.graph.equip import equip
from support import read_capture


def equipped(reference: str) -> Topology:
    topology = api.load_topology(reference)
    return equip(topology, {name: api.load_gpu(name) for name in topology.hardware}, load_link_rates())


def test_nvlinks_carry_what_the_data_sheet_says_and_achieve_what_nccl_counts_on() -> None:
    link = next(link for link in equipped("dgx-h100").links if link.kind is LinkKind.NVLINK)
    assert link.bandwidth == 450e9
    assert link.achieved == pytest.approx(370.8e9)


def test_a_bridge_of_four_links_is_four_links() -> None:
    link = next(link for link in equipped("4x-rtx-3090-bridged").links if link.kind is LinkKind.NVLINK)
    assert (link.bandwidth, link.achieved) == (56.25e9, 48e9)


def test_a_mesh_splits_the_links_evenly() -> None:
    links = [link for link in equipped("4xA100-SXM4-40GB:nvlink-mesh").links if link.kind is LinkKind.NVLINK]
    assert len(links) == 6
    assert {link.bandwidth for link in links} == {100e9}


def test_pcie_takes_generation_and_width_of_the_card() -> None:
    link = next(link for link in equipped("2xL4").links if link.kind is LinkKind.PCIE and link.b.startswith("gpu"))
    assert (link.generation, link.count, link.achieved) == (4, 16, 24e9)


def test_every_default_is_an_assumption_that_stays_visible() -> None:
    assumptions = equipped("8xRTX-4090").origin.assumptions
    assert any("no peer-to-peer" in one or "host bridge" in one for one in assumptions)
    assert any("socket interconnect 16 GB/s" in one for one in assumptions)


def test_geforce_has_no_peer_to_peer_and_data_centre_cards_may() -> None:
    capture = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tPHB\t0-7\nGPU1\tPHB\t X \t0-7\n"

    for name, expected in (("RTX-4090", "disabled"), ("L40S", "unknown")):
        topology = read_capture(f"GPU 0,1: {name}\n{capture}")
        ready = equip(topology, {name: api.load_gpu(name)}, load_link_rates())
        assert ready.hosts[0].peer_to_peer == expected


def test_every_link_of_every_library_machine_achieves_something_up_to_its_line_rate() -> None:
    for name in api.topology_names():
        for link in equipped(name).links:
            assert link.achieved is not None, (name, link)
            assert not isinstance(link.bandwidth, str)
            assert 0 < link.achieved <= float(link.bandwidth) * (1 + 1e-9), (name, link)  # type: ignore[arg-type]
