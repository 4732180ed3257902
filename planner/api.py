"""What the command line calls, and what a notebook imports: probe, load_topology, load_model, recommend, estimate, emit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import BadInput, PlannerError, Unavailable, unknown_name
from planner.machines import (
    STDIN,
    document_text,
    find_topology,
    load_gpu,
    load_topology,
    probe,
    refuse_strange,
    save_topology,
    topology_aliases,
    topology_names,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from planner.core.calibrated import CalibrationAnswer
    from planner.core.engine import Engine, LaunchSpec
    from planner.core.explanation import Explanation
    from planner.core.finding import Finding
    from planner.core.hardware import GpuSpec
    from planner.core.implementation import CollectiveTable
    from planner.core.model import ModelSpec
    from planner.core.plan import Infeasible, Parallelism, Plan
    from planner.core.quantization import WeightFormat
    from planner.core.saved import SavedPlan
    from planner.core.topology import Topology
    from planner.core.workload import Objective, Workload
    from planner.cost.accuracy import Validation
    from planner.cost.formula import Formula
    from planner.deploy.target import Job, Output
    from planner.graph.difference import Change
    from planner.importing import ImportedPlan
    from planner.search.fit import Remedy
    from planner.search.judgement import Judgement
    from planner.search.rank import Ranked, Search
    from planner.search.recommendation import Recommendation


def load_model(reference: str, *, quant: str | None = None) -> ModelSpec:
    """A model by a directory with ``config.json``, the file, or a name of the catalogue; ``quant`` overrides its weights.

    Raises ``BadInput`` for an unknown name or architecture, with the nearest known.
    """
    from planner.models import read_config

    refuse_strange(reference)
    path = Path(reference)
    if path.is_dir() or path.suffix == ".json" or path.is_file():
        config, name, source, places = _config_file(path, reference)
    else:
        from planner.documents.catalogue import find_model

        entry = find_model(reference)
        config, name, source, places = entry.config, entry.hub_id, entry.name, {}
    try:
        model = read_config(config, name, source, places=places)
    except BadInput:
        if quant is None:
            raise
        # the user says what the weights are, so what the checkpoint says of itself need not be readable
        model = read_config(config, name, source, quantised=False)
    return model if quant is None else model.stored_as(_weight_format(quant))


def recommend(
    model: ModelSpec,
    topology: Topology,
    workload: Workload,
    *,
    engine: str = "vllm",
    objective: Objective = "throughput",
    top: int = 5,
) -> Recommendation:
    """Every legal TP×PP×DP(×EP) on the topology, priced with its best placement and ranked; the first ``top`` with launches."""
    chosen, search, equipped, warnings = _prepare(model, topology, workload, engine, objective)
    answer = search.everything()
    return _answer(chosen, search, equipped, answer.ranked, answer.infeasible, warnings, top)


def estimate(
    model: ModelSpec,
    topology: Topology,
    workload: Workload,
    parallelism: Parallelism,
    *,
    engine: str = "vllm",
    objective: Objective = "throughput",
) -> Recommendation:
    """The same answer for one configuration, placed as well as can be."""
    from planner.core.plan import Infeasible

    chosen, search, equipped, warnings = _prepare(model, topology, workload, engine, objective)
    outcome = search.one(parallelism)
    if isinstance(outcome, Infeasible):
        return _answer(chosen, search, equipped, (), (outcome,), warnings, 1)
    return _answer(chosen, search, equipped, (outcome,), (), warnings, 1)


def explain(
    model: ModelSpec,
    topology: Topology,
    workload: Workload,
    parallelism: Parallelism,
    *,
    engine: str = "vllm",
    objective: Objective = "throughput",
) -> tuple[Recommendation, Explanation | None]:
    """The estimate, and how it came about: a tree down to formulas; ``None`` where the layout does not run or fit."""
    from planner.core.plan import Infeasible
    from planner.cost.explanation import explain as take_apart

    chosen, search, equipped, warnings = _prepare(model, topology, workload, engine, objective)
    outcome = search.one(parallelism)
    if isinstance(outcome, Infeasible):
        return _answer(chosen, search, equipped, (), (outcome,), warnings, 1), None
    tree = take_apart(search.pricer, outcome.plan)
    assert not isinstance(tree, Infeasible)
    return _answer(chosen, search, equipped, (outcome,), (), warnings, 1), tree


def formulas() -> list[Formula]:
    """Every formula of the cost model, with its source and the range it holds for."""
    from planner.cost.formula import every_formula

    return every_formula()


def emit(plan: Plan, model: ModelSpec, topology: Topology, engine: str = "vllm") -> LaunchSpec:
    """The processes and files that start a plan."""
    from planner.engines import find_engine

    return find_engine(engine).launch(plan, model, topology)


def plan_of(
    answer: Recommendation, topology: Topology, *, model: str, reference: str | None = None, inline: bool = False
) -> SavedPlan:
    """The first plan of an answer as it is kept: see :func:`planner.launching.saved_plan`."""
    from planner.launching import saved_plan

    return saved_plan(answer, topology, model=model, reference=reference, inline=inline)


def load_plan(reference: str) -> SavedPlan:
    """A saved plan by its file, or ``-``. Raises ``BadInput`` with the place of what is wrong."""
    from planner.launching import read_plan

    return read_plan(reference)


def plan_yaml(saved: SavedPlan) -> str:
    """The plan as the text of its document."""
    from planner.launching import write_plan

    return write_plan(saved)


def emit_plan(
    saved: SavedPlan,
    target: str = "shell",
    *,
    engine: str | None = None,
    name: str | None = None,
    namespace: str | None = None,
    image: str | None = None,
) -> tuple[Job, Output]:
    """What is launched and the files that do so on a target; by the plan's engine where none is named. Raises ``BadInput``."""
    from planner.engines import find_engine
    from planner.launching import files_of, for_engine, job_of

    if engine is not None and find_engine(engine).traits.name != saved.engine:
        degrees = saved.plan.parallelism
        answer = estimate(saved.model, saved.topology, saved.workload, degrees, engine=engine, objective=saved.objective)
        saved = for_engine(saved, answer)
    job = job_of(saved, _equipped(saved.topology)[0], name=name, namespace=namespace, image=image)
    return job, files_of(job, target)


