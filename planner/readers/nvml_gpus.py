"""NVML's answers → what is known of the host's GPUs and of the links between them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from planner.core.bus_id import normal_bus_id
from planner.core.capture import GpuSight, PeerLinkSight
from planner.core.facts import GpuFacts, PeerCapability
from planner.core.finding import Finding
from planner.core.unknown import Unknown
from planner.readers.nvml import LOST, Library, Refused, asked, part, text
from planner.readers.nvml_links import chip_to_chip, nvlinks, peer_links, peer_status
from planner.units import Bytes

MAX_GPUS = 256
_WORDS_OF_CPUS = 64
"""64-bit words of an affinity mask: 4096 processors."""
_STATES = {0: "not-supported", 1: "not-started", 2: "in-progress", 3: "completed"}
_UNKNOWN_STATE = 32
"""NVML_PSTATE_UNKNOWN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlSight:
    """What NVML tells of a host. ``silent`` is why it tells nothing, where it does not."""

    driver: str | Unknown
    cuda: str | Unknown
    gpus: tuple[GpuSight, ...] = ()
    links: tuple[PeerLinkSight, ...] = ()
    peers: Mapping[PeerCapability, Mapping[tuple[int, int], str]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    silent: Unknown | None = None


def read_gpus(library: Library) -> NvmlSight:
    """All that NVML tells. Never raises: what a call does not answer is unknown, with the reason."""
    started = asked(library, "nvmlInit")
    if isinstance(started, Unknown):
        return NvmlSight(driver=started, cuda=started, silent=started)
    try:
        return _read(library)
    finally:
        with suppress(Refused):
            library.ask("nvmlShutdown")


def _read(library: Library) -> NvmlSight:
    driver = text(asked(library, "nvmlSystemGetDriverVersion"))
    cuda = _cuda(asked(library, "nvmlSystemGetCudaDriverVersion_v2"))
    count = asked(library, "nvmlDeviceGetCount")
    if isinstance(count, Unknown):
        return NvmlSight(driver=driver, cuda=cuda, silent=count)
    gpus = tuple(_gpu(library, index) for index in range(min(count, MAX_GPUS)))
    return NvmlSight(
        driver=driver,
        cuda=cuda,
        gpus=gpus,
        links=peer_links(gpus),
        peers=peer_status(library, len(gpus)),
        findings=_lost([index for index in range(len(gpus)) if _is_lost(library, index)]),
    )


def _gpu(library: Library, index: int) -> GpuSight:
    name = text(asked(library, "nvmlDeviceGetName", index))
    memory = asked(library, "nvmlDeviceGetMemoryInfo", index)
    total = _size(part(memory, "total"))
    bus_id = part(asked(library, "nvmlDeviceGetPciInfo", index), "busId", "busIdLegacy")
    fabric = _fabric_answer(library, index)
    state = _fabric(library, fabric)
    c2c = chip_to_chip(library, index)

    def number(call: str) -> int | Unknown:
        return _positive(asked(library, call, index))

    return GpuSight(
        index=index,
        model=None if isinstance(name, Unknown) else name,
        memory=None if isinstance(total, Unknown) else total,
        bus_id=None if isinstance(bus_id, Unknown) else normal_bus_id(bus_id),
        c2c=c2c is not None,
        c2c_bandwidth=c2c,
        facts=GpuFacts(
            uuid=text(asked(library, "nvmlDeviceGetUUID", index)),
            compute_capability=_capability(asked(library, "nvmlDeviceGetCudaComputeCapability", index)),
            memory_free=_amount(part(memory, "free")),
            memory_used=_amount(part(memory, "used")),
            performance_state=_performance_state(asked(library, "nvmlDeviceGetPerformanceState", index)),
            pcie_generation=number("nvmlDeviceGetCurrPcieLinkGeneration"),
            pcie_generation_possible=number("nvmlDeviceGetMaxPcieLinkGeneration"),
            pcie_generation_gpu=number("nvmlDeviceGetGpuMaxPcieLinkGeneration"),
            pcie_width=number("nvmlDeviceGetCurrPcieLinkWidth"),
            pcie_width_possible=number("nvmlDeviceGetMaxPcieLinkWidth"),
            multi_instance=_multi_instance(asked(library, "nvmlDeviceGetMigMode", index)),
            cpu_affinity=_cpus(asked(library, "nvmlDeviceGetCpuAffinity", index, _WORDS_OF_CPUS)),
            fabric=state,
            fabric_cluster=_once_completed(state, _cluster(part(fabric, "clusterUuid"))),
            fabric_clique=_once_completed(state, part(fabric, "cliqueId", "partitionId")),
            nvlinks=nvlinks(library, index),
        ),
    )


def _is_lost(library: Library, index: int) -> bool:
    try:
        library.ask("nvmlDeviceGetMemoryInfo", index)
    except Refused as refusal:
        return refusal.code in LOST
    return False


def _lost(gone: list[int]) -> tuple[Finding, ...]:
    if not gone:
        return ()
    names = tuple(f"gpu{index}" for index in gone)
    hint = "look for 'Xid' in the kernel's log; the GPU comes back with a reset or a reboot, or has to be replaced"
    return (Finding("gpu-lost", f"the driver does not reach {', '.join(names)}", hint, devices=names),)


def _cuda(code: Any | Unknown) -> str | Unknown:
    """NVML counts 12040 for CUDA 12.4."""
    return code if isinstance(code, Unknown) else f"{code // 1000}.{code % 1000 // 10}"


def _size(value: Any | Unknown) -> Bytes | Unknown:
    amount = _amount(value)
    return amount if isinstance(amount, Unknown) or amount > 0 else Unknown("NVML: no memory")


def _amount(value: Any | Unknown) -> Bytes | Unknown:
    return value if isinstance(value, Unknown) else Bytes(float(value))


def _positive(value: Any | Unknown) -> int | Unknown:
    """A generation or width of 0 is a device that does not answer."""
    return Unknown("NVML: 0") if value == 0 else value


def _capability(value: Any | Unknown) -> str | Unknown:
    return value if isinstance(value, Unknown) else ".".join(str(number) for number in value)


def _performance_state(value: Any | Unknown) -> int | Unknown:
    return Unknown("NVML: unknown performance state") if value == _UNKNOWN_STATE else value


def _multi_instance(value: Any | Unknown) -> Literal["enabled", "disabled"] | Unknown:
    """The mode now; NVML gives the pending one beside it."""
    if isinstance(value, Unknown):
        return value
    return "enabled" if value[0] else "disabled"


def _cpus(words: Any | Unknown) -> str | Unknown:
    """A mask in 64-bit words, lowest first, as a list of ranges."""
    if isinstance(words, Unknown):
        return words
    cpus = [64 * place + bit for place, word in enumerate(words) for bit in range(64) if word >> bit & 1]
    return ranges(cpus) if cpus else Unknown("NVML: an empty mask")


def ranges(numbers: list[int]) -> str:
    """Rising numbers as Linux writes a list of processors.

    >>> ranges([0, 1, 2, 5, 8, 9])
    '0-2,5,8-9'
    """
    there = set(numbers)
    starts = [number for number in numbers if number - 1 not in there]
    ends = [number for number in numbers if number + 1 not in there]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def _fabric_answer(library: Library, index: int) -> Any | Unknown:
    """By the call with a version where driver and pynvml have it, else by the older one."""
    answer = asked(library, "nvmlDeviceGetGpuFabricInfoV", index)
    if not isinstance(answer, Unknown):
        return answer
    older = asked(library, "nvmlDeviceGetGpuFabricInfo", index)
    if isinstance(older, Unknown):
        return older if answer.reason.startswith("pynvml") else answer
    if not isinstance(part(older, "clusterUuid"), list):
        # pynvml 12.535 leaves 80 bytes for a UUID of 16: its state is read from behind what the driver wrote, always 0
        return Unknown("pynvml too old: it reads the fabric's state from the wrong place")
    return older


def _fabric(library: Library, answer: Any | Unknown) -> str | Unknown:
    state, status = part(answer, "state"), part(answer, "status")
    if isinstance(state, Unknown):
        return state
    word = _STATES.get(state)
    if word is None:
        return Unknown(f"NVML: fabric state {state}")
    if word == "completed" and not isinstance(status, Unknown) and status != 0:
        why = text(asked(library, "nvmlErrorString", status))
        return f"failed: NVML error {status}" if isinstance(why, Unknown) else f"failed: {why}"
    return word


def _cluster(value: Any | Unknown) -> str | Unknown:
    """Sixteen bytes as a UUID."""
    if isinstance(value, Unknown):
        return value
    if not any(value):
        return Unknown("NVML: all zeros, no NVLink domain of several hosts")
    digits = bytes(value).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _once_completed(state: str | Unknown, value: Any | Unknown) -> Any | Unknown:
    """What means something only in a fabric that is up."""
    if isinstance(state, Unknown) or state == "completed":
        return value
    return Unknown(f"NVML: the fabric is {state}")
