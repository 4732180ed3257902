"""The PCI configuration space of a device: what kind of PCIe port it is, and its access control.

An ordinary user may read the first 64 bytes only; what is behind them is then ``None``. Sources: PCI Express Base
Specification, sections on the PCI Express Capability and on Access Control Services; Linux ``pci_regs.h``.
"""

from __future__ import annotations

UPSTREAM = 5
"""The upper end of a switch; 4 is a root port, 6 the lower end of a switch."""
_HEADER, _WHOLE = 64, 4096
_STATUS, _HAS_CAPABILITIES, _FIRST = 0x06, 0x10, 0x34
_EXPRESS, _EXPRESS_BYTES = 0x10, 4
_EXTENDED, _ACS, _ACS_BYTES = 0x100, 0x0D, 8
_REQUEST_REDIRECT, _COMPLETION_REDIRECT = 0x04, 0x08


def port_type(config: bytes) -> int | None:
    """What the PCI Express capability says the port is; ``None`` where that cannot be read.

    >>> port_type(bytes(64)) is None
    True
    """
    if len(config) <= _HEADER or not config[_STATUS] & _HAS_CAPABILITIES:
        return None
    place = config[_FIRST] & 0xFC
    for _ in range(len(config) // 4):  # a list that runs in a circle ends here
        if place < _HEADER or place + _EXPRESS_BYTES > len(config):
            return None
        if config[place] == _EXPRESS:
            return config[place + 2] >> 4
        place = config[place + 1] & 0xFC
    return None


def redirects(config: bytes) -> bool | None:
    """Whether a port sends peer-to-peer requests or completions up to the root; ``None`` where that cannot be read.

    A port without Access Control Services sends nothing up.

    >>> redirects(bytes(256)) is None, redirects(bytes(4096))
    (True, False)
    """
    if len(config) < _WHOLE:
        return None
    place = _EXTENDED
    for _ in range(_WHOLE // 4):
        header = int.from_bytes(config[place : place + 4], "little")
        if header & 0xFFFF == _ACS and place + _ACS_BYTES <= _WHOLE:
            return bool(config[place + 6] & (_REQUEST_REDIRECT | _COMPLETION_REDIRECT))
        place = header >> 20
        if place < _EXTENDED or place + 4 > _WHOLE:
            return False
    return False
