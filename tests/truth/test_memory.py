"""Memory as engines reported it at start-up, against what the planner says. Skipped where the reports are not beside the project."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from statistics import fmean

import pytest

from planner import api
from planner.core.plan import Parallelism
from planner.cost.accuracy import Figure
from planner.cost.memory import kv_bytes_of_token
from planner.cost.strategy import stages_of
from planner.documents.tables import TableRow
from planner.engines import engines
from planner.validation.answering import Library
from planner.validation.memory import MemoryRows


def answers(path: Path, metric: str) -> list[tuple[dict[str, str], Figure | None]]:
    """Rows of one metric with what is said of them; ``None`` where nothing is."""
    rows = MemoryRows(Library(api.load_model, api.priced))
    found = []
    for line, cells in enumerate(gradable(path, metric), 2):
        said = rows.answer(TableRow(cells, line, "memory.csv"))
        found.append((cells, None if isinstance(said, str) else said["value"]))
    return found


def off_by(figure: Figure | None) -> float:
    """How far the prediction is off, as a share of what was measured."""
    return math.inf if figure is None or figure.measured is None else abs(figure.predicted / figure.measured - 1)


def inside(figure: Figure | None) -> bool:
    """Whether the measurement lies in the stated range."""
    return figure is not None and figure.measured is not None and figure.low <= figure.measured <= figure.high


@pytest.mark.parametrize(
    ("metric", "within", "share"),
    [("weights_gib_per_gpu", 0.03, 0.92), ("kv_tokens_total", 0.10, 0.85), ("kv_available_gib_per_gpu", 0.10, 0.85)],
)
def test_memory_is_what_engines_report(shared: Path, metric: str, within: float, share: float) -> None:
    found = [off_by(figure) for _, figure in answers(shared / "data" / "memory.csv", metric)]
    assert len(found) >= 50
    assert sum(error <= within for error in found) >= share * len(found)


@pytest.mark.parametrize("metric", ["activation_peak_gib", "cuda_graph_gib", "non_torch_gib"])
def test_what_only_logs_tell_lies_in_the_stated_range(shared: Path, metric: str) -> None:
    """Row by row, and release by release, for most rows are of one rig."""
    found = answers(shared / "data" / "memory.csv", metric)
    assert len(found) >= 40
    assert sum(inside(figure) for _, figure in found) >= 0.85 * len(found)
    groups: dict[tuple[str, str], list[bool]] = {}
    for cells, figure in found:
        groups.setdefault((cells["engine"], cells["engine_version"]), []).append(inside(figure))
    assert len(groups) >= 7
    assert sum(fmean(group) for group in groups.values()) >= 0.85 * len(groups)


def test_the_sampler_that_sorts_was_fitted_on_one_model_and_holds_for_another_release(shared: Path) -> None:
    """38 bytes a logit are of Qwen3-14B and 1024 requests on 0.15 and 0.16; Llama-3-8B and 256 on 0.6.5 had no part in them."""
    found = answers(shared / "data" / "memory.csv", "activation_peak_gib")
    left_out = [figure for cells, figure in found if cells["engine_version"] == "0.6.5.dev"]
    assert left_out
    assert all(off_by(figure) < 0.06 for figure in left_out)


def test_no_engine_that_started_is_refused(shared: Path) -> None:
    """Every row of cache is of an engine that came up: none may be said not to fit, nor to hold less than one longest request."""
    for cells, figure in answers(shared / "data" / "memory.csv", "kv_tokens_total"):
        longest = float(cells["max_model_len"] or 0)
        assert figure is not None, cells["model"]
        assert figure.predicted >= longest or float(cells["value"]) < longest, cells["model"]


GRADABLE = "True"


def gradable(path: Path, metric: str) -> list[dict[str, str]]:
    """Rows of machines and models that are known, whatever the engine."""
    rows = csv.DictReader(path.read_text("utf-8").splitlines())
    return [row for row in rows if row["metric"] == metric and row["model_known"] == GRADABLE and row["topology"]]


def shape(row: dict[str, str]) -> Parallelism:
    """Degrees; SGLang counts attention data parallel within its tensor degree."""
    tensor, stages, data = (int(float(row[name])) for name in ("tp", "pp", "dp"))
    return Parallelism(tensor // data, stages, data, tensor) if data > 1 else Parallelism(tensor, stages)


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
