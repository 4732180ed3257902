"""One YAML loader that refuses what YAML makes ambiguous or dangerous, naming the line.

Refused: aliases and anchors, tags, duplicate keys, several documents, ``yes``/``no``/``on``/``off``, numbers that YAML
versions read differently (``010``, ``1:30``, ``450e9``, ``0x1F``, ``1_000``, ``.nan``, ``.inf``), deep nesting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from planner.errors import BadInput

MAX_DEPTH = 32

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")
_AMBIGUOUS_NUMBER = re.compile(
    r"[-+]?(?:0[0-9]+|0[xXoO][0-9a-fA-F]+|[0-9][0-9_]*_[0-9_]*|[0-9]+(?::[0-5]?[0-9])+|[0-9.]+[eE][-+]?[0-9]+"
    r"|\.[0-9]+|[0-9]+\.|\.(?:nan|NaN|NAN|inf|Inf|INF))|\+[0-9.]+"
)
_AMBIGUOUS_WORD = re.compile(r"(?:yes|no|on|off|y|n|True|TRUE|False|FALSE|Yes|YES|No|NO|On|ON|Off|OFF|Y|N|Null|NULL)")


def load(text: str, name: str) -> Any:
    """The one document in ``text`` as dictionaries, lists, strings, numbers, booleans and ``None``.

    ``name`` is what error messages call it. Raises ``BadInput`` with the line.
    """
    try:
        events = iter(yaml.parse(text, Loader=_Loader))
        builder = _Builder(events, name)
        return builder.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise BadInput(f"not valid YAML: {error.problem or error}", path=where) from None
    except yaml.YAMLError as error:
        raise BadInput(f"not valid YAML: {' '.join(str(error).split())}", path=name) from None


def is_plain(text: str) -> bool:
    """Whether a writer may leave this text unquoted as far as :func:`load` is concerned.

    >>> is_plain("gpu0"), is_plain("450e9"), is_plain("off")
    (True, False, False)
    """
    return not (_AMBIGUOUS_NUMBER.fullmatch(text) or _AMBIGUOUS_WORD.fullmatch(text))


class _Builder:
    def __init__(self, events: Iterator[Any], name: str) -> None:
        self._events = events
        self._name = name

    def document(self) -> Any:
        next(self._events)  # stream start
        first = next(self._events)
        if isinstance(first, yaml.StreamEndEvent):
            raise BadInput("holds no document", path=self._name)
        value = self._node(next(self._events), 0)
        next(self._events)  # document end
        if not isinstance(next(self._events), yaml.StreamEndEvent):
            raise BadInput("holds more than one document", path=self._name)
        return value

    def _refuse(self, event: Any, problem: str, hint: str = "") -> BadInput:
        return BadInput(problem, path=f"{self._name}, line {event.start_mark.line + 1}", hint=hint)

    def _node(self, event: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self._refuse(event, f"nested deeper than {MAX_DEPTH}")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._refuse(event, "anchors and aliases are not read", "write the value out")
        if event.tag is not None and event.tag != "!":
            raise self._refuse(event, f"the tag {event.tag!r} is not read", "remove it")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(depth)
        return self._mapping(depth)

    def _sequence(self, depth: int) -> list[Any]:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if isinstance(key, int) and not isinstance(key, bool):
                key = str(key)
            if not isinstance(key, str):
                raise self._refuse(event, f"a key must be text, found {key!r}")
            if key in items:
                raise self._refuse(event, f"the key {key!r} is there twice")
            items[key] = self._node(next(self._events), depth + 1)
        return items

    def _scalar(self, event: Any) -> str | int | float | bool | None:
        text: str = event.value
        if not event.implicit[0]:  # quoted
            return text
        if text in {"", "~", "null"}:
            return None
        if text in {"true", "false"}:
            return text == "true"
        if _INTEGER.fullmatch(text) and len(text) < 19:
            return int(text)
        if _DECIMAL.fullmatch(text):
            return float(text)
        if _AMBIGUOUS_NUMBER.fullmatch(text):
            raise self._refuse(
                event, f"{text!r} is read as different numbers by different programs", "write a plain decimal, or quote it"
            )
        if _AMBIGUOUS_WORD.fullmatch(text):
            raise self._refuse(
                event, f"{text!r} means different things to different programs", "write true or false, or quote it"
            )
        return text
