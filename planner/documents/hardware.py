"""``data/gpus/*.yaml`` and ``data/links.yaml`` → :class:`GpuSpec` and :class:`LinkRates`."""

from __future__ import annotations

from functools import cache
from typing import Literal

from pydantic import Field

from planner.core.hardware import CpuRate, Fabric, GpuSpec, LinkRates, PeerLinks
from planner.documents import strict_yaml
from planner.documents.base import Bandwidth, Clock, Compute, Document, Size, validate
from planner.documents.files import DATA
from planner.errors import BadInput, folded, unknown_name
from planner.units import Bytes, BytesPerSecond, FlopPerSecond, Hertz

_FOLDER = DATA / "gpus"


class Memory(Document):
    """Capacity as the driver reports it; bandwidth of the data sheet."""

    capacity: Size
    bandwidth: Bandwidth
    source: str


class Throughput(Document):
    """Dense tensor throughput by dtype; where known, how many multiprocessors have it together, and their highest clock."""

    bf16: Compute | None = None
    fp16: Compute
    fp8: Compute | None = None
    fp4: Compute | None = None
    int8: Compute | None = None
    multiprocessors: int | None = Field(default=None, gt=0)
    clock: Clock | None = Field(default=None, gt=0)
    source: str


class NvLink(Document):
    """Links of one GPU to its peers, one direction."""

    generation: int | str
    links: int = Field(gt=0)
    bandwidth_per_link: Bandwidth
    domain: int = Field(default=1, ge=1)
    source: str


class Pcie(Document):
    """The card's own connector."""

    generation: int = Field(ge=1, le=7)
    lanes: Literal[1, 2, 4, 8, 16]
    peer_to_peer: bool
    c2c_bandwidth: Bandwidth | None = None
    source: str


class GpuDocument(Document):
    """One GPU's file."""

    schema_version: int
    name: str
    vendor: str
    aliases: list[str]
    architecture: str
    compute_capability: str
    memory: Memory
    compute: Throughput
    nvlink: NvLink | None = None
    pcie: Pcie
    fabric: Fabric


def _capability(text: str) -> tuple[int, int] | None:
    major, dot, minor = text.partition(".")
    return (int(major), int(minor)) if dot and major.isdigit() and minor.isdigit() else None


def _spec(document: GpuDocument) -> GpuSpec:
    compute, peers = document.compute, document.nvlink
    rates = compute.model_dump(exclude={"source", "multiprocessors", "clock"}, exclude_none=True)
    return GpuSpec(
        name=document.name,
        vendor=document.vendor,
        architecture=document.architecture,
        compute_capability=_capability(document.compute_capability),
        memory=Bytes(document.memory.capacity),
        memory_bandwidth=BytesPerSecond(document.memory.bandwidth),
        compute={dtype: FlopPerSecond(rate) for dtype, rate in rates.items()},
        peer_links=PeerLinks(str(peers.generation), peers.links, BytesPerSecond(peers.bandwidth_per_link), peers.domain)
        if peers
        else None,
        pcie_generation=document.pcie.generation,
        pcie_lanes=document.pcie.lanes,
        pcie_peer_to_peer=document.pcie.peer_to_peer,
        fabric=document.fabric,
        c2c_bandwidth=BytesPerSecond(document.pcie.c2c_bandwidth) if document.pcie.c2c_bandwidth is not None else None,
        multiprocessors=compute.multiprocessors,
        clock=Hertz(compute.clock) if compute.clock is not None else None,
    )


@cache
def _read(stem: str) -> GpuDocument:
    path = _FOLDER / f"{stem}.yaml"
    return validate(GpuDocument, strict_yaml.load(path.read_text("utf-8"), path.name), path.name)


@cache
def _stems() -> dict[str, str]:
    return {folded(path.stem): path.stem for path in sorted(_FOLDER.glob("*.yaml"))}


def gpu_names() -> list[str]:
    """The names of all GPUs with a data sheet."""
    return [_read(stem).name for stem in _stems().values()]


@cache
def load_gpu(name: str) -> GpuSpec:
    """The data sheet of a GPU by its name or an alias; case, spaces, dashes and underscores do not matter.

    Raises ``BadInput`` with the nearest known names; nothing is guessed from part of a name.
    """
    key = folded(name)
    stem = _stems().get(key)
    if stem is None and key:
        for candidate in _stems().values():
            # parse only the files whose text holds the words
            if key in folded((_FOLDER / f"{candidate}.yaml").read_text("utf-8")) and key in {
                folded(alias) for alias in _read(candidate).aliases
            }:
                stem = candidate
                break
    if stem is None:
        raise unknown_name("GPU", name, gpu_names(), hint="names are in planner/data/gpus; CONTRIBUTING says how to add one")
    return _spec(_read(stem))


class PcieRates(Document):
    """One lane, by generation."""

    lane_peak: dict[str, Bandwidth]
    lane_achieved: dict[str, Bandwidth]
    source: str


class NvLinkRate(Document):
    """From this compute capability on."""

    compute_capability: str
    bandwidth: Bandwidth


class NvLinkRates(Document):
    """One link, by compute capability."""

    achieved_per_link: list[NvLinkRate]
    unknown: Bandwidth
    source: str


class Efficiency(Document):
    """Achieved share of the line rate."""

    efficiency: float = Field(gt=0, le=1)
    source: str


class CpuRateDocument(Document):
    """CPUs of a vendor from a family and model on."""

    vendor: str
    family: int = 0
    model: int = 0
    bandwidth: Bandwidth


class SocketRates(Document):
    """By CPU, and assumed where the CPU is not known."""

    by_cpu: list[CpuRateDocument]
    by_pcie_generation: dict[str, Bandwidth]
    source: str


class LinksDocument(Document):
    """``data/links.yaml``."""

    schema_version: int
    pcie: PcieRates
    nvlink: NvLinkRates
    xgmi: Efficiency
    network: Efficiency
    c2c: Efficiency
    socket_interconnect: SocketRates


@cache
def load_link_rates() -> LinkRates:
    """What links of each kind carry."""
    path = DATA / "links.yaml"
    document = validate(LinksDocument, strict_yaml.load(path.read_text("utf-8"), path.name), path.name)
    nvlink = []
    for rate in document.nvlink.achieved_per_link:
        capability = _capability(rate.compute_capability)
        if capability is None:
            raise BadInput(f"{rate.compute_capability!r} is not a compute capability", path=path.name)
        nvlink.append((capability, BytesPerSecond(rate.bandwidth)))
    return LinkRates(
        pcie_lane_peak=_by_generation(document.pcie.lane_peak),
        pcie_lane_achieved=_by_generation(document.pcie.lane_achieved),
        nvlink_achieved=tuple(sorted(nvlink)),
        nvlink_unknown=BytesPerSecond(document.nvlink.unknown),
        xgmi_efficiency=document.xgmi.efficiency,
        network_efficiency=document.network.efficiency,
        socket_by_pcie_generation=_by_generation(document.socket_interconnect.by_pcie_generation),
        socket_by_cpu=tuple(
            CpuRate(one.vendor, one.family, one.model, BytesPerSecond(one.bandwidth))
            for one in document.socket_interconnect.by_cpu
        ),
        c2c_efficiency=document.c2c.efficiency,
    )


def _by_generation(rates: dict[str, float]) -> dict[int, BytesPerSecond]:
    return {int(generation): BytesPerSecond(rate) for generation, rate in rates.items()}
