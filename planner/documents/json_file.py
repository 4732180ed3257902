"""JSON from the outside: one object, no duplicate keys."""

from __future__ import annotations

import json
from typing import Any

from planner.errors import BadInput


def load(text: str, name: str) -> dict[str, Any]:
    """The object in ``text``; the words NaN and Infinity, which some configs hold, stay words. Raises ``BadInput`` with the line."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                raise BadInput(f"the key {key!r} is there twice", path=name)
            found[key] = value
        return found

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=str)
    except json.JSONDecodeError as error:
        raise BadInput(f"not valid JSON: {error.msg}", path=f"{name}, line {error.lineno}") from None
    except ValueError:
        raise BadInput("holds a number of thousands of digits", path=name) from None
    except RecursionError:
        raise BadInput("nested too deep", path=name) from None
    if not isinstance(value, dict):
        raise BadInput(f"expected an object, found {type(value).__name__}", path=name)
    return value
