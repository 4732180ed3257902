"""PCI Express as systems write it."""

from __future__ import annotations

import re

_SPEED = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?GT/s")
_GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6, 128.0: 7}
"""Transfers of one lane in GT/s, by the PCI-SIG base specifications."""


def pcie_generation(speed: str) -> int | None:
    """The generation of a link speed as sysfs and NCCL write it; ``None`` where it is none.

    >>> pcie_generation("16.0 GT/s PCIe"), pcie_generation("32 GT/s"), pcie_generation("Unknown speed")
    (4, 5, None)
    """
    match = _SPEED.match(speed)
    return None if match is None else _GENERATIONS.get(float(match[1]))
