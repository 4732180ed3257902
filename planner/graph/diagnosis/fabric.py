"""The NVSwitch fabric: GPUs that have not joined it yet, and the service that makes them."""

from __future__ import annotations

from collections.abc import Iterator

from planner.core.finding import Finding
from planner.core.topology import Device
from planner.core.unknown import Unknown
from planner.graph.diagnosis.view import View, ids, listed

_RUNS = frozenset({"active", "running", "not-needed", "not-found", "none"})
"""Words for a fabric manager that runs, or that is not installed here and may run elsewhere."""
_JOINED = frozenset({"completed", "not-supported"})
_HOW = "'systemctl status nvidia-fabricmanager' (its version must be the driver's), then 'systemctl restart nvidia-fabricmanager'"


def findings(view: View) -> Iterator[Finding]:
    """``fabric-not-ready``, and ``fabric-manager`` where no GPU tells but its service does not run."""
    direct = {end for link in view.direct for end in (link.a, link.b)}  # a board without a switch
    gpus = [gpu for gpu in view.gpus if (spec := view.spec(gpu)) and spec.fabric == "nvswitch" and gpu.id not in direct]
    if len(view.gpus) < 2 or not gpus:
        return
    waiting: dict[str, list[Device]] = {}
    for gpu in gpus:
        state = gpu.facts.fabric
        if not isinstance(state, Unknown) and state not in _JOINED:
            waiting.setdefault(state, []).append(gpu)
    manager = view.host.facts.fabric_manager
    for state, some in waiting.items():
        service = "" if isinstance(manager, Unknown) else f"; fabric manager {manager}"
        yield Finding(
            "fabric-not-ready",
            f"{listed(some)}: NVSwitch fabric {state}",
            "the fabric manager runs on the host of this virtual machine: ask its operator"
            if view.virtual
            else "wait a minute and probe again; then " + _HOW
            if state == "in-progress"
            else _HOW,
            evidence=f"the GPU's fabric state is '{state}'{service}",
            cost="CUDA does not start on it (error 802, system not yet initialized), or starts without NVLink",
            devices=ids(some),
        )
    if waiting or isinstance(manager, Unknown) or manager.lower() in _RUNS or view.virtual:
        return
    joined = any(gpu.facts.fabric == "completed" for gpu in gpus)
    if view.ports and not joined:
        yield Finding(
            "fabric-manager",
            f"the fabric manager is {manager}",
            _HOW,
            evidence=f"nvidia-fabricmanager is {manager}; {listed(gpus)} hang from an NVSwitch",
            cost="CUDA does not start on GPUs behind an NVSwitch (error 802, system not yet initialized)",
            devices=ids(gpus),
        )