def import_launch(
    references: Sequence[str],
    topology: Topology,
    workload: Workload,
    *,
    model: str | None = None,
    quant: str | None = None,
    reference: str | None = None,
    objective: Objective = "throughput",
) -> ImportedPlan:
    """A launch that somebody has, as a plan on a machine, priced and judged: see :mod:`planner.importing`.

    ``references`` are files, or the words of one command; ``model`` says where the facts of its model are, ``reference`` how the
    topology is called. Raises ``BadInput`` for what cannot be read and for a launch that does not go onto the machine.
    """
    from planner.importing import ImportedPlan, kept, plan_from, read_launch, wires_crossed
    from planner.search.judgement import judge

    imported = read_launch(references)
    asked = model or imported.model
    try:
        spec = load_model(asked, quant=quant or imported.quantisation)
    except BadInput as error:
        hint = "; ".join(part for part in (error.hint, "say with --model where its config.json is, or which model it is") if part)
        raise BadInput(error.problem, path=error.path or "the launch", hint=hint) from None
    spec = replace(spec, name=imported.model)
    chosen, search, equipped, warnings = _prepare(spec, topology, workload, imported.engine, objective)
    defaults = chosen.traits.default_limits(*search.pricer.weakest_of(range(len(equipped.gpus))))
    plan = plan_from(imported, search.pricer.model, equipped, defaults)
    found = judge(plan, search)
    notes = (*imported.notes, *wires_crossed(plan, equipped), *warnings)
    saved = kept(plan, search.pricer.model, asked, topology, reference, workload, objective, chosen.traits, found, notes)
    return ImportedPlan(plan, search.pricer.model, chosen.traits, found, notes, saved)


def check_plan(saved: SavedPlan, now: Topology | None = None) -> Judgement:
    """Whether a plan still fits its machine, or the one it is ``now``, and nothing is much better: see
    :mod:`planner.search.judgement`.
    """
    from planner.search.judgement import judge

    topology = now or saved.topology
    _, search, _, _ = _prepare(saved.model, topology, saved.workload, saved.engine, saved.objective)
    return judge(saved.plan, search, saved.topology, compare(saved.topology, topology) if now else ())


def smallest_that_fits(
    model: ModelSpec, topology: Topology, workload: Workload, *, engine: str = "vllm", objective: Objective = "throughput"
) -> Remedy:
    """How many of these GPUs would hold the model at least, and which weight formats fit on those there are."""
    from planner.search.fit import remedy

    _, search, _, _ = _prepare(model, topology, workload, engine, objective)
    return remedy(search.pricer, 1)


