"""Units: SI inside (bytes, seconds, bytes/s, FLOP, FLOP/s), unit strings at the rim.

Every quantity in the package is one of the ``NewType``s below, so that mypy refuses seconds where bytes are due.
Documents write a number *and* a unit (``450 GB/s``, ``80 GiB``, ``2 us``); :func:`parse_quantity` reads them and
refuses a bare number. GB = 10**9 bytes, GiB = 2**30 bytes, Gb = 10**9 bits.
"""

from __future__ import annotations

import math
import re
from typing import Literal, NewType

from planner.errors import BadInput

Bytes = NewType("Bytes", float)
Seconds = NewType("Seconds", float)
BytesPerSecond = NewType("BytesPerSecond", float)
Flop = NewType("Flop", float)
FlopPerSecond = NewType("FlopPerSecond", float)
Hertz = NewType("Hertz", float)

Dimension = Literal["size", "time", "bandwidth", "compute", "clock"]

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}

UNITS: dict[Dimension, dict[str, float]] = {
    "size": {f"{prefix}B": factor for prefix, factor in {**_DECIMAL, **_BINARY}.items()},
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9},
    "bandwidth": {
        **{f"{prefix}B/s": factor for prefix, factor in {**_DECIMAL, **_BINARY}.items()},
        **{f"{prefix}b/s": factor / 8.0 for prefix, factor in _DECIMAL.items()},
    },
    "compute": {
        **{f"{prefix}FLOP/s": factor for prefix, factor in _DECIMAL.items()},
        **{f"{prefix}OP/s": factor for prefix, factor in _DECIMAL.items()},
    },
    "clock": {f"{prefix}Hz": factor for prefix, factor in _DECIMAL.items()},
}

EXAMPLES: dict[Dimension, str] = {
    "size": "80 GiB",
    "time": "2 us",
    "bandwidth": "450 GB/s",
    "compute": "989 TFLOP/s",
    "clock": "1.98 GHz",
}

_QUANTITY = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>[A-Za-zµ/]*)")


def parse_quantity(value: object, dimension: Dimension, *, path: str = "") -> float:
    """A non-negative quantity written with its unit, in SI units of ``dimension``.

    Raises ``BadInput`` for a bare number, an unknown unit, a unit of another dimension, or a number that is not finite.

    >>> parse_quantity("450 GB/s", "bandwidth")
    450000000000.0
    >>> parse_quantity("400 Gb/s", "bandwidth")
    50000000000.0
    >>> parse_quantity("80 GiB", "size")
    85899345920.0
    """
    hint = f"write it with its unit, for example '{EXAMPLES[dimension]}'"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadInput(f"expected a {dimension}, found {type(value).__name__}", path=path, hint=hint)
    if not isinstance(value, str):
        raise BadInput(f"no unit in {value!r}", path=path, hint=hint)
    match = _QUANTITY.fullmatch(value.strip())
    if match is None:
        raise BadInput(f"{value!r} is not a {dimension}", path=path, hint=hint)
    unit = match["unit"]
    if not unit:
        raise BadInput(f"no unit in {value!r}", path=path, hint=hint)
    factor = UNITS[dimension].get(unit)
    if factor is None:
        raise BadInput(f"{unit!r} is not a unit of {dimension} in {value!r}", path=path, hint=hint)
    number = float(match["number"]) * factor
    if not math.isfinite(number):
        raise BadInput(f"{value!r} is out of range", path=path, hint=hint)
    return number


def parse_size(value: object, *, path: str = "") -> Bytes:
    """A number of bytes; see :func:`parse_quantity`."""
    return Bytes(parse_quantity(value, "size", path=path))


def parse_time(value: object, *, path: str = "") -> Seconds:
    """A time in seconds; see :func:`parse_quantity`."""
    return Seconds(parse_quantity(value, "time", path=path))


def parse_bandwidth(value: object, *, path: str = "") -> BytesPerSecond:
    """A bandwidth in bytes per second, one direction; see :func:`parse_quantity`."""
    return BytesPerSecond(parse_quantity(value, "bandwidth", path=path))


def parse_compute(value: object, *, path: str = "") -> FlopPerSecond:
    """A rate of arithmetic in FLOP per second, dense; see :func:`parse_quantity`."""
    return FlopPerSecond(parse_quantity(value, "compute", path=path))


def parse_clock(value: object, *, path: str = "") -> Hertz:
    """A clock rate in Hz; see :func:`parse_quantity`."""
    return Hertz(parse_quantity(value, "clock", path=path))


def write_quantity(value: float, dimension: Literal["size", "bandwidth"]) -> str:
    """``value`` with a unit, exactly: reading it back gives the same number.

    >>> write_quantity(56.25e9, "bandwidth"), write_quantity(2.0**30 * 80, "size"), write_quantity(1.0, "size")
    ('56.25 GB/s', '80 GiB', '1 B')
    """
    suffix = "/s" if dimension == "bandwidth" else ""
    prefixes = ("Gi", "Mi", "G", "M", "k", "") if dimension == "size" else ("G", "M", "k", "")
    factors = {**_DECIMAL, **_BINARY}
    for prefix in prefixes:
        text = f"{value / factors[prefix]:.12g}"
        if "e" not in text and float(text) >= 1 and float(text) * factors[prefix] == value:
            return f"{text} {prefix}B{suffix}"
    return f"{value!r} B{suffix}"


def write_time(value: Seconds) -> str:
    """``value`` with a unit, exactly: reading it back gives the same number.

    >>> write_time(Seconds(0.0182)), write_time(Seconds(3.27012))
    ('18.2 ms', '3270.12 ms')
    """
    text = f"{value * 1e3:.12g} ms"
    return text if parse_time(text) == value else f"{value!r} s"
