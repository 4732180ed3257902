"""What a data sheet says of a GPU, and what links of each kind carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from planner.units import Bytes, BytesPerSecond, FlopPerSecond, Hertz

Fabric = Literal["nvswitch", "nvlink-hybrid", "xgmi-mesh", "pcie"]

REFERENCE_CLOCK = Hertz(1.98e9)
"""That of an H100 SXM5: what does not depend on size is calibrated at it, and GPUs whose clock nobody knows are taken to have it."""
_TYPICAL_MULTIPROCESSORS = 132
"""An H100's: for GPUs of which nobody knows how many they have."""


@dataclass(frozen=True, slots=True)
class PeerLinks:
    """A GPU's NVLinks (or Infinity Fabric links): how many, and what one carries in one direction.

    ``domain`` is how many GPUs one NVSwitch domain joins over several hosts; 1 where it ends at the host.
    """

    generation: str
    links: int
    bandwidth_per_link: BytesPerSecond
    domain: int = 1

    @property
    def bandwidth(self) -> BytesPerSecond:
        """All links together, one direction, line rate."""
        return BytesPerSecond(self.links * self.bandwidth_per_link)


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """Data sheet of one GPU. FLOP/s are dense, bandwidths one direction.

    ``compute`` is by dtype: ``bf16``, ``fp16``, ``fp8``, ``fp4``, ``int8``; what the hardware lacks is absent.
    ``c2c_bandwidth`` is of the NVLink-C2C to a Grace CPU, where there is one.
    ``compute_capability`` is CUDA's ``(major, minor)``, ``None`` for other vendors. ``multiprocessors`` (SMs, CUs, Xe cores) have
    ``compute`` together; ``clock`` is the highest they run at.
    """

    name: str
    vendor: str
    architecture: str
    compute_capability: tuple[int, int] | None
    memory: Bytes
    memory_bandwidth: BytesPerSecond
    compute: Mapping[str, FlopPerSecond]
    peer_links: PeerLinks | None
    pcie_generation: int
    pcie_lanes: int
    pcie_peer_to_peer: bool
    fabric: Fabric
    c2c_bandwidth: BytesPerSecond | None = None
    multiprocessors: int | None = None
    clock: Hertz | None = None

    @property
    def half_precision(self) -> FlopPerSecond:
        """Dense 16-bit tensor throughput: bf16, or fp16 where there is no bf16."""
        return self.compute.get("bf16") or self.compute["fp16"]

    @property
    def cycle(self) -> float:
        """A clock cycle, in cycles of the GPU that launches are calibrated at: starting a kernel takes as many everywhere."""
        return REFERENCE_CLOCK / self.clock if self.clock else 1.0

    @property
    def one_multiprocessor(self) -> FlopPerSecond:
        """What one multiprocessor alone has of ``half_precision``."""
        return FlopPerSecond(self.half_precision / (self.multiprocessors or _TYPICAL_MULTIPROCESSORS))

    def rate(self, dtype: str) -> FlopPerSecond:
        """Dense throughput for matrix products in ``dtype``; in 16 bit where the hardware has no such units."""
        return self.compute.get(dtype) or self.half_precision


@dataclass(frozen=True, slots=True)
class CpuRate:
    """The socket interconnect of CPUs of a vendor from a family and model on, in order."""

    vendor: str
    family: int
    model: int
    bandwidth: BytesPerSecond


@dataclass(frozen=True, slots=True)
class LinkRates:
    """What links carry: line rates by PCIe generation, and what collectives reach on each kind (``data/links.yaml``).

    ``pcie_lane_peak`` and ``pcie_lane_achieved`` are B/s one direction of one lane, by generation.
    ``nvlink_achieved`` is, by minimum compute capability, what one link achieves.
    ``socket_by_cpu`` is the socket interconnect by CPU, ``socket_by_pcie_generation`` the assumed one of hosts of that PCIe
    generation whose CPU nobody names.
    """

    pcie_lane_peak: Mapping[int, BytesPerSecond]
    pcie_lane_achieved: Mapping[int, BytesPerSecond]
    nvlink_achieved: tuple[tuple[tuple[int, int], BytesPerSecond], ...]
    nvlink_unknown: BytesPerSecond
    xgmi_efficiency: float
    network_efficiency: float
    socket_by_pcie_generation: Mapping[int, BytesPerSecond]
    socket_by_cpu: tuple[CpuRate, ...]
    c2c_efficiency: float

    def socket(self, vendor: str, family: int, model: int) -> BytesPerSecond | None:
        """What the interconnect between two sockets of this CPU achieves in one direction, ``None`` for a CPU not listed."""
        of_vendor = [
            rate for rate in self.socket_by_cpu if rate.vendor == vendor and (rate.family, rate.model) <= (family, model)
        ]
        return of_vendor[-1].bandwidth if of_vendor else None

    def nvlink_link(self, compute_capability: tuple[int, int] | None) -> BytesPerSecond:
        """What one NVLink of a GPU of this compute capability achieves in one direction, in B/s."""
        if compute_capability is None:
            return self.nvlink_unknown
        reached = [rate for least, rate in self.nvlink_achieved if compute_capability >= least]
        return reached[-1] if reached else self.nvlink_unknown