def predict_collective(
    topology: Topology,
    operation: str,
    sizes: Sequence[float],
    *,
    gpus: Sequence[int] | None = None,
    implementation: str = "auto",
    eager: bool = False,
) -> CollectiveTable:
    """What an operation of nccl-tests takes: see :func:`planner.validation.predict_collective`."""
    from planner.validation import predict_collective as predict

    return predict(topology, operation, sizes, gpus=gpus, implementation=implementation, eager=eager)


def validate(path: Path, *, by: Sequence[str] = (), include_flagged: bool = False) -> Validation:
    """Predictions held against a table of measurements: see :func:`planner.validation.validate`."""
    from planner.validation import Library
    from planner.validation import validate as hold

    return hold(path, Library(load_model, priced), by=by, include_flagged=include_flagged)


def priced(
    model: ModelSpec, topology: Topology, workload: Workload, parallelism: Parallelism, engine: str
) -> Ranked | Infeasible:
    """One configuration, placed as well as can be, and what it costs; without launches and reasons."""
    return _prepare(model, topology, workload, engine, "throughput")[1].one(parallelism)


def calibrate(
    reference: str | None,
    files: Sequence[str],
    *,
    gpu: str | None = None,
    operation: str | None = None,
    gpus: Sequence[int] | None = None,
) -> CalibrationAnswer:
    """A machine's topology with what files measured on it: see :func:`planner.measuring.calibrate`."""
    from planner.measuring import calibrate as fit

    return fit(reference, files, gpu=gpu, operation=operation, gpus=gpus)


def measure(
    topology: Topology, *, seconds: float = 120.0, report: Callable[[str, int, int], None] = lambda *_: None
) -> tuple[Topology, CalibrationAnswer | None]:
    """This host's ``topology`` with what programs on it measure: see :func:`planner.measuring.this_host.measure`."""
    from planner.measuring.this_host import measure as run

    return run(topology, seconds, report)


def _prepare(
    model: ModelSpec, topology: Topology, workload: Workload, engine: str, objective: Objective
) -> tuple[Engine, Search, Topology, tuple[str, ...]]:
    from planner.cost.pricer import Pricer
    from planner.documents.calibration import load_calibration
    from planner.engines import find_engine
    from planner.search.rank import Search

    chosen = find_engine(engine)
    equipped, specs = _equipped(topology)
    model = _in_half(model, specs.values())
    pricer = Pricer(equipped, specs, model, workload, chosen.traits, load_calibration())
    return chosen, Search(pricer, objective), equipped, _warnings(topology, specs, model)


def _equipped(topology: Topology) -> tuple[Topology, dict[str, GpuSpec]]:
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


def equipped_for_display(topology: Topology) -> Topology:
    """The topology with all findings, and with bandwidths where every GPU is named and known."""
    shown = replace(topology, findings=diagnose(topology))
    try:
        return _equipped(shown)[0]
    except BadInput:
        return shown


def diagnose(topology: Topology) -> tuple[Finding, ...]:
    """What the reader of a topology found, then what its graph and facts show: see :mod:`planner.graph.diagnosis`."""
    from planner.documents.hardware import load_link_rates
    from planner.graph.diagnosis import diagnose as conclude

    specs = {}
    for name in topology.hardware:
        with contextlib.suppress(BadInput):  # a name that nobody knows has no data sheet
            specs[name] = load_gpu(name)
    return (*dict.fromkeys(topology.findings), *conclude(topology, specs, load_link_rates()))


def compare(before: Topology, after: Topology) -> tuple[Change, ...]:
    """What changed between two topologies of one machine: see :func:`planner.graph.difference.difference`."""
    from planner.graph.difference import difference

    return difference(before, after)


def topology_yaml(topology: Topology) -> str:
    """The topology as the text of its document."""
    from planner.documents.topology import dump_topology

    return dump_topology(topology)


def topology_matrix(topology: Topology) -> str:
    """The topology as ``nvidia-smi topo -m`` prints it, or ``rocm-smi`` where there is Infinity Fabric; of several hosts one
    after the other, each under its name. Raises ``BadInput`` where a number of NVLinks is not known.
    """
    from planner.graph.matrix_text import matrix_text

    if len(topology.hosts) == 1:
        return matrix_text(topology)
    return "\n".join(f"# {host.name}\n{matrix_text(topology, host.name)}" for host in topology.hosts)


