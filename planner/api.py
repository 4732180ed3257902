"""What the command line calls, and what a notebook imports: probe, load_topology, load_model, recommend, estimate, emit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import BadInput, PlannerError, Unavailable, folded, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from planner.core.engine import Engine, LaunchSpec
    from planner.core.hardware import GpuSpec
    from planner.core.model import ModelSpec
    from planner.core.plan import Infeasible, Parallelism, Plan
    from planner.core.quantization import WeightFormat
    from planner.core.topology import Topology
    from planner.core.workload import Objective, Workload
    from planner.search.fit import Remedy
    from planner.search.rank import Ranked, Search
    from planner.search.recommendation import Recommendation

STDIN = "-"
HOW_TO_NAME_A_TOPOLOGY = (
    "add --topology with a library name (dgx-h100), a short spec (8xH100-SXM5-80GB), "
    "a topology YAML, or the saved text of 'nvidia-smi topo -m'"
)
HOW_TO_PROBE = "pass the saved text of 'nvidia-smi topo -m', or - to read it from standard input"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def probe(source: str | None = None, *, gpu: str | None = None) -> Topology:
    """This host's topology where ``source`` is ``None``; otherwise what :func:`load_topology` makes of it.

    ``gpu`` names the hardware where the text does not. Raises ``BadInput`` or ``Unavailable``.
    """
    if source is not None:
        return load_topology(source, gpu=gpu)
    from planner.readers import nvidia_smi

    try:
        topology = nvidia_smi.probe(hardware=load_gpu(gpu).name if gpu is not None else None)
    except Unavailable as error:
        raise Unavailable(error.problem, path=error.path, hint=error.hint or HOW_TO_PROBE) from None
    topology.check()
    return _named(topology)


def find_topology(reference: str | None, *, gpu: str | None = None) -> Topology:
    """The topology that is named, or this host's. Raises ``Unavailable``, saying how to name one, where there is no GPU."""
    if reference is not None:
        return load_topology(reference, gpu=gpu)
    try:
        return probe(gpu=gpu)
    except Unavailable as error:
        raise Unavailable(error.problem, path=error.path, hint=HOW_TO_NAME_A_TOPOLOGY) from None


def save_topology(topology: Topology, path: Path, *, force: bool = False) -> None:
    """Write the topology's YAML document, atomically; nothing is overwritten without ``force``."""
    from planner.documents.files import write_atomically
    from planner.documents.topology import dump_topology

    write_atomically(path, dump_topology(topology), force=force)


def load_topology(reference: str, *, gpu: str | None = None) -> Topology:
    """A topology by a file (YAML or raw capture), ``-``, a library name, or the short spec.

    ``gpu`` names the GPUs of a capture that does not. Raises ``BadInput`` with the nearest library names.
    """
    _refuse_strange(reference)
    hardware = load_gpu(gpu).name if gpu is not None else None
    if reference == STDIN or Path(reference).exists():
        topology = _from_text(*_read(reference), hardware)
    else:
        topology = _by_name(reference)
    topology = _named(topology)
    if hardware is not None:
        topology = _renamed(topology, hardware)
    topology.check()
    return topology


def _by_name(reference: str) -> Topology:
    """A machine of the library or a short spec. ``8xL40S`` is the spec, though a machine is called ``8x-l40s``."""
    from planner.readers.short_spec import looks_like_spec, read_short_spec

    path = _library().get(folded(reference))
    if path is not None and (path.stem == reference.lower() or not looks_like_spec(reference)):
        return _from_yaml(path.read_text("utf-8"), path.name)
    if looks_like_spec(reference):
        return read_short_spec(reference, load_gpu)
    if "/" in reference or reference.endswith((".yaml", ".yml", ".txt")):
        raise BadInput("no such file", path=reference, hint=HOW_TO_NAME_A_TOPOLOGY)
    raise unknown_name("topology", reference, topology_names(), hint=HOW_TO_NAME_A_TOPOLOGY)


def load_model(reference: str, *, quant: str | None = None) -> ModelSpec:
    """A model by a directory with ``config.json``, the file, or a name of the catalogue; ``quant`` overrides its weights.

    Raises ``BadInput`` for an unknown name or architecture, with the nearest known.
    """
    from planner.models import read_config

    _refuse_strange(reference)
    path = Path(reference)
    if path.is_dir() or path.suffix == ".json" or path.is_file():
        config, name, source = _config_file(path, reference)
    else:
        from planner.documents.catalogue import find_model

        entry = find_model(reference)
        config, name, source = entry.config, entry.hub_id, entry.name
    try:
        model = read_config(config, name, source)
    except BadInput:
        if quant is None or "quantization_config" not in config:
            raise
        # the user says what the weights are, so what the checkpoint says of itself need not be readable
        model = read_config({key: config[key] for key in config if key != "quantization_config"}, name, source)
    return model if quant is None else replace(model, weight_format=_weight_format(quant))


def load_gpu(name: str) -> GpuSpec:
    """The data sheet of a GPU by name or alias. Raises ``BadInput`` with the nearest known names."""
    from planner.documents.hardware import load_gpu as load

    _refuse_strange(name)
    return load(name)


@cache
def _library() -> Mapping[str, Path]:
    from planner.documents.files import topology_folder

    return {folded(path.stem): path for path in sorted(topology_folder().glob("*.yaml"))}


def topology_names() -> list[str]:
    """The names of the library of machines."""
    return [path.stem for path in _library().values()]


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


def emit(plan: Plan, model: ModelSpec, topology: Topology, engine: str = "vllm") -> LaunchSpec:
    """The processes and files that start a plan."""
    from planner.engines import find_engine

    return find_engine(engine).launch(plan, model, topology)


