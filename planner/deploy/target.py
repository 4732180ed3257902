"""What a target is given and what it makes; names that every target can use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from planner.core.engine import LaunchProcess, LaunchSpec
from planner.core.saved import RankPlace, SavedPlan
from planner.errors import BadInput

LONGEST_NAME = 40
"""Of a name that others are made of by appending; Kubernetes allows 63."""
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,38}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
PORT = "--port"
LOOPBACK = frozenset({"sglang", "tensorrt-llm"})
"""Engines whose servers listen on 127.0.0.1 where nobody says."""


@dataclass(frozen=True, slots=True)
class Job:
    """One plan to be written for one target.

    ``engine`` and ``engine_version`` are those that are launched; ``name`` is what objects are called (a DNS-1123 label).
    """

    saved: SavedPlan
    digest: str
    engine: str
    engine_version: str
    launch: LaunchSpec
    ranks: tuple[RankPlace, ...]
    name: str
    namespace: str | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """Files by name, what to type to start them, what the user should know, and where the server then answers."""

    files: Mapping[str, str]
    run: tuple[str, ...]
    notes: tuple[str, ...] = ()
    address: str = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Target:
    """What a module of ``planner.deploy`` offers as ``TARGET``."""

    name: str
    summary: str
    write: Callable[[Job], Output] = field(compare=False)


def object_name(model: str) -> str:
    """A DNS-1123 label that starts with a letter, made of a model's name.

    >>> object_name("meta-llama/Llama-3.1-70B-Instruct"), object_name("$(id)"), object_name("/models/405b")
    ('llama-3-1-70b-instruct', 'id', 'llm-405b')
    """
    last = model.rstrip("/").rpartition("/")[2].lower()
    name = re.sub(r"[^a-z0-9]+", "-", last[:200]).strip("-")
    if not name or not name[0].isalpha():
        name = f"llm-{name}".rstrip("-")
    return name[:LONGEST_NAME].rstrip("-")


def check_name(name: str) -> str:
    """``name`` where Kubernetes takes it for a Service too. Raises ``BadInput``."""
    if not _NAME.fullmatch(name):
        hint = f"lower-case letters, digits and dashes, a letter first, up to {LONGEST_NAME}: for example {object_name(name)}"
        raise BadInput(f"{name!r} is no name for objects", path="--name", hint=hint)
    return name


def check_namespace(name: str | None) -> str | None:
    """``name`` where it is a DNS-1123 label. Raises ``BadInput``."""
    if name is not None and not _NAMESPACE.fullmatch(name):
        raise BadInput(f"{name!r} is no namespace", path="--namespace", hint="lower-case letters, digits and dashes, up to 63")
    return name


def check_image(image: str | None) -> str | None:
    """``image`` where it looks like a reference to one. Raises ``BadInput``."""
    if image is not None and not _IMAGE.fullmatch(image):
        raise BadInput(f"{image!r} is no reference to an image", path="--image", hint="for example vllm/vllm-openai:v0.33.0")
    return image


def port_of(job: Job, process: LaunchProcess) -> int | None:
    """The port a process takes requests on; ``None`` for all but the first of an engine, whatever port they are told."""
    return next((port for server, port in servers(job) if server is process), None)


def servers(job: Job) -> list[tuple[LaunchProcess, int]]:
    """The first process of every engine of the plan, and its port: where requests go."""
    heads = [members[0] for members in groups(job)]
    return [(process, int(process.argv[process.argv.index(PORT) + 1])) for process in heads]


def groups(job: Job) -> list[list[LaunchProcess]]:
    """The processes by the engine they are of: those of one replica; all, where replicas share their experts."""
    if job.saved.plan.parallelism.attention_data_parallel:
        return [list(job.launch.processes)]
    found: dict[int, list[LaunchProcess]] = {}
    for process in job.launch.processes:
        found.setdefault(process.replica, []).append(process)
    return list(found.values())


def by_node(job: Job) -> dict[str, list[LaunchProcess]]:
    """The processes by the node they start on, in order."""
    found: dict[str, list[LaunchProcess]] = {}
    for process in job.launch.processes:
        found.setdefault(process.node, []).append(process)
    return found


def label(job: Job, process: LaunchProcess) -> str:
    """What a process is told apart by on its node: its replica, and its place among several of one replica there."""
    beside = [one for one in by_node(job)[process.node] if one.replica == process.replica]
    return str(process.replica) if len(beside) == 1 else f"{process.replica}-{beside.index(process)}"


def reachable(job: Job, process: LaunchProcess, *, always: bool = False) -> tuple[str, ...]:
    """The arguments of a process with an address that others reach, where requests come from other hosts: SGLang and TensorRT-LLM
    listen on the loopback alone unless they are told, vLLM and TGI everywhere.
    """
    needed = always or len(nodes(job)) > 1
    if not needed or job.engine not in LOOPBACK or port_of(job, process) is None or "--host" in process.argv:
        return process.argv
    return (*process.argv, "--host", "0.0.0.0")  # noqa: S104 - said above


def nodes(job: Job) -> list[str]:
    """The nodes the plan uses, in rank order, whether or not a process is started on each by hand."""
    return list(dict.fromkeys(place.node for place in job.ranks))


def gpus_of(job: Job, node: str) -> int:
    """How many GPUs a node has, used or not."""
    return len(job.saved.topology.gpus_of_host[node])


def file_stem(node: str) -> str:
    """A node's name as part of a file's name.

    >>> file_stem("node0"), file_stem("../etc")
    ('node0', '_.._etc')
    """
    safe = "".join(one if one.isascii() and (one.isalnum() or one in "_.-") else "_" for one in node)
    return safe if safe[:1].isalnum() else f"_{safe}"