def save_text(text: str, path: Path, *, force: bool = False) -> None:
    """Write a text, atomically; nothing is overwritten without ``force``. Raises ``BadInput`` or ``Unavailable``."""
    from planner.documents.files import write_atomically

    write_atomically(path, text, force=force)


def refuse_absent(reference: str) -> None:
    """Raise ``BadInput`` where a reference to a topology is neither a file, nor a name, nor a short spec."""
    refuse_strange(reference)
    if reference != STDIN and not Path(reference).is_file():
        load_topology(reference)


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
    named, there = model.weight_format, model.checkpoint_format
    if named != there and named.needs_own_checkpoint:
        warnings.append(f"--quant {named.name}: {model.name} itself holds {there.name}; launch a checkpoint in {named.name}")
    if there.name in {"bf16", "fp16"} and named == there and (said := _QUANTISED.search(model.name)):
        warnings.append(
            f"the name of {model.name} says {said[0]}, its config says {there.name} (is hf_quant_config.json missing?): "
            f"add --quant if the weights are quantised"
        )
    return tuple(warnings)


_QUANTISED = re.compile(r"(?i)(nv|mx)?fp[48]\b|int[48]\b|awq|gptq|w[48]a(8|16)")


def _answer(
    engine: Engine,
    search: Search,
    topology: Topology,
    ranked: Sequence[Ranked],
    infeasible: Sequence[Infeasible],
    warnings: tuple[str, ...],
    top: int,
) -> Recommendation:
    from planner.deploy.shell import command_line
    from planner.search.reasons import plan_reasons, reasons
    from planner.search.recommendation import Recommendation, Recommended

    pricer = search.pricer
    plans = []
    for place, one in enumerate(ranked[:top]):
        launch = engine.launch(one.plan, pricer.model, topology)
        commands = tuple(command_line(process) for process in launch.processes)
        shared = one.estimate.communication.shared_link
        assumptions = (*one.estimate.assumptions, *((str(shared),) if shared else ()))
        plans.append(Recommended(place + 1, one, launch, commands, plan_reasons(search, ranked, place), assumptions))
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


def _config_file(path: Path, reference: str) -> tuple[dict[str, Any], str, str, dict[str, str]]:
    """The config of a model given as a path, the name to launch it by, what messages call the file, and what they call fields
    that stand in NVIDIA ModelOpt's ``hf_quant_config.json`` beside it.
    """
    from planner.documents import json_file
    from planner.documents.files import read_text

    folder = path if path.is_dir() else path.parent
    file = path / "config.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise BadInput("holds no config.json", path=reference, hint="pass the directory that a model's config.json lies in")
    config = json_file.load(read_text(file), str(file))
    extra, places = folder / "hf_quant_config.json", {}
    if "quantization_config" not in config and extra.exists():
        quantization = json_file.load(read_text(extra), str(extra)).get("quantization")
        if isinstance(quantization, dict):
            config["quantization_config"] = quantization | {"quant_method": "modelopt"}
            places["quantization_config"] = f"{extra}: $.quantization"
    name = str(folder)
    return config, f"./{name}" if name.startswith("-") else name, str(file), places


def _weight_format(name: str) -> WeightFormat:
    from planner.core.quantization import ALIASES, FORMATS

    key = ALIASES.get(name.lower(), name.lower())
    if key not in FORMATS:
        raise unknown_name("quantisation", name, FORMATS, hint=f"known: {', '.join(FORMATS)}")
    return FORMATS[key]


__all__ = [
    "PlannerError",
    "Unavailable",
    "calibrate",
    "check_plan",
    "compare",
    "diagnose",
    "document_text",
    "emit",
    "emit_plan",
    "equipped_for_display",
    "estimate",
    "explain",
    "find_topology",
    "formulas",
    "import_launch",
    "load_gpu",
    "load_model",
    "load_plan",
    "load_topology",
    "measure",
    "plan_of",
    "plan_yaml",
    "predict_collective",
    "probe",
    "recommend",
    "refuse_absent",
    "save_text",
    "save_topology",
    "smallest_that_fits",
    "topology_aliases",
    "topology_matrix",
    "topology_names",
    "topology_yaml",
    "validate",
]
