"""Memory as engines reported it at start-up, against what the planner says. Skipped where the reports are not beside the project."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from planner import api
from planner.core.plan import EngineLimits, Parallelism
from planner.core.topology import LinkKind
from planner.cost.strategy import stage_memory
from planner.engines import engines
from planner.errors import BadInput
from planner.units import Bytes

FORMATS = {"": None, "bf16": None, "fp16": None, "fp8": "fp8"}
CURRENT = 15
"""vLLM 0.N from which on its memory rules are those that are modelled."""


def errors(path: Path, metric: str) -> list[float]:
    found = []
    for row in csv.DictReader(path.read_text("utf-8").splitlines()):
        version = row["engine_version"].split(".")
        if row["metric"] != metric or row["engine"] != "vllm" or row["quant"] not in FORMATS or float(row["value"]) <= 0:
            continue
        if len(version) < 2 or not version[1].isdigit() or int(version[1]) < CURRENT:
            continue
        try:
            model = api.load_model(row["model"], quant=FORMATS[row["quant"]])
            topology = api.load_topology(row["topology"])
        except BadInput:
            continue  # a family or machine of a later release
        degrees = Parallelism(int(float(row["tp"])), int(float(row["pp"])))
        traits = engines()["vllm"].traits
        limits = EngineLimits(
            int(float(row["max_num_seqs"])), int(float(row["max_num_batched_tokens"])), float(row["util_fraction"])
        )
        stages = stage_memory(
            model,
            degrees,
            traits.default_partition(len(model.layers), degrees.pipeline),
            limits,
            Bytes(float(row["gpu_memory_gib"]) * 2**30),
            traits,
            nvlink=any(link.kind is LinkKind.NVLINK for link in topology.links),
        )
        said = max(stage.weights for stage in stages) if "weights" in metric else min(stage.kv_cache for stage in stages)
        found.append(float(said) / (float(row["value"]) * 2**30) - 1)
    return found


@pytest.mark.parametrize(
    ("metric", "within", "share"),
    [("weights_gib_per_gpu", 0.03, 0.92), ("kv_available_gib_per_gpu", 0.10, 0.85)],  # the bars the mission sets for memory
)
def test_memory_is_what_engines_report(shared: Path, metric: str, within: float, share: float) -> None:
    found = errors(shared / "data" / "memory.csv", metric)
    assert len(found) >= 15
    assert sum(abs(error) <= within for error in found) >= share * len(found)
