"""What was measured on a machine: collectives over some of its GPUs, and copies between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from planner.core.operation import Operation
from planner.units import Bytes, BytesPerSecond, Seconds

CopyDirection = Literal["one-way", "both-ways"]


@dataclass(frozen=True, slots=True)
class MeasuredCurve:
    """One operation measured over some GPUs of a machine.

    ``gpus`` are device ids, in rank order. ``stack`` is who carried it out, as :class:`~planner.core.implementation.Implementation`
    names it (``nccl``, ``vllm``, …). ``points`` are (bytes as nccl-tests counts them, seconds), ascending in bytes. ``source`` says
    where they come from, for people.
    """

    operation: Operation
    gpus: tuple[str, ...]
    stack: str
    points: tuple[tuple[Bytes, Seconds], ...]
    source: str


@dataclass(frozen=True, slots=True)
class TableDevice:
    """A GPU as a table of measurements names it."""

    index: int
    host: str = ""
    bus_id: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class MeasuredTable:
    """A table of one operation of nccl-tests as it was printed, before it is known which GPUs of a topology it ran on.

    ``operation`` is ``None`` where the text does not tell (then ``candidates`` are what its bus bandwidths allow). ``ranks`` is
    ``None`` where neither a list of devices nor the bandwidths tell. ``devices`` are the devices of the ranks: index on its
    host, bus id and model, as far as they are printed; ``hosts`` the names of their hosts. ``line`` is where it begins.
    """

    operation: Operation | None
    candidates: tuple[Operation, ...]
    ranks: int | None
    points: tuple[tuple[Bytes, Seconds], ...]
    devices: tuple[TableDevice, ...]
    stack: str
    source: str
    line: int


@dataclass(frozen=True, slots=True)
class MeasuredCopies:
    """Copies between pairs of GPUs (CUDA's p2pBandwidthLatencyTest, nvbandwidth).

    ``bandwidth`` is by (from, to), indices as the tool counts; of copies ``both-ways`` both directions together. ``latency`` is in
    seconds. ``peer_to_peer`` says whether they were direct where the driver allows it, ``None`` where the text does not tell;
    ``access`` which pairs the tool found to have peer access. ``host`` copies (host to GPU) are by GPU.
    """

    direction: CopyDirection
    peer_to_peer: bool | None
    bandwidth: Mapping[tuple[int, int], BytesPerSecond]
    latency: Mapping[tuple[int, int], Seconds]
    access: Mapping[tuple[int, int], bool]
    devices: tuple[TableDevice, ...]
    source: str
    line: int
