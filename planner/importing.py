"""From a launch that somebody has to a plan: which model, which degrees, which GPU is which rank, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import BadInput
from planner.machines import STDIN

if TYPE_CHECKING:
    from planner.core.engine import EngineTraits
    from planner.core.model import ModelSpec
    from planner.core.plan import EngineLimits, Placement, Plan
    from planner.core.quantization import CacheDtype
    from planner.core.saved import SavedPlan
    from planner.core.topology import Topology
    from planner.core.workload import Objective, Workload
    from planner.deploy.understood import Understood
    from planner.search.judgement import Judgement


@dataclass(frozen=True, slots=True)
class Imported:
    """What a launch says: the engine, the model's name there, its weights' format where that is said, and what is to be known."""

    engine: str
    model: str
    quantisation: str | None
    processes: tuple[Understood, ...]
    notes: tuple[str, ...]

    @property
    def cache(self) -> CacheDtype:
        """What its KV cache is kept in."""
        return self.processes[0].cache

    def guessing(self, workload: Workload, acceptance: float | None) -> tuple[Workload, tuple[str, ...]]:
        """The workload with tokens guessed as the launch asks, where it is known how many are right; and what to know of it.

        Raises ``BadInput`` where nothing is guessed that could be right.
        """
        from planner.core.speculation import Speculation

        found = self.processes[0].guesses
        if found is None:
            if acceptance is not None:
                raise BadInput("is of tokens that are guessed, and the launch guesses none", path="--acceptance-rate")
            return workload, ()
        if found.method is None:
            return workload, (f"the launch guesses {found}, which is not planned: priced without",)
        if acceptance is None:
            return workload, (f"the launch guesses {found}: priced without; say with --acceptance-rate how many are right",)
        checkpoint = found.checkpoint if found.method == "eagle3" else ""
        if found.method == "eagle3" and not checkpoint:
            return workload, (f"the launch guesses {found} and names no checkpoint: priced without",)
        return replace(workload, speculation=Speculation(found.method, found.tokens, acceptance, checkpoint)), ()


@dataclass(frozen=True, slots=True)
class ImportedPlan:
    """A launch as a plan with its model and engine, what was found of it, what to know, and as it is kept: ``None`` where it does
    not fit.
    """

    plan: Plan
    model: ModelSpec
    engine: EngineTraits
    found: Judgement
    notes: tuple[str, ...]
    saved: SavedPlan | None


_FORMATS = {
    "fp8": "fp8",
    "awq": "awq",
    "awq_marlin": "awq",
    "gptq": "gptq",
    "gptq_marlin": "gptq",
    "bitsandbytes-nf4": "bnb-4bit",
}
"""Formats of weights as engines call them, as far as planner knows them."""


def read_launch(references: Sequence[str]) -> Imported:
    """The launch in files (``-`` for standard input), or in the words of one command. Raises ``BadInput``."""
    from planner.deploy.found import found_in, found_in_words, start_of
    from planner.deploy.understood import understand
    from planner.documents.files import read_stdin, read_text

    if start_of(references) is not None or (len(references) > 1 and not Path(references[0]).exists()):
        words = found_in_words(references)
        return _agreed([understand(words, "the command")], "the command")
    processes = []
    for reference in references:
        text = read_stdin() if reference == STDIN else read_text(Path(reference))
        source = "<stdin>" if reference == STDIN else reference
        beside = {} if reference == STDIN else _beside(Path(reference), text)
        for found in found_in(text, source):
            files = {**beside, **found.files}
            processes.append(understand(replace(found, files=files), source))
    return _agreed(processes, references[0])


def _beside(path: Path, text: str) -> dict[str, str]:
    """YAML files that lie beside a launch and that it names: options of TensorRT-LLM."""
    from planner.documents.files import read_text

    names = [one for one in sorted(path.parent.glob("*.yaml"))[:64] if one != path and one.name in text and one.is_file()]
    return {one.name: read_text(one) for one in names}


def _agreed(processes: list[Understood], source: str) -> Imported:
    """The processes of one launch: one engine, one model, the same degrees."""
    first = processes[0]
    for one in processes[1:]:
        for what, mine, theirs in (
            ("engine", first.engine, one.engine),
            ("model", first.model, one.model),
            ("tensor-parallel size", first.tensor, one.tensor),
            ("pipeline-parallel size", first.pipeline, one.pipeline),
        ):
            if mine != theirs:
                raise BadInput(f"starts servers that differ in their {what}: {mine} and {theirs}", path=source, hint="import one")
    if not first.model:
        raise BadInput("names no model", path=source)
    notes = tuple(dict.fromkeys(note for one in processes for note in one.gone))
    method = first.quantisation
    return Imported(first.engine, first.model, None if method is None else _FORMATS.get(method), tuple(processes), notes)


def plan_from(imported: Imported, model: ModelSpec, topology: Topology, defaults: EngineLimits) -> Plan:
    """The plan of a launch on a machine; ``defaults`` are the engine's limits where it is told none. Raises ``BadInput``."""
    from planner.core.plan import EngineLimits, Parallelism, Plan
    from planner.engines import find_engine
    from planner.engines.placement import by_host

    first = imported.processes[0]
    placement = _placement(imported, topology)
    degrees = Parallelism(first.tensor, first.pipeline, len(placement), first.expert, first.decode_context, first.prefill_context)
    traits = find_engine(imported.engine).traits
    if not traits.spans_hosts and any(len(by_host(topology, replica)) > 1 for replica in placement):
        hint = f"{traits.name} keeps a replica on one host"
        raise BadInput(f"has no host with {degrees.gpus_per_replica} free GPUs", path=topology.name, hint=hint)
    partition = first.partition or traits.default_partition(len(model.layers), first.pipeline)
    if len(partition) != first.pipeline or sum(partition) != len(model.layers):
        problem = f"cuts the layers into {', '.join(map(str, partition))}"
        raise BadInput(
            problem, path="the launch", hint=f"{first.pipeline} stages of {model.name} hold {len(model.layers)} layers"
        )
    limits = EngineLimits(
        first.sequences or defaults.max_sequences,
        first.batched or defaults.max_batched_tokens,
        first.memory or defaults.memory_fraction,
        first.context or model.max_positions,
    )
    return Plan(degrees, placement, tuple(partition), limits)


