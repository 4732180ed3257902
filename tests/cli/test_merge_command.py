"""planner topology merge, and the options of probe that make clusters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster_support import MATRIX_OF_TWO, program
from planner import clusters
from planner.core.capture import Capture
from planner.documents.topology import parse_topology
from support import Planner


def write_hosts(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / f"{name}.txt").write_text(MATRIX_OF_TWO)
    return [str(folder / f"{name}.txt") for name in names]


def test_captures_become_a_cluster_that_plans_are_made_on(planner: Planner, tmp_path: Path) -> None:
    files = write_hosts(tmp_path, "node01", "node02")
    path = tmp_path / "rack.yaml"
    merged = planner("topology", "merge", *files, "--gpu", "H100-SXM5-80GB", "--network", "2x400,rail", "-o", str(path))
    assert merged.code == 0
    assert merged.err == f"wrote {path}\n"
    assert "rack: 4× H100-SXM5-80GB" in merged.words
    cluster = parse_topology(path.read_text(), "rack.yaml")
    assert [host.name for host in cluster.hosts] == ["node01", "node02"]
    plan = planner("recommend", "llama-3.1-70b", "--topology", str(path), "--format", "json")
    assert plan.code == 0
    assert {gpu["host"] for gpu in plan.document["topology"]["gpus"]} == {"node01", "node02"}
    again = planner("topology", "merge", *files, "--network", "2x400", "-o", str(path))
    assert again.code == 2
    assert "--force" in again.err


def test_one_bad_node_makes_a_cluster_with_a_finding(planner: Planner, tmp_path: Path) -> None:
    files = write_hosts(tmp_path, "node01", "node02")
    broken = tmp_path / "node03.txt"
    broken.write_text("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n")
    absent = str(tmp_path / "node04.yaml")
    run = planner("topology", "merge", *files, str(broken), absent, "--network", "2x400", "--format", "json")
    assert run.code == 0
    missing = [finding["message"] for finding in run.document["findings"] if finding["code"] == "node-missing"]
    assert len(missing) == 2
    assert missing[0].startswith(f"{broken} is not in it: ")
    assert missing[1] == f"{absent} is not in it: no such file"
    assert {gpu["host"] for gpu in run.document["gpus"]} == {"node01", "node02"}
    strict = planner("topology", "merge", *files, str(broken), "--network", "2x400", "--strict")
    assert strict.code == 1
    assert "node-missing" in strict.words
    assert planner("topology", "merge", *files, "--network", "2x400", "--strict").code == 0


def test_no_node_left_is_bad_input(planner: Planner, tmp_path: Path) -> None:
    run = planner("topology", "merge", str(tmp_path / "a.yaml"), "no-such-machine", "--network", "2x400")
    assert (run.code, run.out) == (2, "")
    assert "no node is left to merge" in run.err
    assert "no such file" in run.err


def test_the_switches_of_slurm(planner: Planner, tmp_path: Path) -> None:
    files = write_hosts(tmp_path, "node01", "node02", "node03")
    conf = tmp_path / "topology.conf"
    conf.write_text("SwitchName=l1 Nodes=node[01-02]\nSwitchName=l2 Nodes=node03\nSwitchName=top Switches=l[1-2]\n")
    run = planner("topology", "merge", *files, "--network", f"2x400,tree={conf}", "-o", "-")
    assert (run.code, run.err) == (0, "")
    cluster = parse_topology(run.out, "-")
    assert [device.id for device in cluster.devices if not device.host] == ["l1", "l2", "top"]
    conf.write_text("SwitchName=l1 Nodes=node[01-02]\n")
    refused = planner("topology", "merge", *files, "--network", f"2x400,tree={conf}")
    assert refused.code == 2
    assert "host 'node03' hangs from no switch" in refused.err
    assert planner("topology", "merge", *files, "--network", str(conf)).code == 2


@pytest.mark.parametrize("spec", ["8y400", "nowhere.conf", "8x400,rail=3", "8x400,tree=nowhere.conf"])
def test_a_network_that_is_none_is_refused(planner: Planner, spec: str) -> None:
    run = planner("topology", "merge", "dgx-h100", "dgx-h100", "--network", spec)
    assert (run.code, run.out) == (2, "")
    assert "8x400" in run.err


def test_the_same_inputs_give_the_same_bytes(planner: Planner) -> None:
    command = ("topology", "merge", "dgx-h100", "dgx-a100", "--network", "8x200,leaf=1", "-o", "-")
    assert planner(*command).out == planner(*command).out


@pytest.fixture
def gpus_here(planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """The command line on a host whose nvidia-smi shows two GPUs."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tmp_path / "matrix").write_text(MATRIX_OF_TWO)
    program(tools, "nvidia-smi", f'case "$1 $2" in "topo -m") cat {tmp_path}/matrix;; *) exit 3;; esac')
    program(tools, "ssh", 'while [ $# -gt 2 ]; do shift; done\n[ "$1" = down ] && exit 255\nexec sh -c "$2"')
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")
    here = Capture(source="here", format="NVML", hostname="gpu 07!.example.com")
    monkeypatch.setattr("planner.readers.live.capture", lambda: here)
    return planner


