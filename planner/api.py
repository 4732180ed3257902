"""What the command line calls, and what a notebook imports: probe, load_topology, load_model, recommend, estimate, emit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.answering import answered, diagnose, disaggregated, equip_with_rates, prepare
from planner.checkpoints import load_model
from planner.errors import BadInput, PlannerError, Unavailable
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
    from collections.abc import Callable, Sequence

    from planner.core.benchmark import BenchmarkAnswer
    from planner.core.calibrated import CalibrationAnswer
    from planner.core.engine import LaunchSpec
    from planner.core.estimate import Estimate
    from planner.core.explanation import Explanation
    from planner.core.implementation import CollectiveTable
    from planner.core.model import ModelSpec
    from planner.core.plan import Infeasible, Parallelism, Plan
    from planner.core.saved import SavedPlan
    from planner.core.topology import Topology
    from planner.core.workload import Objective, Workload
    from planner.cost.accuracy import Validation
    from planner.cost.calibration import Calibration
    from planner.cost.formula import Formula
    from planner.deploy.target import Job, Output
    from planner.graph.difference import Change
    from planner.importing import ImportedPlan
    from planner.search.disaggregation import Disaggregation
    from planner.search.fit import Remedy
    from planner.search.judgement import Judgement
    from planner.search.rank import Ranked
    from planner.search.recommendation import Recommendation


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
    chosen, search, equipped, warnings = prepare(model, topology, workload, engine, objective)
    found = search.everything()
    return answered(chosen, search, equipped, found.ranked, found.infeasible, warnings, top)


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

    chosen, search, equipped, warnings = prepare(model, topology, workload, engine, objective)
    outcome = search.one(parallelism)
    if isinstance(outcome, Infeasible):
        return answered(chosen, search, equipped, (), (outcome,), warnings, 1)
    return answered(chosen, search, equipped, (outcome,), (), warnings, 1)


def disaggregate(
    model: ModelSpec, topology: Topology, workload: Workload, *, engine: str = "vllm", top: int = 3
) -> Disaggregation:
    """The machine divided into a prefill pool and a decode pool: the best ``top`` pairs with launches, beside the best plan without."""
    chosen, search, equipped, warnings = prepare(model, topology, workload, engine, "throughput")
    return disaggregated(chosen, search, equipped, warnings, top)


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
    from planner.search.load import settled

    chosen, search, equipped, warnings = prepare(model, topology, workload, engine, objective)
    outcome = search.one(parallelism)
    if isinstance(outcome, Infeasible):
        return answered(chosen, search, equipped, (), (outcome,), warnings, 1), None
    pricer = settled(search.pricer, outcome.plan)
    assert not isinstance(pricer, Infeasible)
    tree = take_apart(pricer, outcome.plan)
    assert not isinstance(tree, Infeasible)
    return answered(chosen, search, equipped, (outcome,), (), warnings, 1), tree


def formulas() -> list[Formula]:
    """Every formula of the cost model, with its source and the range it holds for."""
    from planner.cost.formula import every_formula

    return every_formula()


def emit(plan: Plan, model: ModelSpec, topology: Topology, engine: str = "vllm") -> LaunchSpec:
    """The processes and files that start a plan."""
    from planner.engines import find_engine, launch

    return launch(find_engine(engine), plan, model, topology)


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
    job = job_of(saved, equip_with_rates(saved.topology)[0], name=name, namespace=namespace, image=image)
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
    acceptance: float | None = None,
) -> ImportedPlan:
    """A launch that somebody has, as a plan on a machine, priced and judged: see :mod:`planner.importing`.

    ``references`` are files, or the words of one command; ``model`` says where the facts of its model are, ``reference`` how the
    topology is called, ``acceptance`` how many of the tokens that it guesses are right. Raises ``BadInput`` for what cannot be read
    and for a launch that does not go onto the machine.
    """
    from planner.importing import ImportedPlan, kept, plan_from, read_launch, wires_crossed
    from planner.search.judgement import judge

    imported = read_launch(references)
    asked = model or imported.model
    try:
        spec = load_model(asked, quant=quant or imported.quantisation, cache=imported.cache)
    except BadInput as error:
        hint = "; ".join(part for part in (error.hint, "say with --model where its config.json is, or which model it is") if part)
        raise BadInput(error.problem, path=error.path or "the launch", hint=hint) from None
    spec = replace(spec, name=imported.model)
    workload, guessing = imported.guessing(workload, acceptance)
    chosen, search, equipped, warnings = prepare(spec, topology, workload, imported.engine, objective)
    defaults = chosen.traits.default_limits(*search.pricer.weakest_of(range(len(equipped.gpus))))
    plan = replace(plan_from(imported, search.pricer.model, equipped, defaults), speculation=workload.speculation)
    found = judge(plan, search)
    notes = (*imported.notes, *guessing, *wires_crossed(plan, equipped), *warnings)
    saved = kept(plan, search.pricer.model, asked, topology, reference, workload, objective, chosen.traits, found, notes)
    return ImportedPlan(plan, search.pricer.model, chosen.traits, found, notes, saved)


def check_plan(saved: SavedPlan, now: Topology | None = None) -> Judgement:
    """Whether a plan still fits its machine, or the one it is ``now``, its model is still the same, and nothing is much better:
    see :mod:`planner.search.judgement`.
    """
    from planner.checkpoints import changed_since
    from planner.search.judgement import judge

    topology = now or saved.topology
    _, search, _, _ = prepare(saved.model, topology, saved.workload, saved.engine, saved.objective)
    found = judge(saved.plan, search, saved.topology, compare(saved.topology, topology) if now else ())
    problems, notes = changed_since(saved)
    return replace(found, problems=(*problems, *found.problems), notes=notes)


def smallest_that_fits(
    model: ModelSpec, topology: Topology, workload: Workload, *, engine: str = "vllm", objective: Objective = "throughput"
) -> Remedy:
    """How many of these GPUs would hold the model at least, and which weight formats fit on those there are."""
    from planner.search.fit import remedy

    _, search, _, _ = prepare(model, topology, workload, engine, objective)
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


def validate_benchmark(path: Path, saved: SavedPlan) -> BenchmarkAnswer:
    """The result of a serving benchmark held against the plan that was launched: see :mod:`planner.validation.benchmark`.

    Raises ``BadInput`` where the file is no result that is known.
    """
    from planner.documents.benchmark_results import read_result
    from planner.search.load import settled_estimate
    from planner.validation.benchmark import hold

    def price(workload: Workload) -> Estimate | Infeasible:
        _, search, _, _ = prepare(saved.model, saved.topology, workload, saved.engine, saved.objective)
        return settled_estimate(search.pricer, saved.plan)

    return hold(saved, read_result(path), price)


def priced(
    model: ModelSpec,
    topology: Topology,
    workload: Workload,
    parallelism: Parallelism,
    engine: str,
    release: str = "",
    memory: float = 0.0,
    constants: Calibration | None = None,
) -> Ranked | Infeasible:
    """One configuration, placed as well as can be, and what it costs; without launches and reasons. ``release`` is of the engine
    where it is not the newest, ``memory`` the share of a GPU's that it is given where that is more than it takes by itself,
    ``constants`` what it is priced with instead of what ships.
    """
    return prepare(model, topology, workload, engine, "throughput", release, memory, constants)[1].one(parallelism)


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


def equipped_for_display(topology: Topology) -> Topology:
    """The topology with all findings, and with bandwidths where every GPU is named and known."""
    shown = replace(topology, findings=diagnose(topology))
    try:
        return equip_with_rates(shown)[0]
    except BadInput:
        return shown


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


__all__ = [
    "PlannerError",
    "Unavailable",
    "calibrate",
    "check_plan",
    "compare",
    "diagnose",
    "disaggregate",
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
    "validate_benchmark",
]
