"""Predictions of collectives, for tables and for rows of measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.core.implementation import CollectiveTable, Implementation
from planner.core.operation import OPERATIONS, Operation
from planner.core.topology import Topology
from planner.cost.accuracy import Figure
from planner.cost.calibration import Calibration
from planner.cost.interconnect import Interconnect
from planner.cost.operations import Operations, fastest
from planner.documents.calibration import load_calibration
from planner.documents.hardware import load_link_rates
from planner.documents.measurements import MeasuredCollective, collectives_of
from planner.documents.tables import Table, TableRow
from planner.engines.implementations import find_implementations, written_implementation
from planner.errors import BadInput, folded, named_once, unknown_name
from planner.graph.equip import equip
from planner.machines import STDIN, load_gpu, load_topology
from planner.units import Bytes


def find_operation(name: str) -> Operation:
    """An operation by its name as nccl-tests or anybody writes it. Raises ``BadInput`` with the known ones.

    >>> find_operation("all-reduce"), find_operation("sendrecv"), find_operation("AllToAll")
    ('all_reduce', 'send_recv', 'all_to_all')
    """
    for operation in OPERATIONS:
        if folded(name) == folded(operation):
            return operation
    raise unknown_name("operation", name, OPERATIONS, hint=f"known: {', '.join(OPERATIONS)}")


def predict_collective(
    topology: Topology,
    operation: str,
    sizes: Sequence[float],
    *,
    gpus: Sequence[int] | None = None,
    implementation: str = "auto",
    eager: bool = False,
) -> CollectiveTable:
    """What an operation of nccl-tests takes on some GPUs of a machine, all of them by default, for messages of ``sizes`` bytes.

    ``implementation`` is nccl, an engine, or ``auto`` for the fastest. Raises ``BadInput``.
    """
    found = find_operation(operation)
    chosen = tuple(range(len(topology.gpus))) if gpus is None else tuple(gpus)
    refuse_gpus(topology, chosen)
    wires, constants = wires_of(topology), load_calibration()
    asked = find_implementations(implementation, {wires.spec(gpu).vendor for gpu in chosen})
    askers = [Operations(wires, constants, one) for one in asked]
    rows = [fastest([one.predict(found, chosen, Bytes(size), eager=eager) for one in askers]) for size in sizes]
    return CollectiveTable(topology, chosen, found, implementation.lower(), eager, tuple(rows))


def wires_of(topology: Topology) -> Interconnect:
    """The wires of a topology with what its hardware implies. Raises ``BadInput`` where a GPU is not named."""
    unnamed = [gpu.id for gpu in topology.gpus if gpu.hardware is None]
    if unnamed:
        raise BadInput(
            f"does not say which GPU {unnamed[0]} is", path=topology.name, hint="add --gpu NAME, for example --gpu RTX-3090"
        )
    specs = {name: load_gpu(name) for name in topology.hardware}
    return Interconnect(equip(topology, specs, load_link_rates()), specs)


def refuse_gpus(topology: Topology, gpus: Sequence[int]) -> None:
    """Raise ``BadInput`` for GPUs that are not there, or named twice, or none."""
    there = len(topology.gpus)
    for gpu in gpus:
        if not 0 <= gpu < there:
            raise BadInput(f"no GPU {gpu}", path=topology.name, hint=f"its GPUs are 0 to {there - 1}")
        if list(gpus).count(gpu) > 1:
            raise BadInput(f"GPU {gpu} is named twice", path=topology.name)
    if not gpus:
        raise BadInput("no GPUs", path=topology.name, hint="name at least one")


class CollectiveRows:
    """Predictions row by row; machines, implementations and what cannot be answered are remembered."""

    kind = "collectives"
    named_by = ""

    def __init__(self, table: Table, constants: Calibration) -> None:
        self._constants = constants
        self._rows = {row.line: row for row in collectives_of(table)}
        self.figures: tuple[str, ...] = ("time_us",)
        self._machines: dict[str, Interconnect | str] = {}
        self._implementations: dict[str, tuple[Implementation, bool] | str] = {}
        self._askers: dict[tuple[str, str, str], Operations] = {}

    def answer(self, row: TableRow) -> Mapping[str, Figure] | str:
        """The time of a row, in µs, or why there is none."""
        return self._time(self._rows[row.line])

    def _time(self, row: MeasuredCollective) -> Mapping[str, Figure] | str:
        if row.problem:
            return row.problem
        if row.ranks == 1:
            return "one GPU exchanges nothing"
        wires = self._machine(row.topology)
        if isinstance(wires, str):
            return wires
        written = self._implementation(row.implementation)
        if isinstance(written, str):
            return written
        if row.ranks > len(wires.topology.gpus):
            return f"topology {row.topology} has {len(wires.topology.gpus)} GPUs, the row asks for {row.ranks}"
        implementation, eager = written
        key = row.topology, implementation.name, implementation.version
        asker = self._askers.get(key)
        if asker is None:
            asker = self._askers[key] = Operations(wires, self._constants, implementation)
        try:
            operation = find_operation(row.operation)
            predicted = asker.predict(operation, range(row.ranks), Bytes(float(row.size)), eager=eager)
        except BadInput as error:
            return error.problem
        return {"time_us": Figure(predicted.taken.time * 1e6, predicted.low * 1e6, predicted.high * 1e6, row.time)}

    def _machine(self, reference: str) -> Interconnect | str:
        if reference not in self._machines:
            if reference == STDIN:
                return "a table cannot name standard input as a topology"
            try:
                self._machines[reference] = wires_of(load_topology(reference))
            except BadInput as error:
                self._machines[reference] = named_once("topology", reference, error.problem)
        return self._machines[reference]

    def _implementation(self, text: str) -> tuple[Implementation, bool] | str:
        if text not in self._implementations:
            try:
                self._implementations[text] = written_implementation(text)
            except BadInput as error:
                self._implementations[text] = error.problem
        return self._implementations[text]
