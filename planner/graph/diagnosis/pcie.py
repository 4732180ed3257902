"""PCIe links that are narrower or older than they could be.

An idle GPU lowers its link's generation to save power; the graph holds the generation under load
(:func:`planner.graph.assemble.loaded_generation`), so saving power is never a finding. The width is never lowered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from planner.core.finding import Finding, Severity
from planner.core.topology import Device, DeviceKind, Link, LinkKind
from planner.core.unknown import Unknown
from planner.graph.diagnosis.view import View, ids, instead, listed

Limit = Literal["link", "board"]
"""What holds a link's generation down: the link, trained below what both ends do, or the board, which does no more."""

_LSPCI = "'lspci -vv', 'LnkSta' against 'LnkCap'"


def findings(view: View) -> Iterator[Finding]:
    """``pcie-width``, ``pcie-generation``, and ``pcie-uneven`` for what neither explains."""
    explained: set[str] = set()
    for finding in (*_widths(view), *_uplinks(view), *_generations(view)):
        explained.update(finding.devices)
        yield finding
    yield from _uneven(view, explained)


def _leaf(view: View, gpu: Device) -> Link | None:
    link = view.above(gpu.id)
    return link if link is not None and link.kind is LinkKind.PCIE else None


def _generation(view: View, gpu: Device, link: Link) -> int | None:
    spec = view.spec(gpu)
    return link.generation or (spec.pcie_generation if spec else None)


def _severity(view: View) -> Severity:
    return "notice" if view.virtual else "problem"  # what a hypervisor shows of a slot is its own invention


def _widths(view: View) -> Iterator[Finding]:
    alike: dict[tuple[int, int, int | None, bool, bool], list[Device]] = {}
    for gpu in view.gpus:
        link = _leaf(view, gpu)
        if link is None or link.count is None:
            continue
        spec = view.spec(gpu)
        by_sheet = link.possible_count is None or (spec is not None and view.seen and link.possible_count < spec.pcie_lanes)
        possible = spec.pcie_lanes if by_sheet and spec is not None and view.seen else link.possible_count
        if possible is not None and link.count < possible:
            board = link.possible_count == link.count  # the slot has no more, whatever the card could do
            alike.setdefault((link.count, possible, _generation(view, gpu, link), by_sheet, board), []).append(gpu)
    for (count, possible, generation, by_sheet, board), gpus in alike.items():
        numbers = ",".join(str(gpu.index) for gpu in gpus)
        query = f"'nvidia-smi -i {numbers} --query-gpu=pcie.link.width.current --format=csv'"
        carried = instead(view.lanes(count, generation), view.lanes(possible, generation))
        yield Finding(
            "pcie-width",
            f"PCIe x{count} instead of x{possible} on {listed(gpus)}",
            "reseat the card or its riser, or move it to a slot with all lanes (the board's manual and its bifurcation "
            f"setting say which); check with {query if view.nvidia else _LSPCI}",
            severity="notice" if by_sheet and board else _severity(view),
            evidence=f"the link is x{count}; {'the card' if by_sheet else 'card and slot'} could do x{possible}",
            cost=f"x{count} carries {carried} each way" if carried else f"{count}/{possible} of the bandwidth",
            devices=ids(gpus),
        )


def _uplinks(view: View) -> Iterator[Finding]:
    """Links above switches, of which nobody but the capture knows what they could do."""
    for link in view.tree:
        below = view.topology.by_id[link.b]
        if below.kind is not DeviceKind.PCIE_SWITCH or link.count is None or link.possible_count is None:
            continue
        if link.count < link.possible_count:
            gpus = [gpu for gpu in view.gpus if below.id in view.paths.ancestors(gpu.id)]
            carried = instead(view.lanes(link.count, link.generation), view.lanes(link.possible_count, link.generation))
            yield Finding(
                "pcie-width",
                f"PCIe x{link.count} instead of x{link.possible_count} above switch {below.id}",
                "reseat the riser or the cable of the switch; check with " + _LSPCI,
                severity=_severity(view),
                evidence=f"the link {link.name} is x{link.count}, both ends could do x{link.possible_count}",
                cost=f"{listed(gpus)} share {carried} each way" if carried else "",
                devices=ids(gpus),
            )


