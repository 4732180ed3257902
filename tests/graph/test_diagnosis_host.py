"""Peer-to-peer, the GPUs themselves and the host around them: each finding, and silence on what nearly is one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from made import MIB, all_pairs, found, machine, the
from planner import api
from planner.core.capture import GpuSight
from planner.core.facts import GpuFacts, HostFacts
from planner.core.finding import Finding
from planner.core.topology import Topology
from planner.core.unknown import Unknown
from planner.documents.topology import dump_topology, parse_topology
from planner.units import Bytes

PIX, NODE = all_pairs("PIX", 2), all_pairs("NODE", 2)
TWO_SOCKETS = ["X SYS PIX PIX", "SYS X SYS SYS", "PIX SYS X PIX", "PIX SYS PIX X"]
"""Two GPUs and two network cards, both under the first GPU's switch."""


def asked(word: str, rows: list[str], model: str = "L40S", host: HostFacts | None = None) -> Topology:
    return machine(rows, model, peers={"read": [f"X {word}", f"{word} X"]}, host=host or HostFacts())


def test_a_refusal_where_nccl_would_copy_directly() -> None:
    finding = the(asked("CNS", PIX), "p2p-disabled")
    assert finding.severity == "problem"
    assert "CNS (chipset not supported)" in finding.evidence
    assert "GPU0 to GPU1 12 GB/s instead of 24 GB/s" in finding.cost
    assert found(asked("OK", PIX), "p2p-disabled") is None
    assert the(asked("CNS", NODE), "p2p-disabled").severity == "notice"


def test_a_registry_key_is_named_and_can_be_removed() -> None:
    finding = the(asked("DR", NODE), "p2p-disabled")
    assert finding.severity == "problem"
    assert "NVreg" in finding.hint


def test_a_model_without_peer_to_peer_is_so_by_design() -> None:
    finding = the(machine(PIX, "RTX-4090"), "p2p-disabled")
    assert finding.severity == "notice"
    assert "data sheet of RTX-4090" in finding.evidence
    assert "host memory" in finding.cost
    assert the(asked("GNS", PIX, "RTX-4090"), "p2p-disabled").severity == "notice"
    assert found(asked("OK", PIX, "RTX-4090"), "p2p-disabled") is None  # a changed driver
    assert found(machine(all_pairs("NV4", 2), "RTX-3090"), "p2p-disabled") is None
    assert found(machine(["X"], "RTX-4090"), "p2p-disabled") is None


def test_a_driver_that_does_not_say() -> None:
    assert the(asked("U", PIX), "p2p-unknown").severity == "notice"
    assert found(asked("OK", PIX), "p2p-unknown") is None
    assert found(machine(PIX), "p2p-unknown") is None


def test_acs_matters_where_something_meets_below_the_root() -> None:
    redirecting = HostFacts(acs="redirects")
    finding = the(machine(all_pairs("PIX", 4), host=redirecting), "acs-redirects")
    assert finding.severity == "problem"
    assert "6 GB/s instead of 24 GB/s when all copy at once" in finding.cost
    assert "ECAP_ACS" in finding.hint
    cards = machine(
        ["X NV4 PIX NODE", "NV4 X NODE PIX", "PIX NODE X NODE", "NODE PIX NODE X"], ["RTX-A6000"] * 2, host=redirecting
    )
    assert the(cards, "acs-redirects").severity == "notice"
    for topology in (
        machine(NODE, host=redirecting),
        machine(PIX, host=HostFacts(acs="direct")),
        machine(PIX, "RTX-4090", host=redirecting),
    ):
        assert found(topology, "acs-redirects") is None


def test_an_iommu_that_translates() -> None:
    translating = HostFacts(iommu="translating")
    finding = the(machine(NODE, host=translating), "iommu-translating")
    assert (finding.severity, "iommu=pt" in finding.hint) == ("problem", True)
    assert the(machine(NODE, host=replace(translating, virtual_machine="KVM")), "iommu-translating").severity == "notice"
    grace = machine(None, gpus=[GpuSight(index=n, model="GB200-NVL72", c2c=True, numa_node=n) for n in (0, 1)], host=translating)
    for topology in (
        machine(NODE, host=HostFacts(iommu="passthrough")),
        machine(all_pairs("NV18", 2), "H100-SXM5-80GB", host=translating),
        machine(NODE, "RTX-4090", host=translating),
        grace,
    ):
        assert found(topology, "iommu-translating") is None


