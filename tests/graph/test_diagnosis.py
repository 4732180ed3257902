"""NVLink, the fabric, and PCIe links: each finding on a machine that has it, and silence on one that nearly has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from made import all_pairs, concluded, found, machine, nvlinks, the, without_one_link
from planner import api
from planner.core.capture import GpuSight, PcieHop
from planner.core.facts import GpuFacts, HostFacts
from planner.core.topology import Topology
from planner.core.unknown import Unknown

BRIDGED = ["X PHB NV4 NODE", "PHB X NODE NV4", "NV4 NODE X PHB", "NODE NV4 PHB X"]
IN_ORDER = ["X NV4 NODE NODE", "NV4 X NODE NODE", "NODE NODE X NV4", "NODE NODE NV4 X"]
MESH = "NV4"
SWITCHED = "H100-SXM5-80GB"


def lane(now: int, together: int, alone: int, width: int = 16, possible_width: int = 16, state: int | None = 0) -> GpuFacts:
    facts = GpuFacts(
        pcie_generation=now,
        pcie_generation_possible=together,
        pcie_generation_gpu=alone,
        pcie_width=width,
        pcie_width_possible=possible_width,
    )
    return facts if state is None else replace(facts, performance_state=state)


def test_a_link_down_to_the_switch_is_said_once_with_its_cost() -> None:
    rows = all_pairs("NV18", 4)
    rows[3] = "NV17 NV17 NV17 X"
    rows[:3] = [row.rsplit(" ", 1)[0] + " NV17" for row in rows[:3]]
    by_reader = machine(rows, SWITCHED)
    assert [one.code for one in api.diagnose(by_reader)].count("nvlink-down") == 1
    finding = the(replace(by_reader, findings=()), "nvlink-down")
    assert finding.devices == ("gpu3",)
    assert "17/18" in finding.cost
    assert "350 GB/s instead of 371 GB/s" in finding.cost


def test_a_switch_with_all_links_up_is_no_finding_whatever_part_of_the_board_is_visible() -> None:
    assert concluded(machine(all_pairs("NV18", 4), SWITCHED)) == ()
    assert concluded(machine(all_pairs("NV12", 4), "A100-SXM4-40GB")) == ()


def test_links_of_one_gpu_that_say_they_are_down() -> None:
    up, lame = nvlinks(*[True] * 18), nvlinks(*[True] * 16, False, False)
    facts = {0: GpuFacts(nvlinks=up), 1: GpuFacts(nvlinks=lame)}
    finding = the(machine(None, gpus=[GpuSight(index=n, model=SWITCHED) for n in (0, 1)], facts=facts), "nvlink-down")
    assert finding.devices == ("gpu1",)
    assert "GPU1 links 16 and 17" in finding.evidence


def test_links_that_a_variant_may_not_use_are_not_down() -> None:
    some = GpuFacts(nvlinks=nvlinks(*[True] * 8, *[False] * 10))
    assert concluded(machine(all_pairs("NV8", 8), "H800-SXM5-80GB", facts=some)) == ()


def test_a_hybrid_mesh_tells_a_link_down_from_a_board_of_which_half_is_visible() -> None:
    up, lame = GpuFacts(nvlinks=nvlinks(*[True] * 6)), GpuFacts(nvlinks=nvlinks(True, True, False, True, True, True))
    rows = ["X NV1 NV1 NV2", "NV1 X NV2 NV1", "NV1 NV2 X NV1", "NV2 NV1 NV1 X"]
    finding = the(machine(rows, "V100-SXM2-16GB", facts={0: up, 1: up, 2: up, 3: lame}), "nvlink-down")
    assert finding.severity == "notice"
    assert found(machine(rows, "V100-SXM2-16GB", facts=lame), "nvlink-down") is None


def test_a_mesh_without_a_switch_uses_all_links_or_one_is_down() -> None:
    whole = machine(all_pairs(MESH, 4), "A100-SXM4-40GB")
    assert concluded(whole) == ()
    finding = the(without_one_link(whole, "gpu1", "gpu2"), "nvlink-down")
    assert finding.devices == ("gpu1", "gpu2")
    assert "1 of 12" in finding.message


def test_cards_with_fewer_bridges_than_connectors() -> None:
    finding = the(machine(all_pairs("NV4", 2), "A100-PCIe-80GB"), "nvlink-partial")
    assert finding.message == "4 of 12 NVLinks bridged on GPU0, GPU1"
    assert "80 GB/s instead of 240 GB/s" in finding.cost
    assert concluded(machine(all_pairs("NV12", 2), "A100-PCIe-80GB")) == ()


def test_fewer_links_than_the_data_sheet_on_all_gpus_is_perhaps_another_variant() -> None:
    finding = the(machine(all_pairs("NV8", 8), SWITCHED), "nvlink-partial")
    assert finding.severity == "notice"
    assert "--gpu" in finding.hint
    assert concluded(machine(all_pairs("NV8", 8), "H800-SXM5-80GB")) == ()


def test_a_part_that_comes_with_nvlink_and_shows_none() -> None:
    bare = machine(all_pairs("NODE", 4), SWITCHED)
    finding = the(bare, "nvlink-missing")
    assert "H100-SXM5-80GB has 18" in finding.message
    assert "instead of 371 GB/s" in finding.cost
    assert "nvidia-fabricmanager" in finding.hint
    guest = machine(all_pairs("NODE", 4), SWITCHED, host=HostFacts(virtual_machine="KVM"))
    assert "fabricmanager" not in the(guest, "nvlink-missing").hint


def test_no_nvlink_is_no_wonder() -> None:
    alone = machine(["X"], SWITCHED)
    neighbours_elsewhere = machine(all_pairs("SYS", 2), "V100-SXM2-16GB")
    pcie_part = machine(all_pairs("NODE", 4), "L40S")
    nobody_tells = machine(None, gpus=[GpuSight(index=n, model=SWITCHED) for n in range(4)])
    divided = machine(all_pairs("NODE", 2), SWITCHED, facts=GpuFacts(multi_instance="enabled"))
    wanted = api.load_topology("4xH100-SXM5-80GB:pcie-p2p")
    for topology in (alone, neighbours_elsewhere, pcie_part, nobody_tells, divided, wanted):
        assert found(topology, "nvlink-missing") is None, topology


def test_links_that_are_up_with_unknown_ends_are_not_missing() -> None:
    facts = GpuFacts(nvlinks=nvlinks(*[True] * 6))
    topology = machine(None, gpus=[GpuSight(index=n, model="V100-SXM2-16GB") for n in range(4)], facts=facts)
    assert found(topology, "nvlink-missing") is None
    assert found(topology, "nvlink-peers-unknown") is not None


def test_pairs_that_engines_would_tear_apart() -> None:
    finding = the(machine(BRIDGED, "RTX-3090"), "nvlink-not-adjacent")
    assert "CUDA_VISIBLE_DEVICES=0,2,1,3" in finding.hint
    assert "GPU0 and GPU1 are PHB" in finding.evidence
    assert "12 GB/s instead of 48 GB/s" in finding.cost
    assert found(machine(IN_ORDER, "RTX-3090"), "nvlink-not-adjacent") is None


def test_the_order_that_is_recommended_has_nothing_to_say_against_it() -> None:
    one_pair = ["X NODE NODE NODE", "NODE X NV4 NODE", "NODE NV4 X NODE", "NODE NODE NODE X"]
    finding = the(machine(one_pair, "RTX-3090"), "nvlink-not-adjacent")
    assert "CUDA_VISIBLE_DEVICES=1,2,0,3" in finding.hint
    in_that_order = ["X NV4 NODE NODE", "NV4 X NODE NODE", "NODE NODE X NODE", "NODE NODE NODE X"]
    assert found(machine(in_that_order, "RTX-3090"), "nvlink-not-adjacent") is None


@pytest.mark.parametrize(("state", "words"), [("in-progress", "wait"), ("not-started", "systemctl"), ("failed: x", "systemctl")])
def test_a_fabric_that_is_not_ready(state: str, words: str) -> None:
    facts = {0: GpuFacts(fabric="completed"), 1: GpuFacts(fabric=state)}
    finding = the(machine(all_pairs("NV18", 2), SWITCHED, facts=facts), "fabric-not-ready")
    assert finding.devices == ("gpu1",)
    assert words in finding.hint


def test_a_fabric_that_is_ready_or_that_there_is_none_of() -> None:
    for state in ("completed", "not-supported"):
        assert concluded(machine(all_pairs("NV18", 2), SWITCHED, facts=GpuFacts(fabric=state))) == ()
    for rows, model in ((all_pairs("NODE", 2), "L40S"), (all_pairs("NV4", 4), "A100-SXM4-40GB")):
        assert found(machine(rows, model, facts=GpuFacts(fabric="not-started")), "fabric-not-ready") is None


def test_a_fabric_manager_that_does_not_run() -> None:
    stopped = HostFacts(fabric_manager="inactive")
    assert "inactive" in the(machine(all_pairs("NV12", 4), "A100-SXM4-40GB", host=stopped), "fabric-manager").message
    joined = machine(all_pairs("NV18", 4), SWITCHED, host=stopped, facts=GpuFacts(fabric="completed"))
    active = machine(all_pairs("NV12", 4), "A100-SXM4-40GB", host=HostFacts(fabric_manager="active"))
    no_switch = machine(all_pairs(MESH, 4), "A100-SXM4-40GB", host=stopped)
    guest = machine(all_pairs("NV12", 4), "A100-SXM4-40GB", host=replace(stopped, virtual_machine="KVM"))
    for topology in (joined, active, no_switch, guest):
        assert found(topology, "fabric-manager") is None


def test_a_slot_with_half_the_lanes() -> None:
    finding = the(machine(all_pairs("PHB", 2), facts={0: lane(4, 4, 4), 1: lane(4, 4, 4, width=8)}), "pcie-width")
    assert finding.message == "PCIe x8 instead of x16 on GPU1"
    assert finding.cost == "x8 carries 12 GB/s instead of 24 GB/s each way"
    assert finding.severity == "problem"
    assert found(machine(all_pairs("PHB", 2), facts=lane(4, 4, 4)), "pcie-width") is None


def test_a_slot_that_has_no_more_lanes_is_a_notice_and_so_is_what_a_hypervisor_shows() -> None:
    assert the(machine(["X"], facts=lane(4, 4, 4, width=8, possible_width=8)), "pcie-width").severity == "notice"
    guest = machine(["X"], facts=lane(4, 4, 4, width=8), host=HostFacts(virtual_machine="KVM"))
    assert the(guest, "pcie-width").severity == "notice"


def by_bus(uplink: PcieHop) -> Topology:
    ends = [PcieHop(bus_id=f"card{n}", generation=4, width=16, possible_width=16) for n in (0, 1)]
    sights = [GpuSight(index=n, model="L40S", root="root", numa_node=0, hops=(uplink, end)) for n, end in enumerate(ends)]
    return machine(None, gpus=sights)


def test_the_uplink_of_a_switch_with_half_the_lanes() -> None:
    finding = the(by_bus(PcieHop(bus_id="switch", generation=4, width=8, possible_width=16)), "pcie-width")
    assert "above switch switch0" in finding.message
    assert finding.devices == ("gpu0", "gpu1")
    assert concluded(by_bus(PcieHop(bus_id="switch", generation=4, width=16, possible_width=16))) == ()


def test_a_link_trained_down_under_load_and_one_that_saves_power() -> None:
    finding = the(machine(["X"], facts=lane(1, 4, 4, state=0)), "pcie-generation")
    assert (finding.severity, finding.message) == ("problem", "PCIe 1 instead of 4 on GPU0")
    assert finding.cost == "x16 carries 3 GB/s instead of 24 GB/s each way"
    for state in (8, None):
        assert concluded(machine(["X"], facts=lane(1, 4, 4, state=state))) == ()
    only_now = GpuFacts(pcie_generation=1, pcie_width=16, performance_state=8)
    assert concluded(machine(["X"], facts=only_now)) == ()


def test_a_board_older_than_the_card_is_a_notice() -> None:
    finding = the(machine(["X"], facts=lane(1, 3, 4, state=8)), "pcie-generation")
    assert (finding.severity, finding.message) == ("notice", "PCIe 3 instead of 4 on GPU0")
    assert found(machine(["X"], facts=lane(1, 4, 4, state=8)), "pcie-generation") is None


def test_slots_that_differ_with_nothing_else_to_explain_it() -> None:
    widths = {0: GpuFacts(pcie_width=16), 1: GpuFacts(pcie_width=8)}
    finding = the(machine(all_pairs("PHB", 2), "Some GPU", facts=widths), "pcie-uneven")
    assert finding.message == "GPU1 behind PCIe x8, GPU0 behind x16"
    assert found(machine(all_pairs("PHB", 2), "L40S", facts=widths), "pcie-uneven") is None  # pcie-width says it
    assert found(machine(all_pairs("PHB", 2), "Some GPU", facts=widths[0]), "pcie-uneven") is None


def test_what_is_not_known_leads_to_nothing() -> None:
    facts = GpuFacts(pcie_width=Unknown("not supported"), pcie_generation=Unknown("not supported"))
    assert concluded(machine(all_pairs("PHB", 2), facts=facts)) == ()


def test_a_pair_with_fewer_links_than_the_other_pairs() -> None:
    rows = ["X NV18 NODE NODE", "NV18 X NODE NODE", "NODE NODE X NV17", "NODE NODE NV17 X"]
    for model in ("H200-NVL-141GB", SWITCHED):
        found_one = the(machine(rows, model), "nvlink-down")
        assert found_one.devices == ("gpu2", "gpu3")
        assert "350 GB/s instead of 371 GB/s" in found_one.cost
        assert "nvlink-partial" not in {one.code for one in concluded(machine(rows, model))}
    unnamed = the(machine(rows, ["unheard of"] * 4), "nvlink-down")
    assert "17/18" in unnamed.cost
    assert concluded(machine(IN_ORDER, "RTX-A6000")) == ()
