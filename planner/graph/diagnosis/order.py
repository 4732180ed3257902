"""NVLink neighbours that do not stand next to each other in index order, which engines go by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planner.core.finding import Finding
from planner.core.topology import Device, LinkKind
from planner.graph.diagnosis.view import View, ids, instead


def findings(view: View) -> Iterator[Finding]:
    """``nvlink-not-adjacent``: a group of n taken in index order would straddle NVLink islands of n."""
    islands = _islands(view)
    places = {gpu.id: place for place, gpu in enumerate(view.gpus)}
    astray = [island for island in islands if len(island) > 1 and not _aligned([places[gpu.id] for gpu in island])]
    if not astray:
        return
    size = len(astray[0])
    start = places[astray[0][0].id] // size * size
    a, b = _stranger(view, view.gpus[start : start + size])
    c, d = next((c, d) for c in astray[0] for d in astray[0] if c is not d and view.paths.nvlink(c.id, d.id) is not None)
    ordered = [gpu for island in sorted(islands, key=lambda one: -len(one)) for gpu in island]
    numbers = ",".join(str(gpu.index) for gpu in ordered)
    apart, together = (view.rate(view.paths.between(x.id, y.id).links) for x, y in ((a, b), (c, d)))
    if apart is not None and together is not None and apart >= together:
        return  # a single old link beside a good slot
    carried = instead(apart, together)
    word, variables = "NVLink", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES"
    if any(link.kind is LinkKind.XGMI for link in view.peer_links):
        word, variables = "Infinity Fabric", "HIP_VISIBLE_DEVICES"
    yield Finding(
        "nvlink-not-adjacent",
        f"{word} joins {'; '.join(_together(island) for island in astray)}, which are not next to each other",
        f"start engines with {variables}={numbers}, as the commands of 'planner recommend' do",
        severity="notice",  # an order to start engines in, no fault of the machine
        evidence=f"a group of {size} in index order takes {_together(view.gpus[start : start + size])}: {_class(view, a, b)}",
        cost=f"{carried} within the group" if carried else "the group talks over PCIe",
        devices=tuple(device for island in astray for device in ids(island)),
    )


def _islands(view: View) -> list[list[Device]]:
    """The GPUs that NVLinks hold together, each in index order, by their first."""
    islands: list[list[Device]] = []
    left = list(view.gpus)
    while left:
        island = [left.pop(0)]
        for member in island:
            joined = [gpu for gpu in left if view.paths.nvlink(member.id, gpu.id) is not None]
            island += joined
            left = [gpu for gpu in left if gpu not in joined]
        islands.append(sorted(island, key=lambda gpu: gpu.index or 0))
    return islands


def _aligned(places: Sequence[int]) -> bool:
    """Whether groups of this size, cut off in order, hit these places; a size that engines never cut need only be in a row.

    >>> _aligned([2, 3]), _aligned([1, 2]), _aligned([0, 2]), _aligned([1, 2, 3])
    (True, False, False, True)
    """
    size = len(places)
    power_of_two = size & (size - 1) == 0
    return places[-1] - places[0] == size - 1 and (not power_of_two or places[0] % size == 0)


def _stranger(view: View, group: Sequence[Device]) -> tuple[Device, Device]:
    """Two GPUs of a group with no NVLink between them."""
    return next((a, b) for a in group for b in group if a is not b and view.paths.nvlink(a.id, b.id) is None)


def _together(gpus: Sequence[Device]) -> str:
    return " and ".join(f"GPU{gpu.index}" for gpu in gpus) if len(gpus) == 2 else ", ".join(f"GPU{gpu.index}" for gpu in gpus)


def _class(view: View, a: Device, b: Device) -> str:
    return f"GPU{a.index} and GPU{b.index} are {view.paths.pcie_kind(a.id, b.id).name}"