def test_a_container_matters_where_copies_rest_in_its_memory() -> None:
    docker = HostFacts(container="docker")
    assert "--shm-size" in the(machine(NODE, host=docker), "container").hint
    assert found(machine(PIX, host=docker), "container") is None
    assert found(machine(NODE, host=HostFacts(container="none")), "container") is None


def test_a_virtual_machine_matters_where_distances_over_pcie_do() -> None:
    guest = HostFacts(virtual_machine="KVM")
    assert "KVM" in the(machine(NODE, host=guest), "virtual-machine").message
    assert found(machine(all_pairs("NV18", 2), "H100-SXM5-80GB", host=guest), "virtual-machine") is None
    assert found(machine(NODE, host=HostFacts(virtual_machine="none")), "virtual-machine") is None


def test_a_lost_gpu_is_said_once() -> None:
    gone = GpuFacts(memory_used=Unknown("NVML: GPU is lost"), pcie_width=Unknown("NVML: GPU is lost"))
    topology = machine(NODE, facts={1: gone})
    finding = the(topology, "gpu-lost")
    assert (finding.devices, finding.severity) == (("gpu1",), "problem")
    assert found(topology, "facts-unknown") is None
    told = replace(topology, findings=(Finding("gpu-lost", "the reader says so", devices=("gpu1",)),))
    assert the_only(told, "gpu-lost").message == "the reader says so"
    assert found(machine(NODE, facts={1: GpuFacts(memory_used=Unknown("NVML: no permission"))}), "gpu-lost") is None


def the_only(topology: Topology, code: str) -> Finding:
    (finding,) = [one for one in api.diagnose(topology) if one.code == code]
    return finding


def test_mig() -> None:
    finding = the(machine(NODE, facts={0: GpuFacts(multi_instance="enabled")}), "mig-enabled")
    assert "nvidia-smi -i 0 -mig 0" in finding.hint
    assert found(machine(NODE, facts=GpuFacts(multi_instance="disabled")), "mig-enabled") is None


def test_memory_in_use() -> None:
    facts = {0: GpuFacts(memory_used=Bytes(3 * 1024 * MIB)), 1: GpuFacts(memory_used=Bytes(400 * MIB))}
    finding = the(machine(NODE, facts=facts), "memory-in-use")
    assert finding.devices == ("gpu0",)
    assert "3.0 GiB" in finding.cost
    small = machine(["X"], "T4", facts=GpuFacts(memory_used=Bytes(600 * MIB)))
    assert found(small, "memory-in-use") is not None
    large = machine(["X"], "H100-SXM5-80GB", facts=GpuFacts(memory_used=Bytes(700 * MIB)))
    assert found(large, "memory-in-use") is None


@pytest.mark.parametrize(("mebibytes", "says"), [(46068, True), (48000, False), (49140, False)])
def test_memory_that_ecc_takes(mebibytes: int, says: bool) -> None:
    topology = machine(["X"], gpus=[GpuSight(index=0, model="RTX-A6000", memory=Bytes(mebibytes * MIB))])
    assert (found(topology, "memory-smaller") is not None) is says


def test_gpus_of_two_models() -> None:
    finding = the(machine(NODE, ["L40S", "L4"]), "mixed-gpus")
    assert finding.message == "GPUs of 2 models: 1× L40S, 1× L4"
    assert "as L4" in finding.cost
    assert found(machine(NODE, ["L4", "L4"]), "mixed-gpus") is None


def test_cards_on_one_socket_only() -> None:
    finding = the(machine(TWO_SOCKETS, ["L40S"] * 2), "nic-far")
    assert finding.devices == ("gpu1",)
    one_each = ["X SYS PIX SYS", "SYS X SYS PIX", "PIX SYS X SYS", "SYS PIX SYS X"]
    assert found(machine(one_each, ["L40S"] * 2), "nic-far") is None
    lone_card = [" ".join(row.split()[:3]) for row in TWO_SOCKETS[:3]]
    assert found(machine(lone_card, ["L40S"] * 2), "nic-far") is None


