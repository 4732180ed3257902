"""What measurements of other machines, and of this one, say of a group."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner import api
from planner.core.engine import CustomAllReduce
from planner.core.implementation import Implementation, Prediction
from planner.core.measured import EAGER, MeasuredCurve
from planner.cost.anchors import Anchors
from planner.cost.calibration import Anchor
from planner.cost.interconnect import GroupFacts, Interconnect
from planner.cost.operations import Operations
from planner.documents.calibration import load_calibration
from planner.documents.hardware import load_link_rates
from planner.engines.implementations import find_implementations
from planner.graph.equip import equip
from planner.units import Bytes, Seconds

MIB = 2**20
GATE = CustomAllReduce(max_bytes={0: {2: MIB, 4: MIB, 8: MIB}}, source="this test")
ENGINE = Implementation("engine", "engine", GATE, "engine")


def anchor(gpu: str, ranks: int, *micros: float, system: str = "", version: str = "1.0") -> Anchor:
    """Times at 1 KiB, 1 MiB and 64 MiB."""
    spec = api.load_gpu(gpu)
    assert spec.peer_links is not None
    assert spec.compute_capability is not None
    points = tuple((Bytes(size), Seconds(time * 1e-6)) for size, time in zip((2**10, 2**20, 2**26), micros, strict=True))
    capability, rate = spec.compute_capability, spec.peer_links.bandwidth
    return Anchor(system or gpu, gpu, capability, rate, "engine", (version,), ranks, points)


def wires(reference: str) -> Interconnect:
    topology = api.load_topology(reference)
    specs = {name: api.load_gpu(name) for name in topology.hardware}
    return Interconnect(equip(topology, specs, load_link_rates()), specs)


def group(reference: str, ranks: int) -> GroupFacts:
    return wires(reference).group(range(ranks))


def micros(anchors: list[Anchor], facts: GroupFacts, engine: Implementation = ENGINE) -> tuple[list[float], str]:
    reading = Anchors(anchors, engine).reading(facts)
    assert reading is not None
    times = dict(reading.points)
    return [round(times[Bytes(size)] * 1e6, 3) for size in (2**10, 2**20, 2**26)], reading.basis


def test_the_same_gpus_go_before_gpus_joined_alike() -> None:
    one, other = anchor("H100-SXM5-80GB", 8, 5, 20, 300), anchor("H200-SXM5-141GB", 8, 6, 30, 400)
    assert micros([one, other], group("8xH100-SXM5-80GB", 8)) == ([5, 20, 300], "same")
    assert micros([other], group("8xH100-SXM5-80GB", 8)) == ([6, 30, 400], "alike")


def test_several_machines_alike_are_meant() -> None:
    slow = anchor("H200-SXM5-141GB", 8, 9, 40, 900, system="a")
    quick = anchor("H200-SXM5-141GB", 8, 4, 10, 400, system="b")
    assert micros([slow, quick], group("8xH100-SXM5-80GB", 8)) == ([6, 20, 600], "alike")


def test_the_nearest_version_is_asked_and_the_newest_where_none_is_named() -> None:
    old, new = (anchor("H100-SXM5-80GB", 2, time, 20, 300, version=version) for time, version in ((5, "0.5.9"), (3, "0.5.14")))
    facts = group("8xH100-SXM5-80GB", 2)
    assert micros([new, old], facts)[0][0] == 3
    assert micros([new, old], facts, replace(ENGINE, version="0.5.10"))[0][0] == 5
    assert micros([new, old], facts, replace(ENGINE, version="0.6"))[0][0] == 3
    assert micros([new, old], facts, replace(ENGINE, version="0.4"))[0][0] == 5


def test_between_measured_numbers_of_ranks() -> None:
    few, many = anchor("H100-SXM5-80GB", 2, 4, 16, 250), anchor("H100-SXM5-80GB", 8, 16, 64, 1000)
    assert micros([few, many], group("8xH100-SXM5-80GB", 4)) == ([8, 32, 500], "alike")


def test_another_number_of_ranks_grows_as_on_a_machine_measured_with_both() -> None:
    here = anchor("H100-SXM5-80GB", 4, 5, 20, 300)
    there = [anchor("A100-SXM4-80GB", 4, 6, 30, 450), anchor("A100-SXM4-80GB", 8, 12, 45, 450)]
    times, basis = micros([here, *there], group("8xH100-SXM5-80GB", 8))
    assert times[0] == 10
    assert basis == "alike"
    assert times == sorted(times)


def test_fewer_nvlinks_of_the_generation_scale_the_engines_own_kernel() -> None:
    """An H100 NVL's bridge is 12 of the 18 links: 1 MiB takes as long as 1.5 MiB on all of them, the part beyond the gate aside."""
    facts = group("2xH100-NVL-94GB:nvlink-pairs", 2)
    assert facts.pair_peak < api.load_gpu("H100-SXM5-80GB").peer_links.bandwidth  # type: ignore[union-attr]
    reading = Anchors([anchor("H100-SXM5-80GB", 2, 4, 4.0001, 300)], ENGINE).reading(facts)
    assert reading is not None
    assert (reading.basis, reading.whole) == ("nvlink", False)
    at_gate = dict(reading.points)[Bytes(MIB)]
    share = api.load_gpu("H100-SXM5-80GB").peer_links.bandwidth / facts.pair_peak  # type: ignore[union-attr]
    assert at_gate == pytest.approx(4e-6 * MIB * share / 2**10)  # one point below the gate: constant bandwidth from there


