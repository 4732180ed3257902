"""Peer-to-peer copies over PCIe: what the driver refuses, and what sends them up to the root."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planner.core.finding import Finding
from planner.core.topology import Device, LinkKind
from planner.core.unknown import Unknown
from planner.graph.diagnosis.view import View, ids, instead, listed, per_second

_MEANING = {
    "CNS": "chipset not supported",
    "GNS": "GPU not supported",
    "TNS": "topology not supported",
    "NS": "not supported",
    "DR": "disabled by registry key",
}
_DISABLED_BY_KEY = "DR"
_BY_THE_MODEL = "GNS"
_UNKNOWN = "U"

Pairs = Sequence[tuple[Device, Device]]


def findings(view: View) -> Iterator[Finding]:
    """``p2p-disabled``, ``p2p-unknown``, ``acs-redirects``, ``iommu-translating``, ``container``."""
    yield from _disabled(view)
    yield from _unknown(view)
    yield from _redirected(view)
    yield from _translated(view)
    yield from _container(view)


def _members(pairs: Pairs) -> list[Device]:
    found = {gpu.id: gpu for pair in pairs for gpu in pair}
    return sorted(found.values(), key=lambda gpu: gpu.index or 0)


def _count(pairs: Pairs) -> str:
    if len(pairs) == 1:
        return f"GPU{pairs[0][0].index} and GPU{pairs[0][1].index}"
    return f"{len(pairs)} pairs of {listed(_members(pairs))}"


def _words(view: View, a: Device, b: Device) -> set[str]:
    """What the driver says of reading and writing between two GPUs, both ways."""
    place = {gpu.id: number for number, gpu in enumerate(view.gpus)}
    tables = [statuses for capability in ("read", "write") if (statuses := view.host.status(capability)) is not None]
    return {statuses[place[x.id]][place[y.id]] for statuses in tables for x, y in ((a, b), (b, a))}


def _barred(view: View, gpu: Device) -> bool:
    """Whether the driver offers no peer-to-peer over PCIe on this model."""
    spec = view.spec(gpu)
    return spec is not None and not spec.pcie_peer_to_peer


def _through_memory(view: View, pairs: Pairs) -> str:
    a, b = min(pairs, key=lambda pair: (view.paths.pcie_kind(pair[0].id, pair[1].id), pair[0].index, pair[1].index))
    carried = instead(view.rate(view.paths.staged(a.id, b.id)), view.rate(view.paths.pcie(a.id, b.id)))
    return "copies rest in host memory" + (f": GPU{a.index} to GPU{b.index} {carried}" if carried else "")


def _disabled(view: View) -> Iterator[Finding]:
    refused = [pair for pair in view.pairs if view.paths.refused(pair[0].id, pair[1].id)]
    if refused:
        yield _refused(view, refused)
    elif view.host.peer_status or not view.pairs or view.host.peer_to_peer == "enabled":
        return
    else:
        barred = [pair for pair in view.pairs if _barred(view, pair[0]) or _barred(view, pair[1])]
        stated = view.host.peer_to_peer == "disabled"
        if barred or stated:
            yield _by_design(view, barred or view.pairs, stated=not barred)


def _refused(view: View, pairs: Pairs) -> Finding:
    words = sorted({word for a, b in pairs for word in _words(view, a, b)} - {"OK", _UNKNOWN, "X"})
    said = ", ".join(f"{word} ({_MEANING.get(word, 'no')})" for word in words)
    by_key = _DISABLED_BY_KEY in words
    by_design = words == [_BY_THE_MODEL] or all(_barred(view, a) or _barred(view, b) for a, b in pairs)
    # NCCL copies directly below one host bridge only; farther away a refusal costs what is not used anyway
    matters = any(view.near(a, b) for a, b in pairs)
    if by_key:
        hint = "find the key with 'grep -rn NVreg /etc/modprobe.d', remove it and load the driver again"
    elif by_design:
        hint = "nothing to set: the driver offers none on this model; every plan here is priced that way"
    elif view.virtual:
        hint = "ask for an instance with peer-to-peer: the hypervisor has to let the GPUs reach each other"
    else:
        hint = "turn the IOMMU and ACS off in the BIOS, set 'Above 4G decoding' there, then ask 'nvidia-smi topo -p2p r' again"
    return Finding(
        "p2p-disabled",
        f"no peer-to-peer over PCIe between {_count(pairs)}",
        hint,
        severity="problem" if by_key or (matters and not by_design) else "notice",
        evidence=f"'nvidia-smi topo -p2p' says {said}",
        cost=_through_memory(view, pairs),
        devices=ids(_members(pairs)),
    )


def _by_design(view: View, pairs: Pairs, *, stated: bool) -> Finding:
    models = ", ".join(dict.fromkeys(gpu.hardware or "" for gpu in _members(pairs) if _barred(view, gpu)))
    return Finding(
        "p2p-disabled",
        f"no peer-to-peer over PCIe between {_count(pairs)}",
        "'nvidia-smi topo -p2p r' asks the driver"
        if stated
        else "nothing to set: the driver offers none on this model; every plan here is priced that way",
        severity="notice",
        evidence="the topology states it" if stated else f"the data sheet of {models} says so",
        cost=_through_memory(view, pairs),
        devices=ids(_members(pairs)),
    )


def _unknown(view: View) -> Iterator[Finding]:
    silent = [pair for pair in view.pairs if _UNKNOWN in _words(view, *pair) and not view.paths.refused(pair[0].id, pair[1].id)]
    if silent:
        yield Finding(
            "p2p-unknown",
            f"the driver does not say whether {_count(silent)} copy to each other directly",
            "ask again with 'nvidia-smi topo -p2p r' and pass its text too",
            severity="notice",
            evidence="'nvidia-smi topo -p2p' says U (unknown), or its row is missing",
            cost="counted as the distance on PCIe suggests",
            devices=ids(_members(silent)),
        )


def _open(view: View) -> list[tuple[Device, Device]]:
    """The pairs that may copy to each other over PCIe."""
    if view.host.peer_to_peer == "disabled":
        return []
    told = bool(view.host.peer_status)
    return [
        (a, b)
        for a, b in view.pairs
        if not view.paths.refused(a.id, b.id) and (told or not (_barred(view, a) or _barred(view, b)))
    ]


def _beside_cards(view: View) -> list[Device]:
    """The GPUs that meet a network card under a PCIe switch, and so copy to it without the root."""
    cards = view.topology.nics(view.host.name)
    return [gpu for gpu in view.gpus if any(view.near(gpu, card) for card in cards)]


def _redirected(view: View) -> Iterator[Finding]:
    if view.host.facts.acs != "redirects":
        return
    pairs = [pair for pair in _open(view) if view.near(*pair)]
    beside = _beside_cards(view)
    if not pairs and not beside:
        return
    yield Finding(
        "acs-redirects",
        f"PCIe ACS sends what {_count(pairs)} exchange up to the root"
        if pairs
        else f"PCIe ACS sends what {listed(beside)} and the network cards exchange up to the root",
        "have the hypervisor's host turn ACS off, or ATS on"
        if view.virtual
        else "turn ACS off in the BIOS, or after every start with 'setpci -v -s BUS_ID ECAP_ACS+0x6.w=0000' for each bridge "
        "that 'lspci -vvv' shows with 'ACSCtl: SrcValid+'",
        severity="problem" if pairs else "notice",
        evidence="a PCIe port above a GPU has ACS redirection on",
        cost=_by_the_root(view, pairs) if pairs else "GPUDirect RDMA crosses the root: slower, and shared with all else there",
        devices=ids(_members(pairs) if pairs else beside),
    )


def _by_the_root(view: View, pairs: Pairs) -> str:
    """What redirected copies get, where the graph tells the rate of the uplink that they share."""
    a, b = pairs[0]
    above = view.paths.ancestors(a.id)
    common = next(device for device in above if device in view.paths.ancestors(b.id))
    sharing = [gpu for gpu in view.gpus if common in view.paths.ancestors(gpu.id)]
    top = above[above.index(common) + 1]
    uplink, straight = view.rate(view.paths.up(common, top)), view.rate(view.paths.pcie(a.id, b.id))
    share = f"{listed(sharing)} share the uplink of {common}"
    if uplink is None or straight is None or uplink / len(sharing) >= straight:
        return f"{share} with all else there"
    return f"{share} ({per_second(uplink)}): {instead(uplink / len(sharing), straight)} when all copy at once"


def _translated(view: View) -> Iterator[Finding]:
    coherent = any(link.kind is LinkKind.C2C for link in view.tree)  # a Grace CPU is made to translate
    if view.host.facts.iommu != "translating" or coherent:
        return
    pairs, beside = _open(view), _beside_cards(view)
    if not pairs and not beside:
        return
    yield Finding(
        "iommu-translating",
        "the IOMMU translates every DMA",
        "leave it to the hypervisor's host" if view.virtual else "start the kernel with iommu=pt, or turn VT-d / AMD-Vi off",
        severity="problem" if pairs and not view.virtual else "notice",
        evidence="the kernel's IOMMU groups are of type DMA, not identity",
        cost=(
            # NVIDIA CUDA C++ Programming Guide, "IOMMU on Linux"
            f"CUDA supports no direct copies over PCIe on such a host: between {_count(pairs)} they may hang or lose data"
            if pairs
            else f"GPUDirect RDMA of {listed(beside)} goes up to the root"
        ),
        devices=ids(_members(pairs) if pairs else beside),
    )


def _container(view: View) -> Iterator[Finding]:
    name = view.host.facts.container
    if isinstance(name, Unknown) or name.lower() in {"none", ""}:
        return
    staged = [pair for pair in view.pairs if not view.paths.direct(pair[0].id, pair[1].id)]
    if staged:
        yield Finding(
            "container",
            f"copies between {_count(staged)} rest in the shared memory of this container",
            "start the container with --ipc=host or --shm-size=16g (Kubernetes: an emptyDir of medium Memory at /dev/shm)",
            severity="notice",
            evidence=f"it runs in {name}; {listed(_members(staged))} have no direct way to each other",
            cost="engines fail at start where /dev/shm is too small; Docker's default is 64 MiB",
            devices=ids(_members(staged)),
        )
