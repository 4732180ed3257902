"""Texts of programs that measure collectives and copies → what was measured.

One module a program, with one constant ``MEASUREMENTS`` (:mod:`~planner.readers.nccl_tests`, :mod:`~planner.readers.p2p_bandwidth`,
:mod:`~planner.readers.nvbandwidth`); a text may hold the output of several of them, and anything else around it.
"""

from __future__ import annotations

from planner.core.measured import MeasuredCopies, MeasuredTable
from planner.errors import BadInput
from planner.readers import MAX_CHARACTERS, clean
from planner.readers.measured_text import Reading

HOW_TO_MEASURE = (
    "run 'all_reduce_perf -b 8 -e 1G -f 2 -g COUNT' of nccl-tests, nvbandwidth or p2pBandwidthLatencyTest, and pass its output"
)


def read_measurements(text: str, source: str) -> tuple[MeasuredTable | MeasuredCopies, ...]:
    """What a text tells of measured collectives and copies, in its order by program; at least one.

    ``source`` is what messages call it. Raises ``BadInput`` with the line for what cannot be true or is cut, and where
    nothing is measured that planner has a use for, by its name.
    """
    reading = read_all_measured(text, source)
    if reading.measured:
        return reading.measured
    if reading.left_out:
        names = "; ".join(reading.left_out[:8]) + ("; …" if len(reading.left_out) > 8 else "")
        raise BadInput(f"holds nothing that planner has a use for, only {names}", path=source, hint=HOW_TO_MEASURE)
    raise BadInput("holds no measurement that planner reads", path=f"{source}, line 1", hint=HOW_TO_MEASURE)


def read_all_measured(text: str, source: str) -> Reading:
    """As :func:`read_measurements`, with the names of what was recognised and left out; both may be empty."""
    if len(text) > MAX_CHARACTERS:
        raise BadInput(
            f"longer than {MAX_CHARACTERS // 1_000_000} million characters", path=source, hint="pass only what was measured"
        )
    from planner.readers import nccl_tests, nvbandwidth, p2p_bandwidth

    text = clean(text)
    lines: list[str] | None = None
    readings = []
    for reader in (nccl_tests.MEASUREMENTS, p2p_bandwidth.MEASUREMENTS, nvbandwidth.MEASUREMENTS):
        if reader.hints.search(text):
            lines = text.split("\n") if lines is None else lines
            readings.append(reader.read(lines, source))
    return Reading(
        tuple(one for reading in readings for one in reading.measured),
        tuple(name for reading in readings for name in reading.left_out),
    )
