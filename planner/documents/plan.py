"""A saved plan as YAML ⇄ :class:`planner.core.saved.SavedPlan`, and the digests that say whether two are the same.

The model's facts are written out, so that nothing else is needed to emit the plan. A topology of the library or a short spec
is named, with its digest; any other is carried whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from planner import __version__
from planner.core.model import ModelSpec
from planner.core.plan import EngineLimits, Parallelism, Placement, Plan
from planner.core.saved import Expected, RankPlace, SavedPlan
from planner.core.speculation import Speculation
from planner.core.topology import Topology
from planner.core.workload import Workload
from planner.documents import strict_yaml
from planner.documents.base import SCHEMA_VERSION, validate
from planner.documents.block_yaml import write
from planner.documents.model_facts import facts_of, model_of
from planner.documents.plan_fields import (
    ExpectedDocument,
    ModelDocument,
    PlanDocument,
    RankDocument,
    SpeculationDocument,
    TopologyPart,
)
from planner.documents.topology import topology_document, topology_of
from planner.errors import BadInput, PlannerError
from planner.graph.ranks import rank_map
from planner.units import Bytes, Seconds, write_quantity, write_time

KIND = "plan"


def digest_of(data: Any) -> str:
    """A digest of plain data that does not depend on the order of keys."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def topology_digest(topology: Topology) -> str:
    """The digest of a topology's document."""
    return digest_of(topology_document(topology))


def plan_digest(saved: SavedPlan) -> str:
    """The digest of a plan: the same for the same plan, whichever release wrote it and however its file is laid out."""
    return digest_of({key: value for key, value in plan_document(saved).items() if key != "planner_version"})


def dump_plan(saved: SavedPlan) -> str:
    """The document of a plan; :func:`parse_plan` reads back an equal one."""
    return write(plan_document(saved))


def plan_document(saved: SavedPlan) -> dict[str, Any]:
    """What :func:`dump_plan` writes, as mappings and lists."""
    plan, facts, workload = saved.plan, facts_of(saved.model), saved.workload
    degrees = plan.parallelism
    named = saved.topology_reference
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "planner_version": __version__,
        "model": {
            "name": saved.model.name,
            "reference": saved.model_reference,
            **({"local": True} if saved.local_model else {}),
            "digest": digest_of(facts),
            "facts": facts,
        },
        "workload": _without_none(
            {
                "input_tokens": workload.input_tokens,
                "output_tokens": workload.output_tokens,
                "concurrency": workload.concurrency,
                "objective": saved.objective,
                "load": None if workload.load == "concurrency" else workload.load,
                "request_rate": workload.request_rate if workload.load == "request-rate" else None,
                "prefix_hit_rate": workload.cached_share or None,
                "ttft_target": None if workload.ttft_target is None else write_time(workload.ttft_target),
                "tpot_target": None if workload.tpot_target is None else write_time(workload.tpot_target),
                "target_percentile": workload.percentile,
                "speculation": _speculation_out(workload.speculation),
            }
        ),
        "topology": {
            "name": saved.topology.name,
            "digest": topology_digest(saved.topology),
            **({"document": topology_document(saved.topology)} if named is None else {"reference": named}),
        },
        "engine": {"name": saved.engine, "version": saved.engine_version},
        "parallelism": {
            "tensor": degrees.tensor,
            "pipeline": degrees.pipeline,
            "data": degrees.data,
            "expert": degrees.expert,
            **({"decode_context": degrees.decode_context} if degrees.decode_context > 1 else {}),
            **({"prefill_context": degrees.prefill_context} if degrees.prefill_context > 1 else {}),
        },
        "placement": [[list(group) for group in replica] for replica in plan.placement],
        "placement_proven_optimal": saved.proven,
        "layer_partition": list(plan.layer_partition),
        "limits": {
            "max_model_tokens": plan.limits.max_model_tokens,
            "max_sequences": plan.limits.max_sequences,
            "max_batched_tokens": plan.limits.max_batched_tokens,
            "memory_fraction": plan.limits.memory_fraction,
        },
        "ranks": [_without_none(asdict(place)) for place in rank_map(saved.topology, plan.placement)],
        "expected": _expected_out(saved.expected),
        **({"assumptions": list(saved.assumptions)} if saved.assumptions else {}),
        **({"warnings": list(saved.warnings)} if saved.warnings else {}),
    }