def test_the_name_of_the_host_in_that_of_the_file(gpus_here: Planner, tmp_path: Path) -> None:
    run = gpus_here("probe", "-o", str(tmp_path / "{host}.yaml"))
    assert run.code == 0
    path = tmp_path / "gpu-07-.example.com.yaml"
    assert f"wrote {path}" in run.err
    assert [host.name for host in parse_topology(path.read_text(), "x").hosts] == ["gpu-07-.example.com"]
    (tmp_path / "box.txt").write_text(MATRIX_OF_TWO)
    assert gpus_here("probe", str(tmp_path / "box.txt"), "-o", str(tmp_path / "{host}-saved.yaml")).code == 0
    assert (tmp_path / "localhost-saved.yaml").exists()
    several = gpus_here("probe", "2x-dgx-h100", "-o", str(tmp_path / "{host}.yaml"))
    assert several.code == 2
    assert "{host} is for one host" in several.err


def test_the_document_and_nothing_else_on_standard_output(gpus_here: Planner) -> None:
    run = gpus_here("probe", "-o", "-")
    assert (run.code, run.err) == (0, "")
    assert len(parse_topology(run.out, "-").gpus) == 2


def test_a_hostfile_is_a_cluster(gpus_here: Planner, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.txt"
    hosts.write_text("a slots=2\nb slots=2\ndown\n")
    path = tmp_path / "cluster.yaml"
    command = ("probe", "--hostfile", str(hosts), "--gpu", "H100-SXM5-80GB", "--network", "2x400", "-o", str(path))
    run = gpus_here(*command)
    assert run.code == 0
    assert "down is not in it: cannot be reached" in run.words
    assert [host.name for host in parse_topology(path.read_text(), "x").hosts] == ["a", "b"]
    assert gpus_here(*command, "--force", "--strict").code == 1
    hosts.write_text("down\n")
    refused = gpus_here("probe", "--hostfile", str(hosts))
    assert (refused.code, refused.out) == (3, "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("dgx-h100", "--ray"), "FILE and --ray together"),
        (("--ray", "--hostfile", "x"), "--hostfile and --ray together"),
        (("dgx-h100", "--network", "8x400"), "planner topology merge"),
        (("dgx-h100", "--timeout", "3"), "--timeout"),
        (("--hostfile", "nowhere.txt"), "no such file"),
    ],
)
def test_options_that_do_not_go_together(planner: Planner, options: tuple[str, ...], said: str) -> None:
    run = planner("probe", *options)
    assert (run.code, run.out) == (2, "")
    assert said in run.err


def test_a_library_name_stands_for_a_host() -> None:
    cluster = clusters.merge_topologies(["dgx-h100", "dgx-h100", "8xA100-SXM4-80GB"], network="8x200")
    assert [host.name for host in cluster.hosts] == ["node0", "node1", "8xA100-SXM4-80GB"]
