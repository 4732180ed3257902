"""Who carries out a collective: NCCL as it is, or an engine with its own all-reduce kernels."""

from __future__ import annotations

from dataclasses import dataclass

from planner.core.engine import CustomAllReduce
from planner.core.estimate import CollectiveTime
from planner.core.operation import Operation
from planner.core.topology import Topology
from planner.units import Seconds


@dataclass(frozen=True, slots=True)
class Implementation:
    """An implementation of collectives: under which name it was measured (``stack``), and the gates of its own kernels.

    ``written_as`` is how its name starts in a table of measurements (``nccl-2.27.3``). ``version`` is empty for the newest.
    """

    name: str
    stack: str
    custom_all_reduce: CustomAllReduce
    written_as: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a collective of ``size`` bytes takes by one implementation; nine of ten measurements like it lay from ``low`` to ``high``."""

    operation: Operation
    size: float
    implementation: str
    taken: CollectiveTime
    low: Seconds
    high: Seconds
    algorithm_bandwidth: float
    bus_bandwidth: float


@dataclass(frozen=True)
class CollectiveTable:
    """Predictions of one operation on some GPUs of a machine, by ascending size."""

    topology: Topology
    gpus: tuple[int, ...]
    operation: Operation
    asked: str
    eager: bool
    predictions: tuple[Prediction, ...]