def test_pcie_and_several_nodes_have_no_anchor() -> None:
    every = [anchor("A100-SXM4-80GB", 4, 5, 20, 300)]
    for reference, ranks in (("4xA100-PCIe-80GB:pcie-p2p", 4), ("2x2xA100-SXM4-80GB", 4)):
        assert Anchors(every, ENGINE).reading(group(reference, ranks)) is None


def test_what_was_measured_on_this_machine_goes_before_everything() -> None:
    plain = wires("8xL40S")
    curve = MeasuredCurve(
        "all_gather",
        tuple(plain.topology.gpus[gpu].id for gpu in (0, 2)),
        "nccl",
        ((Bytes(2**10), Seconds(1e-3)), (Bytes(2**20), Seconds(4e-3))),
        "gathered.txt",
    )
    measured = Interconnect(replace(plain.topology, measurements=(curve,)), plain.specs)
    (nccl,) = find_implementations("nccl")
    ask, before = (Operations(one, load_calibration(), nccl) for one in (measured, plain))
    size = Bytes(2.0**15)
    for order in ([0, 2], [2, 0]):
        told = ask.predict("all_gather", order, size)
        assert told.taken.time == pytest.approx(2e-3)
        assert (told.taken.basis, told.taken.confidence) == ("here", "high")
        assert "gathered.txt" in told.taken.source
        assert told.low < told.taken.time < told.high
    for operation, gpus in (("all_gather", [0, 4]), ("reduce_scatter", [0, 2])):
        assert ask.predict(operation, gpus, size) == before.predict(operation, gpus, size)  # type: ignore[arg-type]


def test_a_measured_all_reduce_serves_the_engines_that_call_nccl() -> None:
    plain = wires("8xL40S")
    gpus = tuple(gpu.id for gpu in plain.topology.gpus[:4])
    curve = MeasuredCurve("all_reduce", gpus, "nccl", ((Bytes(MIB), Seconds(7e-3)), (Bytes(4 * MIB), Seconds(8e-3))), "x")
    measured = Interconnect(replace(plain.topology, measurements=(curve,)), plain.specs)
    for name in ("nccl", "vllm", "sglang", "tensorrt-llm"):
        (one,) = find_implementations(name)
        assert Operations(measured, load_calibration(), one).predict("all_reduce", range(4), Bytes(MIB)).taken.time == 7e-3


def test_a_measurement_stands_for_gpus_of_the_machine_that_are_joined_alike() -> None:
    plain = wires("8xL40S")
    curve = MeasuredCurve(
        "all_reduce", tuple(gpu.id for gpu in plain.topology.gpus[:4]), "nccl", ((Bytes(MIB), Seconds(7e-3)),), "first four"
    )
    measured = Interconnect(replace(plain.topology, measurements=(curve,)), plain.specs)
    (nccl,) = find_implementations("nccl")
    ask, before = (Operations(one, load_calibration(), nccl) for one in (measured, plain))
    assert ask.predict("all_reduce", [4, 5, 6, 7], Bytes(MIB)).taken.time == 7e-3
    across = [0, 1, 4, 5]  # over both sockets: something else
    assert ask.predict("all_reduce", across, Bytes(MIB)) == before.predict("all_reduce", across, Bytes(MIB))


