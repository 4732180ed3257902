"""What NVML says of this host's GPUs: names and memory. Links, states and clocks are to follow.

NVML counts GPUs by PCI bus, as ``nvidia-smi`` does. The library is asked through a narrow protocol, so that tests
replay recorded answers; every answer may fail on its own and is then unknown, with the reason, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from planner.core.unknown import Unknown
from planner.units import Bytes


class Library(Protocol):
    """The calls of ``pynvml`` that are used."""

    def nvmlInit(self) -> None: ...  # noqa: N802, D102 - NVML's own names

    def nvmlShutdown(self) -> None: ...  # noqa: N802, D102

    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802, D102

    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Any: ...  # noqa: N802, D102

    def nvmlDeviceGetName(self, handle: Any, /) -> str | bytes: ...  # noqa: N802, D102

    def nvmlDeviceGetMemoryInfo(self, handle: Any, /) -> Any: ...  # noqa: N802, D102


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU as NVML sees it."""

    name: str | Unknown
    memory: Bytes | Unknown


def read_gpus(library: Library | None = None) -> list[GpuFacts] | Unknown:
    """The GPUs of this host in NVML's order, or why NVML cannot say."""
    if library is None:
        try:
            import pynvml
        except ImportError as error:
            return Unknown(f"pynvml cannot be imported: {error}")
        library = pynvml
    try:
        library.nvmlInit()
    except Exception as error:  # noqa: BLE001 - pynvml raises classes of its own, made at run time
        return Unknown(f"NVML: {error}")
    try:
        return [_facts(library, index) for index in range(library.nvmlDeviceGetCount())]
    except Exception as error:  # noqa: BLE001
        return Unknown(f"NVML: {error}")
    finally:
        library.nvmlShutdown()


def _facts(library: Library, index: int) -> GpuFacts:
    name: str | Unknown
    memory: Bytes | Unknown
    try:
        handle = library.nvmlDeviceGetHandleByIndex(index)
    except Exception as error:  # noqa: BLE001
        lost = Unknown(f"NVML: GPU {index}: {error}")
        return GpuFacts(lost, lost)
    try:
        said = library.nvmlDeviceGetName(handle)
        name = said.decode() if isinstance(said, bytes) else said
    except Exception as error:  # noqa: BLE001
        name = Unknown(f"NVML: name of GPU {index}: {error}")
    try:
        memory = Bytes(float(library.nvmlDeviceGetMemoryInfo(handle).total))
    except Exception as error:  # noqa: BLE001
        memory = Unknown(f"NVML: memory of GPU {index}: {error}")
    return GpuFacts(name, memory)
