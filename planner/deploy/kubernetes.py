"""Kubernetes: a Deployment for replicas of one node, a LeaderWorkerSet for replicas of several, a Service before them.

Which GPUs a pod gets is the device plugin's choice, so a process that is alone on its node asks for all GPUs of the node and
takes its own by ``CUDA_VISIBLE_DEVICES``; processes that share a node take what they are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.core.engine import LaunchProcess
from planner.deploy.addresses import with_nodes, with_option, without_options
from planner.deploy.containers import (
    DEVICES,
    FILES,
    HEALTH,
    LOADING_MINUTES,
    RDMA,
    binding_notes,
    cache_of,
    devices_of,
    image_of,
    refuse_mpi,
    without_binding,
)
from planner.deploy.header import header
from planner.deploy.shell import Variable, command
from planner.deploy.target import Job, Output, Target, by_node, gpus_of, groups, port_of, reachable
from planner.documents.block_yaml import write

FILE = "kubernetes.yaml"
SECRET = "hf-token"  # noqa: S105 - the name of a Secret, not one
LEADER = "LWS_LEADER_ADDRESS"
INDEX = "LWS_WORKER_INDEX"
WORKER_SCRIPT = "worker.sh"
_RANK = "--node-rank"
_MEETING = "--dist-init-addr"
_PORTS = ("--port", "--master-port", "--data-parallel-rpc-port", "--nccl-port", "--shard-uds-path")
"""Ports and sockets, of which every pod has its own."""
_ALONE = (
    "a process alone on its node asks for all GPUs of the node: then CUDA_VISIBLE_DEVICES pins its ranks to the GPUs of the plan; "
    "asking for fewer lets the device plugin choose"
)
_SHARED = (
    "processes that share a node get GPUs from the device plugin, and the plan's cannot be pinned: it prefers GPUs that NVLink "
    "joins; planned were"
)
_RDMA = (
    "NCCL reaches the RDMA cards only where a pod has them: add the resource of your RDMA device plugin, or hostNetwork; "
    "without either it goes over TCP, many times slower than planned"
)
_ANY_NODE = (
    "a pod may land on any node with enough GPUs: where nodes are not alike, add a nodeSelector for those that the plan names"
)


def literal(text: str) -> str:
    """Text that Kubernetes does not expand.

    >>> literal("$(id)")
    '$$(id)'
    """
    return text.replace("$", "$$")


@dataclass(frozen=True, slots=True)
class _Start:
    """How one process starts in a pod: its words, environment, GPUs, and the port it serves on."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    gpus: int
    port: int | None


def _alone(job: Job, process: LaunchProcess) -> bool:
    return len(by_node(job)[process.node]) == 1


def _environment(job: Job, process: LaunchProcess) -> dict[str, str]:
    if _alone(job, process):
        return dict(process.environment)
    return {name: value for name, value in process.environment.items() if name not in {DEVICES, "CUDA_DEVICE_ORDER"}}


def _start(job: Job, process: LaunchProcess, like: LaunchProcess, leader: LaunchProcess) -> _Start:
    """``process`` with the ports of ``like`` (every pod has a network of its own) and its leader's address as a variable."""
    argv = without_binding(reachable(job, process, always=True))
    for option in _PORTS:
        if option in like.argv:
            argv = with_option(argv, option, like.argv[like.argv.index(option) + 1])
        else:
            argv = without_options(argv, frozenset({option}))
    if _MEETING in like.argv:
        port = like.argv[like.argv.index(_MEETING) + 1].rpartition(":")[2]
        argv = with_option(argv, _MEETING, f"{leader.node}:{port}")
    words = []
    for before, word in zip(["", *argv], with_nodes(argv, {leader.node: Variable(LEADER)}), strict=False):
        parts = (word,) if isinstance(word, str) else word
        text = "".join(f"$({part.name})" if isinstance(part, Variable) else literal(part) for part in parts)
        words.append(f"$({INDEX})" if before == _RANK and process is not leader else text)
    gpus = gpus_of(job, process.node) if _alone(job, process) else len(devices_of(process))
    return _Start(tuple(words), _environment(job, process), gpus, port_of(job, like))


