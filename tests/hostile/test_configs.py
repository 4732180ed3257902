"""Configs whose fields were spoilt: each is read, or refused with a place; never a traceback, never a hang."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from planner.core.plan import Parallelism
from planner.cost import memory
from planner.documents.catalogue import find_model, model_names
from planner.errors import BadInput
from planner.models import read_config

STRANGE: list[Any] = [
    None,
    0,
    -1,
    1,
    3,
    2.5,
    10**9,
    10**12,
    True,
    "",
    "x",
    "NaN",
    [],
    {},
    [1],
    ["x"],
    [None],
    {"a": 1},
    [[]],
    [{}],
]
SPOILT_EACH = 60


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


@pytest.mark.parametrize("name", model_names())
def test_spoilt_fields_are_read_or_refused(name: str) -> None:
    source = json.dumps(find_model(name).config)
    choice = random.Random(name)  # noqa: S311
    for _ in range(SPOILT_EACH):
        config = json.loads(source)
        for _ in range(choice.choice((1, 1, 1, 2, 4))):
            container, key = choice.choice([*places(config)])
            if choice.random() < 0.2 and isinstance(container, dict):
                del container[key]
            else:
                container[key] = copy.deepcopy(choice.choice(STRANGE))
        try:
            model = read_config(config, "m", "config.json")
        except BadInput as error:
            assert "config.json" in error.path
            continue
        assert model.parameters >= model.active_parameters > 0
        parts = memory.stage_weights(model, model.layers, Parallelism(), first=True, last=True, multiple=64)
        assert all(size >= 0 for size in parts.values())
        assert memory.kv_bytes(model.layers, 1, 128, 2048, model.kv_element_bytes, grouped=True) >= 0
