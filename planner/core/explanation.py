"""An estimate taken apart: a tree from what a user sees down to formulas, with what went in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from planner.core.estimate import Estimate
from planner.core.plan import Plan

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


def part(name: str, children: tuple[Step, ...]) -> Step:
    """A named part of its kernels; of one kernel alone that kernel by the name of the part."""
    return replace(children[0], name=name) if len(children) == 1 else added(name, children)


def repeated(one: Step, times: int) -> Step:
    """A step that happens once made one that happens ``times`` times (fewer than none: what is saved)."""
    bar = one.bar
    if bar is not None:
        low, high = sorted((times * bar.low, times * bar.high))
        bar = Bar(low, high, bar.basis)
    return replace(one, value=times * one.value, times=float(times), bar=bar)


def numbered(kind: str, steps: Sequence[Step], *, together: bool) -> tuple[Step, ...]:
    """Steps of stages, by their numbers; those in a row that are alike as one, which counts for all of them if ``together``."""
    runs: list[tuple[int, int, Step]] = []
    for number, one in enumerate(steps, 1):
        if runs and alike(runs[-1][2], one):
            runs[-1] = runs[-1][0], number, one
        else:
            runs.append((number, number, one))
    out = []
    for first, last, one in runs:
        name = f"{kind} {first}" if first == last else f"{kind}s {first} to {last}, each alike"
        count = last - first + 1
        named = replace(one, name=name)
        out.append(replace(named, value=count * one.value, times=one.times * count) if together and count > 1 else named)
    return tuple(out)


def alike(one: Step, other: Step) -> bool:
    """Whether two steps differ in nothing but the GPUs they are of."""
    return (
        (one.name, one.value, one.times, one.formula, len(one.children))
        == (other.name, other.value, other.times, other.formula, len(other.children))
    ) and all(alike(a, b) for a, b in zip(one.children, other.children, strict=True))


@dataclass(frozen=True, slots=True)
class Explanation:
    """A plan, what it costs, and how that came about: TPOT, TTFT, throughput, memory."""

    plan: Plan
    estimate: Estimate
    roots: tuple[Step, ...]