def _container(job: Job, start: _Start, words: Sequence[str], mounts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    variables: list[dict[str, Any]] = [{"name": name, "value": literal(value)} for name, value in start.environment.items()]
    if not job.saved.local_model:
        reference = {"secretKeyRef": {"name": SECRET, "key": "token", "optional": True}}
        variables.append({"name": "HF_TOKEN", "valueFrom": reference})
    container: dict[str, Any] = {
        "name": "server",
        "image": image_of(job),
        "command": list(words[:1]),
        "args": list(words[1:]),
        "env": variables,
        "resources": {"limits": {"nvidia.com/gpu": str(start.gpus)}},
        "volumeMounts": list(mounts),
    }
    if job.launch.files:
        container["workingDir"] = FILES
    if RDMA in start.environment:
        container["securityContext"] = {"capabilities": {"add": ["IPC_LOCK"]}}
    if start.port is not None:
        probe = {"httpGet": {"path": HEALTH, "port": start.port}}
        container["ports"] = [{"name": "http", "containerPort": start.port}]
        container["startupProbe"] = {**probe, "periodSeconds": 10, "failureThreshold": LOADING_MINUTES * 6}
        container["readinessProbe"] = {**probe, "periodSeconds": 5}
        container["livenessProbe"] = {**probe, "periodSeconds": 10, "failureThreshold": 6}
    return container


def _volumes(job: Job, config: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes of a pod and where they are mounted: shared memory, the weights, and files from a ConfigMap."""
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    mounts: list[dict[str, Any]] = [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108 - where NCCL shares memory
    if job.saved.local_model:
        path = job.saved.model.name
        volumes.append({"name": "weights", "hostPath": {"path": path, "type": "Directory"}})
        mounts.append({"name": "weights", "mountPath": path, "readOnly": True})
    else:
        volumes.append({"name": "weights", "emptyDir": {}})
        mounts.append({"name": "weights", "mountPath": cache_of(job)})
    if config is not None:
        volumes.append({"name": "files", "configMap": {"name": config}})
        mounts.append({"name": "files", "mountPath": FILES})
    return volumes, mounts


def _pod(job: Job, start: _Start, words: Sequence[str], labels: Mapping[str, str], config: str | None) -> dict[str, Any]:
    volumes, mounts = _volumes(job, config)
    return {
        "metadata": {"labels": dict(labels)},
        "spec": {"containers": [_container(job, start, words, mounts)], "volumes": volumes},
    }


def _metadata(job: Job, name: str) -> dict[str, Any]:
    space = {"namespace": job.namespace} if job.namespace else {}
    return {"name": name, **space, "labels": {"app.kubernetes.io/name": job.name, "app.kubernetes.io/managed-by": "planner"}}


def _labels(job: Job, role: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": job.name, "planner-role": role}


def _config_map(job: Job, name: str, files: Mapping[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(job, name), "data": dict(files)}


def _deployment(job: Job, name: str, start: _Start, replicas: int, config: str | None) -> dict[str, Any]:
    labels = {**_labels(job, "server"), "planner-set": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(job, name),
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": _pod(job, start, start.words, labels, config),
        },
    }


def _leader_worker_set(
    job: Job, name: str, starts: tuple[_Start, ...], workers: Sequence[str], replicas: int, config: str | None
) -> dict[str, Any]:
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": _metadata(job, name),
        "spec": {
            "replicas": replicas,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": len(starts),
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _pod(job, starts[0], starts[0].words, _labels(job, "server"), config),
                "workerTemplate": _pod(job, starts[1], workers, _labels(job, "worker"), config),
            },
        },
    }


def _worker_script(job: Job, processes: Sequence[LaunchProcess]) -> str:
    """What starts workers that differ in more than their rank: each its own command, by its index in the group."""
    leader = processes[0]
    lines = ["#!/bin/sh", "set -eu", f'case "${INDEX}" in']
    for number, process in enumerate(processes[1:], 1):
        words = with_nodes(without_binding(reachable(job, process, always=True)), {leader.node: Variable(LEADER)})
        lines.append(f"{number}) exec env {command(words, _environment(job, process))} ;;")
    return "\n".join([*lines, "*) exit 2 ;;", "esac", ""])


def _service(job: Job, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job, job.name),
        "spec": {"selector": _labels(job, "server"), "ports": [{"name": "http", "port": port, "targetPort": "http"}]},
    }


def _sets(job: Job) -> list[tuple[tuple[_Start, ...], list[list[LaunchProcess]]]]:
    """Engines that start alike, with the processes of each."""
    every = groups(job)
    found: dict[str, tuple[tuple[_Start, ...], list[list[LaunchProcess]]]] = {}
    for processes in every:
        pairs = zip(processes, every[0], strict=False)
        starts = tuple(_start(job, one, like, processes[0]) for one, like in pairs)
        key = repr([(start.words, sorted(start.environment.items()), start.gpus) for start in starts])
        found.setdefault(key, (starts, []))[1].append(processes)
    return list(found.values())


def _write(job: Job) -> Output:
    refuse_mpi(job, "kubernetes")
    sets = _sets(job)
    documents: list[dict[str, Any]] = []
    port = sets[0][0][0].port
    assert port is not None  # the first process of an engine serves
    for number, (starts, members) in enumerate(sets):
        name = job.name if len(sets) == 1 else f"{job.name}-{number}"
        workers = starts[1:]
        uneven = len(set(map(repr, workers))) > 1
        files = dict(job.launch.files) | ({WORKER_SCRIPT: _worker_script(job, members[0])} if uneven else {})
        config = f"{name}-files" if files else None
        if config:
            documents.append(_config_map(job, config, files))
        if not workers:
            documents.append(_deployment(job, name, starts[0], len(members), config))
            continue
        words = ("/bin/sh", f"{FILES}/{WORKER_SCRIPT}") if uneven else starts[1].words
        documents.append(_leader_worker_set(job, name, starts, words, len(members), config))
    documents.append(_service(job, port))
    text = header(job, _notes(job)) + "---\n".join(map(write, documents))
    space = f" -n {job.namespace}" if job.namespace else ""
    run = [f"kubectl apply -f {FILE}"]
    if not job.saved.local_model:
        secret = f'kubectl create secret generic {SECRET}{space} --from-literal=token="${{HF_TOKEN:?}}"'
        run.insert(0, f"{secret}  # once, for weights that need a token")
    forward = f"kubectl port-forward{space} service/{job.name} {port}"
    return Output({FILE: text}, (*run, forward), address=f"http://127.0.0.1:{port}")


def _notes(job: Job) -> list[str]:
    shared = [one for one in job.launch.processes if not _alone(job, one)]
    notes = [_ALONE] if len(shared) < len(job.launch.processes) else []
    if shared:
        devices = (f"{one.node} {one.environment[DEVICES]}" for one in shared)
        notes.append(f"{_SHARED} {'; '.join(devices)}")
    if any(RDMA in process.environment for process in job.launch.processes):
        notes.append(_RDMA)
    return [*notes, *binding_notes(job), _ANY_NODE]


TARGET = Target("kubernetes", "a Deployment or LeaderWorkerSet, and a Service", _write)
