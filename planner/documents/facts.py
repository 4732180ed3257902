"""What a machine said of itself, in a topology document ⇄ :mod:`planner.core.facts`.

A fact that is not known has no key; why it is not known stands under ``unknown``, by the name of the fact.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, TypeVar

from pydantic import Field

from planner.core.facts import GpuFacts, HostFacts, NvlinkFacts
from planner.core.unknown import NOT_STATED, Unknown
from planner.documents.base import Bandwidth, Document, Size
from planner.units import write_quantity


class NvlinkDocument(Document):
    """One NVLink of a GPU."""

    link: int = Field(ge=0)
    active: bool | None = None
    version: int | None = None
    remote: str | None = None
    remote_bus_id: str | None = None
    bandwidth: Bandwidth | None = None
    unknown: dict[str, str] = {}


class GpuFactsDocument(Document):
    """The state of a GPU when it was asked."""

    uuid: str | None = None
    compute_capability: str | None = None
    memory_free: Size | None = None
    memory_used: Size | None = None
    performance_state: int | None = Field(default=None, ge=0)
    pcie_generation: int | None = Field(default=None, ge=1)
    pcie_generation_possible: int | None = Field(default=None, ge=1)
    pcie_generation_gpu: int | None = Field(default=None, ge=1)
    pcie_width: int | None = Field(default=None, ge=1)
    pcie_width_possible: int | None = Field(default=None, ge=1)
    multi_instance: Literal["enabled", "disabled"] | None = None
    cpu_affinity: str | None = None
    fabric: str | None = None
    fabric_cluster: str | None = None
    fabric_clique: int | None = None
    nvlinks: list[NvlinkDocument] | None = None
    unknown: dict[str, str] = {}


class HostFactsDocument(Document):
    """The state of a host when it was asked."""

    driver: str | None = None
    cuda: str | None = None
    cpu_name: str | None = None
    cpu_vendor: str | None = None
    cpu_family: int | None = None
    cpu_model: int | None = None
    iommu: Literal["off", "passthrough", "translating"] | None = None
    acs: Literal["redirects", "direct"] | None = None
    virtual_machine: str | None = None
    container: str | None = None
    fabric_manager: str | None = None
    unknown: dict[str, str] = {}


_SIZES = frozenset({"memory_free", "memory_used"})
_BANDWIDTHS = frozenset({"bandwidth"})

Facts = TypeVar("Facts", GpuFacts, HostFacts, NvlinkFacts)


def gpu_facts(document: GpuFactsDocument | None) -> GpuFacts:
    """The facts of a document."""
    if document is None:
        return GpuFacts()
    values = _values(GpuFacts, document)
    if document.nvlinks is not None:
        values["nvlinks"] = tuple(NvlinkFacts(**_values(NvlinkFacts, one)) for one in document.nvlinks)
    return GpuFacts(**values)


def host_facts(document: HostFactsDocument | None) -> HostFacts:
    """The facts of a document."""
    return HostFacts() if document is None else HostFacts(**_values(HostFacts, document))


def _values(kind: type[Facts], document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    reasons: dict[str, str] = getattr(document, "unknown", {})
    for one in fields(kind):
        value = getattr(document, one.name)
        if value is not None:
            values[one.name] = value
        elif one.name in reasons:
            values[one.name] = Unknown(reasons[one.name])
        elif one.name == "active":
            values[one.name] = NOT_STATED
    return values


def facts_out(facts: GpuFacts | HostFacts | NvlinkFacts) -> dict[str, Any]:
    """The document of ``facts``; empty where nothing is known and nothing was asked."""
    written: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for one in fields(facts):
        value = getattr(facts, one.name)
        if isinstance(value, Unknown):
            if value != NOT_STATED:
                reasons[one.name] = value.reason
        elif isinstance(value, tuple):
            written[one.name] = [facts_out(link) for link in value]
        elif one.name in _SIZES:
            written[one.name] = write_quantity(value, "size")
        elif one.name in _BANDWIDTHS:
            written[one.name] = write_quantity(value, "bandwidth")
        else:
            written[one.name] = value
    return {**written, "unknown": reasons} if reasons else written
