"""What the fitting scripts share: how they are asked, and quantiles of what is left over."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Rows = TypeVar("Rows")


def grade_or_write(
    description: str | None,
    read: Callable[[Path], Rows],
    report: Callable[[Rows], None],
    write: Callable[[Rows, str], None],
) -> None:
    """``FOLDER --leave-one-out`` reports how far off constants are outside their fit, ``FOLDER --date D`` writes them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--date")
    parser.add_argument("--leave-one-out", action="store_true")
    arguments = parser.parse_args()
    if arguments.leave_one_out:
        report(read(arguments.folder))
    elif arguments.date is None:
        parser.error("say with --date when the measurements were fitted")
    else:
        write(read(arguments.folder), arguments.date)


def quantile(weighed: Sequence[tuple[float, float]], share: float) -> float:
    """The value below which ``share`` of the weight lies; ``weighed`` are (value, weight), ascending."""
    wanted = share * sum(weight for _, weight in weighed)
    for value, weight in weighed:
        wanted -= weight
        if wanted <= 0:
            return value
    return weighed[-1][0]
