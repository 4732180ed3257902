"""Writing YAML for people: block style, small mappings and lists in one line."""

from __future__ import annotations

from typing import Any

import yaml

from planner.documents.strict_yaml import is_plain


class _OneLine(dict[str, Any]):
    """A mapping written in one line."""


class _Row(list[Any]):
    """A list written in one line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(dumper: _Dumper, data: str) -> yaml.ScalarNode:
    if is_plain(data):
        return dumper.represent_str(data)
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style='"')


_Dumper.add_representer(str, _text)
_Dumper.add_representer(_OneLine, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True))
_Dumper.add_representer(_Row, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True))


def write(document: Any) -> str:
    """The text of a document of mappings, lists and scalars that :func:`planner.documents.strict_yaml.load` reads back."""
    text: str = yaml.dump(_laid_out(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000)
    return text


def _laid_out(value: Any) -> Any:
    """Lists of scalars and items of lists that hold nothing nested but such lists, in one line each."""
    if isinstance(value, dict):
        return {key: _laid_out(item) for key, item in value.items()}
    if isinstance(value, list):
        if value and all(_scalar(item) for item in value):
            return _Row(value) if not any(isinstance(item, str) and " " in item for item in value) else value
        return [_item(item) for item in value]
    return value


def _item(value: Any) -> Any:
    if isinstance(value, dict) and all(_scalar(item) or _short_row(item) for item in value.values()):
        return _OneLine({key: _Row(item) if isinstance(item, list) else item for key, item in value.items()})
    if isinstance(value, list) and all(_scalar(item) for item in value):
        return _Row(value)
    return _laid_out(value)


def _scalar(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _short_row(value: Any) -> bool:
    return isinstance(value, list) and all(_scalar(item) for item in value)
