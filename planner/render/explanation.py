"""An estimate taken apart: as a tree for a terminal, as a document; and the registry of formulas."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from planner import __version__
from planner.core.explanation import Constants, Explanation, Quantity, Step
from planner.cost.formula import REGISTRY, Formula
from planner.render import terminal, text
from planner.render import workload as traffic
from planner.render.json import parallelism
from planner.search.recommendation import Recommendation

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = 1
Line = tuple[str, str]
"""Words and their style."""
_NARROWEST = 20
_UNIT = re.compile(r"(?<=[0-9]) (?=(?:[µmn]?s|[KMG]iB|B|tokens|× [0-9-])\b)")
"""The blank between a number and its unit, where no line is broken."""
_LINES = ("├─ ", "└─ ", "│  ", "   ")
_ASCII = ("|- ", "`- ", "|  ", "   ")


def explanation(answer: Recommendation, tree: Explanation, depth: int | None = None) -> None:
    """The tree, then the formulas and constants it names; ``depth`` is how many levels are shown."""
    console = terminal.console()
    workload, model = answer.workload, answer.model
    degrees = text.degrees(tree.plan.parallelism, experts=model.experts > 0)
    placement = text.shorten([text.replica(replica) for replica in tree.plan.placement], 8).replace(", ", "  ")
    title = (
        f"{model.name} ({model.weight_format.name}, {model.parameters / 1e9:.1f}B) on {answer.topology.name} "
        f"with {answer.engine.name} {answer.engine.version}"
    )
    _wrapped(console, title, "bold")
    _wrapped(console, f"{degrees} on GPUs {placement}")
    _wrapped(console, traffic.words(workload), "dim")
    marks = _LINES if terminal.draws_lines() else _ASCII
    shown: list[Step] = []
    for root in tree.roots:
        console.print()
        for words, style in _tree(root, marks, console.width, depth, shown):
            _line(console, words, style)
    _listed(console, "formulas", (_formula_line(REGISTRY[name]) for name in _formulas_of(shown)))
    _listed(console, "constants", (_constants_line(one) for one in _constants_of(shown)))
    bars = dict.fromkeys(step.bar.basis for step in shown if step.bar)
    _listed(console, "error bars, in brackets: where nine of ten measurements are expected", bars)


def _tree(step: Step, marks: Sequence[str], width: int, depth: int | None, shown: list[Step]) -> Iterator[Line]:
    """The lines of a step and all below it; ``shown`` takes the steps."""

    def below(one: Step, first: str, rest: str, level: int) -> Iterator[Line]:
        shown.append(one)
        deeper = one.children if depth is None or level < depth else ()
        cut = " …" if one.children and not deeper else ""
        yield from _hung(_headline(one) + cut, first, rest, width, "bold" if level == 1 else "")
        inner = rest + (marks[2] if deeper else marks[3])
        for words in _details(one):
            yield from _hung(words, inner, inner, width, "dim")
        for number, child in enumerate(deeper, 1):
            last = number == len(deeper)
            yield from below(child, rest + marks[1 if last else 0], rest + marks[3 if last else 2], level + 1)

    yield from below(step, "", "", 1)


def _headline(step: Step) -> str:
    """Name, value, how often, error bar."""
    words = f"{step.name}: {_value(step.value, step.unit)}"
    if step.times not in {0.0, 1.0}:
        words += f" = {_plain(step.times)} × {_value(step.each, step.unit)}"
    if step.bar is not None:
        words += f" ({_value(step.bar.low, step.unit)} to {_value(step.bar.high, step.unit)})"
    if step.how == "max":
        words += ", the largest of" if len(step.children) > 1 else ""
    return words + (", see above" if step.how == "reference" else "")


def _details(step: Step) -> Iterator[str]:
    """What went in, with which formula and constants, and where it comes from."""
    asked = ", ".join(f"{one.name} {_quantity(one)}" for one in step.inputs)
    words = f"{step.formula}({asked})" if step.formula and asked else step.formula or asked
    if step.constants:
        words += f"{' ' if words else ''}with {', '.join(one.name for one in step.constants)}"
    if words:
        yield words
    if step.source:
        yield step.source


def _value(value: float, unit: str) -> str:
    """A value as people read it."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    if unit == "s":
        return sign + text.duration(size)
    if unit == "B":
        return sign + text.size(size)
    return sign + f"{text.rate(size)} {unit}"


def _quantity(one: Quantity) -> str:
    if isinstance(one.value, str):
        return one.value
    if one.unit == "s":
        return text.duration(one.value) if one.value >= 1e-7 else f"{one.value * 1e9:.3g} ns"
    if one.unit == "B":
        return f"{one.value:g} B" if one.value < 1024 else text.size(one.value)
    if one.unit.endswith("/s") or one.unit in ("FLOP", "Hz"):
        for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
            if one.value >= factor:
                return f"{one.value / factor:.3g} {prefix}{one.unit}"
    return f"{_plain(one.value)} {one.unit}".rstrip()


