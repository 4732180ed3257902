"""Laws of every operation on any GPUs of any machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import api
from planner.core.operation import OPERATIONS, Operation
from planner.core.topology import LinkKind, Topology
from planner.cost import nccl, nccl_ops
from planner.cost.interconnect import Interconnect
from planner.cost.operations import Operations
from planner.documents.calibration import load_calibration
from planner.documents.hardware import load_link_rates
from planner.engines.implementations import find_implementations, implementations, written_implementation
from planner.errors import BadInput
from planner.graph.equip import equip
from planner.units import Bytes, BytesPerSecond
from planner.validation import wires_of

MACHINES = (
    "8xH100-SXM5-80GB",
    "8xA100-SXM4-80GB",
    "8xL40S",
    "4xRTX-3090",
    "4xRTX-3090:nvlink-pairs",
    "8xV100-SXM2-32GB",
    "2x4xH100-SXM5-80GB@4x400",
    "4xA100-SXM4-40GB:nvlink-mesh",
    "8xMI300X",
)
IMPLEMENTATIONS = tuple(implementations())
sizes = st.floats(min_value=1, max_value=2.0**34, allow_nan=False)


@cache
def operations(machine: str, implementation: str = "nccl") -> Operations:
    topology = api.load_topology(machine)
    specs = {name: api.load_gpu(name) for name in topology.hardware}
    wires = Interconnect(equip(topology, specs, load_link_rates()), specs)
    return Operations(wires, load_calibration(), implementations()[implementation])


def group(data: st.DataObject, ask: Operations, least: int = 2) -> tuple[int, ...]:
    there = range(len(ask.wires.topology.gpus))
    return tuple(data.draw(st.lists(st.sampled_from(there), min_size=least, unique=True)))


questions = {
    "operation": st.sampled_from(OPERATIONS),
    "machine": st.sampled_from(MACHINES),
    "implementation": st.sampled_from(IMPLEMENTATIONS),
}


@given(size=sizes, factor=st.floats(1, 16), data=st.data(), **questions)
def test_more_bytes_are_never_faster(
    operation: Operation, machine: str, implementation: str, size: float, factor: float, data: st.DataObject
) -> None:
    ask = operations(machine, implementation)
    gpus = group(data, ask)
    small = ask.predict(operation, gpus, Bytes(size)).taken.time
    large = ask.predict(operation, gpus, Bytes(size * factor)).taken.time
    assert 0 < small <= large * (1 + 1e-12)
    assert math.isfinite(large)


@given(size=sizes, data=st.data(), **questions)
def test_one_rank_costs_nothing(
    operation: Operation, machine: str, implementation: str, size: float, data: st.DataObject
) -> None:
    ask = operations(machine, implementation)
    alone = data.draw(st.sampled_from(range(len(ask.wires.topology.gpus))))
    for eager in (False, True):
        one = ask.predict(operation, [alone], Bytes(size), eager=eager)
        assert (one.taken.time, one.bus_bandwidth, one.low, one.high) == (0.0, 0.0, 0.0, 0.0)


@given(size=sizes, data=st.data(), **questions)
def test_the_order_of_ranks_changes_nothing_but_who_sends_to_whom(
    operation: Operation, machine: str, implementation: str, size: float, data: st.DataObject
) -> None:
    ask = operations(machine, implementation)
    gpus = group(data, ask)
    order = data.draw(st.permutations(gpus))
    if operation == "send_recv":  # a ring started elsewhere is the same ring
        start = data.draw(st.integers(0, len(gpus) - 1))
        order = [*gpus[start:], *gpus[:start]]
    assert ask.predict(operation, order, Bytes(size)).taken == ask.predict(operation, gpus, Bytes(size)).taken


@given(sizes, st.sampled_from(OPERATIONS), st.integers(2, 8), st.data())
def test_gpus_of_one_switch_are_alike(size: float, operation: Operation, count: int, data: st.DataObject) -> None:
    ask = operations("8xH100-SXM5-80GB")
    others = data.draw(st.permutations(range(8)))[:count]
    first = ask.predict(operation, range(count), Bytes(size))
    other = ask.predict(operation, others, Bytes(size))
    assert other.taken.time == pytest.approx(first.taken.time)


@given(st.integers(2, 64), st.floats(1e9, 1e12), st.integers(1, 32))
def test_a_ring_all_reduce_is_a_reduce_scatter_and_an_all_gather(ranks: int, speed: float, count: int) -> None:
    fabric = nccl.Fabric(ranks, 1, count, BytesPerSecond(speed), (8, 0), "nvlink")
    for protocol in nccl.protocols(fabric):
        whole = nccl.ring_all_reduce(Bytes(2.0**30), fabric, protocol)
        half = nccl_ops.ring_gather(Bytes(2.0**30), fabric, protocol)
        assert whole == pytest.approx(2 * half - nccl.ring_base(protocol))


@given(st.sampled_from(OPERATIONS), st.sampled_from(MACHINES), sizes, st.data())
def test_eager_is_never_faster(operation: Operation, machine: str, size: float, data: st.DataObject) -> None:
    ask = operations(machine)
    gpus = group(data, ask)
    graph, eager = (ask.predict(operation, gpus, Bytes(size), eager=eager).taken.time for eager in (False, True))
    assert eager >= graph
    assert eager >= 7.99e-6  # the shortest launch, of a send


def test_bandwidths_are_those_of_nccl_tests() -> None:
    ask = operations("8xH100-SXM5-80GB")
    for operation, share in (
        ("all_reduce", 7 / 4),
        ("all_gather", 7 / 8),
        ("all_to_all", 7 / 8),
        ("broadcast", 1),
        ("send_recv", 1),
    ):
        one = ask.predict(operation, range(8), Bytes(2.0**20))  # type: ignore[arg-type] # literals in a table
        assert one.algorithm_bandwidth == pytest.approx(2**20 / one.taken.time)
        assert one.bus_bandwidth == pytest.approx(one.algorithm_bandwidth * share)


def test_everybody_sending_to_everybody_waits_for_the_socket_link() -> None:
    ask = operations("8xL40S")
    one = ask.predict("all_to_all", range(8), Bytes(2.0**30))
    assert "socket" in (one.taken.limiting_link or "")
    # 16 of the 56 sends cross it each way, 1/8 of the buffer each: two buffers over 16 GB/s
    model, _ = ask.model("all_to_all", tuple(range(8)), Bytes(2.0**30))
    assert model == pytest.approx(2 * 2.0**30 / 16e9, rel=1e-3)


def test_sends_that_share_a_link_share_its_bandwidth() -> None:
    ask = operations("8xL40S")
    size = Bytes(2.0**30)
    beside = ask.predict("send_recv", [0, 1, 2, 3, 4, 5, 6, 7], size).taken.time
    across = ask.predict("send_recv", [0, 4, 1, 5, 2, 6, 3, 7], size).taken.time
    assert across > 3 * beside


def sends(topology: Topology, gpus: Sequence[int]) -> float:
    """B/s of large messages from each GPU to the next."""
    ask = Operations(wires_of(topology), load_calibration(), implementations()["nccl"])
    return ask.predict("send_recv", gpus, Bytes(2.0**32)).algorithm_bandwidth


@pytest.mark.parametrize(
    ("reference", "gpus", "kind"),
    [
        ("2x1xH100-SXM5-80GB@1x400", (0, 1), LinkKind.NETWORK),
        ("2x1xH100-SXM5-80GB@1x400", (0, 1), LinkKind.PCIE),
        ("4x-rtx-3090-bridged", (0, 2), LinkKind.NVLINK),
        ("8xH100-SXM5-80GB", (0, 1, 2), LinkKind.NVLINK),
    ],
)
def test_sends_are_no_faster_than_a_link_on_their_way_was_measured(reference: str, gpus: Sequence[int], kind: LinkKind) -> None:
    topology = api.load_topology(reference)
    before = sends(topology, gpus)

    def measured(rate: float) -> Topology:
        links = [replace(one, measured=BytesPerSecond(rate)) if one.kind is kind else one for one in topology.links]
        return replace(topology, links=tuple(links))

    assert sends(measured(before / 3), gpus) == pytest.approx(before / 3, rel=1e-3)
    assert sends(measured(2 * before), gpus) == before


def test_gpus_without_a_link_are_refused() -> None:
    topology = api.load_topology("2x2xH100-SXM5-80GB")
    specs = {name: api.load_gpu(name) for name in topology.hardware}
    equipped = equip(topology, specs, load_link_rates())
    apart = replace(equipped, links=tuple(link for link in equipped.links if link.kind is not LinkKind.NETWORK))
    ask = Operations(Interconnect(apart, specs), load_calibration(), implementations()["nccl"])
    assert ask.predict("all_gather", [0, 1], Bytes(1e6)).taken.time > 0
    for operation in OPERATIONS:
        with pytest.raises(BadInput, match="no link"):
            ask.predict(operation, [0, 2], Bytes(1e6))


@pytest.mark.parametrize(
    ("text", "name", "eager"),
    [
        ("nccl-2.27.3", "nccl", False),
        ("nccl-2.x(torch.distributed)", "nccl", True),
        ("vllm-custom-graph-0.24.0", "vllm", False),
        ("vllm-custom-eager-0.14.0", "vllm", True),
        ("trtllm-custom-graph-1.3.0rc20", "tensorrt-llm", False),
        ("sglang-custom-graph-0.5.14", "sglang", False),
    ],
)
def test_implementations_as_tables_write_them(text: str, name: str, eager: bool) -> None:
    implementation, launched = written_implementation(text)
    assert (implementation.name, launched) == (name, eager)


def test_unknown_implementations_are_refused_by_name() -> None:
    for ask in (lambda: find_implementations("gloo"), lambda: written_implementation("ncclx-1.0")):
        with pytest.raises(BadInput) as refused:
            ask()
        assert "nccl" in refused.value.hint