def _generations(view: View) -> Iterator[Finding]:
    alike: dict[tuple[int, int, int, Limit], list[Device]] = {}
    for gpu in view.gpus:
        link = _leaf(view, gpu)
        limited = None if link is None else _limited(view, gpu, link)
        if link is None or limited is None:
            continue
        now, could, limit = limited
        spec = view.spec(gpu)
        alike.setdefault((now, could, link.count or (spec.pcie_lanes if spec else 0), limit), []).append(gpu)
    for (now, could, lanes, limit), gpus in alike.items():
        carried = instead(view.lanes(lanes, now), view.lanes(lanes, could)) if lanes else ""
        board = limit == "board"
        yield Finding(
            "pcie-generation",
            f"PCIe {now} instead of {could} on {listed(gpus)}",
            f"set the slot to generation {could} or 'auto' in the BIOS if the board has it; a riser may hold it down too"
            if board
            else f"reseat the card or its riser and set the slot to generation {could} in the BIOS; 'dmesg | grep -i aer' "
            "shows a link with errors",
            severity="notice" if board else _severity(view),
            evidence=f"the card does PCIe {could}, card and board together {now}"
            if board
            else f"the link runs at PCIe {now} under load, both ends could do {could}",
            cost=f"x{lanes} carries {carried} each way" if carried else "",
            devices=ids(gpus),
        )


def _limited(view: View, gpu: Device, link: Link) -> tuple[int, int, Limit] | None:
    """The generation under load, the one that could be and what is in the way; ``None`` where all is as it can be."""
    spec, facts, now = view.spec(gpu), gpu.facts, link.generation
    if now is None:
        return None
    known = not isinstance(facts.pcie_generation, Unknown)
    together = facts.pcie_generation_possible
    if isinstance(together, Unknown):
        if known and facts.performance_state != 0:
            return None  # perhaps it only saves power
        if link.possible_generation is not None and now < link.possible_generation:
            return now, link.possible_generation, "link"
        alone = spec.pcie_generation if spec is not None and view.seen else None
        return (now, alone, "board") if alone is not None and now < alone else None
    if now < together:
        return now, together, "link"
    alone = facts.pcie_generation_gpu if not isinstance(facts.pcie_generation_gpu, Unknown) else link.possible_generation
    return (now, alone, "board") if alone is not None and now < alone else None


def _uneven(view: View, explained: set[str]) -> Iterator[Finding]:
    ways: dict[tuple[str | None, int, int | None], list[Device]] = {}
    for gpu in view.gpus:
        link = _leaf(view, gpu)
        if link is not None and link.count is not None:
            ways.setdefault((gpu.hardware, link.count, link.generation), []).append(gpu)
    if len({hardware for hardware, _, _ in ways}) != 1 or len(ways) < 2:
        return

    def worth(way: tuple[str | None, int, int | None]) -> float:
        return view.lanes(way[1], way[2]) or way[1]

    best = max(ways, key=worth)
    for way, gpus in ways.items():
        if way == best or worth(way) >= worth(best) or explained & set(ids(gpus)):
            continue
        words = [f"x{count}" + (f" of PCIe {generation}" if generation else "") for _, count, generation in (way, best)]
        carried = instead(view.lanes(way[1], way[2]), view.lanes(best[1], best[2]))
        yield Finding(
            "pcie-uneven",
            f"{listed(gpus)} behind PCIe {words[0].removeprefix('PCIe ')}, {listed(ways[best])} behind {words[1]}",
            "move the cards to slots of one kind, or keep the slower ones out of groups that exchange much",
            severity="notice",
            evidence=f"{words[0]} beside {words[1]}",
            cost=f"a group with both runs at {carried}" if carried else "a group with both runs at the slower one's rate",
            devices=ids(gpus),
        )
