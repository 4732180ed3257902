"""The host around the GPUs: its driver, where its network cards sit, what it could not or may not tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from planner.core.facts import GpuFacts, HostFacts
from planner.core.finding import Finding
from planner.core.topology import Device
from planner.core.unknown import NOT_STATED, Unknown
from planner.graph.diagnosis.drivers import unmet
from planner.graph.diagnosis.view import View, ids, listed
from planner.graph.paths import PathKind

_GPU_FACTS = {
    "memory_used": "memory in use",
    "pcie_generation": "PCIe generation",
    "pcie_width": "PCIe width",
    "multi_instance": "MIG",
}
_NO_WONDER = re.compile(
    r"not.?supported|N/A|not applicable|not found|deprecated|does not show|in the paste|nothing|all zeros|is lost|requires reset|ERR!|no such",
    re.IGNORECASE,
)
"""Reasons that are an answer: the hardware has no such thing, or another finding says it."""


def findings(view: View) -> Iterator[Finding]:
    """``driver-too-old``, ``nic-far``, ``virtual-machine``, ``facts-unknown``."""
    yield from _driver(view)
    yield from _cards(view)
    yield from _virtual(view)
    yield from _unread(view)


def _driver(view: View) -> Iterator[Finding]:
    driver = view.host.facts.driver
    capabilities = [spec.compute_capability for gpu in view.gpus if (spec := view.spec(gpu)) and spec.compute_capability]
    if isinstance(driver, Unknown):
        return
    missing = unmet(driver, capabilities, switched=bool(view.ports))
    if missing:
        newest = max(one.branch for one in missing if one.severity == missing[0].severity)
        yield Finding(
            "driver-too-old",
            f"driver {driver} is too old for {', '.join(one.feature for one in missing)}",
            f"install driver {newest} or later",
            severity=missing[0].severity,
            evidence="; ".join(f"{one.feature} needs {one.branch}" for one in missing),
            cost="; ".join(one.cost for one in missing),
            devices=ids(view.gpus),
        )


def _cards(view: View) -> Iterator[Finding]:
    """GPUs that reach every network card through the other socket, while others have one near."""
    cards = view.topology.nics(view.host.name)
    alone = len(view.topology.hosts) == 1 and len(cards) < 2  # one card of a lone host is no cluster's
    if alone or not cards:
        return
    nearest = {gpu.id: min(view.paths.pcie_kind(gpu.id, card.id) for card in cards) for gpu in view.gpus}
    far = [gpu for gpu in view.gpus if nearest[gpu.id] is PathKind.SYS]
    if far and len(far) < len(view.gpus):
        near = [gpu for gpu in view.gpus if gpu not in far]
        yield Finding(
            "nic-far",
            f"no network card on the socket of {listed(far)}",
            "put a card into that socket's slots, or run what talks to other hosts on "
            f"CUDA_VISIBLE_DEVICES={','.join(str(gpu.index) for gpu in near)}",
            severity="notice",
            evidence=f"the nearest card is SYS from {listed(far)}, {max(nearest[gpu.id] for gpu in near).name} or nearer "
            f"from {listed(near)}",
            cost="their traffic to other hosts crosses the socket interconnect",
            devices=ids(far),
        )


def _virtual(view: View) -> Iterator[Finding]:
    if view.virtual and view.pairs:
        yield Finding(
            "virtual-machine",
            f"a virtual machine ({view.host.facts.virtual_machine}): distances over PCIe are what the hypervisor shows",
            "measure two GPUs with CUDA's p2pBandwidthLatencyTest before trusting one pair over another",
            severity="notice",
            evidence=f"the processor says that it is a guest; {listed(view.gpus)} are not all joined by NVLink",
            cost="placement over PCIe may be no better than chance",
            devices=ids(view.gpus),
        )


def _unread(view: View) -> Iterator[Finding]:
    """All that was asked and not answered, in one notice."""
    reasons: dict[str, dict[str, list[Device]]] = {}
    for gpu in view.gpus:
        for name, words in (_GPU_FACTS | _of_links(view, gpu)).items():
            if (reason := _reason(gpu.facts, name)) is not None:
                reasons.setdefault(reason, {}).setdefault(words, []).append(gpu)
    for name, words in _of_host(view).items():
        if (reason := _reason(view.host.facts, name)) is not None:
            reasons.setdefault(reason, {}).setdefault(words, [])
    if not reasons:
        return
    concerned = {gpu.id: gpu for facts in reasons.values() for gpus in facts.values() for gpu in gpus}
    names = dict.fromkeys(words for facts in reasons.values() for words in facts)
    yield Finding(
        "facts-unknown",
        f"could not be read: {', '.join(names)}",
        "probe again as root, outside a container" + (", or pass the text of 'nvidia-smi -q' too" if view.nvidia else ""),
        severity="notice",
        evidence="; ".join(f"{_whose(facts)}: {reason}" for reason, facts in reasons.items()),
        cost="what it would show is not checked here",
        devices=tuple(concerned) or ids(view.gpus),
    )


def _of_links(view: View, gpu: Device) -> dict[str, str]:
    """The facts about NVLink that can matter to a GPU."""
    spec = view.spec(gpu)
    if spec is None or spec.peer_links is None or len(view.gpus) < 2:
        return {}
    return {"nvlinks": "NVLinks"} | ({"fabric": "NVSwitch fabric"} if spec.fabric == "nvswitch" else {})


def _of_host(view: View) -> dict[str, str]:
    """The facts that can matter to a host: the way of direct copies only where there are any over PCIe."""
    copies = view.pairs or view.topology.nics(view.host.name)
    return {"driver": "driver"} | ({"iommu": "IOMMU", "acs": "ACS"} if copies else {})


def _whose(facts: dict[str, list[Device]]) -> str:
    parts = []
    for gpus, group in groupby(facts.items(), key=lambda item: item[1]):
        words = ", ".join(name for name, _ in group)
        parts.append(f"{words} of {listed(gpus)}" if gpus else words)
    return ", ".join(parts)


def _reason(facts: GpuFacts | HostFacts, name: str) -> str | None:
    value = getattr(facts, name)
    if not isinstance(value, Unknown) or value == NOT_STATED or _NO_WONDER.search(value.reason):
        return None
    return value.reason