@pytest.mark.parametrize(
    ("driver", "model", "severity", "words"),
    [
        ("470.82.01", "L40S", "problem", "CUDA 12, CUDA 13"),
        ("535.54.03", "L40S", "notice", "CUDA 13"),
        ("550.54.15", "B200-SXM-180GB", "problem", "Blackwell GPUs"),
    ],
)
def test_a_driver_too_old(driver: str, model: str, severity: str, words: str) -> None:
    finding = the(machine(["X"], model, host=HostFacts(driver=driver)), "driver-too-old")
    assert finding.severity == severity
    assert words in finding.message


@pytest.mark.parametrize(
    ("driver", "model"), [("580.65.06", "B200-SXM-180GB"), ("6.10.5", "MI300X"), ("470.82.01", "Some GPU"), ("strange", "L40S")]
)
def test_a_driver_that_will_do_or_that_nothing_is_known_of(driver: str, model: str) -> None:
    assert found(machine(["X"], model, host=HostFacts(driver=driver)), "driver-too-old") is None


def test_nvlink_sharp_needs_a_switch() -> None:
    host = HostFacts(driver="525.60.13")
    assert "NVLink SHARP" in the(machine(all_pairs("NV18", 2), "H100-SXM5-80GB", host=host), "driver-too-old").message
    assert "NVLink SHARP" not in the(machine(all_pairs("NV12", 2), "H100-NVL-94GB", host=host), "driver-too-old").message


def test_all_that_could_not_be_read_is_one_notice() -> None:
    refused = Unknown("NVML: Insufficient Permissions")
    facts = GpuFacts(memory_used=refused, nvlinks=refused)
    topology = machine(NODE, "RTX-A6000", facts=facts, host=HostFacts(acs=Unknown("only root may")))
    finding = the(topology, "facts-unknown")
    assert finding.severity == "notice"
    assert finding.evidence == "memory in use, NVLinks of GPU0, GPU1: NVML: Insufficient Permissions; ACS: only root may"
    for quiet in (
        machine(NODE, facts=GpuFacts(multi_instance=Unknown("MIG: N/A"), nvlinks=refused)),
        machine(["X"], host=HostFacts(acs=refused, iommu=refused)),
        machine(NODE, host=HostFacts(acs=Unknown("a virtual machine does not show the ports of its host"))),
    ):
        assert found(quiet, "facts-unknown") is None


def test_hosts_with_the_same_finding_share_it() -> None:
    host = "2x-dgx-h100"
    topology = api.load_topology(host)
    hosts = tuple(replace(one, facts=HostFacts(driver="470.1")) for one in topology.hosts)
    finding = the(replace(topology, hosts=hosts), "driver-too-old")
    assert finding.message.endswith("; on every host")
    assert len(finding.devices) == 16


def test_problems_come_before_notices_and_the_readers_before_all() -> None:
    topology = machine(NODE, "RTX-4090", facts={0: GpuFacts(multi_instance="enabled")})
    told = Finding("from-the-reader", "x", severity="notice")
    codes = [one.code for one in api.diagnose(replace(topology, findings=(told, told)))]
    assert codes == ["from-the-reader", "mig-enabled", "p2p-disabled"]


def test_a_saved_probe_says_what_the_live_one_says() -> None:
    facts = {0: GpuFacts(memory_used=Bytes(3 * 1024 * MIB), pcie_width=8, pcie_width_possible=16, multi_instance="enabled")}
    host = HostFacts(driver="470.82.01", iommu="translating", acs="redirects", virtual_machine="KVM", container="docker")
    topology = replace(asked("CNS", PIX, host=host), findings=(Finding("from-the-reader", "x"),))
    busy = machine(PIX, facts=facts, host=host)
    for one in (topology, busy):
        assert len(api.diagnose(one)) > 3
        assert api.diagnose(parse_topology(dump_topology(one), "saved")) == api.diagnose(one)


def test_no_machine_of_the_library_has_a_problem() -> None:
    for name in api.topology_names():
        problems = [one for one in api.diagnose(api.load_topology(name)) if one.severity == "problem"]
        assert problems == [], name


def test_an_eight_gpu_board_that_is_well_is_not_spoken_of() -> None:
    for name in ("dgx-h100", "dgx-a100", "dgx-b200", "gb200-nvl72", "8x-l40s", "dgx-1-v100"):
        assert api.diagnose(api.load_topology(name)) == (), name
