"""Numbers and names as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from planner.core.plan import Group, Parallelism, Replica

LONG_GROUP = 4


def duration(seconds: float) -> str:
    """Three digits and a unit.

    >>> duration(12.34e-6), duration(0.0182), duration(187e-3), duration(25.2)
    ('12.3 µs', '18.2 ms', '187 ms', '25.2 s')
    """
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor * 0.9995 or unit == "µs":
            value = seconds / factor
            return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.3g} {unit}"
    raise AssertionError


def gibibytes(size: float) -> str:
    """GiB with one decimal.

    >>> gibibytes(73.64 * 2**30)
    '73.6'
    """
    return f"{size / 2**30:.1f}"


def size(value: float) -> str:
    """Bytes in the largest unit that leaves a whole one, with three digits.

    >>> size(73.64 * 2**30), size(33554432), size(524288), size(1000)
    ('73.6 GiB', '32 MiB', '512 KiB', '1,000 B')
    """
    for factor, unit in ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if value >= factor:
            return f"{count(value / factor)} {unit}"
    return f"{count(value)} B"


def rate(value: float) -> str:
    """Tokens per second, with a separator for thousands.

    >>> rate(1713.4), rate(8.25)
    ('1,713', '8.2')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def count(value: float) -> str:
    """Things, or things a second: three digits of few and all of many.

    >>> count(3.1415), count(99.96), count(2123.4)
    ('3.14', '100', '2,123')
    """
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def several(number: int, thing: str) -> str:
    """So many things, in the singular where it is one.

    >>> several(1, "chunk"), several(4247, "chunk")
    ('1 chunk', '4,247 chunks')
    """
    return f"{number:,} {thing}{'s' * (number != 1)}"


def percent(share: float) -> str:
    """A share in percent.

    >>> percent(0.2727)
    '27 %'
    """
    return f"{share:.0%}".replace("%", " %")


def group(gpus: Group) -> str:
    """The GPUs of a group; four and more in a row as a range.

    >>> group((0, 2)), group((0, 1, 2, 3)), group((3, 2, 1, 0))
    ('{0,2}', '{0-3}', '{3,2,1,0}')
    """
    in_a_row = all(b == a + 1 for a, b in pairwise(gpus))
    if len(gpus) >= LONG_GROUP and in_a_row:
        return f"{{{gpus[0]}-{gpus[-1]}}}"
    return "{" + ",".join(str(gpu) for gpu in gpus) + "}"


def replica(stages: Replica) -> str:
    """The groups of a replica, stage by stage.

    >>> replica(((0, 2), (1, 3)))
    '{0,2} → {1,3}'
    """
    return " → ".join(group(stage) for stage in stages)


def degrees(parallelism: Parallelism, *, experts: bool) -> str:
    """``TP 4 × PP 2 × DP 1``, with EP for models with experts."""
    words = f"TP {parallelism.tensor} × PP {parallelism.pipeline} × DP {parallelism.data}"
    words += f" × EP {parallelism.expert}" if experts else ""
    words += f" × DCP {parallelism.decode_context}" if parallelism.decode_context > 1 else ""
    return f"{words} × PCP {parallelism.prefill_context}" if parallelism.prefill_context > 1 else words


def shorten(items: Sequence[str], most: int) -> str:
    """The first ``most`` items, and how many more there are.

    >>> shorten(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def printable(text: str) -> str:
    r"""``text`` with control and direction characters escaped, so that data cannot steer a terminal.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)
