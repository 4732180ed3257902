"""NVLinks that should be there and are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from planner.core.finding import Finding
from planner.core.hardware import GpuSpec
from planner.core.topology import Device, LinkKind
from planner.core.unknown import Unknown
from planner.graph.diagnosis.view import View, ids, instead, listed

_BRING_BACK = "run 'nvidia-smi nvlink -s' and 'dmesg | grep -i xid'; a GPU reset or a reseat usually brings the link back"
_NOTHING_TELLS = frozenset({"pcie-unknown", "nvlink-peers-unknown"})
"""The reader's codes where no capture shows which GPUs NVLinks join."""


def findings(view: View) -> Iterator[Finding]:
    """``nvlink-down``, ``nvlink-partial``, ``nvlink-missing``."""
    down = [*_ports_down(view), *_mesh_down(view)]
    down += _pairs_down(view, {device for finding in down for device in finding.devices})
    yield from down
    told = {device for finding in down for device in finding.devices}
    yield from _inactive(view, told)
    yield from _partial(view, told)
    yield from _missing(view)


def _listed_links(gpu: Device) -> int:
    return 0 if isinstance(gpu.facts.nvlinks, Unknown) else len(gpu.facts.nvlinks)


def _silent_links(gpu: Device) -> tuple[int, ...]:
    """The numbers of the links that say that they are down."""
    if isinstance(gpu.facts.nvlinks, Unknown):
        return ()
    return tuple(one.link for one in gpu.facts.nvlinks if one.active is False)


def _any_active(gpu: Device) -> bool:
    return not isinstance(gpu.facts.nvlinks, Unknown) and any(one.active is True for one in gpu.facts.nvlinks)


def _numbers(gpus: Sequence[Device]) -> str:
    """``GPU3 link 5, GPU4 links 0 and 1``, as far as the links themselves say it."""
    words = []
    for gpu in gpus:
        silent = _silent_links(gpu)
        if silent:
            words.append(f"GPU{gpu.index} link{'s' * (len(silent) > 1)} {' and '.join(map(str, silent))}")
    return ", ".join(words)


def _links(spec: GpuSpec | None) -> int:
    return 0 if spec is None or spec.peer_links is None else spec.peer_links.links


def _achieved(view: View, gpu: Device, links: int) -> float | None:
    spec = view.spec(gpu)
    return None if spec is None else links * view.rates.nvlink_link(spec.compute_capability)


def _ports_down(view: View) -> Iterator[Finding]:
    """GPUs with fewer links up to their NVSwitch than they have, or than their neighbours."""
    ups = {gpu.id: view.ports[gpu.id].count for gpu in view.gpus if gpu.id in view.ports}
    most = max((count for count in ups.values() if count is not None), default=0)
    down: dict[tuple[int, int], list[Device]] = {}
    fewer: dict[tuple[int, int], list[Device]] = {}
    for gpu in view.gpus:
        count = ups.get(gpu.id)
        if count is None:
            continue
        sheet = _links(view.spec(gpu))
        there = max(view.ports[gpu.id].possible_count or 0, _listed_links(gpu))
        # variants with fewer links (H800, A800) may list those they are not allowed to use
        expected = max(most, min(there, sheet) if sheet else there)
        if count < expected:
            down.setdefault((count, expected), []).append(gpu)
        elif count < sheet:
            fewer.setdefault((count, sheet), []).append(gpu)
    for (count, expected), gpus in down.items():
        yield _down(view, gpus, count, expected)
    for (count, expected), gpus in fewer.items():
        yield Finding(
            "nvlink-partial",
            f"{count} NVLinks up on {listed(gpus)}, the data sheet says {expected}",
            "is it a variant with fewer links? name it with --gpu; otherwise see 'nvidia-smi nvlink -s'",
            severity="notice",
            evidence=f"NV{count} between all of them, {expected} on the data sheet",
            cost=f"{instead(_achieved(view, gpus[0], count), _achieved(view, gpus[0], expected))} a GPU",
            devices=ids(gpus),
        )


