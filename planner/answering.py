"""From a model and a machine as they were loaded to a search, and from what it ranked to an answer with launches and reasons."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from planner.errors import BadInput
from planner.machines import load_gpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from planner.core.engine import Engine
    from planner.core.finding import Finding
    from planner.core.hardware import GpuSpec
    from planner.core.model import ModelSpec
    from planner.core.plan import Infeasible
    from planner.core.speculation import Speculation
    from planner.core.topology import Topology
    from planner.core.workload import Objective, Workload
    from planner.cost.calibration import Calibration
    from planner.search.disaggregation import Disaggregation
    from planner.search.rank import Ranked, Search
    from planner.search.recommendation import Recommendation

_QUANTISED = re.compile(r"(?i)(nv|mx)?fp[48]\b|int[48]\b|awq|gptq|w[48]a(8|16)")

_READS_8_BITS = (8, 0)
"""The least compute capability for which attention that reads a cache in 8 bits is there (vLLM 0.33: FlashInfer, Triton)."""


def prepare(
    model: ModelSpec,
    topology: Topology,
    workload: Workload,
    engine: str,
    objective: Objective,
    release: str = "",
    memory: float = 0.0,
    constants: Calibration | None = None,
) -> tuple[Engine, Search, Topology, tuple[str, ...]]:
    """The engine, a search over what it can run (in an older ``release`` where one is named, with that share of the ``memory`` at
    least, with ``constants`` instead of those that ship), the topology with its bandwidths, and what to warn of.

    Raises ``BadInput`` for an unknown engine or GPU.
    """
    from planner.cost.pricer import Pricer
    from planner.documents.calibration import load_calibration
    from planner.engines import find_engine
    from planner.search.rank import Search

    chosen = find_engine(engine)
    _refuse_guessing(model, workload.speculation, chosen)
    equipped, specs = equip_with_rates(topology)
    model = _in_half(model, specs.values())
    traits = chosen.traits.at(release).given(memory) if memory else chosen.traits.at(release)
    pricer = Pricer(equipped, specs, model, workload, traits, constants or load_calibration())
    return chosen, Search(pricer, objective), equipped, _warnings(topology, specs, model)


def equip_with_rates(topology: Topology) -> tuple[Topology, dict[str, GpuSpec]]:
    """The topology with the bandwidths its hardware implies. Raises ``BadInput`` where a GPU is not named."""
    from planner.documents.hardware import load_link_rates
    from planner.graph.equip import equip

    unnamed = [gpu.id for gpu in topology.gpus if gpu.hardware is None]
    if unnamed:
        raise BadInput(
            f"does not say which GPU {unnamed[0]} is",
            path=topology.name,
            hint="add --gpu NAME, for example --gpu H100-SXM5-80GB or --gpu RTX-3090",
        )
    specs = {name: load_gpu(name) for name in topology.hardware}
    return equip(topology, specs, load_link_rates()), specs


def diagnose(topology: Topology) -> tuple[Finding, ...]:
    """What the reader of a topology found, then what its graph and facts show: see :mod:`planner.graph.diagnosis`."""
    from planner.documents.hardware import load_link_rates
    from planner.graph.diagnosis import diagnose as conclude

    specs = {}
    for name in topology.hardware:
        with contextlib.suppress(BadInput):  # a name that nobody knows has no data sheet
            specs[name] = load_gpu(name)
    return (*dict.fromkeys(topology.findings), *conclude(topology, specs, load_link_rates()))


def _refuse_guessing(model: ModelSpec, speculation: Speculation | None, engine: Engine) -> None:
    """Raise ``BadInput`` where the engine, or the model, cannot guess tokens that way."""
    if speculation is None:
        return
    traits = engine.traits
    if speculation.method not in traits.speculation:
        known = " or ".join(sorted(traits.speculation))
        hint = f"{traits.name} guesses by {known}" if known else "take another engine"
        raise BadInput(f"{traits.name} does not guess tokens by {speculation.method}", path="--speculative", hint=hint)
    if speculation.method == "mtp" and not model.prediction_layers:
        hint = "--speculative eagle3 takes a layer trained for the model, ngram looks words up in the prompt"
        raise BadInput(f"{model.name} has no multi-token-prediction layers", path="--speculative", hint=hint)
    if speculation.checkpoint and _is_whole(speculation.checkpoint):
        hint = "a hub id or a path of the EAGLE-3 checkpoint; draft models of their own are not priced"
        problem = f"{speculation.checkpoint} is a whole model, not a layer trained to guess for {model.name}"
        raise BadInput(problem, path="--draft-model", hint=hint)


def _is_whole(name: str) -> bool:
    """Whether the catalogue has a model of that name."""
    from planner.documents.catalogue import find_model

    with contextlib.suppress(BadInput):
        find_model(name)
        return True
    return False


def _in_half(model: ModelSpec, specs: Iterable[GpuSpec]) -> ModelSpec:
    """The model in fp16 where a GPU has no bf16: engines refuse bf16 there unless they are told."""
    from planner.core.quantization import BF16, FP16

    if all("bf16" in spec.compute for spec in specs):
        return model
    weights = FP16 if model.weight_format == BF16 else model.weight_format
    return replace(model, weight_format=weights, dtype_override="half")


def _warnings(topology: Topology, specs: Mapping[str, GpuSpec], model: ModelSpec) -> tuple[str, ...]:
    warnings = [f"{finding.code}: {finding.message}" for finding in diagnose(topology) if finding.severity == "problem"]
    warnings += [f"{model.name}: {note}" for note in model.notes]
    if len(specs) > 1:
        warnings.append(f"mixed GPUs ({', '.join(specs)}): every rank is sized and timed as the weakest GPU of its plan")
    other = sorted({spec.vendor for spec in specs.values() if spec.vendor != "NVIDIA"})
    if other:
        warnings.append(f"{', '.join(other)} GPUs: constants were fitted on NVIDIA GPUs only, launch commands are untested there")
    if model.dtype_override is not None:
        without = ", ".join(name for name, spec in specs.items() if "bf16" not in spec.compute)
        warnings.append(f"{without} has no bf16: the plan is for --dtype {model.dtype_override}")
    old = [
        name for name, spec in specs.items() if spec.compute_capability is not None and spec.compute_capability < _READS_8_BITS
    ]
    if old and model.cache_dtype != "auto":
        warnings.append(f"{', '.join(old)}: engines have no attention there that reads a cache in 8 bits; expect them to refuse")
    named, there = model.weight_format, model.checkpoint_format
    if named != there and named.needs_own_checkpoint:
        warnings.append(f"--quant {named.name}: {model.name} itself holds {there.name}; launch a checkpoint in {named.name}")
    if there.name in {"bf16", "fp16"} and named == there and (said := _QUANTISED.search(model.name)):
        warnings.append(
            f"the name of {model.name} says {said[0]}, its config says {there.name} (is hf_quant_config.json missing?): "
            f"add --quant if the weights are quantised"
        )
    return tuple(warnings)


def answered(
    engine: Engine,
    search: Search,
    topology: Topology,
    ranked: Sequence[Ranked],
    infeasible: Sequence[Infeasible],
    warnings: tuple[str, ...],
    top: int,
) -> Recommendation:
    """What a search found as an answer: the first ``top`` plans with launches and reasons, what does not run or fit, warnings."""
    from planner.deploy.shell import command_line
    from planner.search.load import maximum
    from planner.search.reasons import plan_reasons, reasons
    from planner.search.recommendation import Recommendation, Recommended

    pricer = search.pricer
    plans = []
    for place, one in enumerate(ranked[:top]):
        launch = engine.launch(one.plan, pricer.model, topology)
        commands = tuple(command_line(process) for process in launch.processes)
        shared = one.estimate.communication.shared_link
        assumptions = (*one.estimate.assumptions, *((str(shared),) if shared else ()))
        why, most = plan_reasons(search, ranked, place), maximum(pricer, one.plan)
        plans.append(Recommended(place + 1, one, launch, commands, why, assumptions, most))
    return Recommendation(
        topology=topology,
        model=pricer.model,
        workload=pricer.workload,
        objective=search.objective,
        engine=engine.traits,
        plans=tuple(plans),
        infeasible=tuple(infeasible),
        reasons=reasons(search, ranked, infeasible),
        warnings=(*warnings, *_missed_targets(pricer.workload, ranked)),
        considered=len(ranked),
    )


def _missed_targets(workload: Workload, ranked: Sequence[Ranked]) -> tuple[str, ...]:
    if not ranked or not ranked[0].missed(workload):
        return ()
    return (f"no plan meets the targets; the first misses {' and '.join(ranked[0].missed(workload))}",)


def disaggregated(engine: Engine, search: Search, topology: Topology, warnings: tuple[str, ...], top: int) -> Disaggregation:
    """The best ``top`` pairs of a prefill and a decode pool with their launches, beside the best plan without pools."""
    from planner.deploy.shell import command_line
    from planner.engines.pools import handover_rules, launch_pair
    from planner.search.disaggregation import Disaggregation, PlannedPair, assumed, gain_of, reasons
    from planner.search.pools import PoolSearch
    from planner.search.without_pools import best_without

    rules, pricer = handover_rules(engine.traits.name), search.pricer
    found = PoolSearch(search, rules).best(top)
    aggregated = best_without(search)
    pairs = []
    for place, pair in enumerate(found.ranked):
        launch = launch_pair(engine, pair, pricer.model, topology, pricer.workload.input_tokens)
        prefill, decode, router = (
            tuple(command_line(process) for process in one.processes) for one in (launch.prefill, launch.decode, launch.router)
        )
        pairs.append(PlannedPair(place + 1, pair, launch, (prefill, decode, router)))
    missed = found.ranked[0].missed if found.ranked else ()
    unmet = (f"no pair meets the targets; the first misses {' and '.join(missed)}",) if missed else ()
    return Disaggregation(
        topology=topology,
        model=pricer.model,
        workload=pricer.workload,
        engine=engine.traits,
        rules=rules,
        pairs=tuple(pairs),
        aggregated=aggregated,
        gain=gain_of(found.ranked, aggregated),
        reasons=reasons(search, found, aggregated, rules),
        warnings=(*warnings, *unmet),
        assumptions=assumed(rules),
        considered=found.considered,
    )
