from __future__ import annotations

from dataclasses import replace

import pytest

from planner.core.capture import Capture, GpuSight, Matrix, NicSight, PeerLinkSight
from planner.core.facts import GpuFacts, HostFacts
from planner.core.unknown import Unknown
from planner.errors import BadInput
from planner.graph.join import join


def capture(name: str, *gpus: GpuSight, **rest: object) -> Capture:
    return replace(Capture(source=f"{name}.txt", format=name, gpus=gpus), **rest)  # type: ignore[arg-type] # fields by name


def matrix(cells: list[str]) -> Matrix:
    names = tuple(f"GPU{number}" for number in range(len(cells)))
    words = {(a, b): word for a, row in zip(names, cells, strict=True) for b, word in zip(names, row.split(), strict=True)}
    return Matrix(names, words)


def test_what_one_does_not_tell_the_other_may() -> None:
    one = capture("topo", GpuSight(index=0, numa_node=1), GpuSight(index=1), host=HostFacts(driver="550.54"))
    other = capture("query", GpuSight(index=1, model="L4", facts=GpuFacts(uuid="GPU-1")), nics=(NicSight(label="mlx5_0"),))
    joined = join([one, other])
    assert [(sight.index, sight.model, sight.numa_node) for sight in joined.gpus] == [(0, None, 1), (1, "L4", None)]
    assert joined.gpus[1].facts.uuid == "GPU-1"
    assert joined.host.driver == "550.54"
    assert [card.label for card in joined.nics] == ["mlx5_0"]
    assert joined.source == "topo.txt, query.txt"
    assert joined.format == "topo, query"


def test_a_reason_is_better_than_silence_and_a_value_better_than_a_reason() -> None:
    reason = Unknown("NVML: Not Supported")
    silent, failed, known = (
        GpuSight(index=0, facts=facts) for facts in (GpuFacts(), GpuFacts(fabric=reason), GpuFacts(fabric="completed"))
    )
    for order in ((silent, failed), (failed, silent)):
        assert join([capture("a", order[0]), capture("b", order[1])]).gpus[0].facts.fabric == reason
    for order in ((failed, known), (known, failed)):
        assert join([capture("a", order[0]), capture("b", order[1])]).gpus[0].facts.fabric == "completed"


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (GpuSight(index=0, model="L4"), GpuSight(index=0, model="T4"), "GPU 0 has the model T4 here and L4 in a.txt"),
        (
            GpuSight(index=0, facts=GpuFacts(uuid="GPU-1")),
            GpuSight(index=0, facts=GpuFacts(uuid="GPU-2")),
            "GPU 0 has the UUID GPU-2 here and GPU-1 in a.txt",
        ),
    ],
)
def test_two_gpus_in_one_place_are_two_hosts(one: GpuSight, other: GpuSight, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        join([capture("a", one), capture("b", other)])
    assert caught.value.path == "b.txt"
    assert "planner topology merge" in caught.value.hint


def test_more_gpus_than_the_matrix_shows_are_another_host() -> None:
    whole = capture("topo", matrix=matrix(["X PIX", "PIX X"]))
    for part in (capture("links", GpuSight(index=7)), capture("p2p", peers={"read": {(0, 7): "OK"}})):
        for order in ([whole, part], [part, whole]):
            with pytest.raises(BadInput, match="GPU 7"):
                join(order)


def test_two_matrices_agree_or_are_refused() -> None:
    one = capture("m", matrix=matrix(["X NV4", "NV4 X"]))
    assert join([one, one]).matrix == one.matrix
    with pytest.raises(BadInput, match="GPU0-GPU1 is NV8 here and NV4 in"):
        join([one, capture("n", matrix=matrix(["X NV8", "NV8 X"]))])
    with pytest.raises(BadInput, match="a matrix of 1 GPUs"):
        join([one, capture("n", matrix=matrix(["X"]))])


def test_topo_mp_tells_the_pcie_class_under_an_nvlink() -> None:
    links, pcie = capture("m", matrix=matrix(["X NV4", "NV4 X"])), capture("mp", matrix=matrix(["X SYS", "SYS X"]))
    for order in ([links, pcie], [pcie, links]):
        joined = join(order).matrix
        assert joined is not None
        assert joined.cells["GPU0", "GPU1"] == "NV4"
        assert joined.under["GPU0", "GPU1"] == "SYS"


def test_gpus_that_another_source_counts_differently_are_known_by_bus_id() -> None:
    smi = capture("smi", GpuSight(index=0, bus_id="0000:01:00.0"), GpuSight(index=1, bus_id="0000:02:00.0"))
    nccl = capture(
        "nccl",
        GpuSight(index=0, bus_id="0000:02:00.0", numa_node=1),
        GpuSight(index=1, bus_id="0000:01:00.0", numa_node=0),
        links=(PeerLinkSight(a=0, b=None, count=18), PeerLinkSight(a=1, b=None, count=17)),
        matrix=Matrix(("GPU0", "GPU1"), {("GPU0", "GPU1"): "PIX"}, numa_nodes={"GPU0": 1}),
        peers={"read": {(0, 1): "OK", (1, 0): "NS"}},
    )
    joined = join([smi, nccl])
    assert [(sight.bus_id, sight.numa_node) for sight in joined.gpus] == [("0000:01:00.0", 0), ("0000:02:00.0", 1)]
    assert [(link.a, link.count) for link in joined.links] == [(1, 18), (0, 17)]
    assert joined.peers["read"] == {(1, 0): "OK", (0, 1): "NS"}
    assert joined.matrix is not None
    assert joined.matrix.numa_nodes == {"GPU1": 1}
