"""Fixtures of the whole suite. Measured tables and captures that do not ship are used where they lie beside the project."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from planner.cli import main
from support import Planner, Run

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PLANNER_SHARED", ROOT.parent / "shared"))

settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of captures and measurements, which is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("the captures and measurements are not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Planner:
    """The command line in this process: ``planner("recommend", …, stdin=…)``."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PATH", "/nowhere")  # no nvidia-smi, whatever this host has

    def run(*arguments: str, stdin: str | bytes = "") -> Run:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["planner", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
            code = main()
        captured = capsys.readouterr()
        return Run(int(code), captured.out, captured.err)

    return run
