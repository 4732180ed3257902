"""The GPUs themselves: lost, divided, of several models, with memory that is taken or missing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields

from planner.core.finding import Finding
from planner.core.hardware import GpuSpec
from planner.core.topology import Device, Topology
from planner.core.unknown import Unknown
from planner.graph.diagnosis.view import View, gibibytes, ids, listed

_LOST = re.compile(r"\bis lost\b|requires reset|fallen off the bus", re.IGNORECASE)
_GIB = 2.0**30
IN_USE_SHARE, IN_USE_LEAST = 0.02, 0.5 * _GIB
"""Memory in use beyond 1 GiB counts, and beyond this share of a GPU; a driver keeps less than the least for itself."""
_PROCESSES = "nvidia-smi --query-compute-apps=gpu_uuid,pid,name,used_memory --format=csv"
MISSING_SHARE = 0.05
"""What ECC takes of GDDR memory (6.25 %) is more than this, what differs from driver to driver is less."""


def lost(view: View) -> Iterator[Finding]:
    """``gpu-lost``: the driver says so of any fact."""
    gone: list[Device] = []
    words: list[str] = []
    for gpu in view.gpus:
        said = [getattr(gpu.facts, one.name) for one in fields(gpu.facts)]
        reasons = [value.reason for value in said if isinstance(value, Unknown) and _LOST.search(value.reason)]
        if reasons:
            gone.append(gpu)
            words.append(reasons[0])
    if gone:
        yield Finding(
            "gpu-lost",
            f"the driver does not reach {listed(gone)}",
            (
                "look for 'Xid' in 'dmesg'; the GPU comes back with 'nvidia-smi -r'"
                if view.nvidia
                else "see 'dmesg'; it comes back with a reset"
            )
            + " or a reboot, or has to be replaced",
            evidence="; ".join(dict.fromkeys(words)),
            cost=f"{len(view.gpus) - len(gone)} of {len(view.gpus)} GPUs are left to plan with; plans here still count all",
            devices=ids(gone),
        )


def findings(view: View) -> Iterator[Finding]:
    """``mig-enabled``, ``memory-in-use``, ``memory-smaller``."""
    yield from _divided(view)
    yield from _in_use(view)
    yield from _smaller(view)


def _divided(view: View) -> Iterator[Finding]:
    divided = [gpu for gpu in view.gpus if gpu.facts.multi_instance == "enabled"]
    if divided:
        numbers = ",".join(str(gpu.index) for gpu in divided)
        yield Finding(
            "mig-enabled",
            f"MIG is on for {listed(divided)}",
            f"'nvidia-smi -i {numbers} -mig 0' as root gives whole GPUs back; plans here are for whole GPUs",
            evidence="the driver says that MIG mode is enabled",
            cost="an engine sees one slice of such a GPU; slices have neither NVLink nor peer-to-peer",
            devices=ids(divided),
        )


def _total(view: View, gpu: Device) -> float | None:
    spec = view.spec(gpu)
    return gpu.memory if gpu.memory is not None else spec.memory if spec else None


def _in_use(view: View) -> Iterator[Finding]:
    busy: list[Device] = []
    amounts: list[float] = []
    for gpu in view.gpus:
        used, total = gpu.facts.memory_used, _total(view, gpu)
        if isinstance(used, Unknown):
            continue
        if used > _GIB or (total is not None and used > max(IN_USE_SHARE * total, IN_USE_LEAST)):
            busy.append(gpu)
            amounts.append(used)
    if busy:
        each = [f"GPU{gpu.index} {gibibytes(used)}" for gpu, used in zip(busy, amounts, strict=True)]
        yield Finding(
            "memory-in-use",
            f"memory of {listed(busy)} is in use",
            f"'{_PROCESSES if view.nvidia else 'rocm-smi --showpids'}' shows by whom: stop it, or lower the engine's memory "
            "fraction (vllm: --gpu-memory-utilization)",
            evidence=", ".join(each[:8]) + (f" and {len(each) - 8} more" if len(each) > 8 else ""),
            cost=f"up to {gibibytes(max(amounts))} a GPU less for weights and KV cache; plans here count on all of it",
            devices=ids(busy),
        )


def _smaller(view: View) -> Iterator[Finding]:
    alike: dict[tuple[float, str], list[Device]] = {}
    for gpu in view.gpus:
        spec = view.spec(gpu)
        if spec is not None and gpu.memory is not None and gpu.memory < (1 - MISSING_SHARE) * spec.memory:
            alike.setdefault((gpu.memory, spec.name), []).append(gpu)
    for (memory, name), gpus in alike.items():
        sheet = view.specs[name].memory
        yield Finding(
            "memory-smaller",
            f"{listed(gpus)} with {gibibytes(memory)} of the {gibibytes(sheet)} on the data sheet",
            (
                "'nvidia-smi -q -d ECC' tells whether ECC takes it ('nvidia-smi -e 0' and a reboot turn it off); "
                if view.nvidia
                else ""
            )
            + "otherwise it is a virtual GPU's share, or another model",
            severity="notice",
            evidence=f"the driver counts {gibibytes(memory)}, the data sheet of {name} {gibibytes(sheet)}",
            cost=f"{gibibytes(sheet - memory)} a GPU less for weights and KV cache; plans here count with what there is",
            devices=ids(gpus),
        )


def mixed(topology: Topology, specs: Mapping[str, GpuSpec]) -> Iterator[Finding]:
    """``mixed-gpus``: several models in one topology."""
    names = topology.hardware
    if len(names) < 2:
        return
    counts = ", ".join(f"{sum(gpu.hardware == name for gpu in topology.gpus)}× {name}" for name in names)
    known = [specs[name] for name in names if name in specs]
    smallest = min(known, key=lambda spec: spec.memory) if len(known) == len(names) else None
    yield Finding(
        "mixed-gpus",
        f"GPUs of {len(names)} models: {counts}",
        "keep a replica on GPUs of one model: set CUDA_VISIBLE_DEVICES to those, and plan for each model by itself",
        severity="notice",
        evidence="their names differ",
        cost="every rank is sized and timed as the weakest GPU of its plan"
        + (f": {gibibytes(smallest.memory)} as {smallest.name}" if smallest else ""),
        devices=tuple(gpu.id for gpu in topology.gpus),
    )
