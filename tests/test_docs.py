"""What the guides show is what happens: every block of commands is run, with stand-ins for what is not here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster_support import MATRIX_OF_TWO, program
from planner.documents import strict_yaml
from planner.documents.topology import parse_topology
from support import Planner

GUIDE = "clusters.md"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def guide(root: Path) -> str:
    return (root / "docs" / GUIDE).read_text("utf-8")


@pytest.fixture
def place(tmp_path: Path, guide: str) -> Path:
    """A folder with the files the guide shows, and programs that stand in for a cluster's."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tmp_path / "matrix").write_text(MATRIX_OF_TWO)
    for text in blocks(guide, "text"):
        (tmp_path / re.match(r"# (\S+)\n", text)[1]).write_text(text)  # type: ignore[index] # they all start with their name
    (tmp_path / "job.yaml").write_text(blocks(guide, "yaml")[0])
    program(tools, "planner", f'exec {sys.executable} -m planner "$@"')
    names = "GPU %s: NVIDIA H100 80GB HBM3 (UUID: GPU-%s)\\n"
    program(
        tools,
        "nvidia-smi",
        f'case "$1 $2" in "topo -m") cat {tmp_path}/matrix;; "-L ") printf "{names}" 0 "$NODE-0" 1 "$NODE-1";; esac',
    )
    # each runs the command once, on this host; the options before it are theirs
    for name in ("srun", "mpirun"):
        program(tools, name, 'while [ "$1" != planner ]; do shift; done; NODE=1 exec "$@"')
    program(tools, "ssh", 'while [ $# -gt 2 ]; do shift; done; NODE="$1" exec sh -c "$2"')
    program(
        tools,
        "kubectl",
        'case "$*" in *"-f "*) cat "$3" > /dev/null;; *=name) echo pod/a; echo pod/b;; *nodeName*) echo "worker-${2#pod/}";; '
        'logs*) NODE="$2" planner probe -o -;; esac',
    )
    return tmp_path


def run(place: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}", "NODE": "1"}
    return subprocess.run(["sh", "-e"], input=script, capture_output=True, text=True, cwd=place, env=environment, check=False)


def the_blocks() -> list[str]:
    path = Path(__file__).resolve().parent.parent / "docs" / GUIDE
    return [block for block in blocks(path.read_text("utf-8"), "sh") if "--ray" not in block]


@pytest.mark.parametrize("block", the_blocks(), ids=lambda block: str(block).splitlines()[-1][:40])
def test_every_block_of_commands_runs(place: Path, block: str) -> None:
    # the switches of the guide's topology.conf are of other hosts than this one
    host = run(place, "python3 -c 'import platform; print(platform.node())'").stdout.strip()
    conf = place / "topology.conf"
    conf.write_text(conf.read_text().replace("node[01-02]", f"{host},node02"))
    done = run(place, block)
    assert (done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("wrote ")]) == (0, [])
    if "-o cluster.yaml" in block:
        topology = parse_topology((place / "cluster.yaml").read_text(), "cluster.yaml")
        assert not [finding for finding in topology.findings if finding.code.startswith("node-")]
        several = not ("srun" in block or "mpirun" in block)
        assert (len(topology.hosts) == 2) is several


def test_the_command_for_ray_is_understood(guide: str, place: Path) -> None:
    (block,) = [block for block in blocks(guide, "sh") if "--ray" in block]
    done = run(place, block.replace("planner probe", "RAY_ADDRESS=127.0.0.1:1 planner probe"))
    assert done.returncode == 3
    assert "ray" in done.stderr.lower()


def test_the_job_is_yaml_and_its_command_is_ours(guide: str) -> None:
    job = strict_yaml.load(blocks(guide, "yaml")[0], "job.yaml")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["planner", "probe", "-o", "-"]


def test_every_form_of_a_network_is_understood(
    guide: str, place: Path, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (place / "topology.conf").write_text("SwitchName=s1 Nodes=node[0-1]\n")
    (place / "topology.yaml").write_text("- topology: t\n  tree: {switches: [{switch: s1, nodes: 'node[0-1]'}]}\n")
    table = guide.split("| --- | --- |")[1].split("\n\n", maxsplit=1)[0]
    specs = [spec for row in table.strip().splitlines() for spec in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(specs) >= 8
    for spec in specs:
        hosts = ["gb200-nvl72"] if spec == "none" else ["dgx-h100", "dgx-h100"]
        assert planner("topology", "merge", *hosts, "--network", spec, "-o", "-").code == 0, spec
