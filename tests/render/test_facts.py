from __future__ import annotations

import pytest

from planner.core.facts import GpuFacts, HostFacts, NvlinkFacts
from planner.core.unknown import Unknown
from planner.render import facts
from replay import scenarios
from support import assembled

SCENARIOS = {one.name: one for one in scenarios()}


def shown(name: str, width: int = 80) -> list[str]:
    return facts.lines(assembled([SCENARIOS[name].capture()]), width)


def test_what_was_said_is_a_table_that_fits() -> None:
    lines = shown("8x-h100-one-link-down")
    assert lines[0] == "driver 550.54.15, CUDA 12.4, IOMMU passthrough, ACS unknown"
    assert lines[1].split("  ")[0] == "GPU"
    assert max(map(len, lines)) <= 80
    assert [line.split()[-2] for line in lines[2:]] == ["18/18"] * 3 + ["17/18"] + ["18/18"] * 4


def test_a_narrow_terminal_gets_a_line_a_gpu_with_all_of_it() -> None:
    wide, narrow = shown("4x-3090-bridged-idle"), shown("4x-3090-bridged-idle", 40)
    assert [line.startswith(f"GPU {index}, bus id ") for index, line in enumerate(narrow[1:])] == [True] * 4
    for row, line in zip(wide[2:], narrow[1:], strict=True):
        assert all(word in line for word in row.split())


def test_what_was_asked_in_vain_is_a_question_mark_beside_a_gpu_that_answered() -> None:
    lost = shown("gpu-lost")
    assert lost[-1].split()[0] == "1"
    assert set(lost[-1].split()[1:]) == {facts.ASKED_IN_VAIN}
    assert "MIG" not in shown("4x-3090-bridged-idle")[1]  # no GPU of these has it


def test_nothing_is_shown_of_a_machine_that_nobody_asked() -> None:
    from planner import api

    assert facts.lines(api.load_topology("4x-rtx-3090-bridged"), 80) == []


@pytest.mark.parametrize(
    ("one", "written"),
    [
        (GpuFacts(), {}),
        (GpuFacts(memory_free=1.0), {"memory_free_bytes": 1.0}),  # type: ignore[arg-type] # bytes
        (HostFacts(driver="550"), {"driver": "550"}),
        (
            GpuFacts(fabric=Unknown("NVML: Not Supported"), nvlinks=(NvlinkFacts(link=0, active=False),)),
            {"nvlinks": [{"link": 0, "active": False}], "unknown": {"fabric": "NVML: Not Supported"}},
        ),
    ],
)
def test_json_has_what_is_known_and_why_the_rest_is_not(one: GpuFacts | HostFacts, written: dict[str, object]) -> None:
    assert facts.document(one) == written
