"""Which rank runs where: every GPU of a placement with its host, NUMA node and nearest network card."""

from __future__ import annotations

from collections.abc import Sequence

from planner.core.plan import Placement
from planner.core.saved import RankPlace
from planner.core.topology import Device, Topology
from planner.graph.paths import Paths


def rank_map(topology: Topology, placement: Placement, paths: Paths | None = None) -> tuple[RankPlace, ...]:
    """A row for every rank, replica by replica, stage by stage, tensor ranks fastest. ``paths`` are the topology's, if at hand."""
    paths = paths or Paths(topology)
    rows = []
    for number, replica in enumerate(placement):
        for stage, group in enumerate(replica):
            for tensor_rank, gpu in enumerate(group):
                device = topology.gpus[gpu]
                assert device.index is not None  # an invariant of topologies
                near = paths.nearest_nic(device.id)
                nic = None if near is None else near[1].removeprefix(f"{device.host}/")
                place = RankPlace(
                    device.host, gpu, device.index, device.bus_id, number, stage, tensor_rank, _numa(paths, device), nic
                )
                rows.append(place)
    return tuple(rows)


def _numa(paths: Paths, gpu: Device) -> int | None:
    """The NUMA node a GPU says it is on, else that of what it hangs from."""
    above = (paths.topology.by_id[one].numa_node for one in paths.ancestors(gpu.id))
    return next((node for node in (gpu.numa_node, *above) if node is not None), None)


_COLUMNS = ("node", "GPU", "bus id", "replica", "stage", "TP rank", "NUMA", "NIC")


def rank_lines(ranks: Sequence[RankPlace]) -> list[str]:
    r"""The map as a table in plain text; ``GPU`` is the host's own number, ``-`` stands for what nobody said.

    >>> print("\n".join(rank_lines([RankPlace("node0", 2, 2, None, 0, 0, 1, 0, "mlx5_0")])))
    node   GPU  bus id  replica  stage  TP rank  NUMA  NIC
    node0    2       -        0      0        1     0  mlx5_0
    """
    rows = [_COLUMNS, *(_row(place) for place in ranks)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    left = {0, len(_COLUMNS) - 1}
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(place: RankPlace) -> tuple[str, ...]:
    said = (place.host_index, place.bus_id, place.replica, place.stage, place.tensor_rank, place.numa_node, place.nic)
    return (place.node, *("-" if value is None else str(value) for value in said))