def _placement(imported: Imported, topology: Topology) -> Placement:
    """Which GPU is which rank: as ``CUDA_VISIBLE_DEVICES`` says, on hosts in the order of node ranks; else the next free ones."""
    free = {host: list(gpus) for host, gpus in topology.gpus_of_host.items()}
    engines = _by_engine(imported.processes)
    replicas = []
    for number, members in enumerate(engines):
        first = members[0]
        per_replica = first.tensor * first.prefill_context * first.pipeline
        ranks: list[int] = []
        hosts = _hosts_wanted(engines[:number], members, topology)
        for one, host in zip(members, hosts, strict=True):
            share = (one.local * per_replica) if one.local else per_replica * first.data // len(members)
            ranks += _take(topology, free, one, share, host)
        replicas += [ranks[start : start + per_replica] for start in range(0, per_replica * first.data, per_replica)]
    size = imported.processes[0].tensor * imported.processes[0].prefill_context
    return tuple(tuple(tuple(ranks[stage * size : (stage + 1) * size]) for stage in range(first.pipeline)) for ranks in replicas)


def _by_engine(processes: Sequence[Understood]) -> list[list[Understood]]:
    """Processes that make up one engine together: those that meet at one place, each node once; in order of their nodes."""
    engines: list[list[Understood]] = []
    meeting: dict[str, list[Understood]] = {}
    for one in processes:
        members = meeting.get(one.meeting)
        if members is None or (one.node == 0 and any(other.node == 0 for other in members)):
            members = meeting[one.meeting] = []
            engines.append(members)
        members.append(one)
    return [sorted(members, key=lambda one: one.node) for members in engines]


def _hosts_wanted(before: Sequence[list[Understood]], members: Sequence[Understood], topology: Topology) -> list[str | None]:
    """The hosts of an engine's processes: those that are said, else of several each takes the next; ``None`` where any will do."""
    said = [number for one in members if (number := _host_said(one, topology)) is not None]
    if len(said) < len(members) and len(members) < 2:
        return [None]
    first = sum(len(others) for others in before if len(others) > 1)
    numbers = said if len(said) == len(members) else list(range(first, first + len(members)))
    if max(numbers) >= len(topology.hosts) and all(one.devices is None and one.host is None for one in members):
        return [None] * len(members)  # pods that share nodes, wherever they land
    if max(numbers) >= len(topology.hosts):
        hint = "name the whole cluster with --topology"
        raise BadInput(f"has {len(topology.hosts)} hosts; the launch takes {max(numbers) + 1}", path=topology.name, hint=hint)
    return [topology.hosts[number].name for number in numbers]


