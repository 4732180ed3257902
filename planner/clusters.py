"""Where clusters come from: topologies merged, hosts asked over ssh or by Ray. A node that does not answer is a finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import BadInput, PlannerError, Unavailable
from planner.machines import STDIN, load_topology, topology_of_text

if TYPE_CHECKING:
    from planner.core.finding import Finding
    from planner.core.topology import Topology
    from planner.graph.merge import Member
    from planner.graph.network import Network, Switch
    from planner.readers.remote import NodeAnswer

NODE_WITHOUT_GPU = "node-without-gpu"


def merge_topologies(
    references: Sequence[str], *, network: str | None = None, name: str = "cluster", gpu: str | None = None
) -> Topology:
    """One cluster out of topologies (files, captures, library names, short specs), joined by the ``network`` SPEC.

    One that cannot be read is left out, with a finding. Raises ``BadInput`` where none is left or nothing joins them.
    """
    from planner.graph.merge import merge, node_missing

    wiring = _network(network)
    members: list[Member] = []
    findings: list[Finding] = []
    for reference in references:
        label = "stdin" if reference == STDIN else Path(reference).stem if Path(reference).exists() else reference
        try:
            members.append((label, load_topology(reference, gpu=gpu)))
        except PlannerError as error:
            findings.append(node_missing(reference, _reason(error, reference), error.hint))
    return merge(name, members, wiring, findings)


def probe_hostfile(
    path: str, *, network: str | None = None, timeout: float | None = None, name: str = "cluster", gpu: str | None = None
) -> Topology:
    """The cluster of the hosts in a hostfile, asked over ssh. Raises ``BadInput``; ``Unavailable`` where none answers."""
    from planner.documents.files import read_stdin, read_text
    from planner.readers.remote import TIMEOUT_SECONDS, ask_by_ssh, parse_hostfile

    wiring = _network(network)
    text, source = (read_stdin(), "<stdin>") if path == STDIN else (read_text(Path(path)), path)
    answers = ask_by_ssh(parse_hostfile(text, source), timeout or TIMEOUT_SECONDS)
    return _cluster(answers, wiring, name, gpu, f"the hosts of {source}, asked over ssh")


def probe_ray(
    *, network: str | None = None, timeout: float | None = None, name: str = "cluster", gpu: str | None = None
) -> Topology:
    """The nodes of the running Ray cluster. Raises ``BadInput``; ``Unavailable`` without Ray or where none answers."""
    from planner.readers.remote import TIMEOUT_SECONDS, ask_by_ray

    wiring = _network(network)
    return _cluster(ask_by_ray(timeout=timeout or TIMEOUT_SECONDS), wiring, name, gpu, "the nodes of a Ray cluster")


def _cluster(answers: Sequence[NodeAnswer], network: Network, name: str, gpu: str | None, source: str) -> Topology:
    """What the nodes said, merged; a host is called as it was asked for."""
    from planner.graph.merge import merge, node_missing
    from planner.graph.network import identifier
    from planner.graph.relabel import relabelled
    from planner.readers.remote import WITHOUT_GPU

    members: list[Member] = []
    findings: list[Finding] = []
    for answer in answers:
        if answer.problem:
            finding = node_missing(answer.node, answer.problem, answer.hint)
            if answer.problem == WITHOUT_GPU:
                finding = replace(finding, code=NODE_WITHOUT_GPU, severity="notice", hint="nothing to do, if that is so")
            findings.append(finding)
            continue
        try:
            topology = topology_of_text(answer.text, answer.node, gpu=gpu)
        except PlannerError as error:
            findings.append(node_missing(answer.node, _reason(error, answer.node), error.hint))
            continue
        if len(topology.hosts) == 1:
            named = {topology.hosts[0].name: identifier(answer.node)}
            topology = relabelled(topology, named, prefixed=False)
        origin = replace(topology.origin, kind="probed")
        members.append((answer.node, replace(topology, origin=origin)))
    if not members:
        reasons = "; ".join(finding.message for finding in findings[:3])
        raise Unavailable(f"no node answered: {reasons}", hint=findings[0].hint if findings else "the cluster has no node")
    return merge(name, members, network, findings, f"{source}: {len(members)} of {len(answers)} nodes")


def _reason(error: PlannerError, name: str) -> str:
    """What is wrong, and where if it says more than the name."""
    where = error.path.removeprefix(name).lstrip(",: ")
    return f"{where}: {error.problem}" if where else error.problem


def _network(spec: str | None) -> Network:
    from planner.graph.network import AS_SEEN, parse_network

    return AS_SEEN if spec is None else parse_network(spec, _read_tree(spec))


def _read_tree(spec: str) -> Callable[[str], tuple[Switch, ...]]:
    from planner.documents.files import read_text
    from planner.graph.network import HOW_TO_SAY
    from planner.readers.slurm_topology import read_slurm_topology

    def read(path: str) -> tuple[Switch, ...]:
        if not Path(path).exists():
            raise BadInput(f"no network and no such file: {path!r}", path=f"--network {spec}", hint=HOW_TO_SAY)
        return read_slurm_topology(read_text(Path(path)), path)

    return read