def _down(view: View, gpus: Sequence[Device], count: int, expected: int) -> Finding:
    carried = instead(_achieved(view, gpus[0], count), _achieved(view, gpus[0], expected))
    share = f"every collective with it runs at {count}/{expected} of the bandwidth"
    numbers = _numbers(gpus)
    return Finding(
        "nvlink-down",
        f"{expected - count} of {expected} NVLinks down on {listed(gpus)}",
        _BRING_BACK,
        evidence=f"{count} up; {expected} on the GPU or its neighbours" + (f"; inactive: {numbers}" if numbers else ""),
        cost=f"{share}: {carried}" if carried else share,
        devices=ids(gpus),
    )


def _mesh_down(view: View) -> Iterator[Finding]:
    """Boards that join every GPU to every other without a switch: all links of a GPU are in use, or one is down."""
    sums = _direct_sums(view)
    gpus = [gpu for gpu in view.gpus if gpu.id in sums]
    pairs = {frozenset((link.a, link.b)) for link in view.direct}
    whole = len(gpus) > 2 and len(pairs) == len(gpus) * (len(gpus) - 1) // 2
    if not whole or any(spec is None or spec.fabric != "nvswitch" for spec in map(view.spec, gpus)):
        return
    links = _links(view.spec(gpus[0]))
    if max(sums.values()) != links:
        return
    down: dict[int, list[Device]] = {}
    for gpu in gpus:
        if sums[gpu.id] < links:
            down.setdefault(sums[gpu.id], []).append(gpu)
    for count, some in down.items():
        yield _down(view, some, count, links)


def _pairs_down(view: View, told: set[str]) -> Iterator[Finding]:
    """Bridged pairs with fewer links than other pairs of the same GPUs on the host."""
    counts: dict[str, Counter[str]] = {}
    for link in view.direct:
        for end, far in ((link.a, link.b), (link.b, link.a)):
            counts.setdefault(end, Counter())[far] += link.count or 0
    pairs = {end: sum(peers.values()) for end, peers in counts.items() if len(peers) == 1 and all(peers.values())}
    ports = {end: link.count for end, link in view.ports.items() if link.count is not None}
    for name in dict.fromkeys(gpu.hardware for gpu in view.gpus):
        mine = [gpu for gpu in view.gpus if gpu.hardware == name]
        ups = {gpu.id: pairs.get(gpu.id, ports.get(gpu.id)) for gpu in mine if gpu.id in pairs or gpu.id in ports}
        most = max((count for count in ups.values() if count is not None), default=0)
        lame: dict[int, list[Device]] = {}
        for gpu in mine:
            count = ups.get(gpu.id)
            if gpu.id in pairs and count is not None and count < most and gpu.id not in told:
                lame.setdefault(count, []).append(gpu)
        for count, gpus in lame.items():
            rates = _achieved(view, gpus[0], count), _achieved(view, gpus[0], most)
            yield Finding(
                "nvlink-down",
                f"NV{count} between {listed(gpus)} where other pairs have NV{most}",
                f"{_BRING_BACK}; or a bridge is missing",
                evidence=f"NV{count} beside NV{most} on the same host",
                cost=f"{instead(*rates) or f'{count}/{most} of the bandwidth'} within the pair",
                devices=ids(gpus),
            )


def _inactive(view: View, told: set[str]) -> Iterator[Finding]:
    """Direct links that say that they are down, where another GPU of the model has all of its own up."""
    for name in dict.fromkeys(gpu.hardware for gpu in view.gpus):
        gpus = [gpu for gpu in view.gpus if gpu.hardware == name and gpu.id not in view.ports]
        spec = view.specs.get(name or "")
        whole = any(_any_active(gpu) and not _silent_links(gpu) for gpu in gpus)
        if spec is None or spec.fabric == "pcie" or not whole:
            continue
        lame = [gpu for gpu in gpus if _any_active(gpu) and _silent_links(gpu) and gpu.id not in told]
        if lame:
            yield Finding(
                "nvlink-down",
                f"NVLinks inactive on {listed(lame)}",
                _BRING_BACK + "; where a neighbour is not visible here, its links are no fault",
                severity="problem" if spec.fabric == "nvswitch" else "notice",
                evidence=f"{_numbers(lame)}; others of the model have all links up",
                cost="the pairs at these links talk over fewer of them, or over PCIe",
                devices=ids(lame),
            )


