"""Other hosts, asked through a stand-in ssh and a stand-in Ray; and a real Ray cluster where Ray is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster_support import MATRIX_OF_TWO, program
from planner import clusters
from planner.errors import BadInput, Unavailable
from planner.graph.paths import class_matrix
from planner.readers import remote
from planner.readers.remote import NVIDIA_SMI, PLANNER, NodeAnswer, Ran, RayNode, ask_by_ray, ask_by_ssh, parse_hostfile

HOSTFILE = """\
# made by hand
node1 slots=8
node2.example.com slots=8 max_slots=8

node3:8   # MPICH's way
node1
"""
LIST = "GPU %s: NVIDIA H100 80GB HBM3 (UUID: GPU-%s)\\n"


def test_a_hostfile_names_hosts_and_each_counts_once() -> None:
    assert parse_hostfile(HOSTFILE, "hosts") == ["node1", "node2.example.com", "node3"]


@pytest.mark.parametrize("line", ["-oProxyCommand=id", "a;id", "$(id)", "a b@c/d\nx/y", "ü", "../x", "[::1]", "x" * 300])
def test_what_is_no_host_name_is_refused_with_its_line(line: str) -> None:
    text = f"ok\n{line}\n"
    if line.startswith("a b"):
        text = f"ok\nok2 slots=1\n{line.splitlines()[1]}\n"
    with pytest.raises(BadInput, match="is not a host name") as refusal:
        parse_hostfile(text, "hosts")
    assert "line" in refusal.value.path


def test_an_empty_hostfile_is_refused() -> None:
    with pytest.raises(BadInput, match="names no host"):
        parse_hostfile("# nobody\n", "hosts")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs: an ssh that runs the command here, with ``NODE`` set, and fails for some names."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "matrix").write_text(MATRIX_OF_TWO)
    program(
        folder,
        "ssh",
        f'echo "$@" >> {tmp_path}/calls\n'
        'while [ $# -gt 2 ]; do shift; done\nNODE="$1"; export NODE\n'
        'case "$NODE" in\n'
        'down) echo "Warning: something" >&2; echo "ssh: connect to host down port 22: Connection refused" >&2; exit 255;;\n'
        "hangs) sleep 60; exit 0;;\n"
        "esac\n"
        'exec sh -c "$2"',
    )
    program(
        folder,
        "nvidia-smi",
        f'[ "$NODE" = broken ] && {{ echo "NVIDIA-SMI has failed because it could not communicate" >&2; exit 9; }}\n'
        f'[ "$NODE" = odd ] && {{ echo "hello"; exit 0; }}\n'
        f'case "$*" in "topo -m") cat {tmp_path}/matrix;; -L) printf "{LIST}" 0 "$NODE-0" 1 "$NODE-1";;\n'
        f'"topo -p2p r") printf " \\tGPU0\\tGPU1\\t\\n GPU0\\tX\\tOK\\t\\n GPU1\\tOK\\tX\\t\\n";; *) exit 3;; esac',
    )
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


def test_hosts_are_asked_in_order_and_each_failure_has_its_reason(tools: Path) -> None:
    started = time.monotonic()
    answers = ask_by_ssh(["good", "down", "hangs", "broken"], timeout=2)
    assert time.monotonic() - started < 20
    assert [answer.node for answer in answers] == ["good", "down", "hangs", "broken"]
    good, down, hangs, broken = answers
    assert "mlx5_1" in good.text
    assert "UUID: GPU-good-1" in good.text
    assert down.problem == "cannot be reached: ssh: connect to host down port 22: Connection refused"
    assert "without a password" in down.hint
    assert hangs.problem == "did not answer within 2 s"
    assert "could not communicate" in broken.problem


def test_the_call_is_an_argument_vector_that_asks_for_no_password(tools: Path) -> None:
    ask_by_ssh(["good"])
    calls = (tools.parent / "calls").read_text().splitlines()
    assert calls[0] == "-o BatchMode=yes -o ConnectTimeout=10 good planner probe -o -"
    assert calls[1].startswith("-o BatchMode=yes -o ConnectTimeout=10 good sh -c 'nvidia-smi topo -m")


def test_a_host_with_planner_is_asked_for_its_document(tools: Path) -> None:
    program(tools, "planner", "echo the document")
    assert ask_by_ssh(["good"]) == [NodeAnswer("good", "the document\n")]
    program(tools, "planner", "echo 'planner: no such option: -o' >&2; exit 2")
    assert "mlx5_1" in ask_by_ssh(["good"])[0].text


def test_a_name_that_ssh_would_take_for_an_option_never_gets_there(tools: Path) -> None:
    (answer,) = ask_by_ssh(["-oProxyCommand=id"])
    assert "is not a host name" in answer.problem
    assert not (tools.parent / "calls").exists()


def test_no_ssh_is_the_environments_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="no ssh"):
        ask_by_ssh(["a"])


def test_a_cluster_of_those_that_answer(tools: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text("alpha slots=2\ndown\nbroken\nodd\nbeta slots=2\n")
    cluster = clusters.probe_hostfile(str(hosts), network="2x400", timeout=5)
    assert [host.name for host in cluster.hosts] == ["alpha", "beta"]
    assert [gpu.hardware for gpu in cluster.gpus] == ["H100-SXM5-80GB"] * 4
    assert class_matrix(cluster)[0] == ["X", "NV18", "NET", "NET"]
    missing = [finding.message.split()[0] for finding in cluster.findings if finding.code == "node-missing"]
    assert missing == ["down", "broken", "odd"]
    assert [status.capability for status in cluster.hosts[0].peer_status] == ["read"]
    assert cluster.origin.kind == "probed"
    assert "2 of 5 nodes" in cluster.origin.source


def test_where_no_node_answers_there_is_no_cluster(tools: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text("down\n")
    with pytest.raises(Unavailable, match="no node answered: down is not in it: cannot be reached"):
        clusters.probe_hostfile(str(hosts), network="2x400")


class FakeRay:
    """Ray with three nodes of two GPUs, of which one fails, and a head without any."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def nodes(self) -> list[RayNode]:
        return [
            RayNode("03", "gpu-b", "10.0.0.3", 2),
            RayNode("01", "head", "10.0.0.1", 0),
            RayNode("02", "gpu-a", "10.0.0.2", 2),
            RayNode("04", "gpu-c", "10.0.0.4", 2),
        ]

    def run(self, node: RayNode, argv: tuple[str, ...], timeout: float) -> Ran:
        assert timeout > 0
        self.asked.append(node.host)
        if node.host == "gpu-c":
            return Ran(remote.UNREACHED, "", "the Ray task failed: the node died")
        if argv == PLANNER:
            return Ran(remote.NOT_FOUND, "", "planner: No such file or directory")
        assert argv == NVIDIA_SMI
        return Ran(
            0, MATRIX_OF_TWO + f"GPU 0: NVIDIA L40S (UUID: GPU-{node.id}0)\nGPU 1: NVIDIA L40S (UUID: GPU-{node.id}1)\n", ""
        )