def _speculation_out(guess: Speculation | None) -> dict[str, Any] | None:
    if guess is None:
        return None
    said = {"method": guess.method, "draft_tokens": guess.draft_tokens, "acceptance_rate": guess.acceptance}
    return said | ({"checkpoint": guess.checkpoint} if guess.checkpoint else {})


def _speculation(document: SpeculationDocument | None, name: str) -> Speculation | None:
    if document is None:
        return None
    refuse_unsafe(document.checkpoint or "none", f"{name}: $.workload.speculation.checkpoint")
    try:
        return Speculation(document.method, document.draft_tokens, document.acceptance_rate, document.checkpoint)
    except BadInput as error:
        raise BadInput(error.problem, path=f"{name}: $.workload.speculation.{error.path}") from None


def _expected_out(expected: Expected) -> dict[str, Any]:
    return {
        "ttft": write_time(expected.ttft),
        "ttft_interval": [write_time(Seconds(end)) for end in expected.ttft_interval],
        "tpot": write_time(expected.tpot),
        "tpot_interval": [write_time(Seconds(end)) for end in expected.tpot_interval],
        "output_tokens_per_s": expected.output_tokens_per_second,
        "output_tokens_per_s_interval": list(expected.output_interval),
        "interval_basis": expected.basis,
        "memory": [write_quantity(size, "size") for size in expected.memory],
        "kv_cache_tokens": expected.kv_cache_tokens,
        "max_concurrency": expected.max_concurrency,
    }


def _without_none(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if value is not None}


def parse_plan(text: str, name: str, find_topology: Callable[[str], Topology]) -> SavedPlan:
    """A plan document. ``find_topology`` finds a topology that is only named.

    Raises ``BadInput`` with file and place for anything amiss: unknown keys, degrees that do not agree with the placement, GPUs
    the topology does not have, facts or a topology that their digests deny.
    """
    data = strict_yaml.load(text, name)
    if isinstance(data, dict) and data.get("kind") != KIND:
        raise BadInput(
            f"is no saved plan: kind is {data.get('kind')!r}", path=name, hint="'planner recommend … -o FILE' writes one"
        )
    document = validate(PlanDocument, data, name)
    model = _model(document.model, name)
    topology = _topology(document.topology, name, find_topology)
    workload = Workload(
        document.workload.input_tokens,
        document.workload.output_tokens,
        document.workload.concurrency,
        None if document.workload.ttft_target is None else Seconds(document.workload.ttft_target),
        None if document.workload.tpot_target is None else Seconds(document.workload.tpot_target),
        document.workload.load,
        document.workload.request_rate or 0.0,
        document.workload.prefix_hit_rate,
        document.workload.target_percentile,
        _speculation(document.workload.speculation, name),
    )
    plan = replace(_plan(document, model, topology, name), speculation=workload.speculation)
    saved = SavedPlan(
        model=model,
        model_reference=document.model.reference,
        local_model=document.model.local,
        topology=topology,
        topology_reference=document.topology.reference,
        workload=workload,
        objective=document.workload.objective,
        engine=document.engine.name,
        engine_version=document.engine.version,
        plan=plan,
        proven=document.placement_proven_optimal,
        expected=_expected(document.expected),
        assumptions=tuple(document.assumptions),
        warnings=tuple(document.warnings),
    )
    if document.ranks and list(map(_where, document.ranks)) != list(map(_where, rank_map(topology, plan.placement))):
        hint = "remove 'ranks' after changing the placement or the topology: it is worked out anew"
        raise BadInput("do not follow from the placement and the topology", path=f"{name}: $.ranks", hint=hint)
    return saved


def _model(document: ModelDocument, name: str) -> ModelSpec:
    refuse_unsafe(document.name, f"{name}: $.model.name")
    model = model_of(document.facts, document.name, f"{name}: $.model.facts")
    if document.digest and document.digest != digest_of(facts_of(model)):
        hint = "plan again, or remove 'digest' to take the facts as they stand"
        raise BadInput("is not of these facts: one of them was changed", path=f"{name}: $.model.digest", hint=hint)
    return model


def refuse_unsafe(word: str, place: str) -> None:
    """Raise ``BadInput`` for a name that a program would take for an option, or that a terminal would obey."""
    if not word.strip():
        raise BadInput("is empty", path=place)
    if word.startswith("-"):
        raise BadInput(f"{word!r} would be taken for an option", path=place, hint="write a path as ./-x")
    if not word.isprintable() or any(0xD800 <= ord(one) <= 0xDFFF for one in word):
        raise BadInput(f"holds control characters: {word!r}", path=place)


