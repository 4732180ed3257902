"""Typed access to the fields of a ``config.json``: what is wrong is refused with its place, what is only strange is noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.errors import BadInput

MAX_NUMBER = 10**9
MAX_LAYERS = 10**4
_THINKER = "thinker_config"
_WRAPPED = ("text_config", "llm_config", "language_config", _THINKER)
_ENCODERS = ("vision_config", "audio_config", "vit_config")
_INHERITED = frozenset({"torch_dtype", "dtype", "tie_word_embeddings", "quantization_config", "auto_map"})


class Config:
    """Fields of a ``config.json`` that say where they are when they are wrong.

    ``places`` says where top-level fields really stand that were taken from another file. ``outer`` is the config around this
    one: some fields stand there only. ``notes`` collects, for the whole file, what the user should know of how it was read.
    ``names`` are the names of its own that this file may have for fields, by the usual ones.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        source: str,
        *,
        places: Mapping[str, str] | None = None,
        prefix: str = "",
        outer: Config | None = None,
        notes: list[str] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._names = names or {}
        self._data = data
        self._source = source
        self._places = places or {}
        self._prefix = prefix
        self._outer = outer
        self.notes: list[str] = [] if notes is None else notes

    def get(self, field: str) -> Any:
        """The value as it stands there, ``None`` where it is absent or null."""
        value = self._data.get(self._called(field))
        if value is None and self._outer is not None and field in _INHERITED:
            return self._outer.get(field)
        return value

    def _called(self, field: str) -> str:
        """What this file calls a field: as usual where it has that, else by its own name for it."""
        return field if self._data.get(field) is not None else self._names.get(field, field)

    def any_of(self, fields: Sequence[str]) -> str | None:
        """The first of ``fields`` that says something (neither absent, null, zero nor empty)."""
        return next((field for field in fields if self.get(field)), None)

    def refuse(self, field: str, problem: str, hint: str = "") -> BadInput:
        """The error for one field."""
        if self._outer is not None and self._data.get(field.partition(".")[0]) is None and field.partition(".")[0] in _INHERITED:
            return self._outer.refuse(field, problem, hint)
        first, dot, rest = self._called(field).partition(".")
        if first in self._places:
            return BadInput(problem, path=f"{self._places[first]}{dot}{rest}", hint=hint)
        return BadInput(problem, path=f"{self._source}: $.{self._prefix}{first}{dot}{rest}", hint=hint)

    def renamed(self, names: Mapping[str, str]) -> Config:
        """This config where fields may be called as the values of ``names`` say instead of their usual names, the keys."""
        return Config(
            self._data,
            self._source,
            places=self._places,
            prefix=self._prefix,
            outer=self._outer,
            notes=self.notes,
            names=names,
        )

    def text(self) -> Config:
        """The config of the language model: an object within where the model has encoders, else this."""
        for field in _WRAPPED:
            if isinstance(self._data.get(field), Mapping):
                prefix = f"{self._prefix}{field}."
                if field == _THINKER:
                    self.notes.append("the part that reads and writes text is planned, not the one that speaks")
                return Config(self._data[field], self._source, prefix=prefix, outer=self, notes=self.notes).text()
        return self

    def encoders(self) -> list[Config]:
        """The configs of encoders of pictures and sound, of this config and those around it."""
        around = self._outer.encoders() if self._outer else []
        found = [field for field in _ENCODERS if self._data.get(field)]
        return [*around, *(self._within(self.mapping(one), one) for one in found)]

    def count(self, field: str, default: int | None = None, most: int = MAX_NUMBER) -> int:
        """A positive whole number, no larger than ``most``."""
        value = self.get(field)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.refuse(field, "is missing")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
            raise self.refuse(field, f"must be a positive whole number up to {most}, found {value!r}")
        return value

    def layers(self) -> int:
        """How many decoder layers: few enough to hold one by one."""
        return self.count("num_hidden_layers", most=MAX_LAYERS)

    def optional_count(self, field: str) -> int | None:
        """A positive whole number, or ``None`` where it is absent or null."""
        return None if self.get(field) is None else self.count(field)

    def number_or_zero(self, field: str, most: int = MAX_NUMBER) -> int:
        """A whole number from 0 on; 0 where it is absent or null."""
        return 0 if self.get(field) is None or self.get(field) == 0 else self.count(field, most=most)

    def ratio(self, field: str, default: float) -> float:
        """A number above 0."""
        value = self.get(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_NUMBER:
            raise self.refuse(field, f"must be a positive number, found {value!r}")
        return float(value)

    def flag(self, field: str, default: bool) -> bool:
        """A truth value."""
        value = self.get(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(field, f"must be true or false, found {value!r}")
        return value

    def counts(self, field: str) -> list[int]:
        """A list of whole numbers, empty where it is absent."""
        value = self.get(field) or []
        if not isinstance(value, list) or not all(isinstance(one, int) for one in value):
            raise self.refuse(field, f"must be a list of whole numbers, found {value!r}")
        return value

    def words(self, field: str) -> list[str]:
        """A list of strings, empty where it is absent."""
        value = self.get(field) or []
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.refuse(field, f"must be a list of words, found {str(value)[:60]!r}")
        return value

    def mapping(self, field: str) -> Mapping[str, Any]:
        """An object, empty where it is absent or null."""
        value = self.get(field) or {}
        if not isinstance(value, dict):
            raise self.refuse(field, f"must be an object, found {value!r}")
        return value

    def objects(self, field: str) -> list[Config]:
        """A list of objects, each with its place."""
        value = self.get(field) or []
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.refuse(field, f"must be a list of objects, found {str(value)[:60]!r}")
        return [self._within(one, f"{field}[{number}]") for number, one in enumerate(value)]

    def object(self, field: str) -> Config:
        """An object with its place; an empty one where it is absent or null."""
        return self._within(self.mapping(field), field)

    def _within(self, data: Mapping[str, Any], place: str) -> Config:
        return Config(data, self._source, prefix=f"{self._prefix}{place}.", notes=self.notes)

    def word(self, field: str, default: str = "") -> str:
        """A string."""
        value = self.get(field)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.refuse(field, f"must be text, found {value!r}")
        return value
