"""The guide of calibration: its commands work, its findings are those there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from measured_box import box, nccl_table, pair_rates, peer_test, predicted, truth
from support import Planner

SIZES = [2**power for power in range(10, 29, 2)]


@pytest.fixture
def guide(root: Path) -> str:
    return (root / "docs" / "calibration.md").read_text("utf-8")


def test_its_commands_work(guide: str, planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("topo.txt").write_text(planner("topology", "show", "4xL40S", "--format", "topo-m").out)
    machine = truth(box(), {"sockets": 9})
    for name, ranks in (("two.txt", 2), ("four.txt", 4)):
        Path(name).write_text(nccl_table("all_reduce", predicted(machine, "all_reduce", range(ranks), SIZES), ranks))
    Path("p2p.txt").write_text(peer_test(pair_rates(machine), 4))
    Path("table.csv").write_text("topology,impl,op,n_gpus,message_bytes,time_us\nmine,nccl-2.27,all_gather,4,1048576,90\n")
    lines = "".join(re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)).splitlines()
    assert len(lines) == 7
    for line in lines:
        more = ["--gpu", "L40S"] if "topo.txt" in line else []
        run = planner(*line.split()[1:], *more)
        assert run.code == 0, (line, run.err)
    assert "measured_by" in Path("box.yaml").read_text("utf-8")


def test_its_findings_are_those_there_are(guide: str, root: Path) -> None:
    sources = [*sorted((root / "planner" / "measuring").glob("*.py")), root / "planner" / "graph" / "diagnosis" / "slow.py"]
    found = {code for path in sources for code in re.findall(r'Finding\(\s*"([a-z-]+)"', path.read_text("utf-8"))}
    there = {code for code in found if not code.startswith("measure-")}  # those are of planner probe --measure
    table = guide.split("| finding | what it says |")[1].split("\n\n", maxsplit=1)[0]
    assert {code for row in table.splitlines()[2:] for code in re.findall(r"^\| `([a-z-]+)`", row)} == there
