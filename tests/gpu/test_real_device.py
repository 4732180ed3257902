"""On a host with NVIDIA GPUs: whatever they are, every one is told, and nothing raises."""

from __future__ import annotations

import pytest

from planner.core.bus_id import normal_bus_id
from planner.core.capture import Capture
from planner.core.unknown import NOT_STATED, Unknown
from planner.graph.assemble import assemble
from planner.readers import live
from planner.readers.nvml import Driver, Refused

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def count() -> int:
    """How many GPUs NVML counts."""
    driver = Driver()
    try:
        driver.ask("nvmlInit")
    except Refused as refusal:
        pytest.skip(f"no NVIDIA GPU here: {refusal.reason}")
    try:
        return int(driver.ask("nvmlDeviceGetCount"))
    finally:
        driver.ask("nvmlShutdown")


@pytest.fixture(scope="module")
def capture(count: int) -> Capture:
    return live.capture()


def test_every_gpu_is_named_and_has_memory(capture: Capture, count: int) -> None:
    assert [gpu.index for gpu in capture.gpus] == list(range(count))
    for gpu in capture.gpus:
        assert gpu.model
        assert gpu.memory is not None
        assert gpu.memory > 2**28
        assert gpu.bus_id == normal_bus_id(gpu.bus_id or "")
        assert isinstance(gpu.facts.memory_free, float)
        assert isinstance(gpu.facts.memory_used, float)
        assert gpu.facts.memory_free + gpu.facts.memory_used <= gpu.memory


def test_every_fact_was_asked_for(capture: Capture) -> None:
    for gpu in capture.gpus:
        assert NOT_STATED not in [getattr(gpu.facts, name) for name in gpu.facts.__slots__]
    assert not isinstance(capture.host.driver, Unknown)
    assert not isinstance(capture.host.cuda, Unknown)
    assert NOT_STATED not in [getattr(capture.host, name) for name in capture.host.__slots__]


def test_what_is_told_agrees_with_itself(capture: Capture) -> None:
    for gpu in capture.gpus:
        for hop in gpu.hops:
            assert hop.possible_generation is None or hop.generation is None or hop.generation <= hop.possible_generation
            assert hop.possible_width is None or hop.width is None or hop.width <= hop.possible_width
        assert not gpu.hops or gpu.hops[-1].bus_id == gpu.bus_id
    for statuses in capture.peers.values():
        assert all(a != b and max(a, b) < len(capture.gpus) for a, b in statuses)


def test_it_is_a_topology(capture: Capture) -> None:
    assemble(capture, "this-host", "probed", lambda _: None).check()
