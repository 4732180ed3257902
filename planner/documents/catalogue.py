"""``data/models/*.json``: models known by name, offline."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from planner.documents import json_file
from planner.documents.base import Document, validate
from planner.documents.files import DATA
from planner.errors import folded, unknown_name

_FOLDER = DATA / "models"


class ModelDocument(Document):
    """One model's file: names, the published size, and the fields of its ``config.json`` that matter here."""

    name: str
    hub_id: str
    aliases: list[str]
    parameters_billion: float
    source: str
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model found by name: ``hub_id`` is the hub's spelling of what was asked for."""

    name: str
    hub_id: str
    parameters_billion: float
    config: dict[str, Any]


@cache
def _documents() -> tuple[ModelDocument, ...]:
    paths = sorted(_FOLDER.glob("*.json"))
    return tuple(validate(ModelDocument, json_file.load(path.read_text("utf-8"), path.name), path.name) for path in paths)


def model_names() -> list[str]:
    """The short names of the catalogue."""
    return [document.name for document in _documents()]


def find_model(name: str) -> CatalogueEntry:
    """The model called ``name``: a short name, a hub id or an alias, with or without the organisation before the slash.

    Case, spaces, dashes and underscores do not matter. Raises ``BadInput`` with the nearest known names.
    """
    key = folded(name)
    for document in _documents():
        for known in (document.name, document.hub_id, *document.aliases):
            if key in (folded(known), folded(known.rpartition("/")[2])):
                hub_id = known if "/" in known else document.hub_id
                return CatalogueEntry(document.name, hub_id, document.parameters_billion, document.config)
    known_names = [name for document in _documents() for name in (document.name, document.hub_id)]
    raise unknown_name("model", name, known_names, hint="or pass a directory with config.json, or the file")