def _host_said(one: Understood, topology: Topology) -> int | None:
    """The number of the host a process is on: that of its step, or the one host that the name of its file names."""
    if one.host is not None:
        return one.host
    named = [
        number
        for number, host in enumerate(topology.hosts)
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(host.name)}(?![A-Za-z0-9])", one.source)
    ]
    return named[0] if len(named) == 1 and len(topology.hosts) > 1 else None


def _take(topology: Topology, free: dict[str, list[int]], one: Understood, share: int, wanted: str | None) -> list[int]:
    """The GPUs of a process, taken from those that are free; one that starts an MPI world takes them of several hosts."""
    each = len(one.devices) if one.devices else max((len(gpus) for gpus in free.values()), default=0)
    over = share // each if each and share > each and share % each == 0 else 1
    taken: list[int] = []
    for host, gpus in free.items():
        if len(taken) < share and (wanted in {None, host} or (over > 1 and taken)):
            found = _of_host(topology, gpus, one.devices, share // over)
            taken += found
            free[host] = [gpu for gpu in gpus if gpu not in found]
    if len(taken) == share:
        return taken
    what = f"GPUs {', '.join(map(str, one.devices))}" if one.devices else f"{share} free GPUs"
    raise BadInput(f"has no host with {what} for a process of the launch", path=topology.name)


def _of_host(topology: Topology, gpus: Sequence[int], devices: tuple[int, ...] | None, share: int) -> list[int]:
    """``share`` of the free GPUs of a host: those that are named, else the first; none where it does not have them."""
    numbers = {topology.gpus[gpu].index: gpu for gpu in gpus}
    if devices is None:
        return list(gpus[:share]) if len(gpus) >= share else []
    named = devices[:share]
    return [numbers[device] for device in named] if len(named) == share and set(named) <= set(numbers) else []


def wires_crossed(plan: Plan, topology: Topology) -> list[str]:
    """What is wrong with a placement that can be seen without pricing it: tensor-parallel groups over sockets or hosts."""
    from planner.graph.paths import PathKind, Paths

    paths = Paths(topology)
    problems = []
    for replica in plan.placement:
        for group in replica:
            devices = [topology.gpus[gpu] for gpu in group]
            named = ",".join(str(gpu) for gpu in group)
            if len({device.host for device in devices}) > 1:
                problems.append(f"the tensor-parallel group {{{named}}} lies on several hosts: every layer waits for the network")
                continue
            pairs = [(a.id, b.id) for place, a in enumerate(devices) for b in devices[place + 1 :]]
            far = [pair for pair in pairs if paths.nvlink(*pair) is None and paths.pcie_kind(*pair) >= PathKind.SYS]
            if far:
                problems.append(f"the tensor-parallel group {{{named}}} crosses sockets ({' and '.join(far[0])}) without NVLink")
    return problems


def kept(
    plan: Plan,
    model: ModelSpec,
    asked: str,
    topology: Topology,
    reference: str | None,
    workload: Workload,
    objective: Objective,
    traits: EngineTraits,
    found: Judgement,
    notes: tuple[str, ...],
) -> SavedPlan | None:
    """The plan as it is kept, ``None`` where it cannot run. ``asked`` is how the facts of the model were found."""
    from planner.core.saved import SavedPlan
    from planner.documents.plan import refuse_unsafe
    from planner.launching import expected_of, is_local, known_as, with_load_found

    if found.estimate is None:
        return None
    refuse_unsafe(model.name, "the model of the launch")
    return SavedPlan(
        model=model,
        model_reference=asked,
        local_model=model.name.startswith("/") or (is_local(asked) and asked == model.name),
        topology=topology,
        topology_reference=known_as(topology, reference),
        workload=with_load_found(workload, found.estimate),
        objective=objective,
        engine=traits.name,
        engine_version=traits.version,
        plan=plan,
        proven=False,
        expected=expected_of(found.estimate),
        assumptions=tuple(dict.fromkeys((*topology.origin.assumptions, *found.estimate.assumptions))),
        warnings=notes,
    )
