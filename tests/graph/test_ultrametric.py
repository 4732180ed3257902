from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from planner.core.topology import Device, DeviceKind, Host, Origin, Topology
from planner.graph.build import HostBuilder
from planner.graph.paths import PathKind, Paths
from planner.graph.ultrametric import Distance, cluster, complete

CLASSES = [PathKind.PIX, PathKind.PXB, PathKind.PHB, PathKind.NODE, PathKind.SYS]


def distance(a: tuple[int, ...], b: tuple[int, ...]) -> PathKind:
    """Addresses are (socket, bridge, tree of switches, switch): the first difference says the class."""
    for place, kind in enumerate((PathKind.SYS, PathKind.NODE, PathKind.PHB, PathKind.PXB)):
        if a[place] != b[place]:
            return kind
    return PathKind.PIX


addresses = st.lists(st.tuples(*(st.integers(0, 1) for _ in range(4))), min_size=2, max_size=8)


@given(addresses)
def test_the_tree_of_any_matrix_of_a_tree_gives_the_matrix_back(places: list[tuple[int, ...]]) -> None:
    size = len(places)
    matrix: list[list[Distance]] = [[distance(a, b) for b in places] for a in places]
    leaves = [Device(f"gpu{number}", DeviceKind.GPU, "h", number) for number in range(size)]
    builder = HostBuilder(leaves, "h")
    builder.tree(cluster(matrix, range(size)))
    topology = Topology("t", (Host("h"),), tuple(builder.devices), tuple(builder.links), Origin("written", "test"))
    topology.check()
    paths = Paths(topology)
    for i in range(size):
        for j in range(size):
            if i != j:
                assert paths.pcie_kind(f"gpu{i}", f"gpu{j}") is matrix[i][j]


@given(addresses, st.data())
def test_what_completion_fills_in_is_true_and_what_it_leaves_open_is_not_settled(
    places: list[tuple[int, ...]], data: st.DataObject
) -> None:
    size = len(places)
    truth = [[distance(a, b) for b in places] for a in places]
    hidden: list[list[Distance]] = [list(row) for row in truth]
    for i in range(size):
        for j in range(i + 1, size):
            if data.draw(st.booleans()):
                hidden[i][j] = hidden[j][i] = None
    filled = complete(hidden)
    for i in range(size):
        for j in range(size):
            if i != j and filled[i][j] is not None:
                assert filled[i][j] is truth[i][j]
            if hidden[i][j] is not None:
                assert filled[i][j] is hidden[i][j]


def test_a_hidden_pair_is_never_taken_for_pix() -> None:
    alike: list[list[Distance]] = [[None, None], [None, None]]
    assert complete(alike)[0][1] is None


def test_clusters_nest() -> None:
    matrix: list[list[Distance]] = [
        [PathKind.PIX, PathKind.PIX, PathKind.SYS],
        [PathKind.PIX, PathKind.PIX, PathKind.SYS],
        [PathKind.SYS, PathKind.SYS, PathKind.PIX],
    ]
    sockets = cluster(matrix, range(3))
    assert [socket.members for socket in sockets] == [(0, 1), (2,)]
    assert sockets[0].parts[0].parts[0].parts[0].members == (0, 1)
    assert all(nearer < farther for nearer, farther in pairwise(CLASSES))
