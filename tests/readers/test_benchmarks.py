from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from measured_support import nvbandwidth, peer_test, table
from planner.core.measured import MeasuredCopies, MeasuredTable
from planner.readers import benchmarks, torch_benchmark
from planner.readers.bounded_run import run_bounded
from planner.readers.measurements import read_measurements

COLLECTIVES = ("all_reduce", "all_gather", "alltoall")
NO_TORCH = "exit 3"


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH but for the system's own, on a host where nothing else is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("NCCL_TESTS_HOME", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(benchmarks, "FOLDERS", ())
    program(folder, "python3", NO_TORCH)
    monkeypatch.setattr(sys, "executable", str(folder / "python3"))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def prints(folder: Path, name: str, text: str, then: str = "") -> None:
    """A program that notes its arguments, and prints a text."""
    (folder / f"{name}.txt").write_text(text)
    program(folder, name, f'echo "$CUDA_DEVICE_ORDER $*" > {folder}/{name}.asked\ncat {folder}/{name}.txt\n{then}')


def nccl_tests(folder: Path, ranks: int = 4) -> None:
    for name in COLLECTIVES:
        folder.mkdir(parents=True, exist_ok=True)
        prints(folder, f"{name}_perf", table(name, ranks, checked=False))


def test_programs_in_path_are_run_and_read(bin_folder: Path) -> None:
    nccl_tests(bin_folder)
    prints(bin_folder, "p2pBandwidthLatencyTest", peer_test(4))
    seen: list[tuple[str, int, int]] = []
    found = benchmarks.measure(4, 60, lambda *told: seen.append(told))
    assert found.findings == ()
    tables = [one for one in found.measured if isinstance(one, MeasuredTable)]
    assert [(one.operation, one.ranks) for one in tables] == [("all_reduce", 4), ("all_gather", 4), ("all_to_all", 4)]
    assert sum(isinstance(one, MeasuredCopies) for one in found.measured) == 4
    assert {one.source for one in tables} == {f"{name}_perf on this host" for name in COLLECTIVES}
    assert (bin_folder / "all_reduce_perf.asked").read_text() == "PCI_BUS_ID -b 8 -e 128M -f 4 -w 5 -n 20 -g 4\n"
    assert seen[0] == ("all_reduce_perf", 0, 4)
    assert seen[-1] == ("p2pBandwidthLatencyTest", 4, 4)