def smallest_that_fits(
    model: ModelSpec, topology: Topology, workload: Workload, *, engine: str = "vllm", objective: Objective = "throughput"
) -> Remedy:
    """How many of these GPUs would hold the model at least, and which weight formats fit on those there are."""
    from planner.search.fit import remedy

    _, search, _, _ = _prepare(model, topology, workload, engine, objective)
    return remedy(search.pricer, 1)


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
    return chosen, Search(pricer, objective), equipped, _warnings(equipped, specs, model)


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
    """The topology with bandwidths where every GPU is named and known; as it is otherwise."""
    try:
        return _equipped(topology)[0]
    except BadInput:
        return topology


def _in_half(model: ModelSpec, specs: Iterable[GpuSpec]) -> ModelSpec:
    """The model in fp16 where a GPU has no bf16: engines refuse bf16 there unless they are told."""
    from planner.core.quantization import BF16, FP16

    if all("bf16" in spec.compute for spec in specs):
        return model
    weights = FP16 if model.weight_format == BF16 else model.weight_format
    return replace(model, weight_format=weights, dtype_override="half")


def _warnings(topology: Topology, specs: Mapping[str, GpuSpec], model: ModelSpec) -> tuple[str, ...]:
    warnings = [f"{finding.code}: {finding.message}" for finding in topology.findings]
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
    from planner.search.sharing import shared_link

    pricer = search.pricer
    plans = []
    for place, one in enumerate(ranked[:top]):
        launch = engine.launch(one.plan, pricer.model, topology)
        commands = tuple(command_line(process) for process in launch.processes)
        shared = shared_link(pricer.wires, one.plan.placement)
        assumptions = (*one.estimate.assumptions, *((shared,) if shared else ()))
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


def _read(source: str) -> tuple[str, str]:
    """The text of a path or of standard input, and what messages call it."""
    from planner.documents.files import read_stdin, read_text

    return (read_stdin(), "<stdin>") if source == STDIN else (read_text(Path(source)), source)


def _from_text(text: str, source: str, hardware: str | None) -> Topology:
    """A topology document, or a capture."""
    if source.endswith((".yaml", ".yml")) or re.search(r"^schema_version\s*:", text, re.MULTILINE):
        return _from_yaml(text, source)
    from planner.readers.nvidia_smi import read_capture

    name = "capture" if source == "<stdin>" else Path(source).stem
    return read_capture(text, source, name=name, hardware=hardware)


def _from_yaml(text: str, source: str) -> Topology:
    from planner.documents.topology import parse_topology

    return parse_topology(text, source)


def _named(topology: Topology) -> Topology:
    """The topology with the names of ``data/gpus`` for GPUs that a capture names in its own way."""
    names: dict[str, str] = {}
    for raw in topology.hardware:
        try:
            names[raw] = load_gpu(raw).name
        except BadInput:
            names[raw] = raw  # it stays readable; whoever needs its data sheet says that it is unknown
    devices = (replace(device, hardware=names[device.hardware]) if device.hardware else device for device in topology.devices)
    return replace(topology, devices=tuple(devices))


def _renamed(topology: Topology, hardware: str) -> Topology:
    from planner.core.topology import DeviceKind

    devices = (replace(device, hardware=hardware) if device.kind is DeviceKind.GPU else device for device in topology.devices)
    return replace(topology, devices=tuple(devices))


def _config_file(path: Path, reference: str) -> tuple[dict[str, Any], str, str]:
    """The config of a model given as a path, the name to launch it by, and what messages call the file."""
    from planner.documents import json_file
    from planner.documents.files import read_text

    folder = path if path.is_dir() else path.parent
    file = path / "config.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise BadInput("holds no config.json", path=reference, hint="pass the directory that a model's config.json lies in")
    config = json_file.load(read_text(file), str(file))
    extra = folder / "hf_quant_config.json"
    if "quantization_config" not in config and extra.exists():
        config |= _modelopt_format(json_file.load(read_text(extra), str(extra)), str(extra))
    name = str(folder)
    return config, f"./{name}" if name.startswith("-") else name, str(file)


def _modelopt_format(settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """``quantization_config`` as NVIDIA ModelOpt writes it into a file of its own."""
    quantization = settings.get("quantization")
    algorithm = quantization.get("quant_algo") if isinstance(quantization, dict) else None
    methods = {"FP8": "fp8", "NVFP4": "nvfp4", "W4A16_AWQ": "awq", None: None}
    if algorithm not in methods:
        known = ", ".join(name for name in methods if name)
        raise BadInput(f"quant_algo {algorithm!r} is not read yet", path=source, hint=f"known: {known}; or say it with --quant")
    return {"quantization_config": {"quant_method": methods[algorithm]}} if algorithm else {}


def _weight_format(name: str) -> WeightFormat:
    from planner.core.quantization import ALIASES, FORMATS

    key = ALIASES.get(name.lower(), name.lower())
    if key not in FORMATS:
        raise unknown_name("quantisation", name, FORMATS, hint=f"known: {', '.join(FORMATS)}")
    return FORMATS[key]


def _refuse_strange(name: str) -> None:
    """Names go into argument vectors and onto terminals: nothing that a terminal would obey."""
    if not name.strip():
        raise BadInput("an empty name")
    if _CONTROL.search(name):
        raise BadInput(f"a name with control characters: {name!r}")


__all__ = [
    "PlannerError",
    "Unavailable",
    "emit",
    "equipped_for_display",
    "estimate",
    "find_topology",
    "load_gpu",
    "load_model",
    "load_topology",
    "probe",
    "recommend",
    "save_topology",
    "smallest_that_fits",
    "topology_names",
]