def test_ray_is_asked_node_by_node_and_not_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    answers = ask_by_ray(ray)
    assert [answer.node for answer in answers] == ["gpu-a", "gpu-b", "gpu-c", "head"]
    assert "head" not in ray.asked
    monkeypatch.setattr(remote, "_connected", lambda: ray)
    cluster = clusters.probe_ray(network="2x400,rail")
    assert [host.name for host in cluster.hosts] == ["gpu-a", "gpu-b"]
    said = {finding.code: finding.message for finding in cluster.findings if finding.code.startswith("node-")}
    assert said["node-missing"] == "gpu-c is not in it: cannot be reached: the Ray task failed: the node died"
    assert said["node-without-gpu"].startswith("head")


def test_nodes_of_one_host_name_are_told_apart() -> None:
    class OneMachine(FakeRay):
        def nodes(self) -> list[RayNode]:
            return [RayNode("01", "box", "worker0", 2), RayNode("02", "box", "worker1", 2), RayNode("03", "other", "worker1", 2)]

    assert [answer.node for answer in ask_by_ray(OneMachine())] == ["worker0", "02", "other"]


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_it_says_how_to_get_it() -> None:
    with pytest.raises(Unavailable, match="ray cannot be imported") as refusal:
        ask_by_ray()
    assert "[ray]" in refusal.value.hint


A_CLUSTER = """
import json, os, subprocess, sys
from ray.cluster_utils import Cluster

cluster = Cluster()
for number in range(3):
    path = os.path.join(sys.argv[1], f"node{number}") + ":/usr/bin:/bin"
    cluster.add_node(
        num_cpus=1, num_gpus=2, node_name=f"worker{number}", env_vars={"PATH": path}, object_store_memory=80_000_000,
        include_dashboard=False,
    )
cluster.add_node(num_cpus=1, num_gpus=0, node_name="head", object_store_memory=80_000_000)
cluster.wait_for_nodes()
done = subprocess.run(
    [sys.executable, "-m", "planner", "probe", "--ray", "--network", "2x400", "--format", "json"],
    env={**os.environ, "RAY_ADDRESS": cluster.address}, capture_output=True, text=True,
)
cluster.shutdown()
print(json.dumps([done.returncode, done.stdout, done.stderr]))
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_a_real_ray_cluster_of_several_nodes(tmp_path: Path) -> None:
    """Four Ray nodes on this machine, each with an nvidia-smi of its own; one of them is broken, one has no GPU."""
    (tmp_path / "matrix").write_text(MATRIX_OF_TWO)
    for number in range(3):
        folder = tmp_path / f"node{number}"
        folder.mkdir()
        names = LIST.replace("%s)", f"{number}%s)")
        answer = f'case "$1 $2" in "topo -m") cat {tmp_path}/matrix;; "-L ") printf "{names}" 0 0 1 1;; esac'
        program(folder, "nvidia-smi", answer if number < 2 else "echo broken >&2; exit 9")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", A_CLUSTER, str(tmp_path)], capture_output=True, text=True, check=True, timeout=300, env=environment
    )
    code, out, err = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, err
    document = json.loads(out)
    assert [gpu["host"] for gpu in document["gpus"]] == ["worker0", "worker0", "worker1", "worker1"]
    said = {finding["code"]: finding["message"] for finding in document["findings"]}
    assert said["node-missing"].startswith("worker2 is not in it: broken")
    assert said["node-without-gpu"].startswith("head")
