"""What every document model shares: strict fields, quantities with units, errors that say where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from planner.errors import BadInput
from planner.units import parse_bandwidth, parse_clock, parse_compute, parse_size, parse_time

SCHEMA_VERSION = 1


class Document(BaseModel):
    """A mapping with known keys only; types are not coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _quantity(parse: Callable[..., float]) -> BeforeValidator:
    def validate(value: object) -> float:
        try:
            return float(parse(value))
        except BadInput as error:
            context = {"problem": error.problem, "hint": error.hint}
            raise PydanticCustomError("quantity", "{problem}", context) from None

    return BeforeValidator(validate)


Size = Annotated[float, _quantity(parse_size)]
Time = Annotated[float, _quantity(parse_time)]
Bandwidth = Annotated[float, _quantity(parse_bandwidth)]
Compute = Annotated[float, _quantity(parse_compute)]
Clock = Annotated[float, _quantity(parse_clock)]

Model = TypeVar("Model", bound=Document)


def validate(model: type[Model], data: Any, name: str) -> Model:
    """``data`` as a ``model``. Raises ``BadInput`` for the first problem, with its path (``$.links[3].bandwidth``)."""
    if not isinstance(data, dict):
        raise BadInput(f"expected a mapping, found {type(data).__name__}", path=name)
    version = data.get("schema_version")
    if "schema_version" in model.model_fields and version != SCHEMA_VERSION:
        raise BadInput(f"schema_version is {version!r}; this release reads {SCHEMA_VERSION}", path=f"{name}: $.schema_version")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        problem, hint = _explain(first, model)
        raise BadInput(problem, path=f"{name}: ${steps}", hint=hint) from None


def _explain(error: Any, model: type[Document]) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "quantity":
        return context["problem"], context["hint"]
    if kind == "missing":
        return "is missing", ""
    if kind == "extra_forbidden":
        known = ", ".join(model.model_fields) if len(error["loc"]) == 1 else ""
        return "is not a known key", f"known here: {known}" if known else ""
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, found {error['input']!r}", ""
