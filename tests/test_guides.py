"""The guide of machines: every code of a finding is in it, every command works."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support import Planner

CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def codes_in(source: str) -> set[str]:
    """The first argument of every ``Finding(…)``, and constants that name a code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
            keywords = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            for argument in [*node.args[:1], *keywords]:
                if isinstance(argument, ast.Constant):
                    found.add(str(argument.value))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.startswith("NODE_"):
            found.add(str(ast.literal_eval(node.value)))
    return found


def test_every_code_is_explained_and_no_other(root: Path) -> None:
    written = set().union(*(codes_in(path.read_text("utf-8")) for path in sorted((root / "planner").rglob("*.py"))))
    text = (root / "docs" / "machines.md").read_text("utf-8")
    table = text[text.index("| code |") :]
    shown = {code for row in table.splitlines()[2:] for code in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert {code for code in written if CODE.fullmatch(code)} == shown


def test_its_commands_work(root: Path, planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (root / "docs" / "machines.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    Path("topo.txt").write_text(planner("topology", "show", "4x-rtx-3090-bridged", "--format", "topo-m").out)
    uuid = "1111-2222-3333-444444444444"
    gpus = (f"GPU {gpu}: NVIDIA GeForce RTX 3090 (UUID: GPU-0000000{gpu}-{uuid})\n\t Link 0: 14.062 GB/s\n" for gpu in range(4))
    Path("nvlink.txt").write_text("".join(gpus))
    rows = (f" GPU{a}\t" + "\t".join("X" if a == b else "CNS" for b in range(4)) + "\n" for a in range(4))
    Path("p2p.txt").write_text("\tGPU0\tGPU1\tGPU2\tGPU3\n" + "".join(rows))
    lines = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    assert len(lines) == 6
    for line in lines:
        command, _, rescue = line.partition(" || ")
        run = planner(*command.split()[1:])
        assert run.code in ({0, 1} if rescue else {0}), (line, run.err)
    assert "<svg" in Path("box.svg").read_text("utf-8")[:300]
