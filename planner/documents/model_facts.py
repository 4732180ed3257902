"""The facts of a model that a plan was made with, as a mapping: layers as kinds and runs of them, everything else by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import groupby
from typing import Any

from planner.core.model import Layer, ModelSpec, kinds
from planner.documents.records import record, unrecord
from planner.errors import BadInput

MOST_LAYERS = 100_000
_STACKS = ("layers", "prediction_layers")


def facts_of(model: ModelSpec) -> dict[str, Any]:
    """Every field but the name. A stack of layers is a list of ``[kind, how many]``, the kind a place in ``layer_kinds``."""
    stacks = {name: getattr(model, name) for name in _STACKS}
    known = list(dict.fromkeys(layer for stack in stacks.values() for layer, _ in kinds(stack)))
    flat = record(model, ModelSpec)
    written = {key: value for key, value in flat.items() if key not in {"name", *_STACKS}}
    runs = {name: _runs(stack, known) for name, stack in stacks.items() if stack}
    return {**written, "layer_kinds": [record(layer, Layer) for layer in known], **runs}


def _runs(stack: Sequence[Layer], known: Sequence[Layer]) -> list[list[int]]:
    return [[place, len(list(run))] for place, run in groupby(known.index(layer) for layer in stack)]


def model_of(data: Any, name: str, place: str) -> ModelSpec:
    """The model of :func:`facts_of`'s mapping. Raises ``BadInput`` with the place of what is wrong."""
    if not isinstance(data, dict):
        raise BadInput(f"expected a mapping, found {type(data).__name__}", path=place)
    known = data.get("layer_kinds")
    if not isinstance(known, list) or not known:
        raise BadInput("expected a list of kinds of layers", path=f"{place}.layer_kinds")
    layers = [unrecord(one, Layer, f"{place}.layer_kinds[{number}]") for number, one in enumerate(known)]
    stacks = {one: _stack(data[one], layers, f"{place}.{one}") for one in _STACKS if one in data}
    flat = {key: value for key, value in data.items() if key not in {"layer_kinds", *_STACKS}}
    if "name" in flat:
        raise BadInput("is not a known key", path=f"{place}.name")
    bare = unrecord({**flat, "name": name, "layers": []}, ModelSpec, place)
    model = ModelSpec(**{**{one.name: getattr(bare, one.name) for one in fields(bare)}, **stacks})
    if not model.layers:
        raise BadInput("holds no layer", path=f"{place}.layers")
    for count in ("hidden_size", "vocabulary_size", "max_positions"):
        if getattr(model, count) < 1:
            raise BadInput(f"must be 1 or more, found {getattr(model, count)}", path=f"{place}.{count}")
    return model


def _stack(data: Any, known: Sequence[Layer], place: str) -> tuple[Layer, ...]:
    """One object a kind, repeated: :func:`planner.core.model.kinds` goes by identity."""
    layers: list[Layer] = []
    if not isinstance(data, list):
        raise BadInput("expected a list of [kind, how many]", path=place)
    for number, run in enumerate(data):
        if not (isinstance(run, list) and len(run) == 2 and all(type(one) is int for one in run)):
            raise BadInput(f"expected [kind, how many], found {run!r}", path=f"{place}[{number}]")
        kind, count = run
        if not 0 <= kind < len(known):
            raise BadInput(
                f"there is no kind of layer {kind}", path=f"{place}[{number}][0]", hint=f"kinds: 0 to {len(known) - 1}"
            )
        if not 1 <= count <= MOST_LAYERS or len(layers) + count > MOST_LAYERS:
            raise BadInput(f"cannot be {count} layers", path=f"{place}[{number}][1]")
        layers += [known[kind]] * count
    return tuple(layers)
