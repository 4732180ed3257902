"""Models as they are named: a directory or file with a checkpoint's configuration, or a name of the catalogue."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import BadInput, unknown_name
from planner.machines import refuse_strange

if TYPE_CHECKING:
    from typing import Any

    from planner.core.model import ModelSpec
    from planner.core.quantization import CacheDtype, WeightFormat
    from planner.core.saved import SavedPlan


def load_model(reference: str, *, quant: str | None = None, cache: CacheDtype = "auto") -> ModelSpec:
    """A model by a directory with ``config.json``, the file, or a name of the catalogue; ``quant`` overrides its weights, ``cache``
    what keys and values are kept in.

    Raises ``BadInput`` for an unknown name or architecture, with the nearest known.
    """
    from planner.models import read_config

    refuse_strange(reference)
    path = Path(reference)
    if path.is_dir() or path.suffix == ".json" or path.is_file():
        config, name, source, places = _config_file(path, reference)
    else:
        from planner.documents.catalogue import find_model

        entry = find_model(reference)
        config, name, source, places = entry.config, entry.hub_id, entry.name, {}
    try:
        model = read_config(config, name, source, places=places)
    except BadInput:
        if quant is None:
            raise
        # the user says what the weights are, so what the checkpoint says of itself need not be readable
        model = read_config(config, name, source, quantised=False)
    return (model if quant is None else model.stored_as(_weight_format(quant))).cached_in(cache)


def _config_file(path: Path, reference: str) -> tuple[dict[str, Any], str, str, dict[str, str]]:
    """The config of a model given as a path, the name to launch it by, what messages call the file, and what they call fields
    that stand in NVIDIA ModelOpt's ``hf_quant_config.json`` beside it.
    """
    from planner.documents import json_file
    from planner.documents.files import read_text

    folder = path if path.is_dir() else path.parent
    file = path / "config.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise BadInput("holds no config.json", path=reference, hint="pass the directory that a model's config.json lies in")
    config = json_file.load(read_text(file), str(file))
    extra, places = folder / "hf_quant_config.json", {}
    if "quantization_config" not in config and extra.exists():
        quantization = json_file.load(read_text(extra), str(extra)).get("quantization")
        if isinstance(quantization, dict):
            config["quantization_config"] = quantization | {"quant_method": "modelopt"}
            places["quantization_config"] = f"{extra}: $.quantization"
    name = str(folder)
    return config, f"./{name}" if name.startswith("-") else name, str(file), places


def _weight_format(name: str) -> WeightFormat:
    from planner.core.quantization import ALIASES, FORMATS

    key = ALIASES.get(name.lower(), name.lower())
    if key not in FORMATS:
        raise unknown_name("quantisation", name, FORMATS, hint=f"known: {', '.join(FORMATS)}")
    return FORMATS[key]


def changed_since(saved: SavedPlan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What of a model is no longer as it was planned, and what could not be looked up: its config is read again where it was."""
    planned, reference = saved.model, saved.model_reference
    if saved.local_model:  # the reference may be relative to another folder
        file = Path(planned.name) / (Path(reference).name if reference.endswith(".json") else "config.json")
        if not file.exists():
            return (), (f"{file} is not there, the model is taken as it was planned",)
        reference = str(file)
    own = planned.weight_format == planned.checkpoint_format
    try:
        now = load_model(reference, quant=None if own else planned.weight_format.name, cache=planned.cache_dtype)
    except BadInput as error:
        if saved.local_model:
            return (f"{error.path or reference}: {error.problem}",), ()
        return (), (f"the model is taken as it was planned: {error.problem}",)
    found = [
        _difference(field.name, getattr(now, field.name), getattr(planned, field.name))
        for field in fields(planned)
        if field.name not in _NOT_OF_THE_CONFIG and getattr(now, field.name) != getattr(planned, field.name)
    ]
    return ((f"{reference} is not the model that was planned: {', '.join(found)}",) if found else ()), ()


_NOT_OF_THE_CONFIG = frozenset({"name", "weight_format", "dtype_override", "notes"})


def _difference(name: str, now: Any, planned: Any) -> str:
    if isinstance(now, tuple):
        what = name.replace("_", " ")
        return f"{len(now)} {what}, planned {len(planned)}" if len(now) != len(planned) else f"other {what}"
    now, planned = (getattr(one, "name", one) for one in (now, planned))
    return f"{name.replace('_', ' ')} {now}, planned {planned}"
