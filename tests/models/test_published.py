"""Real configs and published sizes, where they lie beside the project."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from planner import api
from planner.models import families


def test_every_real_config_is_read(shared: Path) -> None:
    folders = sorted((shared / "models").iterdir())
    assert len(folders) >= 33
    known = {family.name for family in families().values()}
    for folder in folders:
        model = api.load_model(str(folder))
        assert model.family in known
        assert model.parameters > 5e8


def test_every_published_size_is_met(shared: Path) -> None:
    """Half a per cent, or half of the last digit that is stated."""
    missed = []
    rows = [
        row for row in csv.DictReader((shared / "data" / "models.csv").read_text("utf-8").splitlines()) if row["params_total_B"]
    ]
    assert len(rows) >= 40
    for row in rows:
        stated = row["params_total_B"]
        rounding = 0.5 * 10.0 ** -len(stated.partition(".")[2])
        found = api.load_model(row["model"]).parameters / 1e9
        if abs(found - float(stated)) > max(rounding, 0.005 * float(stated)):
            missed.append((row["model"], found, stated))
    assert missed == []


PUBLISHED = {  # billions, from the names' own model cards; without encoders
    "nvidia--Llama-3_3-Nemotron-Super-49B-v1": 49.9,
    "nvidia--Nemotron-H-56B-Base-8K": 56.3,
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31.6,
    "zai-org--GLM-5": 744.0,
    "google--gemma-4-26B-A4B": 25.2,
    "Qwen--Qwen3.5-397B-A17B": 396.4,
}


@pytest.mark.parametrize("folder", sorted(PUBLISHED))
def test_sizes_of_model_cards(shared: Path, folder: str) -> None:
    model = api.load_model(str(shared / "models" / folder))
    assert (model.parameters - model.encoder_parameters) / 1e9 == pytest.approx(PUBLISHED[folder], rel=0.005)
