"""The nested ``<pci>`` elements of NCCL's → the way from the CPU down to each GPU and network card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from planner.core.bus_id import normal_bus_id
from planner.core.capture import PcieHop
from planner.core.pcie import pcie_generation
from planner.readers.nccl_tree import Element

BRIDGE = "0x0604"
"""PCI class of a bridge, whatever the programming interface."""
AMD = 0x1002
_AMD_BRIDGES = frozenset({0x1002, 0x1022})
_BROADCOM_GEN4 = 0x1000C0101000A000
_BROADCOM_GEN5 = 0x1000C03010000000
_SUBSYSTEM = 0xFFF
"""The bits of a switch's id that NCCL passes over."""

_WIDTHS = frozenset({1, 2, 4, 8, 12, 16, 32})


@dataclass(frozen=True, slots=True)
class Place:
    """A PCI function that is no switch: its element, and the way down to it."""

    element: Element
    hops: tuple[PcieHop, ...]

    @property
    def bus_id(self) -> str | None:
        """Its PCI bus id, normalised."""
        return normal_bus_id(self.element.text("busid"))


def places(cpu: Element) -> Iterator[Place]:
    """All PCI functions under a CPU that hold a GPU or a network card."""
    for pci in cpu.all("pci"):
        yield from _below(pci, (), 0, None)


def _below(pci: Element, above: tuple[PcieHop, ...], fusing: int, slot: PcieHop | None) -> Iterator[Place]:
    """``pci`` and what hangs from it.

    ``fusing`` is the generation of the Broadcom switch right above, zero where there is none that can take ``pci`` in;
    ``slot`` the card's own connector where the bridge above sits on the card.
    """
    hop = _hop(pci)
    if slot is not None:
        # the link behind the bridge never leaves the card: an MI210, PCIe 4 by its data sheet, has 32 GT/s there
        hop = replace(slot, bus_id=hop.bus_id)
    hops = (*above, hop)
    end = any(child.tag in {"gpu", "nic"} for child in pci.children)
    if end:
        yield Place(pci, hops)
    # NCCL's ncclTopoFlattenBcmSwitches: a Broadcom switch that shows itself as two levels is one switch
    taken_in = fusing and _broadcom(pci, 1) == fusing and not end
    on_card = _on_card(pci)
    for child in pci.all("pci"):
        if taken_in:
            yield from _below(child, above, 0, None)
        elif on_card:
            yield from _below(child, above, 0, hop)
        else:
            yield from _below(child, hops, _broadcom(pci, 0), None)


def _on_card(pci: Element) -> bool:
    """Whether ``pci`` is the bridge that sits on an AMD card, in front of its one GPU.

    Vega 20, Arcturus, MI200 and MI300 have one (1002:14a0, 1022:14c7, 1022:1500; lspci shows an upstream and a downstream
    port before each GPU, and nothing else behind them). It is told by its place, not by a list of ids: a bridge of AMD's,
    which makes no PCIe switches, with one device behind it, and that a GPU of AMD's. NCCL leaves root ports out. Where a
    file states no ids, the GPU's bus is the second behind the bridge's: upstream port, downstream port, GPU.
    """
    if not pci.text("class").startswith(BRIDGE) or len(pci.children) != 1:
        return False
    only = pci.children[0]
    gpus = list(only.all("gpu"))
    vendor = pci.identifier("vendor")
    if vendor is None:
        return any(gpu.text("gcn") for gpu in gpus) and _bus(only) == _bus(pci) + 2
    return vendor in _AMD_BRIDGES and only.identifier("vendor") == AMD and bool(gpus)


def _bus(pci: Element) -> int:
    """The bus number in a PCI bus id, far below zero where there is none."""
    normal = normal_bus_id(pci.text("busid"))
    return -1000 if normal is None else int(normal.split(":")[1], 16)


def _broadcom(pci: Element, level: int) -> int:
    """The PCIe generation of a Broadcom switch that may show two levels, else zero.

    As NCCL's ``getBcmGen``: gen 4 shows the same ids at both levels, gen 5 another subsystem at the lower (level 1).
    """
    parts = [pci.identifier(name) or 0 for name in ("vendor", "device", "subsystem_vendor", "subsystem_device")]
    number = sum(part << shift for part, shift in zip(parts, (48, 32, 16, 0), strict=True)) & ~_SUBSYSTEM
    if number == _BROADCOM_GEN4:
        return 4
    return 5 if number == _BROADCOM_GEN5 | level * 0x1000 else 0


def _hop(pci: Element) -> PcieHop:
    """The link above a PCI device. NCCL writes the lower of what both ends can do, nothing where ``/sys`` is silent."""
    generation = pcie_generation(pci.text("link_speed"))
    width = pci.number("link_width")
    lanes = width if width in _WIDTHS else None
    return PcieHop(
        bus_id=normal_bus_id(pci.text("busid")) or f"line {pci.line}",
        generation=generation,
        width=lanes,
        possible_generation=generation,
        possible_width=lanes,
    )
