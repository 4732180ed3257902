"""PCI bus ids, written one way."""

from __future__ import annotations

import re

BUS_ID_PATTERN = r"(?:[0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]"
"""A bus id as programs print it, for patterns of whole lines."""
_BUS_ID = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])")
_DEVICES = 32  # PCI: five bits of device number


def normal_bus_id(text: str) -> str | None:
    """A bus id as Linux writes it: lower case, a domain of four digits or more. ``None`` where the text is no bus id.

    ``nvidia-smi`` pads the domain to eight digits; ``lspci`` leaves out the domain 0.

    >>> normal_bus_id("00000000:1B:00.0"), normal_bus_id("1b:00.0"), normal_bus_id("00010009:01:00.0")
    ('0000:1b:00.0', '0000:1b:00.0', '10009:01:00.0')
    >>> normal_bus_id("FFFFFFFF:FF:FF.F") is None
    True
    """
    match = _BUS_ID.fullmatch(text.strip().lower())
    if match is None or int(match[3], 16) >= _DEVICES:
        return None
    return f"{int(match[1] or '0', 16):04x}:{int(match[2], 16):02x}:{int(match[3], 16):02x}.{match[4]}"
