"""What was measured on a machine: collectives over some of its GPUs, and copies between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from planner.core.operation import Operation
from planner.units import Bytes, BytesPerSecond, Seconds

CopyDirection = Literal["one-way", "both-ways"]

EAGER = "-eager"
"""Ends the name of a stack whose kernels were launched one by one, without CUDA graphs."""
ALIKE = " (on links alike)"
"""Ends the origin of a link's rate that was measured on others of its class."""


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
    """A GPU as a program that measures names it: its number on its host, the host's name (empty where it is not printed),
    its bus id as :func:`~planner.core.bus_id.normal_bus_id` writes it, and its model.
    """

    index: int
    host: str = ""
    bus_id: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class MeasuredTable:
    """A table of one operation of nccl-tests as it was printed, before it is known which GPUs of a topology it ran on.

    ``operation`` is ``None`` where the text does not tell; then ``candidates`` are those that its bus bandwidths, its columns
    and its counts allow (otherwise the one operation). ``ranks`` is ``None`` where nothing tells. ``points`` are (bytes as
    nccl-tests counts them, seconds out of place), ascending in bytes. ``devices`` are those of all ranks, in rank order, and
    empty where the list is not whole. ``stack`` is who carried it out. ``source`` and ``line`` say where it begins, ``lines`` where
    each point stands (empty where nobody counted). ``announced`` is the largest size that it was to have, where it ends before
    that and without its closing lines: then somebody cut it.
    """

    operation: Operation | None
    candidates: tuple[Operation, ...]
    ranks: int | None
    points: tuple[tuple[Bytes, Seconds], ...]
    devices: tuple[TableDevice, ...]
    stack: str
    source: str
    line: int
    lines: tuple[int, ...] = ()
    announced: Bytes | None = None


@dataclass(frozen=True, slots=True)
class MeasuredCopies:
    """Copies between pairs of GPUs, every pair alone (CUDA's p2pBandwidthLatencyTest, nvbandwidth).

    ``bandwidth`` is by (from, to), numbers as the program counts GPUs, in bytes a second; of copies ``both-ways`` it is that of
    both directions together. ``latency`` is of a small copy with the same ``peer_to_peer``, in seconds. ``peer_to_peer`` says
    whether copies were direct where the driver allows it, ``None`` where the text does not tell; ``access`` between which
    GPUs the program found that it does. Either mapping may be empty. ``devices`` are the GPUs that the text lists.
    """

    direction: CopyDirection
    peer_to_peer: bool | None
    bandwidth: Mapping[tuple[int, int], BytesPerSecond]
    latency: Mapping[tuple[int, int], Seconds]
    access: Mapping[tuple[int, int], bool]
    devices: tuple[TableDevice, ...]
    source: str
    line: int
