"""Machines made up for tests of findings: a matrix, facts, and what else a capture may tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner import api
from planner.core.capture import Capture, GpuSight, Matrix, NicSight
from planner.core.facts import NO_HOST_FACTS, GpuFacts, HostFacts, NvlinkFacts, PeerCapability
from planner.core.finding import Finding
from planner.core.topology import LinkKind, Topology
from planner.graph.assemble import assemble
from support import look_up

MIB = 2.0**20


def all_pairs(word: str, count: int) -> list[str]:
    """The rows of a matrix in which every pair of GPUs is the same."""
    return [" ".join("X" if a == b else word for b in range(count)) for a in range(count)]


def machine(
    rows: Sequence[str] | None,
    models: str | Sequence[str] = "L40S",
    *,
    gpus: Sequence[GpuSight] = (),
    facts: GpuFacts | Mapping[int, GpuFacts] | None = None,
    host: HostFacts = NO_HOST_FACTS,
    peers: Mapping[PeerCapability, Sequence[str]] | None = None,
    name: str = "box",
) -> Topology:
    """A host as a capture shows it. Rows beyond the number of models are network cards; ``facts`` is by index, or of all."""
    count = len(gpus) or (len(rows or ()) if isinstance(models, str) else len(models))
    each = [models] * count if isinstance(models, str) else list(models)
    sights = list(gpus) or [GpuSight(index=index, model=model) for index, model in enumerate(each)]
    if facts is not None:
        known = facts if isinstance(facts, Mapping) else dict.fromkeys(range(count), facts)
        sights = [replace(sight, facts=known.get(sight.index, sight.facts)) for sight in sights]
    matrix = None
    nics: tuple[NicSight, ...] = ()
    if rows is not None:
        names = [f"GPU{place}" if place < count else f"NIC{place - count}" for place in range(len(rows))]
        nics = tuple(NicSight(label=f"mlx5_{place}") for place in range(len(rows) - count))
        labels = {f"NIC{place}": f"mlx5_{place}" for place in range(len(nics))}
        cells = {(a, b): word for a, row in zip(names, rows, strict=True) for b, word in zip(names, row.split(), strict=True)}
        matrix = Matrix(tuple(names), {pair: word for pair, word in cells.items() if word != "X"}, labels)
    capture = Capture(
        source="made",
        format="made",
        gpus=tuple(sights),
        nics=nics,
        matrix=matrix,
        host=host,
        peers={
            capability: {(a, b): word for a, row in enumerate(table) for b, word in enumerate(row.split()) if word != "X"}
            for capability, table in (peers or {}).items()
        },
    )
    topology = assemble(capture, name, "capture", look_up)
    topology.check()
    return topology


def nvlinks(*states: bool) -> tuple[NvlinkFacts, ...]:
    """Links up or down, by number."""
    return tuple(NvlinkFacts(link=number, active=state) for number, state in enumerate(states))


def without_one_link(topology: Topology, a: str, b: str) -> Topology:
    """The machine with one NVLink less between two devices."""
    links = tuple(
        replace(link, count=link.count - 1)
        if link.kind is LinkKind.NVLINK and {link.a, link.b} == {a, b} and link.count is not None
        else link
        for link in topology.links
    )
    return replace(topology, links=links)


def found(topology: Topology, code: str) -> Finding | None:
    """The finding of that code, of which there is one at most."""
    every = [finding for finding in api.diagnose(topology) if finding.code == code]
    assert len(every) <= 1, every
    return every[0] if every else None


def concluded(topology: Topology) -> tuple[Finding, ...]:
    """What the reader did not say."""
    return tuple(finding for finding in api.diagnose(topology) if finding not in topology.findings)


def the(topology: Topology, code: str) -> Finding:
    """The finding of that code, which is there, says everything, and is no command for a shell with markup in it."""
    finding = found(topology, code)
    assert finding is not None, [one.code for one in api.diagnose(topology)]
    assert finding.message
    assert finding.hint
    assert finding.evidence
    assert finding.cost
    assert finding.devices
    assert not finding.message.endswith(".")
    return finding
