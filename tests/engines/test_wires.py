"""What launches say of the wires they were planned for."""

from __future__ import annotations

import dataclasses

import pytest

from planner import api
from planner.core.engine import LaunchSpec
from planner.core.plan import EngineLimits, Parallelism, Placement, Plan
from planner.core.topology import DeviceKind, Topology
from planner.engines.placement import parts

LIMITS = EngineLimits(256, 2048, 0.9, 8192)


def launch(topology: Topology, placement: Placement, engine: str = "vllm", layers: int = 32) -> LaunchSpec:
    degrees = Parallelism(len(placement[0][0]), len(placement[0]), len(placement))
    partition = tuple(layers // degrees.pipeline for _ in range(degrees.pipeline))
    return api.emit(Plan(degrees, placement, partition, LIMITS), api.load_model("llama-3.1-8b"), topology, engine)


def with_labels(topology: Topology, *labels: str) -> Topology:
    """The same machine with its network cards called so, in turn on every host."""
    devices, turn = [], 0
    for device in topology.devices:
        if device.kind is DeviceKind.NIC:
            devices.append(dataclasses.replace(device, label=labels[turn % len(labels)]))
            turn += 1
        else:
            devices.append(device)
    return dataclasses.replace(topology, devices=tuple(devices))


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("topology", "group", "off"),
    [
        ("4x-rtx-3090-bridged", (0, 2), False),  # an NVLink bridge
        ("4x-rtx-3090-bridged", (0, 1, 2, 3), True),  # bridges in pairs only
        ("8xL40S", (0, 1), False),  # two over PCIe switches copy to each other
        ("8x-rtx-4090", (0, 1), True),  # GeForce: the driver does not let them
        ("dgx-h100", (0, 1, 2), True),  # no kernel for three
        ("dgx-h100", tuple(range(8)), False),
    ],
)
def test_a_kernel_that_cannot_run_is_switched_off_with_the_reason(
    engine: str, topology: str, group: tuple[int, ...], *, off: bool
) -> None:
    spec = launch(api.load_topology(topology), ((group,),), engine)
    assert ("--disable-custom-all-reduce" in spec.processes[0].argv) == off
    assert any(note.startswith("--disable-custom-all-reduce: ") for note in spec.notes) == off


def test_a_kernel_stays_on_where_one_stage_can_use_it() -> None:
    topology = api.load_topology("4x-rtx-3090-bridged")
    spec = launch(topology, (((0, 2), (1, 3)),))
    assert "--disable-custom-all-reduce" not in spec.processes[0].argv


def test_gpus_that_do_not_copy_to_each_other_are_told() -> None:
    (process,) = launch(api.load_topology("8x-rtx-4090"), (((0, 1), (2, 3)),)).processes
    assert process.environment["NCCL_P2P_DISABLE"] == "1"
    (bridged,) = launch(api.load_topology("4x-rtx-3090-bridged"), (((0, 2), (1, 3)),)).processes
    assert "NCCL_P2P_DISABLE" not in bridged.environment


def test_two_gpus_over_pcie_come_with_a_word_about_what_hangs() -> None:
    assert any("ACS" in note for note in launch(api.load_topology("8xL40S"), (((0, 1),),)).notes)
    assert not any("ACS" in note for note in launch(api.load_topology("dgx-h100"), (((0, 1),),)).notes)


def test_workers_are_bound_to_the_nodes_of_their_gpus_in_rank_order() -> None:
    (process,) = launch(api.load_topology("dgx-h100"), (((5, 1, 7, 0),),)).processes
    place = process.argv.index("--numa-bind-nodes")
    assert process.argv[place + 1 : place + 5] == ("1", "0", "1", "0")
    assert "--numa-bind" in process.argv
    one_node = launch(api.load_topology("4x-rtx-3090-bridged"), (((0, 2),),)).processes[0]
    assert "--numa-bind" not in one_node.argv


TWO = ((tuple(range(8)), tuple(range(8, 16))),)


def test_the_cards_of_the_plan_are_named_where_several_hosts_meet() -> None:
    first, second = launch(api.load_topology("2x-dgx-h100"), TWO).processes
    cards = ",".join(f"mlx5_{number}" for number in range(8))
    assert first.environment["NCCL_IB_HCA"] == second.environment["NCCL_IB_HCA"] == f"={cards}"
    alone = launch(api.load_topology("2x-dgx-h100"), ((tuple(range(8)),),)).processes[0]
    assert "NCCL_IB_HCA" not in alone.environment


def test_interfaces_are_named_to_nccl_and_gloo() -> None:
    topology = with_labels(api.load_topology("2x-dgx-h100"), "mlx5_0", "ens3")
    (first, _) = launch(topology, TWO).processes
    assert first.environment["NCCL_SOCKET_IFNAME"].startswith("=ens3")
    assert first.environment["GLOO_SOCKET_IFNAME"] == "ens3"


@pytest.mark.parametrize("label", ["", "mlx5_0; rm -rf /", "$(id)", "card"])
def test_cards_without_a_usable_name_are_left_to_nccl(label: str) -> None:
    spec = launch(with_labels(api.load_topology("2x-dgx-h100"), label), TWO)
    assert not {"NCCL_IB_HCA", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"} & set(spec.processes[0].environment)
    assert any("NCCL chooses" in note for note in spec.notes)


def test_every_process_has_as_many_ranks() -> None:
    topology = api.load_topology("2x8xA100-SXM4-80GB")
    assert [(part.host, part.gpus) for part in parts(topology, [0, 1, 8, 9])] == [("node0", (0, 1)), ("node1", (8, 9))]
    uneven = parts(topology, [*range(8), *range(8, 12)])
    assert [(part.host, len(part.gpus)) for part in uneven] == [("node0", 4), ("node0", 4), ("node1", 4)]
    back = parts(topology, [0, 8, 1])
    assert [part.host for part in back] == ["node0", "node1", "node0"]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_hosts_with_different_numbers_of_gpus_start_several_processes(engine: str) -> None:
    topology = api.load_topology("2x8xA100-SXM4-80GB")
    placement: Placement = (((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)),)
    spec = launch(topology, placement, engine, layers=33)
    assert [process.node for process in spec.processes] == ["node0", "node0", "node1"]
    assert [process.argv[process.argv.index("--node-rank") + 1] for process in spec.processes] == ["0", "1", "2"]
    assert [process.environment["CUDA_VISIBLE_DEVICES"] for process in spec.processes] == ["0,1,2,3", "4,5,6,7", "0,1,2,3"]
    assert any("not tried on hardware" in note for note in spec.notes)
