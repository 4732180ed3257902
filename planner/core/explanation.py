"""An estimate taken apart: a tree from what a user sees down to formulas, with what went in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

How = Literal["formula", "given", "sum", "max", "reference"]
"""How a step comes to its value: by its formula; as it stands in the constants; as its children together, or the largest of them;
as a step that is explained elsewhere in the tree.
"""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing that went in: a number with its unit (SI, empty for counts and shares), or a word."""

    name: str
    value: float | str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Constants:
    """Values that belong together and where they come from: an entry of a calibration, a data sheet, an engine's rules."""

    name: str
    source: str
    values: tuple[Quantity, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """Between which values nine of ten measurements of a step are expected, and why so."""

    low: float
    high: float
    basis: str


@dataclass(frozen=True, slots=True)
class Step:
    """A value in ``unit`` (``s``, ``B`` or ``tokens/s``): ``times`` what its children come to together, or its formula gives once.

    ``formula`` is a name of the registry. ``source`` says more of where the value comes from, such as a measurement.
    """

    name: str
    value: float
    unit: str
    how: How
    times: float = 1.0
    formula: str | None = None
    inputs: tuple[Quantity, ...] = ()
    constants: tuple[Constants, ...] = ()
    source: str = ""
    bar: Bar | None = None
    children: tuple[Step, ...] = ()

    @property
    def each(self) -> float:
        """The value of one of ``times``."""
        return self.value / self.times if self.times else 0.0

    @property
    def together(self) -> float:
        """What the children come to, ``times`` times; the value itself where there are none."""
        if not self.children:
            return self.value
        values = [child.value for child in self.children]
        return self.times * (max(values) if self.how == "max" else sum(values))

    def walk(self) -> Iterator[Step]:
        """This step and all below it, a parent before its children."""
        yield self
        for child in self.children:
            yield from child.walk()


def added(name: str, children: tuple[Step, ...], *, times: float = 1.0, formula: str | None = None, unit: str = "s") -> Step:
    """A step that is the sum of its children, ``times`` times."""
    value = times * sum(child.value for child in children)
    return Step(name, value, unit, "sum", times, formula, children=children)


def alike(one: Step, other: Step) -> bool:
    """Whether two steps differ in nothing but the GPUs they are of."""
    return (
        (one.name, one.value, one.times, one.formula, len(one.children))
        == (other.name, other.value, other.times, other.formula, len(other.children))
    ) and all(alike(a, b) for a, b in zip(one.children, other.children, strict=True))
