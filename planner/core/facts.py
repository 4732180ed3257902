"""What a machine said of itself when it was asked: states that are neither topology nor data sheet.

A fact that nobody asked for is :data:`NOT_STATED`; one whose call failed is an :class:`Unknown` with the reason.
Neither is ever zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.core.unknown import NOT_STATED, Unknown
from planner.units import Bytes, BytesPerSecond

PeerCapability = Literal["read", "write", "nvlink", "atomics", "pcie"]
"""What ``nvidia-smi topo -p2p`` can be asked about: ``r``, ``w``, ``n``, ``a``, ``p``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvlinkFacts:
    """One NVLink of a GPU. ``remote`` is what it ends at: ``gpu``, ``switch`` or another word of NVML's.

    ``bandwidth`` is one direction. ``remote_bus_id`` is the PCI bus id of the far end, normalised.
    """

    link: int
    active: bool | Unknown
    version: int | Unknown = NOT_STATED
    remote: str | Unknown = NOT_STATED
    remote_bus_id: str | Unknown = NOT_STATED
    bandwidth: BytesPerSecond | Unknown = NOT_STATED


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """The state of one GPU.

    PCIe generation and width *now*; the graph's link says what it carries under load and what it could.
    ``pcie_generation_possible`` and ``pcie_width_possible`` are what GPU and slot together allow,
    ``pcie_generation_gpu`` what the GPU alone does. ``performance_state`` is 0 (busy) to 15 (idle), NVML's P-state.
    ``fabric`` is the state of the NVSwitch fabric: ``completed``, ``in-progress``, ``not-started``, ``not-supported`` or
    ``failed: …``.
    """

    uuid: str | Unknown = NOT_STATED
    compute_capability: str | Unknown = NOT_STATED
    memory_free: Bytes | Unknown = NOT_STATED
    memory_used: Bytes | Unknown = NOT_STATED
    performance_state: int | Unknown = NOT_STATED
    pcie_generation: int | Unknown = NOT_STATED
    pcie_generation_possible: int | Unknown = NOT_STATED
    pcie_generation_gpu: int | Unknown = NOT_STATED
    pcie_width: int | Unknown = NOT_STATED
    pcie_width_possible: int | Unknown = NOT_STATED
    multi_instance: Literal["enabled", "disabled"] | Unknown = NOT_STATED
    cpu_affinity: str | Unknown = NOT_STATED
    fabric: str | Unknown = NOT_STATED
    fabric_cluster: str | Unknown = NOT_STATED
    fabric_clique: int | Unknown = NOT_STATED
    nvlinks: tuple[NvlinkFacts, ...] | Unknown = NOT_STATED


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The state of one host.

    ``cpu_vendor`` is the CPU's own word (``GenuineIntel``, ``AuthenticAMD``, ``ARM``), ``cpu_family`` and ``cpu_model``
    its numbers, ``cpu_name`` the name people use. ``iommu`` is ``off``, ``passthrough`` or ``translating``.
    ``acs`` is ``redirects`` where a PCIe port above a GPU sends peer-to-peer traffic up to the root, else ``direct``.
    ``virtual_machine`` and ``container`` are the name of the hypervisor and container runtime, or ``none``.
    """

    driver: str | Unknown = NOT_STATED
    cuda: str | Unknown = NOT_STATED
    cpu_name: str | Unknown = NOT_STATED
    cpu_vendor: str | Unknown = NOT_STATED
    cpu_family: int | Unknown = NOT_STATED
    cpu_model: int | Unknown = NOT_STATED
    iommu: Literal["off", "passthrough", "translating"] | Unknown = NOT_STATED
    acs: Literal["redirects", "direct"] | Unknown = NOT_STATED
    virtual_machine: str | Unknown = NOT_STATED
    container: str | Unknown = NOT_STATED
    fabric_manager: str | Unknown = NOT_STATED


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """``nvidia-smi topo -p2p`` for one capability: ``statuses[a][b]`` for the host's GPUs in index order.

    The words are nvidia-smi's: ``X``, ``OK``, ``CNS`` (chipset not supported), ``GNS`` (GPU not supported), ``TNS``
    (topology not supported), ``NS`` (not supported), ``DR`` (disabled by registry key), ``U`` (unknown).
    """

    capability: PeerCapability
    statuses: tuple[tuple[str, ...], ...]


NO_GPU_FACTS = GpuFacts()
NO_HOST_FACTS = HostFacts()
