"""Scripts run by a real ``sh``: every program gets exactly the arguments and the environment that were planned."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch_support import CASES, EVERYWHERE, Bench, emitted, is_as_planned, saved
from planner.core.engine import LaunchProcess
from planner.deploy.target import Job, by_node, port_of
from planner.errors import BadInput

TOKEN = {"HF_TOKEN": "a token"}
NODES = {"SLURM_JOB_NODELIST": "node[0-9]"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def exposed(job: Job, process: LaunchProcess, *, always: bool = False) -> LaunchProcess:
    """The process with the address that SGLang and TensorRT-LLM need where requests come from other hosts."""
    several = always or len({place.node for place in job.ranks}) > 1
    if job.engine in EVERYWHERE or not several or port_of(job, process) is None:
        return process
    return LaunchProcess(process.node, process.replica, (*process.argv, "--host", "0.0.0.0"), process.environment)  # noqa: S104


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_a_script_starts_what_was_planned(bench: Bench, name: str, engine: str) -> None:
    job, output = emitted(saved(name, engine=engine), "shell")
    if any(process.argv[0] == "srun" for process in job.launch.processes):
        pytest.skip("an MPI world is started by srun: see the test of Slurm's job")
    home = bench.write(output)
    scripts = sorted(file for file in output.files if file.endswith(".sh"))
    assert len(scripts) == len(by_node(job))
    for script in scripts:
        done = bench.run(home / script, **TOKEN)
        assert (done.returncode, done.stderr) == (0, "")
    started = bench.started()
    planned = sorted((exposed(job, process) for process in job.launch.processes), key=lambda process: process.argv)
    assert len(started) == len(planned)
    assert all(is_as_planned(*pair) for pair in zip(started, planned, strict=True))
    assert {one.folder for one in started} == {str(home)}  # files are named relative to it
    assert {one.environment["HF_TOKEN"] for one in started} == {"a token"}


def test_a_node_starts_its_own_processes_only(bench: Bench) -> None:
    job, output = emitted(saved("pipeline"), "shell")
    home = bench.write(output)
    assert bench.run(home / "start-node1.sh", **TOKEN).returncode == 0
    (one,) = bench.started()
    assert is_as_planned(one, job.launch.processes[1])


@pytest.mark.parametrize("target", ["shell", "slurm"])
def test_without_a_token_nothing_starts(bench: Bench, target: str) -> None:
    _, output = emitted(saved("bridged"), target)
    home = bench.write(output)
    script = next(file for file in output.files if file.endswith((".sh", ".sbatch")))
    allocation = {"NODES": "node0", "SLURM_SUBMIT_DIR": str(home), **NODES}
    done = bench.run(home / script, **allocation)
    assert done.returncode != 0
    assert "HF_TOKEN" in done.stderr
    assert bench.started() == []
    assert bench.run(home / script, HF_HUB_OFFLINE="1", **allocation).returncode == 0
    assert "HF_TOKEN" not in bench.started()[0].environment


def test_one_failing_replica_is_told(bench: Bench, tmp_path: Path) -> None:
    _, output = emitted(saved("replicas"), "shell")
    home = bench.write(output)
    (tmp_path / "tools" / "vllm").write_text('#!/bin/sh\ncase "$*" in *8002*) exit 7;; esac\n')
    assert bench.run(home / "start.sh", **TOKEN).returncode == 7


def test_a_signal_stops_every_replica(bench: Bench, tmp_path: Path) -> None:
    _, output = emitted(saved("replicas"), "shell")
    home = bench.write(output)
    (tmp_path / "tools" / "vllm").write_text('#!/bin/sh\ntrap "echo down; exit 0" TERM\necho up\nwhile :; do sleep 0.05; done\n')
    environment = {"PATH": f"{tmp_path / 'tools'}:/usr/bin:/bin", **TOKEN}
    process = subprocess.Popen(["sh", str(home / "start.sh")], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(4)] == ["up\n"] * 4
    process.terminate()
    assert process.stdout.read().count("down") == 4
    process.stdout.close()
    assert process.wait(10) == 143


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_a_batch_job_starts_what_was_planned_on_the_nodes_it_got(bench: Bench, name: str, engine: str) -> None:
    job, output = emitted(saved(name, engine=engine), "slurm")
    home = bench.write(output)
    (script,) = (file for file in output.files if file.endswith(".sbatch"))
    planned_nodes = list(dict.fromkeys(place.node for place in job.ranks))
    granted = {node: f"rack7-{number}" for number, node in enumerate(planned_nodes)}
    done = bench.run(home / script, NODES=" ".join(granted.values()), SLURM_SUBMIT_DIR=str(home), **NODES, **TOKEN)
    assert (done.returncode, done.stderr) == (0, "")
    started = [one for one in bench.started() if one.argv[0] != "srun"]
    steps = bench.started("srun")
    assert len(started) == len(steps) == len(job.launch.processes)

    def on_granted(word: str) -> str:
        for node, real in granted.items():
            word = word.replace(node, real)
        return word

    for process in job.launch.processes:
        argv = exposed(job, process, always=True).argv
        if argv[0] == "srun":
            argv = argv[argv.index("trtllm-llmapi-launch") + 1 :]
        wanted = LaunchProcess(process.node, process.replica, tuple(map(on_granted, argv)), process.environment)
        assert any(is_as_planned(one, wanted) for one in started), wanted
    text = output.files[script]
    assert f"#SBATCH --nodes={len(planned_nodes)}\n" in text
    assert text.startswith("#!/bin/sh\n#SBATCH")
    for step in steps:
        nodes = step.argv[step.argv.index("--nodelist") + 1].split(",")
        assert set(nodes) <= set(granted.values())
    if engine == "tensorrt-llm":
        tasks = sum(len(group) for replica in job.saved.plan.placement for group in replica)
        assert sum(_tasks(step.argv) for step in steps) == tasks


def _tasks(argv: tuple[str, ...]) -> int:
    if "--ntasks-per-node" in argv:
        return int(argv[argv.index("--ntasks-per-node") + 1]) * int(argv[argv.index("--nodes") + 1])
    return next(int(word.partition("=")[2]) for word in argv if word.startswith("--ntasks="))


def test_ray_starts_on_every_node_and_the_server_on_the_first(bench: Bench) -> None:
    job, output = emitted(saved("pipeline"), "ray")
    home = bench.write(output)
    for script in ("ray-node0.sh", "ray-node1.sh"):
        done = bench.run(home / script, **TOKEN)
        assert (done.returncode, done.stderr) == (0, "")
    head, worker = (one.argv for one in bench.started("ray"))
    assert head == ("ray", "start", "--address", "node0:6379", "--num-gpus", "8", "--block")
    assert worker == ("ray", "start", "--head", "--port", "6379", "--num-gpus", "8")
    (server,) = bench.started("vllm")
    assert server.argv[-2:] == ("--distributed-executor-backend", "ray")
    assert not {"--nnodes", "--node-rank", "--master-addr", "--master-port", "--headless"} & set(server.argv)
    assert server.argv.count("--distributed-executor-backend") == 1
    assert server.environment["RAY_ADDRESS"] == "127.0.0.1:6379"
    assert server.argv[:7] == job.launch.processes[0].argv[:7]


@pytest.mark.parametrize(
    ("name", "engine"), [("bridged", "vllm"), ("pipeline", "sglang"), ("shared experts", "vllm"), ("replicas of a node", "tgi")]
)
def test_ray_is_refused_where_it_does_not_fit(name: str, engine: str) -> None:
    with pytest.raises(BadInput) as refused:
        emitted(saved(name, engine=engine), "ray")
    assert refused.value.path == "--target"
    assert "shell" in refused.value.hint


@pytest.mark.parametrize("target", ["shell", "slurm", "ray"])
@pytest.mark.parametrize(("name", "engine"), CASES)
def test_scripts_pass_shellcheck(tmp_path: Path, name: str, engine: str, target: str) -> None:
    shellcheck = shutil.which("shellcheck") or str(Path(sys.executable).parent / "shellcheck")
    try:
        subprocess.run([shellcheck, "--version"], capture_output=True, check=True)
    except OSError as error:
        pytest.skip(f"shellcheck cannot be run here: {error}")
    try:
        _, output = emitted(saved(name, engine=engine), target)
    except BadInput:
        assert target == "ray"
        return
    for file, text in output.files.items():
        if file.endswith((".sh", ".sbatch")):
            done = subprocess.run([shellcheck, "--severity=style", "-"], input=text, capture_output=True, text=True, check=False)
            assert (file, done.stdout) == (file, "")
