"""``data/pci_ids.yaml``: PCI vendor and device id → the name of a GPU in ``data/gpus``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from planner.documents import strict_yaml
from planner.documents.base import Document, validate
from planner.documents.files import DATA
from planner.errors import BadInput

_KEY = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})(?:/([0-9]{1,3}))?")


class PciIdsDocument(Document):
    """The file: names by ``vendor:device`` in lower-case hexadecimal, ``/104`` behind where the compute units decide."""

    schema_version: int
    source: str
    gpus: dict[str, str]


@cache
def load_pci_ids() -> Mapping[tuple[int, int, int | None], str]:
    """Names of ``data/gpus`` by vendor id, device id and number of compute units (``None``: any). Raises ``BadInput`` where the file is damaged."""
    path = DATA / "pci_ids.yaml"
    document = validate(PciIdsDocument, strict_yaml.load(path.read_text("utf-8"), path.name), path.name)
    names = {}
    for key, name in document.gpus.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise BadInput(f"{key!r} is no vendor:device", path=f"{path.name}: $.gpus")
        names[int(match[1], 16), int(match[2], 16), int(match[3]) if match[3] else None] = name
    return names


def gpu_by_pci_id(vendor: int, device: int, compute_units: int | None = None) -> str | None:
    """The name in ``data/gpus`` of the GPU with these PCI ids; ``None`` where it is not known, or could be several.

    ``compute_units`` tell GPUs of AMD's apart that share their ids.

    >>> gpu_by_pci_id(0x10DE, 0x2330), gpu_by_pci_id(0x1002, 0x740C), gpu_by_pci_id(0x1002, 0x740C, 104)
    ('H100-SXM5-80GB', None, 'MI250-GCD')
    """
    names = load_pci_ids()
    return names.get((vendor, device, None)) or names.get((vendor, device, compute_units))
