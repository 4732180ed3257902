"""From an answer to a saved plan, from a saved plan to the files that start it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import BadInput, PlannerError, Unavailable
from planner.machines import STDIN, load_topology

if TYPE_CHECKING:
    from planner.core.estimate import Estimate
    from planner.core.saved import Expected, SavedPlan
    from planner.core.topology import Topology
    from planner.core.workload import Workload
    from planner.deploy.target import Job, Output
    from planner.search.recommendation import Recommendation


def saved_plan(
    answer: Recommendation, topology: Topology, *, model: str, reference: str | None = None, inline: bool = False, place: int = 0
) -> SavedPlan:
    """A plan of an answer as it is kept; the first, or that at ``place``.

    ``topology`` is the one that was asked about, ``reference`` how it was named, ``model`` how the model was. The topology is
    carried whole where ``inline`` is asked, and where nothing but the caller knows it: a file, standard input, this host.
    Raises ``BadInput`` where the answer holds no such plan.
    """
    from dataclasses import replace

    from planner.core.saved import SavedPlan
    from planner.documents.plan import refuse_unsafe

    if place >= len(answer.plans):
        raise BadInput("no plan to save: nothing fits", path=answer.topology.name)
    one = answer.plans[place]
    local = is_local(model)
    spec = replace(answer.model, name=_absolute(answer.model.name)) if local else answer.model
    refuse_unsafe(spec.name, "the model")
    return SavedPlan(
        model=spec,
        model_reference=model,
        local_model=local,
        topology=topology,
        topology_reference=None if inline else known_as(topology, reference),
        workload=with_load_found(answer.workload, one.ranked.estimate),
        objective=answer.objective,
        engine=answer.engine.name,
        engine_version=answer.engine.version,
        plan=one.ranked.plan,
        proven=one.ranked.proven,
        expected=expected_of(one.ranked.estimate),
        assumptions=tuple(dict.fromkeys((*answer.topology.origin.assumptions, *one.assumptions))),
        warnings=answer.warnings,
    )


def with_load_found(workload: Workload, estimate: Estimate) -> Workload:
    """The workload with the requests that the plan has in flight, where it is the plan that says so."""
    from dataclasses import replace

    if workload.load in {"concurrency", "batch"}:
        return workload
    return replace(workload, concurrency=max(1, round(estimate.serving.in_flight)))


def expected_of(estimate: Estimate) -> Expected:
    """The figures of an estimate that a plan keeps: six digits, memory to a thousandth of a GiB; nothing finer is known anyway."""
    from planner.core.saved import Expected
    from planner.units import Bytes, Seconds

    def time(value: float) -> Seconds:
        return Seconds(round(float(f"{value:.6g}"), 9))

    def rate(value: float) -> float:
        return round(float(f"{value:.6g}"), 3)

    unsure = estimate.uncertainty
    return Expected(
        ttft=time(estimate.ttft),
        tpot=time(estimate.tpot),
        output_tokens_per_second=rate(estimate.output_tokens_per_second),
        ttft_interval=(time(unsure.ttft[0]), time(unsure.ttft[1])),
        tpot_interval=(time(unsure.tpot[0]), time(unsure.tpot[1])),
        output_interval=(rate(unsure.output_tokens_per_second[0]), rate(unsure.output_tokens_per_second[1])),
        basis=unsure.basis,
        memory=tuple(Bytes(round(stage.total / 2**30, 3) * 2**30) for stage in estimate.memory),
        kv_cache_tokens=estimate.kv_cache_tokens,
        max_concurrency=estimate.max_concurrency,
    )


def is_local(model: str) -> bool:
    """Whether a model was given as a path, as :func:`planner.api.load_model` decides it."""
    path = Path(model)
    return path.is_dir() or path.suffix == ".json" or path.is_file()


def _absolute(name: str) -> str:
    """A path that means the same from any folder; links stay as they are."""
    return str(Path(name).absolute())


def known_as(topology: Topology, reference: str | None) -> str | None:
    """``reference`` where it finds this very topology without any file of the user's, else ``None``."""
    from planner.documents.plan import topology_digest

    if reference is None or reference == STDIN or Path(reference).exists():
        return None
    try:
        found = load_topology(reference)
    except PlannerError:
        return None
    return reference if topology_digest(found) == topology_digest(topology) else None


