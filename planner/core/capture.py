"""What one capture tells of one host, before it is a graph.

Every reader turns its text into a :class:`Capture`; several captures of one host are joined
(:func:`planner.graph.join.join`) and then built into a topology (:func:`planner.graph.assemble.assemble`). ``None`` and
empty mean that the capture does not tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.core.facts import NO_GPU_FACTS, NO_HOST_FACTS, GpuFacts, HostFacts, PeerCapability
from planner.core.finding import Finding
from planner.core.topology import LinkKind
from planner.units import Bytes, BytesPerSecond


@dataclass(frozen=True, slots=True, kw_only=True)
class PcieHop:
    """One link of the way from a host bridge down to a device; ``bus_id`` is of its lower end.

    Generation and width as they are under load, and what both ends could do.
    """

    bus_id: str
    generation: int | None = None
    width: int | None = None
    possible_generation: int | None = None
    possible_width: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSight:
    """What a capture tells of one GPU.

    ``index`` counts as ``nvidia-smi`` does. ``hops`` is the PCIe way from the host bridge to the GPU, one hop a switch
    and the last the GPU itself, the ports of one switch counted as the switch. ``root`` is the host bridge. ``c2c`` says
    that an NVLink-C2C joins the GPU to its CPU (Grace), ``c2c_bandwidth`` what it carries in one direction.
    """

    index: int
    model: str | None = None
    memory: Bytes | None = None
    bus_id: str | None = None
    numa_node: int | None = None
    root: str | None = None
    hops: tuple[PcieHop, ...] = ()
    c2c: bool = False
    c2c_bandwidth: BytesPerSecond | None = None
    facts: GpuFacts = NO_GPU_FACTS


@dataclass(frozen=True, slots=True, kw_only=True)
class NicSight:
    """What a capture tells of one network card: ``label`` as the system says (``mlx5_0``), ``rate`` in one direction."""

    label: str
    bus_id: str | None = None
    numa_node: int | None = None
    root: str | None = None
    hops: tuple[PcieHop, ...] = ()
    rate: BytesPerSecond | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLinkSight:
    """NVLinks or Infinity Fabric links that end at GPU ``a``: at GPU ``b``, or at a switch where ``b`` is ``None``."""

    a: int
    b: int | None
    kind: LinkKind = LinkKind.NVLINK
    count: int | None = None
    bandwidth: BytesPerSecond | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of link classes.

    ``names`` are the columns in order (``GPU0``, ``NIC0``, ``mlx5_0``); ``cells`` is by row and column; ``labels`` what
    the legend says of a NIC; ``numa_nodes`` the NUMA node by row; ``under`` the PCIe class of pairs whose cell names an NVLink,
    where another capture tells it.
    """

    names: tuple[str, ...]
    cells: Mapping[tuple[str, str], str]
    labels: Mapping[str, str] = field(default_factory=dict)
    numa_nodes: Mapping[str, int] = field(default_factory=dict)
    under: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def gpus(self) -> tuple[str, ...]:
        """``GPU0``, ``GPU1`` … in the order of the columns."""
        return tuple(name for name in self.names if name.startswith("GPU"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What one text, or one live call, tells of one host.

    ``source`` is what messages call it, ``format`` the words for what it is. ``peers`` is by capability, ordered pair of
    GPU indices → nvidia-smi's word.
    """

    source: str
    format: str
    gpus: tuple[GpuSight, ...] = ()
    nics: tuple[NicSight, ...] = ()
    matrix: Matrix | None = None
    links: tuple[PeerLinkSight, ...] = ()
    peers: Mapping[PeerCapability, Mapping[tuple[int, int], str]] = field(default_factory=dict)
    hostname: str | None = None
    host: HostFacts = NO_HOST_FACTS
    findings: tuple[Finding, ...] = ()
    assumptions: tuple[str, ...] = ()
