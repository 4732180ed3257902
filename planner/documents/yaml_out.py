"""Mappings written as YAML, keys in the order given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def write(mapping: Mapping[str, Any]) -> str:
    """A YAML document; lists in flow style."""
    import yaml

    text: str = yaml.safe_dump(dict(mapping), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)
    return text
