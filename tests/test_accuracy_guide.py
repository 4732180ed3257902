"""The guide of accuracy: every command works, and says what the guide says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import Planner

MEASURED = (
    "topology,model,quant,engine,tp,pp,dp,ep,isl,osl,load_kind,load,tpot_ms\n"
    "4xH100-SXM5-80GB,llama-3.1-70b,bf16,vllm-0.19,4,1,1,1,1024,256,concurrency,32,20\n"
    "4xH100-SXM5-80GB,llama-3.1-70b,bf16,vllm-0.19,2,2,1,1,1024,256,concurrency,32,30\n"
)


def test_its_commands_work(root: Path, planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (root / "docs" / "accuracy.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    Path("measured.csv").write_text(MEASURED)
    lines = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    assert len(lines) == 5
    said = {}
    for line in lines:
        run = planner(*line.split()[1:])
        assert run.code == 0, (line, run.err)
        said[line] = run.out
    assert re.search(r"[0-9]+ × [0-9.]+ .?s", said[lines[0]])
    assert "ranking of vllm-0.19, equally many GPUs: 1 group, " in said[lines[3]]
    assert "predicted_tpot_ms" in Path("predicted.csv").read_text("utf-8")