def _plain(number: float) -> str:
    """Four digits of few, all of many."""
    return f"{number:,.0f}" if number >= 9999.5 else f"{number:.4g}"


def _formula_line(one: Formula) -> str:
    return f"{one.name}: {one.source}" + ("" if one.valid == "everywhere" else f"; valid: {one.valid}")


def _constants_line(one: Constants) -> str:
    values = ", ".join(f"{value.name} {_quantity(value)}" for value in one.values)
    return f"{one.name} ({one.source}){': ' if values else ''}{values}"


def _formulas_of(steps: Iterable[Step]) -> list[str]:
    return sorted({step.formula for step in steps if step.formula})


def _constants_of(steps: Iterable[Step]) -> list[Constants]:
    """The constants that steps name, once each; data sheets with everything that any step asks of them."""
    found: dict[str, Constants] = {}
    for step in steps:
        for one in step.constants:
            before = found.get(one.name, one)
            found[one.name] = Constants(one.name, one.source, tuple(dict.fromkeys((*before.values, *one.values))))
    return list(found.values())


def _hung(words: str, first: str, rest: str, width: int, style: str) -> Iterator[Line]:
    """Words wrapped to the terminal under a margin."""
    lines = textwrap.wrap(
        _UNIT.sub("\u00a0", text.printable(words)),
        max(len(rest) + _NARROWEST, width),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return ((line.replace("\u00a0", " "), style) for line in lines)


def _line(console: Console, words: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(words, style=style), soft_wrap=True)


def _wrapped(console: Console, words: str, style: str = "", first: str = "", rest: str = "") -> None:
    for line, shown in _hung(words, first, rest, console.width, style):
        _line(console, line, shown)


def _listed(console: Console, title: str, items: Iterable[str]) -> None:
    several = list(items)
    if several:
        console.print()
        _wrapped(console, title, "bold")
        for one in several:
            _wrapped(console, one, "", "- ", "  ")


def explanation_document(answer: Recommendation, tree: Explanation, depth: int | None = None) -> dict[str, Any]:
    """What ``planner explain`` answers: the steps, and by name the formulas and constants they lean on."""
    steps = [step for root in tree.roots for step in root.walk()]
    degrees, workload = tree.plan.parallelism, answer.workload
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "explanation",
        "planner_version": __version__,
        "topology": answer.topology.name,
        "model": {"name": answer.model.name, "weight_format": answer.model.weight_format.name},
        "engine": {"name": answer.engine.name, "version": answer.engine.version},
        "workload": traffic.document(workload),
        "parallelism": parallelism(degrees),
        "placement": [[list(group) for group in replica] for replica in tree.plan.placement],
        "layer_partition": list(tree.plan.layer_partition),
        "steps": [_step(root, depth) for root in tree.roots],
        "formulas": {name: _formula(REGISTRY[name]) for name in _formulas_of(steps)},
        "constants": {
            one.name: {"source": one.source, "values": [_input(value) for value in one.values]} for one in _constants_of(steps)
        },
        "assumptions": list(tree.estimate.assumptions),
        "warnings": list(answer.warnings),
    }


def _step(step: Step, depth: int | None) -> dict[str, Any]:
    deeper = step.children if depth is None or depth > 1 else ()
    return {
        "name": step.name,
        "value": step.value,
        "unit": step.unit,
        "how": step.how,
        "times": step.times,
        "formula": step.formula,
        "inputs": [_input(one) for one in step.inputs],
        "constants": [one.name for one in step.constants],
        "source": step.source or None,
        "interval_90": None if step.bar is None else {"low": step.bar.low, "high": step.bar.high, "basis": step.bar.basis},
        "children": [_step(child, None if depth is None else depth - 1) for child in deeper],
    }


def _input(one: Quantity) -> dict[str, Any]:
    return {"name": one.name, "value": one.value, "unit": one.unit}


def _formula(one: Formula) -> dict[str, str]:
    return {"source": one.source, "valid": one.valid}


def formulas_document(registry: Sequence[Formula]) -> dict[str, Any]:
    """The registry."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "formulas",
        "planner_version": __version__,
        "formulas": {
            one.name: {**_formula(one), "module": one.function.__module__, "summary": _summary(one)} for one in registry
        },
    }


def _summary(one: Formula) -> str:
    """The first line of the docstring."""
    return " ".join((one.function.__doc__ or "").partition("\n\n")[0].replace("``", "").split())


def formulas(registry: Sequence[Formula]) -> None:
    """The registry, module by module."""
    console = terminal.console()
    module = ""
    for one in registry:
        if one.function.__module__ != module:
            if module:
                console.print()
            module = one.function.__module__
            _wrapped(console, module, "bold")
        _wrapped(console, f"{one.name}: {_summary(one)}", "", "- ", "  ")
        _wrapped(console, f"source: {one.source}", "dim", "  ", "  ")
        if one.valid != "everywhere":
            _wrapped(console, f"valid: {one.valid}", "dim", "  ", "  ")