def _direct_sums(view: View) -> Counter[str]:
    """For every GPU with direct NVLinks how many are up; empty where a count is not known."""
    sums: Counter[str] = Counter()
    for link in view.direct:
        if link.count is None or link.kind is not LinkKind.NVLINK:
            return Counter()
        sums[link.a] += link.count
        sums[link.b] += link.count
    return sums


def _partial(view: View, told: set[str]) -> Iterator[Finding]:
    """Cards that take NVLink bridges, with fewer than they have connectors for."""
    alike: dict[tuple[int, int], list[Device]] = {}
    sums = _direct_sums(view)
    for gpu in view.gpus:
        spec = view.spec(gpu)
        if gpu.id not in told and spec is not None and spec.fabric == "pcie" and 0 < sums[gpu.id] < _links(spec):
            alike.setdefault((sums[gpu.id], _links(spec)), []).append(gpu)
    for (count, possible), gpus in alike.items():
        carried = instead(_achieved(view, gpus[0], count), _achieved(view, gpus[0], possible))
        yield Finding(
            "nvlink-partial",
            f"{count} of {possible} NVLinks bridged on {listed(gpus)}",
            "fit a bridge on every connector of the pair; where all are fitted a link is down: see 'nvidia-smi nvlink -s'",
            evidence=f"NV{count} where the card has {possible} links",
            cost=f"{carried} between the bridged GPUs",
            devices=ids(gpus),
        )


def _missing(view: View) -> Iterator[Finding]:
    """Parts that are never sold without NVLink."""
    linked = {end for link in view.peer_links for end in (link.a, link.b)}
    bare: dict[str, list[Device]] = {}
    for gpu in view.gpus:
        spec = view.spec(gpu)
        # where links are up the graph lacks their ends only, which the reader says
        bridged = gpu.id in linked or _any_active(gpu)
        if not bridged and spec is not None and spec.fabric in {"nvswitch", "nvlink-hybrid"}:
            bare.setdefault(spec.name, []).append(gpu)
    for name, gpus in bare.items():
        if _explained(view, gpus):
            continue
        spec = view.specs[name]
        a, b = gpus[0].id, next(gpu.id for gpu in view.gpus if gpu is not gpus[0])
        states = sorted({f"fabric {gpu.facts.fabric}" for gpu in gpus if not isinstance(gpu.facts.fabric, Unknown)})
        manager = view.host.facts.fabric_manager
        states += [] if isinstance(manager, Unknown) else [f"fabric manager {manager}"]
        carried = instead(view.rate(view.paths.between(a, b).links), _achieved(view, gpus[0], _links(spec)))
        yield Finding(
            "nvlink-missing",
            f"no NVLink on {listed(gpus)}: {name} has {_links(spec)}",
            "take an instance with the whole NVLink partition, or have the host pass it through"
            if view.virtual
            else "run 'nvidia-smi nvlink -s' and 'systemctl status nvidia-fabricmanager' (its version must be the driver's); "
            "if this is the text of 'topo -mp', pass that of 'topo -m'",
            evidence="; ".join(["every way from it is PCIe", *states, *(["all links inactive"] if _numbers(gpus) else [])]),
            cost=f"{carried} between two GPUs" if carried else "",
            devices=ids(gpus),
        )


def _explained(view: View, gpus: Sequence[Device]) -> bool:
    """Whether no NVLink on these GPUs is no wonder, or nothing that we know of."""
    if len(view.gpus) < 2 or view.topology.origin.kind == "short-spec":
        return True
    if any(gpu.facts.multi_instance == "enabled" for gpu in gpus):
        return True  # MIG turns NVLink off, and has a finding of its own
    # two GPUs of a hybrid cube mesh need not be neighbours, three always have neighbours among them
    hybrid = all((spec := view.spec(gpu)) is not None and spec.fabric == "nvlink-hybrid" for gpu in gpus)
    if hybrid and len(gpus) < 3:
        return True
    silent = all(isinstance(gpu.facts.nvlinks, Unknown) for gpu in gpus)
    return silent and any(one.code in _NOTHING_TELLS for one in view.topology.findings)