def _topology(part: TopologyPart, name: str, find: Callable[[str], Topology]) -> Topology:
    if (part.document is None) == (part.reference is None):
        raise BadInput("needs either a reference or a document", path=f"{name}: $.topology")
    if part.document is not None:
        return topology_of(part.document, f"{name}: $.topology.document")
    assert part.reference is not None
    try:
        topology = find(part.reference)
    except PlannerError as error:
        raise error.within(f"{name}: $.topology.reference") from None
    if part.digest and topology_digest(topology) != part.digest:
        raise BadInput(
            f"the topology {part.reference!r} is not the one that was planned for",
            path=f"{name}: $.topology.digest",
            hint="plan again; --inline keeps a topology in the plan itself",
        )
    return topology


def _plan(document: PlanDocument, model: ModelSpec, topology: Topology, name: str) -> Plan:
    item = document.parallelism
    degrees = Parallelism(item.tensor, item.pipeline, item.data, item.expert, item.decode_context, item.prefill_context)
    _check_placement(document.placement, degrees, topology, name)
    placement: Placement = tuple(tuple(tuple(group) for group in replica) for replica in document.placement)
    if len(document.layer_partition) != degrees.pipeline or sum(document.layer_partition) != len(model.layers):
        problem = f"must be {degrees.pipeline} stages that hold {len(model.layers)} layers together"
        raise BadInput(f"{problem}, found {document.layer_partition}", path=f"{name}: $.layer_partition")
    if degrees.expert not in {1, degrees.gpus_per_stage, degrees.gpus_per_stage * degrees.data} and degrees.gpus % degrees.expert:
        raise BadInput(f"{degrees.gpus} GPUs are not divisible by EP {degrees.expert}", path=f"{name}: $.parallelism.expert")
    if degrees.tensor % degrees.decode_context:
        problem = f"TP {degrees.tensor} is not divisible by DCP {degrees.decode_context}"
        raise BadInput(problem, path=f"{name}: $.parallelism.decode_context")
    limits = document.limits
    told = EngineLimits(limits.max_sequences, limits.max_batched_tokens, limits.memory_fraction, limits.max_model_tokens)
    return Plan(degrees, placement, tuple(document.layer_partition), told)


def _check_placement(placement: list[list[list[int]]], degrees: Parallelism, topology: Topology, name: str) -> None:
    place = f"{name}: $.placement"
    if len(placement) != degrees.data:
        raise BadInput(f"holds {len(placement)} replicas; the data degree is {degrees.data}", path=place)
    used: set[int] = set()
    for number, replica in enumerate(placement):
        if len(replica) != degrees.pipeline:
            raise BadInput(f"holds {len(replica)} stages; the pipeline degree is {degrees.pipeline}", path=f"{place}[{number}]")
        for stage, group in enumerate(replica):
            here = f"{place}[{number}][{stage}]"
            if len(group) != degrees.gpus_per_stage:
                split = f", over {degrees.prefill_context} groups" if degrees.prefill_context > 1 else ""
                raise BadInput(f"holds {len(group)} GPUs; the tensor degree is {degrees.tensor}{split}", path=here)
            for gpu in group:
                if not 0 <= gpu < len(topology.gpus):
                    raise BadInput(f"there is no GPU {gpu}; {topology.name} has {len(topology.gpus)}", path=here)
                if gpu in used:
                    raise BadInput(f"GPU {gpu} is placed twice", path=here)
                used.add(gpu)


def _where(item: RankDocument | RankPlace) -> tuple[object, ...]:
    """What of a rank's place a plan decides; cards and NUMA nodes are what a release makes of the topology."""
    return item.node, item.gpu, item.host_index, item.replica, item.stage, item.tensor_rank


def _expected(item: ExpectedDocument) -> Expected:
    low, high = item.output_tokens_per_s_interval
    return Expected(
        Seconds(item.ttft),
        Seconds(item.tpot),
        item.output_tokens_per_s,
        (item.ttft_interval[0], item.ttft_interval[1]),
        (item.tpot_interval[0], item.tpot_interval[1]),
        (low, high),
        item.interval_basis,
        tuple(Bytes(size) for size in item.memory),
        item.kv_cache_tokens,
        item.max_concurrency,
    )
