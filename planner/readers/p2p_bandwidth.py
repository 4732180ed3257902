"""CUDA's ``p2pBandwidthLatencyTest``: copies between every two GPUs, one way and both ways, with peer-to-peer and without.

Row and column of a matrix are where a copy comes from and goes to, of "P2P Reads" the other way round; a number of both
ways is of both directions together (``p2pBandwidthLatencyTest.cu`` of the CUDA samples).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from planner.core.bus_id import normal_bus_id
from planner.core.measured import CopyDirection, MeasuredCopies, TableDevice
from planner.errors import BadInput
from planner.readers.figures import MOST_CHARACTERS, Matrix, labels_of, read_matrix
from planner.readers.measured_text import MeasurementReader, Reading, refuse_many_tables
from planner.units import BytesPerSecond, Seconds

_PROGRAM = "p2pBandwidthLatencyTest"
_TITLE = re.compile(
    r"(?:(?:(?P<way>Uni|Bi)-?directional )?P2P=(?P<peer>Enabled|Disabled) (?P<what>Bandwidth|Latency)(?: \(P2P (?P<how>Writes?|Reads?)\))?"
    r" Matrix|(?P<connect>P2P Connectivity Matrix))(?: ?\((?:GB/s|us|µs)\))?[\s\"'`|*]{0,80}$",
    re.IGNORECASE,
)
"""Nothing follows a title on its line; what is said about it in prose goes on."""
_DEVICE = re.compile(
    r"Device:? {0,4}(\d{1,4}), {0,4}(\S.{0,119}?), {0,4}pciBusID: {0,4}([0-9a-f]{1,2}), {0,4}pciDeviceID: {0,4}([0-9a-f]{1,2}),"
    r" {0,4}pciDomainID: {0,4}([0-9a-f]{1,8})",
    re.IGNORECASE,
)
_ACCESS = re.compile(r"Device ?= ?(\d{1,4}) {1,4}(CAN|CANNOT) {1,4}Access Peer {1,4}Device ?= ?(\d{1,4})", re.IGNORECASE)
_CORNERS = frozenset({"D\\D", "D/D", "GPU", "CPU"})
_HEADER_WITHIN = 12
"""Lines between a title and its header, of other processes."""


@dataclass(slots=True)
class _Titled:
    """A matrix below its title; ``way`` is ``None`` for latencies, ``peer`` for the matrix of connectivity."""

    way: CopyDirection | None
    peer: bool | None
    reads: bool
    matrix: Matrix


@dataclass(slots=True)
class _Block:
    """One run of the program."""

    line: int
    devices: dict[int, TableDevice] = field(default_factory=dict)
    access: dict[tuple[int, int], bool] = field(default_factory=dict)
    titled: list[_Titled] = field(default_factory=list)


def _read(lines: Sequence[str], source: str) -> Reading:
    blocks = list(_blocks(lines, source))
    matrices = [titled for block in blocks for titled in block.titled]
    for block in blocks:
        _refuse_cut(block, source, alone=len(matrices) == 1)
    measured = [copies for block in blocks for copies in _copies(block, source) if copies.bandwidth or copies.latency]
    lists = [block.line for block in blocks if block.devices or block.access or block.titled]
    left_out = (
        () if measured or not lists else (f"{_PROGRAM} without a bandwidth or a latency between two GPUs (line {lists[0]})",)
    )
    return Reading(tuple(measured), left_out)


def _blocks(lines: Sequence[str], source: str) -> Iterator[_Block]:
    block = _Block(1)
    place = count = 0
    while place < len(lines):
        line = lines[place]
        place += 1
        if ("P2P" not in line and "evice" not in line) or len(line) > MOST_CHARACTERS:
            continue
        if "GPU Bandwidth Latency Test]" in line and (block.titled or block.devices):
            yield block
            block = _Block(place)
        elif found := _DEVICE.search(line):
            if int(found[1]) in block.devices:
                yield block
                block = _Block(place)
            bus_id = normal_bus_id(f"{found[5]}:{found[3]}:{found[4]}.0")
            block.devices[int(found[1])] = TableDevice(int(found[1]), bus_id=bus_id, model=found[2].strip())
        elif found := _ACCESS.search(line):
            block.access[int(found[1]), int(found[3])] = found[2].upper() == "CAN"
        elif found := _TITLE.search(line):
            titled, place = _below(found, lines, place, source)
            if any(_same(titled, other) for other in block.titled):
                yield block
                block = _Block(place)
            block.titled.append(titled)
            count += 1
            refuse_many_tables(count, source)
    yield block


def _same(one: _Titled, other: _Titled) -> bool:
    return (one.way, one.peer, one.reads) == (other.way, other.peer, other.reads)


def _below(title: re.Match[str], lines: Sequence[str], place: int, source: str) -> tuple[_Titled, int]:
    """The matrix below the title on ``lines[place - 1]``, and where to go on. Raises ``BadInput`` where there is none."""
    for header in range(place, min(place + _HEADER_WITHIN, len(lines))):
        labels = labels_of(lines[header], _CORNERS)
        if labels is not None:
            matrix, end = read_matrix(lines, header, labels, source)
            if not matrix.lines:
                raise BadInput(f"'{title[0]}' has a header but no rows", path=f"{source}, line {header + 1}", hint=_HINT)
            way: CopyDirection | None = None
            if title["way"]:
                way = "one-way" if title["way"].lower() == "uni" else "both-ways"
            elif not title["connect"] and title["what"].lower() == "bandwidth":
                way = "one-way"
            peer = None if title["connect"] else title["peer"].lower() == "enabled"
            return _Titled(way, peer, (title["how"] or "").lower().startswith("read"), matrix), end
        if _TITLE.search(lines[header][:MOST_CHARACTERS]):
            break
    raise BadInput(f"'{title[0]}' has no matrix below it", path=f"{source}, line {place}", hint=_HINT)


_HINT = f"paste the whole output of {_PROGRAM}"


def _refuse_cut(block: _Block, source: str, *, alone: bool) -> None:
    """Raise ``BadInput`` where a row is missing, unless the matrix is all there is, or where matrices are of different sizes."""
    for titled in block.titled:
        matrix = titled.matrix
        if matrix.missing is not None and not alone:
            problem = f"row {matrix.missing} is missing in a matrix of {len(matrix.labels)} columns"
            raise BadInput(problem, path=f"{source}, line {max(matrix.lines.values())}", hint=_HINT)
        first = block.titled[0].matrix
        if len(matrix.labels) != len(first.labels):
            problem = f"a matrix of {len(matrix.labels)} GPUs after one of {len(first.labels)} (line {first.line})"
            raise BadInput(problem, path=f"{source}, line {matrix.line}", hint="pass one run of one host")


def _copies(block: _Block, source: str) -> Iterator[MeasuredCopies]:
    """The run's copies: of each direction with and without peer-to-peer, latencies with one of them."""
    access = {
        pair: cell.value > 0
        for titled in block.titled
        if titled.peer is None
        for pair, cell in titled.matrix.cells.items()
        if pair[0] != pair[1]
    } | block.access
    bus_ids = Counter(device.bus_id for device in block.devices.values())
    devices = tuple(
        device if bus_ids[device.bus_id] == 1 else replace(device, bus_id=None)
        for device in (block.devices[index] for index in sorted(block.devices))
    )
    latencies: dict[bool | None, _Titled] = {
        titled.peer: titled for titled in block.titled if titled.peer is not None and titled.way is None
    }
    bandwidths = [titled for titled in block.titled if titled.way is not None]
    for titled in bandwidths:
        latency = latencies.pop(titled.peer, None)
        yield MeasuredCopies(
            direction=titled.way or "one-way",
            peer_to_peer=titled.peer,
            bandwidth={
                pair: BytesPerSecond(value * 1e9) for pair, value in _between(titled, source, "the bandwidth in GB/s").items()
            },
            latency=_latency(latency, source),
            access=access,
            devices=devices,
            source=source,
            line=titled.matrix.line,
        )
    for peer, latency in latencies.items():
        yield MeasuredCopies("one-way", peer, {}, _latency(latency, source), access, devices, source, latency.matrix.line)


def _latency(titled: _Titled | None, source: str) -> dict[tuple[int, int], Seconds]:
    if titled is None:
        return {}
    return {pair: Seconds(value * 1e-6) for pair, value in _between(titled, source, "the latency in µs").items()}


def _between(titled: _Titled, source: str, what: str) -> dict[tuple[int, int], float]:
    """By (from, to), the numbers as printed."""
    found = titled.matrix.pairs(source, what)
    return {(pair[1], pair[0]) if titled.reads else pair: cell.value for pair, cell in found.items()}


MEASUREMENTS = MeasurementReader(
    _PROGRAM,
    re.compile(
        r"P2P=(?:En|Dis)abled|P2P Connectivity Matrix|(?:CAN|CANNOT) Access Peer|GPU Bandwidth Latency Test", re.IGNORECASE
    ),
    _read,
)
