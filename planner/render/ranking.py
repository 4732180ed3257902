"""Whether predictions choose what measurements would: layouts at one load, layout and load at a target, tensor against pipeline."""

from __future__ import annotations

from typing import Any

from planner.cost.accuracy import Comparison, LoadChoice, Ranking, SideCalls

ALL = "all"


def document(ranking: Ranking | None) -> dict[str, Any]:
    """How layouts are ordered and chosen; nothing where no rows differ in their layout alone."""
    if ranking is None:
        return {}
    found: dict[str, Any] = {"same_gpus": _comparison(ranking.same_gpus), "per_gpu": _comparison(ranking.per_gpu)}
    if ranking.choices:
        found["layout_and_load"] = [_choice(one) for one in ranking.choices]
    if ranking.tensor_pipeline is not None:
        found["tp_against_pp"] = {
            "tp_wins": _side(ranking.tensor_pipeline.tensor_wins),
            "pp_wins": _side(ranking.tensor_pipeline.pipeline_wins),
        }
    return {"ranking": found}


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "groups": one.groups,
        "pairs": one.pairs,
        "top1_regret": one.regret,
        "agreement": one.agreement,
        "at_tpot_target": [
            {"tpot_ms": at.tpot_ms, "groups": at.groups, "top1_regret": at.regret, "lost": at.lost} for at in one.targets
        ],
    }


def _choice(one: LoadChoice) -> dict[str, Any]:
    return {
        "models": one.models,
        "load": one.load,
        "tpot_ms": one.tpot_ms,
        "groups": one.groups,
        "mean_regret": one.mean,
        "median_regret": one.median,
        "missed": one.missed,
        "nothing_believed": one.nothing,
    }


def _side(one: SideCalls) -> dict[str, Any]:
    return {"cells": one.cells, "median_error_of_ratio": one.error, "called_right": one.right}


def at_one_load(name: str, ranking: Ranking) -> list[str]:
    """What is lost by choosing the layout that is predicted best, and how many pairs are in order."""
    out = []
    for words, one in (("equally many GPUs", ranking.same_gpus), ("any number of GPUs, per GPU", ranking.per_gpu)):
        if one.regret is None:
            continue
        order = "" if one.agreement is None else f", {one.agreement:.0%} of {one.pairs} pairs in order"
        out.append(f"ranking of {name}, {words}: {_groups(one.groups)}, regret {one.regret:.1%}{order}")
        out += [
            f"  TPOT within {at.tpot_ms:g} ms: {_groups(at.groups)}, regret {at.regret:.1%}, all lost in {at.lost}"
            for at in one.targets
            if at.regret is not None
        ]
    return out


def tensor_pipeline(name: str, ranking: Ranking) -> list[str]:
    """Tensor against pipeline parallelism, apart by which wins when measured."""
    if ranking.tensor_pipeline is None:
        return []
    out = [f"TP against PP of {name}, equally many GPUs at one load:"]
    for words, side in (("TP", ranking.tensor_pipeline.tensor_wins), ("PP", ranking.tensor_pipeline.pipeline_wins)):
        told = "" if side.error is None else f", median error of the ratio {side.error:.1%}, {side.right} called right"
        out.append(f"  {words} wins {side.cells} cell{'s' * (side.cells != 1)}{told}")
    return out


def choices_title(name: str, ranking: Ranking) -> list[str]:
    """What the table of :func:`choices` is of; nothing where there is none."""
    return [f"layout and load of {name} chosen at a TPOT target, per GPU: share of the best rate lost"] if ranking.choices else []


def choices(ranking: Ranking, *, short: bool) -> list[str]:
    """What is lost by choosing layout and load: all models at every target, and every kind of model at all targets together; where
    ``short``, all models at all targets together. The JSON document has every line.
    """
    enough = 2 if short else 1
    told = [one for one in ranking.choices if (one.models == ALL) + (one.tpot_ms is None) >= enough]
    headings = ("models", "target", "load", "groups", "mean", "median", "missed", "none")
    return [_row(*headings), *(_row(*_cells(one)) for one in told)] if told else []


def _cells(one: LoadChoice) -> tuple[str, ...]:
    target = "any" if one.tpot_ms is None else f"{one.tpot_ms:g} ms"
    counts = str(one.groups), f"{one.mean:.1%}", f"{one.median:.1%}", str(one.missed), str(one.nothing)
    return one.models, target, one.load, *counts


def _row(models: str, target: str, load: str, *numbers: str) -> str:
    return f"{models:<6} {target:>6} {load:<12} " + " ".join(f"{one:>6}" for one in numbers[:4]) + f" {numbers[4]:>4}"


def _groups(count: int) -> str:
    return f"{count} group{'s' * (count != 1)}"
