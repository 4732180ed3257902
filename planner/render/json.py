"""Results as JSON documents: SI numbers, the unit in the key. The schemas lie in ``data/schemas``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from planner import __version__
from planner.core.estimate import CollectiveTime, Communication, Estimate, StageMemory
from planner.core.plan import Infeasible, Parallelism
from planner.core.topology import Topology
from planner.core.workload import Workload
from planner.cost.pipeline import BUBBLE_CONVENTION
from planner.graph.paths import Paths, class_matrix
from planner.graph.ranks import rank_map
from planner.render import facts, findings
from planner.render import workload as traffic
from planner.search.load import chances
from planner.search.rank import Ranked
from planner.search.recommendation import Recommendation, Recommended

SCHEMA_VERSION = 1


def write(document: Mapping[str, Any]) -> str:
    """The document as text, keys in order, one value a line."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def probe(topology: Topology) -> dict[str, Any]:
    """A probed topology: GPUs, the matrix of link classes, findings."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "probe",
        "planner_version": __version__,
        "name": topology.name,
        "origin": origin(topology),
        "hosts": [
            {"name": host.name, "peer_to_peer": host.peer_to_peer, "facts": facts.document(host.facts)} for host in topology.hosts
        ],
        "gpus": [
            {**shown, "bus_id": gpu.bus_id, "facts": facts.document(gpu.facts)}
            for shown, gpu in zip(gpus(topology), topology.gpus, strict=True)
        ],
        "nics": [
            {"id": nic.id, "host": host.name, "label": nic.label, "bus_id": nic.bus_id, "rate_bytes_per_s": nic.rate}
            for host in topology.hosts
            for nic in topology.nics(host.name)
        ],
        "matrix": class_matrix(topology),
        # "hint" is what "remedy" was called at first
        "findings": [{**findings.document(finding), "hint": finding.hint} for finding in topology.findings],
    }


def recommendation(answer: Recommendation) -> dict[str, Any]:
    """Plans, refusals and reasons."""
    workload, model, paths = answer.workload, answer.model, Paths(answer.topology)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "recommendation",
        "planner_version": __version__,
        "topology": {"name": answer.topology.name, "gpus": gpus(answer.topology), "origin": origin(answer.topology)},
        "model": {
            "name": model.name,
            "family": model.family,
            "parameters": model.parameters,
            "active_parameters": model.active_parameters,
            "layers": len(model.layers),
            "weight_format": model.weight_format.name,
            "kv_cache_dtype": model.cache_dtype,
        },
        "workload": {**traffic.document(workload), **traffic.targets(workload), "objective": answer.objective},
        "engine": {"name": answer.engine.name, "version": answer.engine.version},
        "plans": [_plan(one, answer, paths) for one in answer.plans],
        "plans_considered": answer.considered,
        "reasons": list(answer.reasons),
        "infeasible": [_infeasible(one) for one in answer.infeasible],
        "warnings": list(answer.warnings),
    }


def origin(topology: Topology) -> dict[str, Any]:
    """Where a topology comes from."""
    said = topology.origin
    return {"kind": said.kind, "source": said.source, "assumptions": list(said.assumptions)}


def gpus(topology: Topology) -> list[dict[str, Any]]:
    """The GPUs of a topology in the order of the numbers that plans use."""
    return [
        {
            "index": index,
            "name": gpu.hardware,
            "host": gpu.host,
            "host_index": gpu.index,
            "numa_node": gpu.numa_node,
            "memory_bytes": None if gpu.memory is None else int(gpu.memory),
        }
        for index, gpu in enumerate(topology.gpus)
    ]


def parallelism(degrees: Parallelism) -> dict[str, int]:
    """Degrees by the names that engines give them; context parallelism where there is any."""
    return {
        "tensor_parallel_size": degrees.tensor,
        "pipeline_parallel_size": degrees.pipeline,
        "data_parallel_size": degrees.data,
        "expert_parallel_size": degrees.expert,
        **({"decode_context_parallel_size": degrees.decode_context} if degrees.decode_context > 1 else {}),
        **({"prefill_context_parallel_size": degrees.prefill_context} if degrees.prefill_context > 1 else {}),
    }


def _plan(one: Recommended, answer: Recommendation, paths: Paths) -> dict[str, Any]:
    plan, estimate = one.ranked.plan, one.ranked.estimate
    return {
        "rank": one.rank,
        "parallelism": parallelism(plan.parallelism),
        "placement": [[list(group) for group in replica] for replica in plan.placement],
        "placement_proven_optimal": one.ranked.proven,
        "layer_partition": list(plan.layer_partition),
        "limits": {
            "max_model_tokens": plan.limits.max_model_tokens,
            "max_sequences": plan.limits.max_sequences,
            "max_batched_tokens": plan.limits.max_batched_tokens,
            "memory_fraction": plan.limits.memory_fraction,
        },
        "memory": {
            "stages": [stage_memory(stage) for stage in estimate.memory],
            "kv_cache_tokens": estimate.kv_cache_tokens,
            "max_concurrency": estimate.max_concurrency,
        },
        "communication": wires(estimate.communication),
        "pipeline": _pipeline(estimate),
        "estimate": _estimate(one.ranked, answer.workload),
        "maximum": traffic.maximum_document(one.maximum),
        "launch": {
            "processes": [
                {
                    "node": process.node,
                    "replica": process.replica,
                    "argv": list(process.argv),
                    "environment": dict(process.environment),
                }
                for process in one.launch.processes
            ],
            "files": dict(one.launch.files),
            "notes": list(one.launch.notes),
        },
        "ranks": [asdict(place) for place in rank_map(answer.topology, plan.placement, paths)],
        "reasons": list(one.reasons),
        "assumptions": list(one.assumptions),
    }


def stage_memory(stage: StageMemory) -> dict[str, int | list[int]]:
    """Memory of one GPU of a stage, part by part."""
    parts = {
        "weights_bytes": int(stage.weights),
        "kv_cache_bytes": int(stage.kv_cache),
        "activation_bytes": int(stage.activation),
        "overhead_bytes": int(stage.overhead),
    }
    ranges = {
        "kv_cache_range_bytes": [int(size) for size in stage.kv_cache_range],
        "activation_range_bytes": [int(size) for size in stage.activation_range],
        "overhead_range_bytes": [int(size) for size in stage.overhead_range],
    }
    return {**parts, "total_bytes": sum(parts.values()), "capacity_bytes": int(stage.capacity), **ranges}


def wires(communication: Communication) -> dict[str, Any]:
    """What the wires of a plan cost."""

    def layer(one: CollectiveTime | None) -> float:
        return 0.0 if one is None else communication.all_reduces_per_layer * one.time

    reduced, shared = communication.all_reduce_decode, communication.shared_link
    return {
        "all_reduce_per_layer_s": {
            "decode": layer(communication.all_reduce_decode),
            "prefill": layer(communication.all_reduce_prefill),
        },
        "point_to_point_per_boundary_s": {
            "decode": communication.point_to_point_decode,
            "prefill": communication.point_to_point_prefill,
        },
        "limiting_link": communication.limiting_link,
        "shared_link": None
        if shared is None
        else {"link": shared.link, "carries": shared.carries, "bandwidth_slowdown": shared.slowdown},
        "confidence": communication.confidence,
        "all_reduce_algorithm": None if reduced is None else reduced.algorithm,
        "all_reduce_source": None if reduced is None else reduced.source,
    }


def _pipeline(estimate: Estimate) -> dict[str, Any]:
    use = estimate.pipeline
    return {
        "prefill": {
            "bubble_ratio": use.bubble_ratio,
            "convention": BUBBLE_CONVENTION,
            "micro_batches": use.prefill_micro_batches,
        },
        "decode": {
            "idle_ratio": use.idle_ratio,
            "batches_in_flight": use.batches_in_flight,
            "micro_batches": use.decode_micro_batches,
        },
    }


def _estimate(ranked: Ranked, workload: Workload) -> dict[str, Any]:
    estimate, gpus = ranked.estimate, ranked.plan.parallelism.gpus
    unsure, sure = estimate.uncertainty, chances(estimate, workload)
    return {
        "ttft_s": estimate.ttft,
        "tpot_s": estimate.tpot,
        "output_tokens_per_s": estimate.output_tokens_per_second,
        "output_tokens_per_s_per_gpu": estimate.output_tokens_per_second / gpus,
        "meets_targets": not ranked.missed(workload),
        "target_chances": {"ttft": sure.get("TTFT"), "tpot": sure.get("TPOT")},
        "serving": traffic.serving_document(estimate.serving),
        "interval_90": {
            "ttft_s": list(unsure.ttft),
            "tpot_s": list(unsure.tpot),
            "output_tokens_per_s": list(unsure.output_tokens_per_second),
            "basis": unsure.basis,
        },
        "decode_step_s": dict(estimate.decode.parts),
        "prompt_s": dict(estimate.prefill.parts),
    }


def _infeasible(one: Infeasible) -> dict[str, Any]:
    return {
        "parallelism": parallelism(one.parallelism),
        "rule": one.rule,
        "have": one.have,
        "need": one.need,
        "unit": one.unit,
        "message": one.message,
    }
