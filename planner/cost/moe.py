"""Mixture of experts: which experts a batch touches, how unevenly, and what that takes."""

from __future__ import annotations

import math
from typing import Literal

from planner.core.hardware import GpuSpec
from planner.core.model import MoeMlp
from planner.core.quantization import WeightFormat
from planner.cost.calibration import Calibration
from planner.cost.formula import formula
from planner.cost.gemm import roofline
from planner.units import Bytes, Flop, Seconds


@formula(source="exact expectation for independent uniform routing", valid="uniform routing")
def distinct_experts(experts: int, per_token: int, tokens: float) -> float:
    """Expected number of experts that ``tokens`` tokens visit, each ``per_token`` of ``experts``.

    >>> round(distinct_experts(8, 2, 4), 3), round(distinct_experts(256, 8, 128), 2)
    (5.469, 251.6)
    """
    missed: float = (1 - per_token / experts) ** tokens
    return experts * (1 - missed)


@formula(
    source="maximum of multinomial loads, asymptotic bound x 0.76 fitted to Monte Carlo within 3 %",
    valid="uniform routing, or experts whose popularity is known to vary",
)
def expert_imbalance(experts: int, per_token: int, tokens: float, ranks: int, popularity: float = 0.0) -> float:
    """Expected load of the busiest of ``ranks`` ranks over the mean load; ``popularity`` is the variance of experts' loads in the long
    run, the mean being 1.

    >>> round(expert_imbalance(256, 8, 128, 8), 3), round(expert_imbalance(256, 8, 1024, 8), 3)
    (1.126, 1.045)
    >>> round(expert_imbalance(128, 8, 16384, 8, 2.0), 2)
    1.51
    """
    if ranks == 1:
        return 1.0
    mean = max(1.0, tokens) * per_token / ranks
    chance = (1 - per_token / experts) / mean + popularity * ranks / experts
    return min(float(ranks), 1 + 0.76 * math.sqrt(2 * math.log(ranks) * (1 - 1 / ranks) * chance))


@formula(
    source="every choice of an expert is a hidden state read and written once, in 16 bit, also by ranks that lack the expert"
)
def routed_bytes(tokens: float, per_token: int, hidden_size: int) -> Bytes:
    """Bytes that a rank moves to sort tokens by experts and to add up what they return.

    >>> routed_bytes(1024, 8, 4096) / 2**20
    128.0
    """
    return Bytes(4 * tokens * per_token * hidden_size)


Routing = Literal["uniform", "balanced", "skewed"]
"""How tokens choose experts: each at random, evenly (as benchmarks may), or by popularity (power laws of benchmarks)."""


def visited(mlp: MoeMlp, tokens: float, routing: Routing) -> float:
    """How many experts ``tokens`` tokens visit."""
    if routing == "balanced":
        return min(float(mlp.experts), tokens * mlp.experts_per_token)
    return distinct_experts(mlp.experts, mlp.experts_per_token, tokens)


@formula(
    source="roofline of the experts that a batch visits and of its tokens; fitted by weight format (data/calibration/kernels.yaml)",
    valid="the routing that is asked for",
)
def experts_time(
    mlp: MoeMlp,
    hidden_size: int,
    tokens: float,
    shards: int,
    expert_ranks: int,
    weights: WeightFormat,
    gpu: GpuSpec,
    calibration: Calibration,
    routing: Routing = "uniform",
    *,
    tabled: bool = False,
    eight: bool = False,
) -> Seconds:
    """The routed experts of one layer on the busiest rank, as they are served, or ``tabled`` alone (with inputs in ``eight`` bits).

    ``tokens`` are all tokens that meet in the expert group. Experts lie on ``expert_ranks`` ranks (1: every rank holds
    a slice of all), and each is cut into ``shards``.
    """
    fit = calibration.moe_fit(weights.kernels, gpu, tabled=tabled, eight=eight)
    uneven = 1.0
    if routing != "balanced":
        popularity, factor = (calibration.popularity, 1.0) if routing == "skewed" else (0.0, calibration.moe_imbalance_factor)
        uneven += factor * (expert_imbalance(mlp.experts, mlp.experts_per_token, tokens, expert_ranks, popularity) - 1)
    share = mlp.expert_parameters(hidden_size) / shards
    moved = Bytes(visited(mlp, tokens, routing) / expert_ranks * share * weights.bytes_per_weight)
    work = Flop(2 * tokens * mlp.experts_per_token / expert_ranks * uneven * share)
    routed = routed_bytes(tokens, mlp.experts_per_token, mlp.width(hidden_size))
    launch = Seconds(gpu.cycle * fit.launch + fit.traffic * routed / gpu.memory_bandwidth)
    rate = gpu.rate(weights.math)
    return roofline(moved, work, gpu.memory_bandwidth, rate, fit.memory, fit.compute, launch, fit.sharpness)
