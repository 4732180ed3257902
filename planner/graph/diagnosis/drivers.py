"""Which NVIDIA driver can do what: a table, each row with its source."""

from __future__ import annotations

from dataclasses import dataclass

from planner.core.finding import Severity


@dataclass(frozen=True, slots=True)
class Requirement:
    """What the first driver of a branch brought.

    It concerns GPUs from ``capability`` (CUDA's compute capability) on, only those behind an NVSwitch where ``switched``.
    """

    feature: str
    branch: int
    severity: Severity
    cost: str
    source: str
    capability: tuple[int, int] = (0, 0)
    switched: bool = False


REQUIREMENTS = (
    Requirement(
        "CUDA 12",
        525,
        "problem",
        "engines built for CUDA 12 do not start",
        "NVIDIA CUDA Compatibility, table 1: CUDA 12.x needs driver 525 or later",
    ),
    Requirement(
        "Blackwell GPUs",
        570,
        "problem",
        "the GPU is not usable",
        "NVIDIA CUDA 12.8 release notes: the first to support compute capability 10.0 and 12.0; it came with driver 570",
        capability=(10, 0),
    ),
    Requirement(
        "NVLink SHARP",
        530,
        "notice",
        "all-reduce without the switch's own adders",
        "NCCL v2.30.7 src/transport/nvls.cc: needs a driver of CUDA 12.1, which is 530",
        capability=(9, 0),
        switched=True,
    ),
    Requirement(
        "CUDA 13",
        580,
        "notice",
        "engines built for CUDA 13 do not start; take a build for CUDA 12",
        "NVIDIA CUDA Compatibility, table 1: CUDA 13.x needs driver 580 or later",
    ),
)


def branch(driver: str) -> int | None:
    """The branch of a driver version, ``None`` where it has none.

    >>> branch("550.54.15"), branch("amdgpu")
    (550, None)
    """
    first = driver.partition(".")[0]
    return int(first) if first.isascii() and first.isdigit() else None


def unmet(driver: str, capabilities: list[tuple[int, int]], *, switched: bool) -> list[Requirement]:
    """What a driver is too old for on a host with GPUs of these compute capabilities, the hardest first.

    >>> [one.feature for one in unmet("550.54.15", [(10, 0)], switched=True)]
    ['Blackwell GPUs', 'CUDA 13']
    """
    number = branch(driver)
    if number is None or not capabilities:
        return []
    missing = [
        one
        for one in REQUIREMENTS
        if number < one.branch and max(capabilities) >= one.capability and (switched or not one.switched)
    ]
    return sorted(missing, key=lambda one: one.severity != "problem")