def with_curve(plain: Interconnect, stack: str, sizes: tuple[float, ...], times: tuple[float, ...]) -> Interconnect:
    """The machine with an all-reduce over its first two GPUs measured."""
    gpus = tuple(gpu.id for gpu in plain.topology.gpus[:2])
    points = tuple((Bytes(size), Seconds(time)) for size, time in zip(sizes, times, strict=True))
    curve = MeasuredCurve("all_reduce", gpus, stack, points, "pair.txt")
    return Interconnect(replace(plain.topology, measurements=(*plain.topology.measurements, curve)), plain.specs)


def all_reduce(machine: Interconnect, size: float, *, name: str = "nccl", eager: bool = False) -> Prediction:
    (one,) = find_implementations(name)
    return Operations(machine, load_calibration(), one).predict("all_reduce", [0, 1], Bytes(size), eager=eager)


@pytest.mark.parametrize("eager", [False, True])
def test_beyond_small_messages_that_were_measured_the_time_grows_as_the_model_does(eager: bool) -> None:
    plain = wires("8xL40S")
    measured = with_curve(plain, "nccl" + EAGER * eager, (8, 1024, 8192), (70e-6, 72e-6, 75e-6))
    large, before = (all_reduce(one, 2.0**26, eager=eager) for one in (measured, plain))
    assert large.taken.time == pytest.approx(before.taken.time, rel=0.2)
    assert (large.taken.confidence, large.taken.basis) == (before.taken.confidence, before.taken.basis)
    assert large.high / large.taken.time == pytest.approx(before.high / before.taken.time)
    assert "pair.txt, from 8 to 8192 B" in large.taken.source
    near = all_reduce(measured, 16384, eager=eager)
    assert (near.taken.confidence, near.taken.basis) == ("high", "here")
    joined = all_reduce(measured, 8192.001, eager=eager).taken.time
    assert joined == pytest.approx(75e-6, rel=1e-4)


def test_beyond_large_messages_that_were_measured_the_model_stays_as_far_off() -> None:
    plain = wires("8xL40S")
    sizes = (2.0**26, 2.0**28)
    measured = with_curve(plain, "nccl", sizes, tuple(3 * all_reduce(plain, size).taken.time for size in sizes))
    assert all_reduce(measured, 2.0**32).taken.time == pytest.approx(3 * all_reduce(plain, 2.0**32).taken.time, rel=0.02)
    # so do smaller messages, which are no longer certain where latency is most of their time
    small = all_reduce(measured, 1024)
    assert small.taken.time == pytest.approx(3 * all_reduce(plain, 1024).taken.time)
    assert small.taken.confidence == "low"


def test_messages_below_the_smallest_measured_one_are_certain_where_both_are_latency() -> None:
    measured = with_curve(wires("8xL40S"), "nccl", (1024, 8192), (20e-6, 22e-6))
    small = all_reduce(measured, 8).taken
    assert (small.confidence, small.basis) == ("high", "here")
    assert small.time == pytest.approx(20e-6, rel=0.1)


def test_beyond_an_engines_own_curve_a_longer_one_of_nccl_is_believed() -> None:
    plain = wires("8xL40S")
    by_nccl = with_curve(plain, "nccl", (1024, 2.0**26), (40e-6, 9e-3))
    both = with_curve(by_nccl, "vllm", (1024, 8192), (10e-6, 12e-6))
    one = all_reduce(both, 2.0**26, name="vllm").taken
    assert one.time == pytest.approx(9e-3, rel=0.05)
    assert (one.confidence, one.basis) == ("high", "here")
    assert all_reduce(by_nccl, 2.0**26, name="vllm").taken.time == 9e-3


def test_measured_times_never_fall_with_size_beyond_what_was_measured() -> None:
    measured = with_curve(wires("8xL40S"), "nccl", (4096, 2.0**20), (20e-6, 150e-6))
    times = [all_reduce(measured, 2.0 ** (power / 2)).taken.time for power in range(70)]
    assert times == sorted(times)
