"""Two pools as a JSON document: SI numbers, the unit in the key. The schema lies in ``data/schemas``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from planner import __version__
from planner.core.engine import LaunchSpec
from planner.core.estimate import Uncertainty
from planner.core.pools import Pool, PoolPair, Transfer
from planner.core.topology import Topology
from planner.graph.paths import Paths
from planner.graph.ranks import rank_map
from planner.render import json
from planner.render import workload as traffic
from planner.search.disaggregation import Disaggregation, PlannedPair
from planner.search.rank import Ranked

SCHEMA_VERSION = 1


def document(answer: Disaggregation) -> dict[str, Any]:
    """Pairs, what they are compared with, and why."""
    model, paths = answer.model, Paths(answer.topology)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "disaggregation",
        "planner_version": __version__,
        "topology": {"name": answer.topology.name, "gpus": json.gpus(answer.topology), "origin": json.origin(answer.topology)},
        "model": {
            "name": model.name,
            "family": model.family,
            "parameters": model.parameters,
            "layers": len(model.layers),
            "weight_format": model.weight_format.name,
            "kv_cache_dtype": model.cache_dtype,
        },
        "workload": {**traffic.document(answer.workload), **traffic.targets(answer.workload)},
        "engine": {"name": answer.engine.name, "version": answer.engine.version},
        "handover": {
            "connector": answer.rules.connector,
            "after_each": answer.rules.handover,
            "source": answer.rules.source,
        },
        "pairs": [_pair(one, answer.topology, paths) for one in answer.pairs],
        "pairs_considered": answer.considered,
        "aggregated": None if answer.aggregated is None else _aggregated(answer.aggregated, answer),
        "gain_ratio": answer.gain,
        "reasons": list(answer.reasons),
        "warnings": list(answer.warnings),
        "assumptions": list(answer.assumptions),
    }


def _pair(one: PlannedPair, topology: Topology, paths: Paths) -> dict[str, Any]:
    pair = one.pair
    return {
        "rank": one.rank,
        "prefill": _pool(pair.prefill, one.launch.prefill, topology, paths),
        "decode": _pool(pair.decode, one.launch.decode, topology, paths),
        "router": _launch(one.launch.router),
        "notes": list(one.launch.notes),
        "transfer": _transfer(pair.transfer),
        "estimate": _estimate(pair),
        "assumptions": list(pair.assumptions),
    }


def _pool(pool: Pool, launch: LaunchSpec, topology: Topology, paths: Paths) -> dict[str, Any]:
    plan, estimate = pool.plan, pool.estimate
    return {
        "parallelism": json.parallelism(plan.parallelism),
        "gpus": list(pool.gpus),
        "placement": [[list(group) for group in replica] for replica in plan.placement],
        "placement_proven_optimal": pool.proven,
        "layer_partition": list(plan.layer_partition),
        "limits": asdict(plan.limits),
        "memory": {
            "stages": [json.stage_memory(stage) for stage in estimate.memory],
            "kv_cache_tokens": estimate.kv_cache_tokens,
            "max_concurrency": estimate.max_concurrency,
        },
        "communication": json.wires(estimate.communication),
        "requests_per_s": pool.requests_per_second,
        "requests_at_once": pool.requests,
        "launch": _launch(launch),
        "ranks": [asdict(place) for place in rank_map(topology, plan.placement, paths)],
    }


def _launch(launch: LaunchSpec) -> dict[str, Any]:
    return {
        "processes": [
            {"node": one.node, "replica": one.replica, "argv": list(one.argv), "environment": dict(one.environment)}
            for one in launch.processes
        ],
        "files": dict(launch.files),
        "notes": list(launch.notes),
    }


def _transfer(transfer: Transfer) -> dict[str, Any]:
    return {
        "bytes_per_request": int(transfer.size),
        "time_s": transfer.time,
        "exposed_s": transfer.exposed,
        "exposed_by_layer_s": transfer.by_layer,
        "queue_s": transfer.wait,
        "paths": list(transfer.kinds),
        "limiting_link": transfer.link,
        "link_requests_per_s": transfer.requests_per_second,
        "regrouping": transfer.regrouping,
    }


def _estimate(pair: PoolPair) -> dict[str, Any]:
    return {
        "requests_per_s": pair.requests_per_second,
        "requests_per_s_per_gpu": pair.requests_per_second / pair.gpus,
        "output_tokens_per_s": pair.output_tokens_per_second,
        "ttft_s": pair.ttft,
        "ttft_parts_s": dict(pair.first_token.parts),
        "tpot_s": pair.tpot,
        "allowed_requests_per_s": {name.replace("-", "_"): rate for name, rate in pair.limits.items()},
        "limited_by": pair.limited_by.replace("-", "_"),
        "meets_targets": not pair.missed,
        "serving": traffic.serving_document(pair.serving),
        "interval_90": _interval(pair.uncertainty),
    }


def _interval(unsure: Uncertainty) -> dict[str, Any]:
    return {
        "ttft_s": list(unsure.ttft),
        "tpot_s": list(unsure.tpot),
        "output_tokens_per_s": list(unsure.output_tokens_per_second),
        "basis": unsure.basis,
    }


def _aggregated(ranked: Ranked, answer: Disaggregation) -> dict[str, Any]:
    estimate, degrees = ranked.estimate, ranked.plan.parallelism
    rate = estimate.serving.requests_per_second
    return {
        "parallelism": json.parallelism(degrees),
        "placement": [[list(group) for group in replica] for replica in ranked.plan.placement],
        "requests_per_s": rate,
        "requests_per_s_per_gpu": rate / degrees.gpus,
        "ttft_s": estimate.ttft,
        "tpot_s": estimate.tpot,
        "meets_targets": not ranked.missed(answer.workload),
    }
