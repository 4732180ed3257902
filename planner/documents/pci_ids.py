"""``data/pci_ids.yaml``: PCI vendor and device id → the name of a GPU in ``data/gpus``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from planner.documents import strict_yaml
from planner.documents.base import Document, validate
from planner.documents.files import DATA
from planner.errors import BadInput

_KEY = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})")


class PciIdsDocument(Document):
    """The file: names by ``vendor:device`` in lower-case hexadecimal."""

    schema_version: int
    source: str
    gpus: dict[str, str]


@cache
def load_pci_ids() -> Mapping[tuple[int, int], str]:
    """Names of ``data/gpus`` by vendor and device id. Raises ``BadInput`` where the file is damaged."""
    path = DATA / "pci_ids.yaml"
    document = validate(PciIdsDocument, strict_yaml.load(path.read_text("utf-8"), path.name), path.name)
    names = {}
    for key, name in document.gpus.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise BadInput(f"{key!r} is no vendor:device", path=f"{path.name}: $.gpus")
        names[int(match[1], 16), int(match[2], 16)] = name
    return names


def gpu_by_pci_id(vendor: int, device: int) -> str | None:
    """The name in ``data/gpus`` of the GPU with these PCI ids; ``None`` where it is not known, or the id has several.

    >>> gpu_by_pci_id(0x10DE, 0x2330)
    'H100-SXM5-80GB'
    """
    return load_pci_ids().get((vendor, device))