@pytest.mark.parametrize("where", ["home", "build", "folders"])
def test_nccl_tests_are_found_where_people_put_them(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder = tmp_path / "nccl-tests" / ("build" if where == "build" else "")
    nccl_tests(folder)
    if where == "folders":
        monkeypatch.setattr(benchmarks, "FOLDERS", (str(folder),))
    else:
        monkeypatch.setenv("NCCL_TESTS_HOME", str(tmp_path / "nccl-tests"))
    assert len(benchmarks.measure(4, 60).measured) == 3
    assert bin_folder.exists()


def test_nvbandwidth_stands_in_for_the_peer_test(bin_folder: Path) -> None:
    prints(bin_folder, "nvbandwidth", f"Running device_to_device_memcpy_read_ce.\n{nvbandwidth(4)}")
    found = benchmarks.measure(4, 60)
    assert [type(one) for one in found.measured] == [MeasuredCopies]
    assert [(finding.code, finding.message) for finding in found.findings] == [
        ("measure-unavailable", "no program here measures all_reduce, all_gather, alltoall")
    ]


def test_only_visible_gpus_are_measured(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nccl_tests(bin_folder, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert len(benchmarks.measure(4, 60).measured) == 3
    assert (bin_folder / "alltoall_perf.asked").read_text().endswith("-g 2\n")


@pytest.mark.parametrize(("gpus", "visible"), [(1, None), (4, "2"), (4, "")])
def test_one_gpu_has_no_link_to_measure(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, visible: str | None
) -> None:
    nccl_tests(bin_folder)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = benchmarks.measure(gpus, 60)
    assert found.measured == ()
    assert [finding.code for finding in found.findings] == ["measure-nothing"]


def test_nothing_to_measure_with_is_said_with_what_to_install(bin_folder: Path) -> None:
    found = benchmarks.measure(2, 60)
    assert bin_folder.exists()
    assert [(finding.code, finding.message) for finding in found.findings] == [
        ("measure-unavailable", "no program here measures all_reduce, all_gather, alltoall, copies")
    ]
    assert "NCCL_TESTS_HOME" in found.findings[0].hint


BROKEN = {
    "fails": ("echo 'Test NCCL failure common.cu:958 unhandled cuda error' >&2; exit 2", "ended with exit code 2: Test NCCL failure"),
    "is killed": ("kill -SEGV $$", "ended with SIGSEGV: without a word"),
    "prints rubbish": ("echo hello", "printed what cannot be used: line 1: holds no measurement"),
    "prints nothing": ("true", "printed what cannot be used"),
    "prints a cut table": ("echo '#  size count type redop root time algbw busbw #wrong'", "a table without rows"),
    "prints without end": ("while :; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done", "printed more than 1.5 MB"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_program_that_goes_wrong_is_a_finding_and_the_others_still_run(bin_folder: Path, name: str) -> None:
    nccl_tests(bin_folder)
    script, said = BROKEN[name]
    program(bin_folder, "all_reduce_perf", script)
    found = benchmarks.measure(4, 60)
    assert [one.operation for one in found.measured if isinstance(one, MeasuredTable)] == ["all_gather", "all_to_all"]
    (finding,) = found.findings
    assert finding.code == "measure-failed"
    assert finding.message.startswith("all_reduce_perf ")
    assert said in finding.message
    assert str(bin_folder / "all_reduce_perf") in finding.hint


def test_a_program_of_another_machine_is_a_finding(bin_folder: Path) -> None:
    (bin_folder / "all_reduce_perf").write_bytes(b"\x7fELF nonsense")
    (bin_folder / "all_reduce_perf").chmod(0o755)
    (finding, *_) = benchmarks.measure(4, 60).findings
    assert "all_reduce_perf cannot be started" in finding.message


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a child of nobody may stay a zombie where nothing reaps it
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_program_that_hangs_is_ended_with_its_children_and_the_time_is_shared(bin_folder: Path) -> None:
    nccl_tests(bin_folder)
    program(bin_folder, "all_reduce_perf", f"sleep 600 & echo $! > {bin_folder}/child; trap '' TERM INT HUP; sleep 600")
    start = time.monotonic()
    found = benchmarks.measure(4, 3)
    assert time.monotonic() - start < 20
    assert [one.operation for one in found.measured if isinstance(one, MeasuredTable)] == ["all_gather", "all_to_all"]
    assert "all_reduce_perf did not finish within 1 s" in found.findings[0].message
    assert "--measure-seconds" in found.findings[0].hint
    child = int((bin_folder / "child").read_text())
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_what_a_program_leaves_behind_does_not_hold_us_up(bin_folder: Path) -> None:
    program(bin_folder, "p2pBandwidthLatencyTest", f"cat {bin_folder}/text; sleep 600 & exit 0")
    (bin_folder / "text").write_text(peer_test(2))
    start = time.monotonic()
    assert len(benchmarks.measure(2, 60).measured) == 4
    assert time.monotonic() - start < 20


def test_an_interrupt_ends_the_program(bin_folder: Path) -> None:
    program(bin_folder, "all_reduce_perf", f"echo $$ > {bin_folder}/pid; sleep 600")

    def interrupt(*_: object) -> None:
        if (bin_folder / "pid").exists() and (bin_folder / "pid").read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmarks.measure(2, 60, interrupt)
    assert not alive(int((bin_folder / "pid").read_text()))


def test_a_program_that_closes_its_output_and_stays_is_waited_for_only_so_long() -> None:
    ended = run_bounded(("/bin/sh", "-c", "exec >&- 2>&-; sleep 600"), 0.5, os.environ)
    assert ended.problem == "did not finish within 0.5 s"


FAKE_TORCH = """
class Tensor:
    def copy_(self, other, non_blocking): ...
    def item(self): return 0.0005

def zeros(*shape, **_): return Tensor()
def tensor(values, **_): return Tensor()
uint8 = float64 = None

class cuda:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 3)
    set_device = staticmethod(lambda rank: None)
    synchronize = staticmethod(lambda gpu=0: __import__("time").sleep(0.001))
    get_device_name = staticmethod(lambda gpu: "NVIDIA L4")
    can_device_access_peer = staticmethod(lambda one, other: one + other == 1)
    class Stream:
        def __init__(self, device): ...
    class stream:
        def __init__(self, stream): ...
        def __enter__(self): ...
        def __exit__(self, *_): ...
"""  # fmt: skip
FAKE_GROUP = """
class ReduceOp: MAX = None
def init_process_group(kind, init_method, rank, world_size): assert kind == "nccl"
def all_gather_object(devices, mine): devices[:] = [mine.replace("device  0 ", f"device  {rank} ") for rank in range(len(devices))]
def all_reduce(*_, **__): ...
all_gather_into_tensor = all_to_all_single = all_reduce
def barrier(): ...
def destroy_process_group(): ...
"""  # fmt: skip


@pytest.fixture
def torch_folder(tmp_path: Path) -> Path:
    """A package that has torch's names and does nothing."""
    (tmp_path / "site" / "torch").mkdir(parents=True)
    (tmp_path / "site" / "torch" / "__init__.py").write_text(FAKE_TORCH)
    (tmp_path / "site" / "torch" / "distributed.py").write_text(FAKE_GROUP)
    return tmp_path / "site"


def test_the_python_with_torch_measures_what_no_program_does(
    bin_folder: Path, torch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.path.realpath("/proc/self/exe")
    program(bin_folder, "python3", f'exec env PYTHONPATH={torch_folder} {real} "$@"')
    monkeypatch.setattr(sys, "executable", "")
    prints(bin_folder, "all_reduce_perf", table("all_reduce", 3))
    found = benchmarks.measure(3, 60)
    assert found.findings == ()
    tables = [one for one in found.measured if isinstance(one, MeasuredTable)]
    assert [(one.operation, one.ranks) for one in tables] == [("all_reduce", 3), ("all_gather", 3), ("all_to_all", 3)]
    assert float(tables[1].points[0][0]) == torch_benchmark.SMALLEST // 12 * 12
    assert [point[1] for point in tables[1].points] == pytest.approx([0.0005] * len(tables[1].points))
    one_way, both_ways = (one for one in found.measured if isinstance(one, MeasuredCopies))
    assert (one_way.direction, both_ways.direction) == ("one-way", "both-ways")
    assert len(one_way.bandwidth) == len(both_ways.bandwidth) == 6
    assert one_way.access[0, 1]
    assert not one_way.access[1, 2]


def test_a_rank_that_fails_ends_all(torch_folder: Path) -> None:
    (torch_folder / "torch" / "distributed.py").write_text(
        FAKE_GROUP.replace('assert kind == "nccl"', "\n    if rank: raise SystemExit(7)\n    import time; time.sleep(600)")
    )
    environment = {**os.environ, "PYTHONPATH": str(torch_folder)}
    ended = run_bounded(
        (os.path.realpath("/proc/self/exe"), torch_benchmark.__file__, "collectives", "all_reduce"), 60, environment
    )
    assert ended.problem.startswith("ended with exit code")


@pytest.mark.parametrize("name", COLLECTIVES)
def test_the_tables_of_torch_are_read_whatever_the_times(capsys: pytest.CaptureFixture[str], name: str) -> None:
    for ranks in (2, 3, 8):
        torch_benchmark.head(
            name, ranks, [f"Pid 1 on box device {rank} [0000:{rank + 1:02x}:00] NVIDIA L4" for rank in range(ranks)]
        )
        for power in range(12, 28, 3):
            count = 2**power // 4 // ranks
            torch_benchmark.row(
                name, count * 4 * ranks, count * (ranks if name == "all_reduce" else 1), 12.34567e-6 * power, ranks
            )
        (found,) = read_measurements(capsys.readouterr().out, "torch")
        assert isinstance(found, MeasuredTable)
        assert (found.operation, found.ranks) == ({"alltoall": "all_to_all"}.get(name, name), ranks)
        assert [device.bus_id for device in found.devices] == [f"0000:{rank + 1:02x}:00.0" for rank in range(ranks)]
