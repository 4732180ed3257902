"""planner calibrate: measurements become links and curves, before and after, and nonsense is refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import jsonschema
import pytest

from measured_box import BOX, BUS_IDS, GIGA, box, nccl_table, pair_rates, peer_matrix, peer_test, predicted, rates_of, truth
from planner.core.operation import Operation
from planner.core.topology import Topology
from planner.cost.interconnect import Interconnect
from planner.cost.link_fit import with_rates
from planner.documents.files import DATA
from planner.documents.topology import dump_topology, parse_topology
from planner.machines import find_topology
from planner.units import BytesPerSecond
from planner.validation import wires_of
from support import Planner

SCHEMA = json.loads((DATA / "schemas" / "calibration.schema.json").read_text("utf-8"))
SIZES = [2**power for power in range(10, 29, 2)]
STAGED = BOX.replace("peer_to_peer: enabled", "peer_to_peer: disabled")
SWITCHED = STAGED.replace("kind: host-bridge", "kind: pcie-switch")
SLOTS = ("gpu0", "gpu1", "gpu2", "gpu3")
CSV_HEAD = "topology,impl,op,n_gpus,message_bytes,time_us,flag\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the box in it, which is where the command runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "box.yaml").write_text(BOX)
    return tmp_path


def written(path: Path) -> Topology:
    return parse_topology(path.read_text(), path.name)


def copies(**rates: float) -> str:
    return peer_test(pair_rates(truth(box(), rates)), 4)


def reduction(ranks: int, rates: dict[str, float], operation: str = "all_reduce") -> str:
    times = predicted(truth(box(), rates), "all_reduce", range(ranks), SIZES)
    return nccl_table(operation, times, ranks)


def rows(
    times: dict[int, float], ranks: int, impl: str = "nccl-2.27.3", topology: str = "", operation: str = "all_reduce"
) -> str:
    """Rows of a CSV; of a machine of as many GPUs, where no ``topology`` is named."""
    return "".join(
        f"{topology or f'{ranks}xL40S'},{impl},{operation},{ranks},{size},{time * 1e6},\n" for size, time in times.items()
    )


def test_copies_become_rates_of_links_with_their_origin(planner: Planner, place: Path) -> None:
    (place / "bw.txt").write_text(copies(gpu0=26, gpu1=26, gpu2=13, gpu3=26, sockets=18))
    run = planner("calibrate", "-t", "box.yaml", "bw.txt")
    assert (run.code, run.err) == (0, "wrote box.yaml\n")
    topology = written(place / "box.yaml")
    assert {name: rate for name, rate in rates_of(topology).items() if rate is not None} == {
        "bridge0–gpu0": 26, "bridge0–gpu1": 26, "bridge1–gpu2": 13, "socket0–socket1": 18,
    }  # fmt: skip
    assert {link.measured_by for link in topology.links if link.measured is not None} == {"copies, bw.txt"}
    assert "assumed 24 → measured 13 to 26, 3 of them, by copies, bw.txt" in run.words
    assert "copies between GPUs, 12 pairs" in run.words
    assert "link-slow: bridge1–gpu2 carries 13 GB/s where such links usually carry 24 GB/s" in run.words
    # the doctor says it from now on, and the picture shows it
    assert "link-slow" in planner("doctor", "box.yaml").words
    assert "13 measured" in planner("topology", "show", "box.yaml").words


def test_a_collective_becomes_a_curve_that_predicts_itself(planner: Planner, place: Path) -> None:
    truly = predicted(truth(box(), {"sockets": 9}), "all_reduce", range(4), SIZES)
    (place / "nccl.txt").write_text(nccl_table("all_reduce", {size: 1.1 * time for size, time in truly.items()}, 4))
    assert planner("calibrate", "-t", "box.yaml", "nccl.txt").code == 0
    (curve,) = written(place / "box.yaml").measurements
    assert (curve.operation, curve.gpus, curve.stack, curve.source) == ("all_reduce", SLOTS, "nccl", "nccl.txt")
    question = ("collective", "all-reduce", "-t", "box.yaml", "-b", "4M", "-e", "4M", "--impl", "nccl", "--format", "json")
    (answer,) = planner(*question).document["predictions"]
    assert answer["time_s"] == pytest.approx(1.1 * truly[2**22], rel=1e-3)
    assert answer["confidence"] == "high"


def test_other_groups_are_predicted_by_the_links(planner: Planner, place: Path) -> None:
    """Two GPUs settle the slots, four what joins the sockets; GPUs 2 and 3 and their all-gather were never measured."""
    rates = {**dict.fromkeys(SLOTS, 18.0), "sockets": 9.0}
    (place / "two.txt").write_text(reduction(2, rates))
    (place / "four.txt").write_text(reduction(4, rates))
    run = planner("calibrate", "-t", "box.yaml", "four.txt", "two.txt", "--format", "json")
    assert run.code == 0
    found = rates_of(written(place / "box.yaml"))
    assert [found[f"bridge{gpu // 2}–gpu{gpu}"] for gpu in range(4)] == [pytest.approx(18, rel=0.01)] * 4
    assert found["socket0–socket1"] == pytest.approx(9, rel=0.01)
    for table in run.document["tables"]:
        assert table["before"]["mean"] > 0.1
        assert table["links_alone"]["mean"] < 0.05
        assert table["after"]["mean"] < 0.01
    machine, fitted = truth(box(), rates), truth(written(place / "box.yaml"), {})
    expected = predicted(machine, "all_gather", [2, 3], SIZES)
    assert predicted(fitted, "all_gather", [2, 3], SIZES) == {
        size: pytest.approx(time, rel=0.05) for size, time in expected.items()
    }


def test_what_copies_settled_a_collective_does_not_move(planner: Planner, place: Path) -> None:
    (place / "bw.txt").write_text(copies(**dict.fromkeys(SLOTS, 20.0)))
    (place / "nccl.txt").write_text(reduction(2, dict.fromkeys(SLOTS, 10.0)))
    run = planner("calibrate", "-t", "box.yaml", "bw.txt", "nccl.txt")
    assert run.code == 0
    assert rates_of(written(place / "box.yaml"))["bridge0–gpu0"] == 20
    assert "links-unexplained: large messages of all-reduce over GPUs 0,1" in run.words


def test_once_more_changes_nothing(planner: Planner, place: Path) -> None:
    (place / "bw.txt").write_text(copies(gpu2=13, sockets=18))
    (place / "nccl.txt").write_text(reduction(4, {"sockets": 7.7}))
    (place / "table.csv").write_text(
        CSV_HEAD + rows(predicted(truth(box(), {}), "all_reduce", [0, 1], SIZES), 2, "vllm-custom-graph-0.14.0")
    )
    question = ("calibrate", "-t", "box.yaml", "bw.txt", "nccl.txt", "table.csv")
    assert planner(*question).code == 0
    once = (place / "box.yaml").read_text()
    again = planner(*question)
    assert "2 of the curves in place of older ones" in again.words
    assert (place / "box.yaml").read_text() == once


def test_a_new_file_adds_to_what_is_there(planner: Planner, place: Path) -> None:
    for name, operation, factor in (
        ("one.txt", "all_reduce", 1.0),
        ("two.txt", "all_gather", 1.0),
        ("three.txt", "all_reduce", 2.0),
    ):
        times = predicted(truth(box(), {}), "all_reduce", range(4), SIZES)
        (place / name).write_text(nccl_table(operation, {size: factor * time for size, time in times.items()}, 4))
        assert planner("calibrate", "-t", "box.yaml", name).code == 0
    topology = written(place / "box.yaml")
    assert {(curve.operation, curve.source) for curve in topology.measurements} == {
        ("all_gather", "two.txt"), ("all_reduce", "three.txt"),
    }  # fmt: skip
    slow = next(link for link in topology.links if link.name == "socket0–socket1")
    assert slow.measured is not None
    assert slow.measured < 9e9
    assert slow.measured_by == "all-reduce over 4 GPUs, three.txt"


def test_the_document_keeps_its_schema(planner: Planner, place: Path) -> None:
    (place / "bw.txt").write_text(copies(gpu2=13))
    (place / "nccl.txt").write_text(reduction(4, {"sockets": 7}))
    for more in ((), ("--dry-run",)):
        document = planner("calibrate", "-t", "box.yaml", "bw.txt", "nccl.txt", "--format", "json", *more).document
        errors = [
            f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)
        ]
        assert errors == []
        assert document["written_to"] == (None if more else "box.yaml")


def test_from_standard_input_to_standard_output(planner: Planner, place: Path) -> None:
    run = planner("calibrate", "-t", "4xL40S", "-", "-o", "-", stdin=copies(gpu0=20))
    assert (run.code, run.err) == (0, "")
    assert parse_topology(run.out, "answer").measurements == ()
    assert "measured_by: copies, standard input" in run.out.replace("'", "")


def test_a_dry_run_writes_nothing(planner: Planner, place: Path) -> None:
    (place / "bw.txt").write_text(copies(gpu2=13))
    run = planner("calibrate", "-t", "box.yaml", "bw.txt", "--dry-run")
    assert run.code == 0
    assert "would be written" in run.words
    assert "nothing written (--dry-run)" in run.err
    assert (place / "box.yaml").read_text() == BOX


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-t", "4xL40S"), "4xL40S: is no file to write the measurements into hint: say where with -o FILE"),
        (("-t", "topo.txt"), "topo.txt: is a capture, not a topology document"),
        (("-t", "commented.yaml"), "commented.yaml: holds comments, which would be lost hint: add --force"),
        (("-t", "box.yaml", "-o", "there.yaml"), "there.yaml: is there already hint: name another file, or add --force"),
        (("-t", "box.yaml", "-o", "box.yaml"), "box.yaml: is there already hint: leave -o out to update box.yaml"),
        (("-t", "absent.yaml"), "absent.yaml: no such file"),
        (("-t", "box.yaml", "absent.txt"), "absent.txt: no such file"),
        (("-t", "box.yaml", "--operation", "all-produce"), "unknown operation 'all-produce'"),
        (("-t", "box.yaml", "--gpus", "0,9"), "no GPU 9"),
        (("-t", "-", "-"), "-: is no file to write the measurements into"),
        (("-t", "-", "-", "-o", "new.yaml"), "standard input is read once"),
    ],
)
def test_where_it_cannot_write_nothing_is_read(planner: Planner, place: Path, arguments: tuple[str, ...], words: str) -> None:
    (place / "bw.txt").write_text(copies(gpu2=13))
    (place / "there.yaml").write_text("somebody's")
    (place / "commented.yaml").write_text("# mine\n" + BOX)
    (place / "topo.txt").write_text(planner("topology", "show", "8x-l40s", "--format", "topo-m").out)
    before = {path.name: path.read_text() for path in place.iterdir()}
    run = planner("calibrate", "bw.txt", *arguments)
    assert (run.code, run.out) == (2, "")
    assert words in run.words
    assert run.err.count("planner:") == 1
    assert {path.name: path.read_text() for path in place.iterdir()} == before


def test_force_drops_comments_and_a_number_sign_in_words_is_none(planner: Planner, place: Path) -> None:
    (place / "bw.txt").write_text(copies(gpu2=13))
    (place / "named.yaml").write_text(BOX.replace("name: box\n", "name: box\ndescription: 'box # 7'\n", 1))
    assert planner("calibrate", "-t", "named.yaml", "bw.txt").code == 0
    (place / "commented.yaml").write_text(BOX + "# mine\n")
    assert planner("calibrate", "-t", "commented.yaml", "bw.txt", "--force").code == 0
    assert "mine" not in (place / "commented.yaml").read_text()


def test_the_file_is_the_old_or_the_new_one_whole(planner: Planner, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "bw.txt").write_text(copies(gpu2=13))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        run = planner("calibrate", "-t", "box.yaml", "bw.txt")
    assert (run.code, run.out) == (3, "")
    assert (place / "box.yaml").read_text() == BOX
    assert sorted(path.name for path in place.iterdir()) == ["box.yaml", "bw.txt"]
    assert planner("calibrate", "-t", "box.yaml", "bw.txt").code == 0
    assert stat.S_IMODE((place / "box.yaml").stat().st_mode) & 0o600 == 0o600


def as_measured(ranks: int = 4, **more: object) -> str:
    times = predicted(truth(box(), {}), "all_reduce", range(ranks), SIZES)
    return nccl_table("all_reduce", times, ranks, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (as_measured(model="NVIDIA H100 80GB HBM3"), "was measured on H100-SXM5-80GB; GPU 0 of box is L40S"),
        (as_measured(bus_ids=("0000:01:00.0", "0000:02:00.0", "0000:81:00.0", "0000:c1:00.0")), "names a GPU at 0000:02:00.0; box has none there"),
        (as_measured(2, listed=False), "is of 2 GPUs and does not say which; box has 4 hint: add --gpus"),
        (nccl_table("all_reduce", {2**30: 2**30 / 60e9}, 4), "a bus bandwidth of 90 GB/s (1073741824 B in 1.79e+04 µs); the wires of a GPU in this group carry 31.5 GB/s"),
        (peer_test(dict.fromkeys(pair_rates(truth(box(), {})), 80 * GIGA), 4), "80 GB/s from GPU 0 to GPU 1; the wires between them carry 31.5 GB/s"),
        (peer_test(pair_rates(truth(box(), {})), 4, model="NVIDIA A40"), "was measured on A40; GPU 0 of box is L40S"),
        (nccl_table("all_reduce", predicted(truth(box(), {}), "all_reduce", range(4), SIZES), 4, factor=7.0), "FILE"),
        (nccl_table("all_reduce", {2**30: 2**30 / 15e6}, 4), "a bus bandwidth of 0.0225 GB/s"),
        (nccl_table("all_reduce", {2**28: 0.02, 2**29: 0.04, 2**30: 100.0}, 4), "FILE, line 12: a bus bandwidth of 0.01611 GB/s"),
        (nccl_table("all_reduce", {2**16: 1e6, 2**28: 0.02}, 4), "FILE, line 10: a bus bandwidth of 9.83e-11 GB/s"),
        (as_measured(2).replace("nGpus 2", "nGpus 3"), "lists 2 ranks; its header says 3 GPUs a process"),
        (CSV_HEAD + "8xL40S,nccl-2.27.3,all_reduce,8,1048576,500,\n", "is of 8 GPUs; box has 4"),
        (CSV_HEAD + "2xH100-SXM5-80GB,nccl-2.27.3,all_reduce,2,1048576,50,\n", "is of H100-SXM5-80GB; box has L40S"),
        (CSV_HEAD + "2xT4,nccl-2.27.3,all_reduce,2,1024,50,\n2xL4,nccl-2.27.3,all_reduce,2,1024,50,\n", "has rows of 2 machines (2xL4, 2xT4), none of them box.yaml"),
        (CSV_HEAD + "box,gloo-1,all_reduce,2,1024,50,\n", "holds no row that can be used hint: unknown implementation 'gloo-1'"),
        (CSV_HEAD + "box,nccl-2,all_reduce,2,1024,nan,\n", "FILE, line 2: time_us is 'nan'"),
        (CSV_HEAD.replace("time_us,", ""), "no column time_us"),
        ("hello\n", "holds no measurement that planner reads"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_what_is_wrong(planner: Planner, place: Path, text: str, words: str) -> None:
    (place / "FILE").write_text(text)
    (place / "good.txt").write_text(copies(gpu2=13))
    run = planner("calibrate", "-t", "box.yaml", "good.txt", "FILE")
    assert (run.code, run.out) == (2, "")
    assert words in run.words
    assert run.err.count("planner:") == 1
    assert (place / "box.yaml").read_text() == BOX


def test_latencies_say_nothing_of_links(planner: Planner, place: Path) -> None:
    (place / "lat.txt").write_text(peer_matrix("P2P=Enabled Latency (P2P Writes) Matrix (us)", 4, lambda a, b: 1 + a + b))
    run = planner("calibrate", "-t", "box.yaml", "lat.txt")
    assert (run.code, run.out) == (2, "")
    assert "lat.txt: tells nothing of what links carry" in run.words
    (place / "bw.txt").write_text(copies(gpu2=13))
    assert "lat.txt: latencies alone" in planner("calibrate", "-t", "box.yaml", "bw.txt", "lat.txt").words


def test_gpus_say_what_a_table_does_not(planner: Planner, place: Path) -> None:
    (place / "pair.txt").write_text(as_measured(2, listed=False))
    assert planner("calibrate", "-t", "box.yaml", "pair.txt", "--gpus", "3,2").code == 0
    (curve,) = written(place / "box.yaml").measurements
    assert curve.gpus == ("gpu3", "gpu2")
    assert "names 3" in planner("calibrate", "-t", "box.yaml", "pair.txt", "--gpus", "0,1,2").words


def test_bus_ids_go_before_indices(planner: Planner, place: Path) -> None:
    """CUDA_VISIBLE_DEVICES=2,3: the program counts from 0, the bus ids tell."""
    (place / "pair.txt").write_text(as_measured(2, bus_ids=("0000:81:00.0", "0000:c1:00.0")))
    assert planner("calibrate", "-t", "box.yaml", "pair.txt").code == 0
    (curve,) = written(place / "box.yaml").measurements
    assert curve.gpus == ("gpu2", "gpu3")
    assert (
        "by its bus ids it is of GPUs 2,3; --gpus says 0,1"
        in planner("calibrate", "-t", "box.yaml", "pair.txt", "--gpus", "0,1").words
    )


def test_the_drivers_word_on_peer_access_is_written(planner: Planner, place: Path) -> None:
    text = peer_test(pair_rates(truth(box(), dict.fromkeys(SLOTS, 11.0))), 4, can=False)
    (place / "bw.txt").write_text(text)
    run = planner("calibrate", "-t", "box.yaml", "bw.txt")
    assert run.code == 0
    assert "peer-access-differs: the driver refuses direct copies between GPUs 0–1, 0–2, 0–3, 1–2 and 2 more" in run.words
    assert "copies through host memory, 12 pairs" in run.words
    topology = written(place / "box.yaml")
    assert topology.hosts[0].peer_status[0].statuses[0] == ("X", "NS", "NS", "NS")
    # each link is crossed twice
    assert rates_of(topology)["bridge0–gpu0"] == 22
    # and back: the tool finds that the GPUs can
    (place / "bw.txt").write_text(peer_test(pair_rates(truth(box(), {})), 4))
    again = planner("calibrate", "-t", "box.yaml", "bw.txt")
    assert "which the topology rules out; it now allows them" in again.words
    assert written(place / "box.yaml").hosts[0].peer_status[0].statuses[0] == ("X", "OK", "OK", "OK")


def test_what_the_driver_allows_and_nccl_does_not_use_is_said_and_not_written(planner: Planner, place: Path) -> None:
    (place / "box.yaml").write_text(BOX.replace("  peer_to_peer: enabled\n", ""))
    (place / "bw.txt").write_text(copies())
    run = planner("calibrate", "-t", "box.yaml", "bw.txt")
    assert "peer-access-unused" in run.words
    assert written(place / "box.yaml").hosts[0].peer_status == ()


def test_a_csv_of_several_machines_gives_the_rows_of_this_one(planner: Planner, place: Path) -> None:
    two, four = (predicted(truth(box(), {}), "all_reduce", range(ranks), SIZES) for ranks in (2, 4))
    text = CSV_HEAD + rows(two, 2, topology="2xL40S") + rows(four, 4, topology="4xL40S") + rows(two, 2, topology="2xT4")
    text += rows(two, 2, "vllm-custom-eager-0.14.0", "2xL40S") + rows(two, 2, topology="2xL40S", operation="reduce")
    (place / "table.csv").write_text(text + "2xL40S,nccl-2.27.3,all_reduce,2,0,0.3,\n")
    run = planner("calibrate", "-t", "box.yaml", "table.csv")
    assert run.code == 0
    assert f"{len(SIZES)} of {5 * len(SIZES) + 1} rows left out: of other machines" in run.words
    assert f"{len(SIZES)} rows left out: unknown operation 'reduce'" in run.words
    assert "1 row left out: no bytes are moved" in run.words
    curves = {(len(curve.gpus), curve.stack) for curve in written(place / "box.yaml").measurements}
    assert curves == {(2, "nccl"), (4, "nccl"), (2, "vllm-eager")}


def test_versions_are_taken_at_their_middle_and_repeats_that_disagree_are_told(planner: Planner, place: Path) -> None:
    times = {size: 20e-6 + size / 20e9 for size in SIZES}
    text = CSV_HEAD + "".join(
        rows({size: factor * time for size, time in times.items()}, 2, f"nccl-2.{number}.1")
        for number, factor in ((25, 1.0), (27, 1.1), (26, 1.3))
    )
    (place / "table.csv").write_text(text)
    run = planner("calibrate", "-t", "box.yaml", "table.csv")
    (curve,) = written(place / "box.yaml").measurements
    assert dict(curve.points)[2**20] == pytest.approx(1.1 * times[2**20], rel=1e-4)  # type: ignore[index]
    assert "rows-disagree" not in run.words
    (place / "table.csv").write_text(text + rows({size: 30 * time for size, time in times.items()}, 2))
    assert "rows-disagree: all-reduce over 2 GPUs by nccl" in planner("calibrate", "-t", "box.yaml", "table.csv").words


def test_launches_one_by_one_are_a_curve_of_their_own(planner: Planner, place: Path) -> None:
    graph = {size: 10e-6 + size / 20e9 for size in SIZES}
    (place / "table.csv").write_text(
        CSV_HEAD
        + rows(graph, 2, "vllm-custom-graph-0.14.0")
        + rows({size: max(80e-6, time) for size, time in graph.items()}, 2, "vllm-custom-eager-0.14.0")
    )
    assert planner("calibrate", "-t", "box.yaml", "table.csv").code == 0
    question = (
        "collective",
        "all-reduce",
        "-t",
        "box.yaml",
        "--gpus",
        "0,1",
        "-b",
        "1K",
        "-e",
        "1K",
        "--impl",
        "vllm",
        "--format",
        "json",
    )
    times = [planner(*question, *more).document["predictions"][0]["time_s"] for more in ((), ("--eager",))]
    assert times == [pytest.approx(10.05e-6, rel=1e-2), pytest.approx(80e-6, rel=1e-2)]


@pytest.mark.parametrize("width", ["40", "60", "80", "200"])
def test_it_fits_the_terminal(planner: Planner, place: Path, monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    (place / "bw.txt").write_text(copies(gpu2=13))
    (place / "nccl.txt").write_text(reduction(4, {"sockets": 7}))
    monkeypatch.setenv("COLUMNS", width)
    run = planner("calibrate", "-t", "box.yaml", "bw.txt", "nccl.txt", "--dry-run")
    assert run.code == 0
    assert max(map(len, run.out.splitlines())) <= int(width)


def test_what_is_written_reads_back_and_the_same(place: Path, planner: Planner) -> None:
    (place / "bw.txt").write_text(copies(gpu2=13, sockets=17.3))
    (place / "nccl.txt").write_text(reduction(4, {"sockets": 7.77}))
    assert planner("calibrate", "-t", "box.yaml", "bw.txt", "nccl.txt").code == 0
    text = (place / "box.yaml").read_text()
    assert dump_topology(parse_topology(text, "box.yaml")) == text


def test_half_the_sizes_predict_the_other_half(planner: Planner, place: Path) -> None:
    """As a user checks it: calibrate with some rows, validate the others against the file."""
    times = {size: 25e-6 + size / 4e9 for size in (2**power for power in range(10, 29))}
    halves = [dict(list(times.items())[half::2]) for half in (0, 1)]
    for name, half in zip(("fit.csv", "rest.csv"), halves, strict=True):
        (place / name).write_text(CSV_HEAD + rows(half, 4, topology="box.yaml").replace(",\n", ",doubted\n"))
    question = ("validate", "rest.csv", "--include-flagged", "--format", "json")
    before = planner(*question).document["overall"]["mape"]
    assert planner("calibrate", "-t", "box.yaml", "fit.csv").code == 0
    after = planner(*question).document["overall"]["mape"]
    assert after < 0.1 < before


def pair_table(
    pair: tuple[int, int], rates: dict[str, float], *, operation: Operation = "all_reduce", staged: bool = False
) -> str:
    """A table of two GPUs of the box, told by their bus ids."""
    wires = truth(parse_topology(STAGED if staged else BOX, "box.yaml"), rates)
    return nccl_table(operation, predicted(wires, operation, pair, SIZES), 2, bus_ids=[BUS_IDS[gpu] for gpu in pair])


def slots(topology: Topology) -> list[float | None]:
    return [rates_of(topology)[f"bridge{gpu // 2}–gpu{gpu}"] for gpu in range(4)]


@pytest.mark.parametrize("name", ["nccl.txt", "a, nccl.txt"])
def test_a_file_of_the_same_name_takes_nothing_away_from_another_question(planner: Planner, place: Path, name: str) -> None:
    for day, text in (
        ("one", pair_table((0, 1), dict.fromkeys(SLOTS, 18.0))),
        ("two", pair_table((2, 3), dict.fromkeys(SLOTS, 18.0), operation="send_recv")),
    ):
        (place / day).mkdir()
        (place / day / name).write_text(text)
    assert planner("calibrate", "-t", "box.yaml", f"one/{name}").code == 0
    links = written(place / "box.yaml").links
    assert sum(link.measured is not None for link in links) == 4
    run = planner("calibrate", "-t", "box.yaml", f"two/{name}")
    assert written(place / "box.yaml").links == links
    assert f"measured earlier by all-reduce over GPUs 0,1, {name} (on links alike)" in run.words
    text = (place / "box.yaml").read_text()
    assert planner("calibrate", "-t", "box.yaml", f"one/{name}").code == 0
    assert (place / "box.yaml").read_text() == text


@pytest.mark.parametrize("order", [(0, 2), (2, 0)])
def test_a_rate_taken_over_gives_way_to_one_that_was_measured(planner: Planner, place: Path, order: tuple[int, ...]) -> None:
    for first in order:
        (place / "nccl.txt").write_text(pair_table((first, first + 1), dict.fromkeys(SLOTS, 18.0 - first)))
        assert planner("calibrate", "-t", "box.yaml", "nccl.txt").code == 0
    assert slots(written(place / "box.yaml")) == [pytest.approx(rate, rel=0.01) for rate in (18, 18, 16, 16)]


def bridged(pair: tuple[int, int], share: float) -> str:
    """A table over one of the bridges of a box of RTX 3090, which carries a share of what it should."""
    wires = wires_of(find_topology("4x-rtx-3090-bridged"))
    (number,) = {number for number, _ in wires.path(*pair).links}
    slow = BytesPerSecond(share * float(wires.topology.links[number].achieved or 0.0))
    times = predicted(Interconnect(with_rates(wires.topology, {number: slow}), wires.specs), "all_reduce", pair, SIZES)
    listed = "".join(f"#  Rank {rank} Group 0 Pid 1 on box device {gpu} [00]\n" for rank, gpu in enumerate(pair))
    return nccl_table("all_reduce", times, 2, listed=False).replace("#\n", f"#\n{listed}", 1)


def test_a_slow_nvlink_says_nothing_of_the_others(planner: Planner, place: Path) -> None:
    assert planner("probe", "4x-rtx-3090-bridged", "-o", "bridged.yaml").code == 0
    (place / "slow.txt").write_text(bridged((0, 2), 0.5))
    run = planner("calibrate", "-t", "bridged.yaml", "slow.txt")
    found = {name: rate for name, rate in rates_of(written(place / "bridged.yaml")).items() if rate is not None}
    assert found == {"gpu0–gpu2": pytest.approx(24, rel=0.02)}
    assert "link-slow: gpu0–gpu2 carries 24 GB/s" in run.words
    # two slow ones in one run are each as slow as they are
    (place / "slower.txt").write_text(bridged((1, 3), 0.25))
    assert planner("calibrate", "-t", "bridged.yaml", "slow.txt", "slower.txt").code == 0
    found = {name: rate for name, rate in rates_of(written(place / "bridged.yaml")).items() if rate is not None}
    assert found == {"gpu0–gpu2": pytest.approx(24, rel=0.02), "gpu1–gpu3": pytest.approx(12, rel=0.02)}
    # and a repaired one is no longer said to be slow
    (place / "repaired.txt").write_text(bridged((0, 2), 1.0))
    run = planner("calibrate", "-t", "bridged.yaml", "repaired.txt")
    assert "before 24 → 48" in run.words
    assert rates_of(written(place / "bridged.yaml"))["gpu0–gpu2"] is None


def test_text_document_and_file_count_the_same_links(planner: Planner, place: Path) -> None:
    (place / "nccl.txt").write_text(pair_table((0, 1), dict.fromkeys(SLOTS, 12.0)))
    question = ("calibrate", "-t", "box.yaml", "nccl.txt")
    document = planner(*question, "--dry-run", "--format", "json").document
    assert (document["measured_links"], document["alike_links"]) == (2, 2)
    run = planner(*question)
    assert "×4: line rate 31.5, assumed 24 → measured 12, 2 of them and 2 alike, by all-reduce over GPUs 0,1" in run.words
    assert "2 measured links, 2 links alike and 1 measured curve" in run.words
    assert (place / "box.yaml").read_text().count(" measured: ") == 4
    # what nobody measured is not accused
    assert "link-slow: bridge0–gpu0, bridge0–gpu1 carry 12 GB/s" in run.words
    assert "before 12 → measured 12" in planner(*question).words


def test_one_group_that_is_slower_is_not_explained_at_the_cost_of_another(planner: Planner, place: Path) -> None:
    (place / "box.yaml").write_text(STAGED)
    (place / "fast.txt").write_text(pair_table((0, 1), dict.fromkeys(SLOTS, 20.0), staged=True))
    (place / "slow.txt").write_text(pair_table((2, 3), dict.fromkeys(SLOTS, 10.0), staged=True))
    run = planner("calibrate", "-t", "box.yaml", "fast.txt", "slow.txt", "--format", "json")
    for table in run.document["tables"]:
        assert table["links_alone"]["mean"] < table["before"]["mean"]
    assert rates_of(written(place / "box.yaml"))["socket0–bridge0"] is None


def test_groups_are_judged_by_the_links_as_they_are_in_the_end(planner: Planner, place: Path) -> None:
    """What joins the sockets explains GPUs 0 and 2; that 0 and 3 are slower then goes to the host bridges, which both cross."""
    (place / "two.txt").write_text(pair_table((0, 2), {"sockets": 15}))
    (place / "three.txt").write_text(pair_table((0, 3), {"sockets": 6}))
    words = planner("calibrate", "-t", "box.yaml", "two.txt", "three.txt").words
    assert "links-unexplained: large messages of all-reduce over GPUs 0,2 are 2.5 times faster" in words


def test_the_word_on_every_pair_is_kept_and_a_second_run_changes_nothing(planner: Planner, place: Path) -> None:
    (place / "box.yaml").write_text(SWITCHED)
    text = peer_test(dict.fromkeys(pair_rates(truth(box(), {})), 11 * GIGA), 4)
    for a, b in pair_rates(truth(box(), {})):
        if {a, b} != {0, 1}:
            text = text.replace(f"Device={a} CAN Access Peer Device={b}\n", f"Device={a} CANNOT Access Peer Device={b}\n")
    (place / "bw.txt").write_text(text)
    assert "between GPUs 0–1, which the topology rules out" in planner("calibrate", "-t", "box.yaml", "bw.txt").words
    topology = written(place / "box.yaml")
    assert topology.hosts[0].peer_status[0].statuses == (
        ("X", "OK", "NS", "NS"), ("OK", "X", "NS", "NS"), ("NS", "NS", "X", "NS"), ("NS", "NS", "NS", "X"),
    )  # fmt: skip
    assert wires_of(topology).path(2, 3).staged
    once = (place / "box.yaml").read_text()
    again = planner("calibrate", "-t", "box.yaml", "bw.txt")
    assert (place / "box.yaml").read_text() == once
    assert "peer-access" not in again.words


def test_pairs_that_the_tool_was_not_asked_about_stay_refused(planner: Planner, place: Path) -> None:
    (place / "box.yaml").write_text(SWITCHED)
    (place / "bw.txt").write_text(peer_test(pair_rates(truth(box(), {})), 2))
    assert planner("calibrate", "-t", "box.yaml", "bw.txt").code == 0
    wires = wires_of(written(place / "box.yaml"))
    assert [wires.path(*pair).staged for pair in ((0, 1), (2, 3))] == [False, True]


def test_what_distance_keeps_apart_all_the_same_is_not_called_allowed(planner: Planner, place: Path) -> None:
    (place / "box.yaml").write_text(SWITCHED)
    (place / "bw.txt").write_text(copies())
    words = planner("calibrate", "-t", "box.yaml", "bw.txt").words
    assert "between GPUs 0–1, 2–3, which the topology rules out; it now allows them" in words
    assert "between GPUs 0–2, 0–3, 1–2, 1–3; NCCL does not use them over that distance" in words


def test_rows_of_fewer_gpus_want_to_know_which(planner: Planner, place: Path) -> None:
    times = {size: 20e-6 + size / 20e9 for size in SIZES}
    (place / "table.csv").write_text(CSV_HEAD + rows(times, 2, topology="box.yaml"))
    question = ("calibrate", "-t", "box.yaml", "table.csv")
    run = planner(*question)
    assert (run.code, run.out) == (2, "")
    assert "table.csv, line 2: is of 2 GPUs and does not say which; box has 4 hint: add --gpus" in run.words
    assert "is of 2 GPUs; --gpus names 4" in planner(*question, "--gpus", "0,1,2,3").words
    assert planner(*question, "--gpus", "2,3").code == 0
    (curve,) = written(place / "box.yaml").measurements
    assert curve.gpus == ("gpu2", "gpu3")
    # of a machine with no more GPUs they are the first, and that is said; where any two are alike there is nothing to tell
    (place / "table.csv").write_text(CSV_HEAD + rows(times, 2))
    assert "table.csv: rows of 2 GPUs are taken to be of the first 2" in planner(*question).words
    (place / "table.csv").write_text(CSV_HEAD + rows({2**24: 200e-6}, 2, topology="8xH100-SXM5-80GB"))
    assert planner("calibrate", "-t", "8xH100-SXM5-80GB", "table.csv", "-o", "new.yaml").code == 0


def test_a_table_without_its_end_is_told(planner: Planner, place: Path) -> None:
    whole = as_measured()
    (place / "whole.txt").write_text(whole.split("# Out of bounds")[0])
    assert "table-cut" not in planner("calibrate", "-t", "box.yaml", "whole.txt", "--dry-run").words
    (place / "cut.txt").write_text("".join(whole.splitlines(keepends=True)[:13]))
    run = planner("calibrate", "-t", "box.yaml", "cut.txt")
    assert run.code == 0
    assert "table-cut: the table of all-reduce over 4 GPUs ends at 64 KiB; its header announces 256 MiB" in run.words


def test_files_in_turn_do_not_scale_what_they_did_not_measure(planner: Planner, place: Path) -> None:
    """GPUs 4 to 7 of a box are crossed by neither file, however often each is read."""
    wires = wires_of(find_topology("8x-rtx-4090"))
    rates = {number: BytesPerSecond(12 * GIGA) for number, link in enumerate(wires.topology.links) if "gpu" in link.name}
    machine = Interconnect(with_rates(wires.topology, rates), wires.specs)
    assert planner("probe", "8x-rtx-4090", "-o", "eight.yaml").code == 0
    for pair in ((0, 1), (2, 3)) * 2:
        (place / "nccl.txt").write_text(nccl_table("all_gather", predicted(machine, "all_gather", pair, SIZES), 2, listed=False))
        question = ("calibrate", "-t", "eight.yaml", "nccl.txt", "--operation", "all-gather")
        assert planner(*question, "--gpus", ",".join(map(str, pair))).code == 0
    found = {link.name: link.measured for link in written(place / "eight.yaml").links if "gpu" in link.name}
    assert list(found.values()) == [pytest.approx(12 * GIGA, rel=0.02)] * 8


def test_a_larger_group_that_finds_the_same_does_not_take_the_origin(planner: Planner, place: Path) -> None:
    rates = dict.fromkeys(SLOTS, 12.0) | {"sockets": 60.0}
    for name, text in (("two.txt", reduction(2, rates)), ("four.txt", reduction(4, rates)), ("four.txt", reduction(4, rates))):
        (place / name).write_text(text)
        assert planner("calibrate", "-t", "box.yaml", name).code == 0
        assert slots(written(place / "box.yaml")) == [pytest.approx(12, rel=0.01)] * 4
