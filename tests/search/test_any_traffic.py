"""Any model on any machine under any traffic: what is answered is finite, adds up, lies within its bars and keeps its schema."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import jsonschema
import pytest

from planner import api
from planner.core.estimate import Estimate
from planner.core.speculation import Speculation
from planner.core.workload import LOADS, Objective, Workload
from planner.documents.catalogue import model_names
from planner.documents.files import DATA
from planner.errors import BadInput
from planner.render import json as render
from planner.units import Seconds

SCHEMA = jsonschema.Draft202012Validator(json.loads((DATA / "schemas" / "recommendation.schema.json").read_text("utf-8")))
MACHINES = ("dgx-h100", "4x-rtx-3090-bridged", "8x-l40s", "2x2xL40S@1x100", "8xB200-SXM-180GB", "1x-l4", "8x-t4", "4xMI300X")
ENGINES = ("vllm", "sglang", "tensorrt-llm", "tgi")
OBJECTIVES: tuple[Objective, ...] = ("throughput", "latency")
GUESSES = (None, None, None, Speculation("ngram", 4, 0.5), Speculation("mtp", 2, 0.7), Speculation("eagle3", 3, 0.6, "x/y"))


def traffic(dice: random.Random) -> Workload:
    """A workload that may be asked for, sensible or not."""
    said: dict[str, Any] = {
        "input_tokens": dice.choice([1, 17, 500, 2000, 20000]),
        "output_tokens": dice.choice([1, 2, 100, 1000]),
        "concurrency": dice.choice([1, 3, 64, 5000]),
        "load": dice.choice(LOADS),
        "request_rate": dice.choice([0.001, 0.5, 5.0, 200.0]),
        "cached_share": dice.choice([0.0, 0.0, 0.5, 0.99]),
        "speculation": dice.choice(GUESSES),
        "ttft_target": dice.choice([None, Seconds(0.001), Seconds(0.3), Seconds(3.0)]),
        "tpot_target": dice.choice([None, Seconds(0.001), Seconds(0.03), Seconds(0.3)]),
    }
    targets = said["ttft_target"] or said["tpot_target"]
    return Workload(**said, percentile=dice.choice([None, 50, 90, 99]) if targets else None)


def check(estimate: Estimate) -> None:
    serving, unsure = estimate.serving, estimate.uncertainty
    figures = [(estimate.ttft, unsure.ttft), (estimate.tpot, unsure.tpot)]
    for value, (low, high) in (*figures, (estimate.output_tokens_per_second, unsure.output_tokens_per_second)):
        assert math.isfinite(value)
        assert 0 <= low <= value <= high
    for times in (serving.ttft, serving.tpot, serving.itl):
        assert 0 <= times.p50 <= times.p90 <= times.p99 < math.inf
    assert serving.in_flight >= 0
    assert serving.within_targets is None or 0 <= serving.within_targets <= 1
    assert sum(estimate.decode.parts.values()) == pytest.approx(estimate.decode.total)
    assert all(stage.total <= stage.capacity for stage in estimate.memory)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_answered_holds_together(seed: int) -> None:
    dice, answered = random.Random(seed), 0  # noqa: S311 - which cases are tried
    for _ in range(12):
        name, machine, engine = dice.choice(model_names()), dice.choice(MACHINES), dice.choice(ENGINES)
        workload, objective = traffic(dice), dice.choice(OBJECTIVES)
        try:
            answer = api.recommend(
                api.load_model(name), api.load_topology(machine), workload, engine=engine, objective=objective, top=3
            )
        except BadInput as error:
            assert error.path == "--speculative"
            continue
        document = json.loads(render.write(render.recommendation(answer)))
        assert [f"{one.json_path}: {one.message}" for one in SCHEMA.iter_errors(document)] == []
        for plan in answer.plans:
            check(plan.ranked.estimate)
            answered += 1
    assert answered