def read_plan(reference: str) -> SavedPlan:
    """A saved plan by its file, or ``-``. Raises ``BadInput`` with the place of what is wrong."""
    from planner.documents.files import read_stdin, read_text
    from planner.documents.plan import parse_plan

    text, source = (read_stdin(), "<stdin>") if reference == STDIN else (read_text(Path(reference)), reference)
    return parse_plan(text, source, load_topology)


def write_plan(saved: SavedPlan) -> str:
    """The document of a plan."""
    from planner.documents.plan import dump_plan

    return dump_plan(saved)


def digest(saved: SavedPlan) -> str:
    """The digest that every file of a plan names."""
    from planner.documents.plan import plan_digest

    return plan_digest(saved)


def job_of(
    saved: SavedPlan,
    equipped: Topology,
    *,
    name: str | None = None,
    namespace: str | None = None,
    image: str | None = None,
) -> Job:
    """What targets are given: the plan as its engine launches it. Raises ``BadInput``."""
    from planner.deploy.target import Job, check_image, check_name, check_namespace, object_name
    from planner.engines import find_engine, launch
    from planner.graph.ranks import rank_map

    chosen = find_engine(saved.engine)
    return Job(
        saved=saved,
        digest=digest(saved),
        engine=chosen.traits.name,
        engine_version=chosen.traits.version,
        launch=launch(chosen, saved.plan, saved.model, equipped),
        ranks=rank_map(equipped, saved.plan.placement),
        name=check_name(name) if name is not None else object_name(saved.model.name),
        namespace=check_namespace(namespace),
        image=check_image(image),
    )


def for_engine(saved: SavedPlan, answer: Recommendation) -> SavedPlan:
    """The plan for another engine: ``answer`` is that engine's estimate of the same degrees, whose limits and figures it takes.

    The placement stays. Raises ``BadInput`` where the engine cannot run the degrees.
    """
    from dataclasses import replace

    engine = answer.engine.name
    if not answer.plans:
        problem = f"{engine} cannot run this plan: {answer.infeasible[0].message}"
        raise BadInput(problem, path="--engine", hint=f"plan again with --engine {engine}")
    anew = saved_plan(answer, saved.topology, model=saved.model_reference)
    return replace(
        saved,
        engine=engine,
        engine_version=answer.engine.version,
        plan=replace(anew.plan, placement=saved.plan.placement),
        expected=anew.expected,
        assumptions=(*anew.assumptions, f"limits and figures are worked out anew for {engine}: planned for {saved.engine}"),
        warnings=anew.warnings,
    )


def files_of(job: Job, target: str) -> Output:
    """The files of a job for a target. Raises ``BadInput`` where the target cannot start it."""
    from planner.deploy import find_target

    return find_target(target).write(job)


def benchmark_line(job: Job, address: str) -> str:
    """The benchmark's command, quoted."""
    import shlex

    from planner.deploy.benchmark import benchmark

    return shlex.join(benchmark(job.saved, job.engine, address))


def write_files(files: Mapping[str, str], folder: Path, *, force: bool = False) -> None:
    """Write files into a folder, which is made if need be, each atomically. Nothing is written where one is there already.

    Raises ``BadInput`` where one is and ``force`` is not given, ``Unavailable`` where the folder cannot be written to.
    """
    from planner.documents.files import write_atomically

    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BadInput("is no directory", path=str(folder), hint="name a directory: the files go into it")
    for name in files:
        path = folder / name
        if path.is_symlink():
            raise BadInput("is a symbolic link; not written through it", path=str(path))
        if path.exists() and not force:
            raise BadInput("is there already", path=str(path), hint="name another directory, or add --force")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot be made: {error.strerror or error}", path=str(folder)) from None
    for name, text in files.items():
        write_atomically(folder / name, text, force=force)
