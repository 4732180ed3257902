"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import Planner


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_it_has_exactly_two_set_up_commands_and_both_are_targets(readme: str, root: Path) -> None:
    commands = re.findall(r"^ {4}(\S.*)$", readme, re.MULTILINE)
    assert commands == ["make demo", "make test"]
    makefile = (root / "Makefile").read_text("utf-8")
    for command in commands:
        assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)


def test_the_output_it_shows_is_what_the_demo_prints(
    readme: str, root: Path, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    makefile = (root / "Makefile").read_text("utf-8")
    lines: list[str] = []
    for command in re.findall(r"^\t\$\(BIN\)/planner (.*)$", makefile, re.MULTILINE):
        run = planner(*command.split())
        assert run.code == 0
        lines += run.out.splitlines()
    shown = blocks(readme, "text")[0]
    missing = [line for line in shown.splitlines() if line and line != "[…]" and line not in lines]
    assert missing == []


def test_the_probe_it_shows_is_what_the_command_prints(readme: str, planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command, _, shown = blocks(readme, "text")[1].partition("\n")
    run = planner(*command.removeprefix("$ planner ").split())
    assert run.code == 0
    assert [line.rstrip() for line in run.out.splitlines()] == shown.splitlines()


def test_the_program_it_shows_runs(readme: str, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks(readme, "python")
    exec(compile(program, "README.md", "exec"), {})  # noqa: S102 - our own README
    assert capsys.readouterr().out.startswith("(((0, 1, 2, 3")


def test_the_commands_it_names_are_understood(readme: str, planner: Planner) -> None:
    for command in ("planner estimate llama-3.1-70b --topology dgx-h100 --tp 4 --dp 2",):
        assert command in readme
        assert planner(*command.split()[1:]).code == 0
    for spec in re.findall(r"`((?:\d+x)+[A-Z][\w-]*(?:@\w+)?)`", readme):
        assert planner("probe", spec).code == 0
    for instance in ("p5.48xlarge", "a3-highgpu-8g", "Standard_ND96isr_H100_v5"):
        assert f"`{instance}`" in readme or f"--topology {instance}`" in readme
        assert planner("probe", instance).code == 0
    for option in set(re.findall(r"`(--[a-z-]+)", readme)) - {"--force"}:
        assert option in planner("recommend", "--help").out


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_and_paths_lead_somewhere(root: Path, document: str) -> None:
    text = (root / document).read_text("utf-8")
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("http")]
    targets += re.findall(r"`((?:planner|scripts|topologies)/[\w./-]*[\w/])`", text)
    for target in targets:
        assert (root / target).exists(), target
