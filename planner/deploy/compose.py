"""Docker compose: a service for every process, its GPUs named one by one; a file for every node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner.core.engine import LaunchProcess
from planner.deploy.containers import (
    DEVICES,
    FILES,
    HEALTH,
    LOADING_MINUTES,
    RDMA,
    ROUTER_IMAGE,
    binding_notes,
    cache_of,
    devices_of,
    image_of,
    positions,
    refuse_mpi,
    without_binding,
)
from planner.deploy.header import header
from planner.deploy.router import FILE as ROUTER_FILE
from planner.deploy.router import Routed, router
from planner.deploy.shell import HOW_TO_SIGN_IN
from planner.deploy.target import Job, Output, Target, by_node, file_stem, label, port_of, reachable, servers
from planner.documents.block_yaml import write

_NOTE = (
    "GPUs are pinned by device_ids; inside, they count from 0 by PCI bus id, and CUDA_VISIBLE_DEVICES puts them in the order "
    "of ranks"
)


def literal(text: str) -> str:
    """Text that compose does not expand.

    >>> literal("$(id) ${HOME}")
    '$$(id) $${HOME}'
    """
    return text.replace("$", "$$")


def _service(job: Job, process: LaunchProcess) -> dict[str, Any]:
    devices, port = devices_of(process), port_of(job, process)
    environment = {name: literal(value) for name, value in process.environment.items()} | {DEVICES: positions(devices)}
    mounts: list[dict[str, Any]] = []
    if job.saved.local_model:
        model = literal(job.saved.model.name)
        mounts.append({"type": "bind", "source": model, "target": model, "read_only": True})
    else:
        environment["HF_TOKEN"] = f"${{HF_TOKEN:?{HOW_TO_SIGN_IN.partition(',')[0]}}}"
        mounts.append({"type": "bind", "source": "${HF_HOME:-${HOME}/.cache/huggingface}", "target": cache_of(job)})
    mounts += [
        {"type": "bind", "source": f"./{name}", "target": f"{FILES}/{name}", "read_only": True} for name in job.launch.files
    ]
    service: dict[str, Any] = {
        "image": image_of(job),
        "entrypoint": [literal(word) for word in without_binding(reachable(job, process))],
        "environment": environment,
        "network_mode": "host",
        "ipc": "host",
        "ulimits": {"memlock": -1, "stack": 67108864},
        "restart": "unless-stopped",
        "volumes": mounts,
        "deploy": {
            "resources": {
                "reservations": {
                    "devices": [
                        {"driver": "nvidia", "device_ids": [str(one) for one in sorted(devices)], "capabilities": ["gpu"]}
                    ]
                }
            }
        },
    }
    if RDMA in process.environment:
        service |= {"devices": ["/dev/infiniband:/dev/infiniband"], "cap_add": ["IPC_LOCK"]}
    if job.launch.files:
        service["working_dir"] = FILES
    if port is not None:
        probe = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}{HEALTH}')"
        service["healthcheck"] = {
            "test": ["CMD", "python3", "-c", probe],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{LOADING_MINUTES}m",
        }
    return service


def _router_service() -> dict[str, Any]:
    return {
        "image": ROUTER_IMAGE,
        "network_mode": "host",
        "restart": "unless-stopped",
        "volumes": [{"type": "bind", "source": f"./{ROUTER_FILE}", "target": "/etc/nginx/nginx.conf", "read_only": True}],
        "tmpfs": ["/etc/nginx/nginx-temp"],
    }


def _document(job: Job, processes: Sequence[LaunchProcess], routed: Routed) -> str:
    services = {f"replica-{label(job, process)}": _service(job, process) for process in processes}
    if routed.files:
        services["router"] = _router_service()
    return header(job, (_NOTE, *binding_notes(job))) + write({"name": job.name, "services": services})


def _write(job: Job) -> Output:
    refuse_mpi(job, "compose")
    places = by_node(job)
    routed = router(job)
    files: dict[str, str] = {}
    run = []
    for number, (node, processes) in enumerate(places.items()):
        name = f"compose-{file_stem(node)}.yaml" if len(places) > 1 else "compose.yaml"
        files[name] = _document(job, processes, routed if number == 0 else Routed())
        run.append(f"docker compose -f {name} up -d" if len(places) == 1 else f"on {node}: docker compose -f {name} up -d")
    port = servers(job)[0][1]
    return Output({**files, **job.launch.files, **routed.files}, tuple(run), address=routed.address or f"http://127.0.0.1:{port}")


TARGET = Target("compose", "docker compose, a service for every process, a file for every node", _write)
