"""The guide of launching: its commands work, it names every target and every file, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launch_support import emitted, saved
from planner.deploy import targets
from support import Planner


@pytest.fixture(scope="module")
def guide(root: Path) -> str:
    return (root / "docs" / "launch.md").read_text("utf-8")


def test_its_commands_work(guide: str, planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result.json").write_text('{"mean_tpot_ms": 126.0, "completed": 256, "max_concurrency": 32}')
    lines = "".join(re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)).splitlines()
    assert len(lines) >= 9
    for line in lines:
        command, _, rescue = line.partition(" || ")
        run = planner(*command.split()[1:])
        assert run.code in ({0, 1} if rescue else {0}), (line, run.err)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"plan.yaml", "out/start.sh", "both/compose.yaml", "k8s/kubernetes.yaml", "now.yaml"} <= written


def test_it_names_every_target_and_what_it_writes(guide: str) -> None:
    table = guide[guide.index("| `--target` |") :].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    rows = {cells[1].strip().strip("`"): cells[2] for cells in (line.split("|") for line in table)}
    assert set(rows) == set(targets())
    for target, files in rows.items():
        shown = [
            re.escape(name).replace("NODE", r"[\w-]+").replace("NAME", r"[\w-]+") for name in re.findall(r"`([^`]+)`", files)
        ]
        names = [name for plan in ("bridged", "pipeline") if (plan, target) != ("bridged", "ray") for name in
                 emitted(saved(plan), target)[1].files]  # fmt: skip
        for name in names:
            assert any(re.search(rf"{pattern}$", name) for pattern in [*shown, r"compose-[\w-]+\.yaml"]), (target, name)


def test_paths_and_options_it_names_are_there(guide: str, root: Path, planner: Planner) -> None:
    for path in re.findall(r"`(planner/[\w./-]+)`", guide):
        assert (root / path).exists(), path
    text = "".join(planner(command, "--help").out for command in ("recommend", "estimate", "emit", "check", "import", "validate"))
    for option in set(re.findall(r"`(--[a-z-]+)", guide)):
        assert option in text, option
