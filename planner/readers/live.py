"""This host, asked directly: NVML for the GPUs and their links, ``/sys`` and ``/proc`` for everything around them."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace

from planner.core.capture import Capture, GpuSight, PcieHop
from planner.core.facts import GpuFacts
from planner.core.finding import Finding
from planner.core.unknown import Unknown
from planner.graph.assemble import loaded_generation
from planner.readers.host import hostname, read_host
from planner.readers.host_files import FileTree, HostFiles
from planner.readers.nics import read_nics
from planner.readers.nvml import Driver, Library
from planner.readers.nvml_gpus import read_gpus
from planner.readers.sysfs import NOWHERE, Way, way_to

FORMAT = "NVML and sysfs on this host"


def capture(library: Library | None = None, files: FileTree | None = None, environment: Collection[str] | None = None) -> Capture:
    """All that this host tells of itself to an ordinary user; nothing on it is changed.

    Never raises: what cannot be told is unknown, with the reason, and a host whose driver does not answer has no GPUs and a
    finding that says why. ``environment`` has the names of environment variables; the three are this host's where they are
    not given.
    """
    files = HostFiles() if files is None else files
    nvml = read_gpus(Driver() if library is None else library)
    ways = [NOWHERE if gpu.bus_id is None else way_to(files, gpu.bus_id) for gpu in nvml.gpus]
    nics, down = read_nics(files)
    facts = read_host(files, os.environ if environment is None else environment, [way.chain for way in ways])
    findings = [*nvml.findings, *down]
    if nvml.silent is not None:
        findings.insert(
            0, Finding("nvml-silent", f"nothing tells of GPUs: {nvml.silent.reason}", "run 'nvidia-smi': it says more")
        )
    gpus = tuple(_placed(gpu, way) for gpu, way in zip(nvml.gpus, ways, strict=True))
    return Capture(
        source="this host",
        format=FORMAT,
        gpus=gpus,
        nics=nics,
        links=nvml.links,
        peers=nvml.peers,
        hostname=hostname(files),
        host=replace(facts, driver=nvml.driver, cuda=nvml.cuda),
        findings=tuple(findings),
        assumptions=_idle(gpus),
    )


def _placed(gpu: GpuSight, way: Way) -> GpuSight:
    """The GPU with its place. Its NUMA node is the PCI device's: NVML's own, on Grace, is that of the GPU's memory."""
    hops = (*way.hops[:-1], _own_link(way.hops[-1], gpu.facts)) if way.hops else ()
    return replace(gpu, numa_node=way.numa_node, root=way.root, hops=hops)


def _own_link(hop: PcieHop, facts: GpuFacts) -> PcieHop:
    """The GPU's own link as it is under load. NVML's word comes first: it knows what a hypervisor hides from ``/sys``."""
    generation = _known(facts.pcie_generation, hop.generation)
    possible = _known(facts.pcie_generation_possible, hop.possible_generation)
    return PcieHop(
        bus_id=hop.bus_id,
        generation=loaded_generation(generation, possible, _known(facts.performance_state, None)),
        width=_known(facts.pcie_width, hop.width),
        possible_generation=possible,
        possible_width=_known(facts.pcie_width_possible, hop.possible_width),
    )


def _known(value: int | Unknown, otherwise: int | None) -> int | None:
    return otherwise if isinstance(value, Unknown) else value


def _idle(gpus: tuple[GpuSight, ...]) -> tuple[str, ...]:
    """What was assumed of GPUs whose link is slower now than under load."""
    asleep = [
        f"gpu{gpu.index}"
        for gpu in gpus
        if gpu.hops and (now := _known(gpu.facts.pcie_generation, None)) is not None and now != gpu.hops[-1].generation
    ]
    if not asleep:
        return ()
    return (f"the PCIe link of {', '.join(asleep)} is slowed down to save power, and taken as it is under load",)
