"""Memory as engines reported it at start-up, against what the planner says. Skipped where the reports are not beside the project."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from planner import api
from planner.core.model import ModelSpec
from planner.core.plan import EngineLimits, Parallelism
from planner.core.topology import LinkKind
from planner.cost.memory import kv_bytes_of_token
from planner.cost.strategy import stage_memory, stages_of
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


def of_row(row: dict[str, str]) -> ModelSpec:
    """The model stored as a row says."""
    model = api.load_model(row["model"])
    quant = QUANTISED.get(row["quant"])
    if quant is None or model.weight_format.math == quant or model.weight_format.name.startswith(quant):
        return model
    return api.load_model(row["model"], quant=quant)


QUANTISED = {
    "fp8": "fp8",
    "int8-w8a8": "int8",
    "awq-int4": "awq",
    "gptq-int4-w4a16": "w4a16",
    "bnb-4bit": "bnb-4bit",
    "nvfp4": "nvfp4",
    "int4-wo": "awq",
}
GRADABLE = "True"


def gradable(path: Path, metric: str) -> list[dict[str, str]]:
    """Rows of machines and models that are known, whatever the engine."""
    rows = csv.DictReader(path.read_text("utf-8").splitlines())
    return [row for row in rows if row["metric"] == metric and row["model_known"] == GRADABLE and row["topology"]]


def shape(row: dict[str, str]) -> Parallelism:
    """Degrees; SGLang counts attention data parallel within its tensor degree."""
    tensor, stages, data = (int(float(row[name])) for name in ("tp", "pp", "dp"))
    return Parallelism(tensor // data, stages, data, tensor) if data > 1 else Parallelism(tensor, stages)


def test_weights_of_every_engine_and_family(shared: Path) -> None:
    found = []
    for row in gradable(shared / "data" / "memory.csv", "weights_gib_per_gpu"):
        model, degrees = of_row(row), shape(row)
        traits = engines()["tensorrt-llm" if row["engine"] == "trtllm" else "vllm"].traits
        partition = traits.default_partition(len(model.layers), degrees.pipeline)
        limits = EngineLimits(256, 8192, 0.9)
        stages = stage_memory(model, degrees, partition, limits, Bytes(80 * 2**30), traits, nvlink=True)
        found.append(float(max(stage.weights for stage in stages)) / (float(row["value"]) * 2**30) - 1)
    assert len(found) >= 60
    assert sum(abs(error) <= 0.03 for error in found) >= 0.92 * len(found)


def test_cache_bytes_of_a_token_of_every_engine_and_family(shared: Path) -> None:
    path, found = shared / "data" / "memory.csv", []
    tokens = {logged(row): float(row["value"]) for row in gradable(path, "kv_tokens_total")}
    for row in gradable(path, "kv_available_gib_per_gpu"):
        if logged(row) not in tokens:
            continue
        model, degrees = api.load_model(row["model"]), shape(row)
        element = {"fp8": 1, "fp32": 4}.get(row["kv_dtype"], 2)
        partition = engines()["vllm"].traits.default_partition(len(model.layers), degrees.pipeline)
        stages = stages_of(model, partition)
        grouped = row["engine"] == "vllm"
        said = max(kv_bytes_of_token(layers, degrees.tensor, element, grouped=grouped) for layers in stages)
        found.append(said / (float(row["value"]) * 2**30 / tokens[logged(row)]) - 1)
    assert len(found) >= 50
    assert sum(abs(error) <= 0.02 for error in found) >= 0.92 * len(found)


def logged(row: dict[str, str]) -> tuple[str, ...]:
    """Which log a row is of."""
    return tuple(value for name, value in row.items() if name not in {"metric", "value", "note"})
