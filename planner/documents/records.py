"""Frozen dataclasses of the core as mappings of plain values, and back with every field checked against its type.

A field at its default is left out. Where a field may hold one of several classes, ``kind`` names the class. A weight format is
written by its name, where it is one that everybody knows.
"""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from planner.core.quantization import FORMATS, WeightFormat
from planner.errors import BadInput, unknown_name

KIND = "kind"
Value = TypeVar("Value")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _classes(hint: Any) -> list[type]:
    """The dataclasses that a type admits, beside anything else."""
    options = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    return [option for option in options if isinstance(option, type) and is_dataclass(option)]


def record(value: Any, hint: Any) -> Any:
    """``value`` of type ``hint`` as mappings, lists and scalars.

    >>> from planner.core.feed_forward import DenseMlp, FeedForward
    >>> record(DenseMlp(14336), FeedForward)
    {'kind': 'DenseMlp', 'intermediate_size': 14336}
    """
    if isinstance(value, WeightFormat) and FORMATS.get(value.name) == value:
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        known = _hints(type(value))
        written = {KIND: type(value).__name__} if len(_classes(hint)) > 1 else {}
        for one in fields(value):
            held = getattr(value, one.name)
            if one.default is MISSING or held != one.default:
                written[one.name] = record(held, known[one.name])
        return written
    if isinstance(value, tuple):
        inner = _inner(hint)
        return [record(item, inner(number)) for number, item in enumerate(value)]
    return value


def _inner(hint: Any) -> Any:
    """From a tuple's type to the type of the item at a place."""
    arguments = next((get_args(option) for option in (hint, *get_args(hint)) if get_origin(option) is tuple), (Any, ...))
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return lambda _: arguments[0]
    return lambda number: arguments[number] if number < len(arguments) else Any


def unrecord(data: Any, kind: type[Value], place: str) -> Value:
    """An object of ``kind`` out of what :func:`record` wrote. Raises ``BadInput`` with the place of what is wrong.

    >>> from planner.core.feed_forward import DenseMlp
    >>> unrecord({"intermediate_size": 14336}, DenseMlp, "$.mlp")
    DenseMlp(intermediate_size=14336, gated=True, bias=False)
    """
    if not isinstance(data, dict):
        raise BadInput(f"expected a mapping, found {type(data).__name__}", path=place)
    known: dict[str, Any] = _hints(kind)  # type: ignore[arg-type] # a class is hashable
    allowed = [one for one in fields(kind) if one.init]  # type: ignore[arg-type] # only dataclasses come here
    names = {one.name for one in allowed}
    for key in data:
        if key not in names:
            raise BadInput("is not a known key", path=f"{place}.{key}", hint=f"known here: {', '.join(sorted(names))}")
    for one in allowed:
        if one.name not in data and one.default is MISSING:
            raise BadInput("is missing", path=f"{place}.{one.name}")
    return kind(**{key: _value(item, known[key], f"{place}.{key}") for key, item in data.items()})


def _value(data: Any, hint: Any, place: str) -> Any:
    options = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    if data is None and type(None) in options:
        return None
    if isinstance(data, dict):
        return _object(data, _classes(hint), place)
    if isinstance(data, list):
        for option in options:
            if get_origin(option) is tuple:
                return _tuple(data, get_args(option), place)
    if isinstance(data, str) and WeightFormat in options:
        return weight_format(data, place)
    for option in options:
        if get_origin(option) is Literal and data in get_args(option):
            return data
        if isinstance(option, type) and type(data) is option:
            return data
        if option is float and type(data) is int:
            return float(data)
    raise BadInput(f"cannot be {data!r}", path=place, hint=f"expected {_words(options)}")


def weight_format(name: str, place: str) -> WeightFormat:
    """The weight format called ``name``. Raises ``BadInput``."""
    if name not in FORMATS:
        raise unknown_name("weight format", name, FORMATS).within(place)
    return FORMATS[name]


def _object(data: dict[str, Any], classes: list[type], place: str) -> Any:
    if not classes:
        raise BadInput("cannot be a mapping", path=place)
    if len(classes) == 1:
        return unrecord(data, classes[0], place)
    names = {one.__name__: one for one in classes}
    chosen = names.get(str(data.get(KIND)))
    if chosen is None:
        raise BadInput(f"cannot be {data.get(KIND)!r}", path=f"{place}.{KIND}", hint=f"known here: {', '.join(names)}")
    return unrecord({key: value for key, value in data.items() if key != KIND}, chosen, place)


def _tuple(data: list[Any], arguments: tuple[Any, ...], place: str) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_value(item, arguments[0], f"{place}[{number}]") for number, item in enumerate(data))
    if len(data) != len(arguments):
        raise BadInput(f"has {len(data)} items; expected {len(arguments)}", path=place)
    pairs = zip(data, arguments, strict=True)
    return tuple(_value(item, inner, f"{place}[{number}]") for number, (item, inner) in enumerate(pairs))


def _words(options: tuple[Any, ...]) -> str:
    names: list[str] = []
    for option in options:
        if get_origin(option) is Literal:
            names += [repr(one) for one in get_args(option)]
        elif get_origin(option) is tuple:
            names.append("a list")
        else:
            names.append(
                {
                    int: "a whole number",
                    float: "a number",
                    str: "text",
                    bool: "true or false",
                    WeightFormat: "a weight format",
                }.get(option, "nothing")
            )
    return " or ".join(names)
