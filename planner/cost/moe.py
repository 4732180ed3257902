"""Mixture of experts: which experts a batch touches, how unevenly, and what that takes."""

from __future__ import annotations

import math

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
    valid="uniform routing",
)
def expert_imbalance(experts: int, per_token: int, tokens: float, ranks: int) -> float:
    """Expected load of the busiest of ``ranks`` ranks over the mean load.

    >>> round(expert_imbalance(256, 8, 128, 8), 3), round(expert_imbalance(256, 8, 1024, 8), 3)
    (1.126, 1.045)
    """
    if ranks == 1:
        return 1.0
    mean = max(1.0, tokens) * per_token / ranks
    spread = 2 * math.log(ranks) / mean * (1 - 1 / ranks) * (1 - per_token / experts)
    return min(float(ranks), 1 + 0.76 * math.sqrt(spread))


@formula(source="every routed token's hidden state is read and written once, in 16 bit")
def routed_bytes(tokens: float, per_token: int, expert_ranks: int, hidden_size: int) -> Bytes:
    """Bytes that a rank moves to bring tokens to its experts and back.

    >>> routed_bytes(1024, 8, 4, 4096) / 2**20
    32.0
    """
    return Bytes(4 * tokens * per_token / expert_ranks * hidden_size)


@formula(
    source="roofline of the experts that a batch visits and of its tokens; fitted by weight format (data/calibration/kernels.yaml)",
    valid="uniform routing, less the skew of the fit",
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
) -> Seconds:
    """The routed experts of one layer on the busiest rank.

    ``tokens`` are all tokens that meet in the expert group. Experts lie on ``expert_ranks`` ranks (1: every rank holds
    a slice of all), and each is cut into ``shards``.
    """
    fit = calibration.moe_fit(weights.kernels)
    uneven = expert_imbalance(mlp.experts, mlp.experts_per_token, tokens, expert_ranks)
    uneven = 1 + (uneven - 1) * calibration.moe_imbalance_factor
    touched = distinct_experts(mlp.experts, mlp.experts_per_token, tokens * calibration.skew) / expert_ranks
    touched = min(mlp.experts / expert_ranks, touched * uneven)
    share = mlp.expert_parameters(hidden_size) / shards
    moved = Bytes(touched * share * weights.bytes_per_weight)
    work = Flop(2 * tokens * mlp.experts_per_token / expert_ranks * uneven * share)
    routed = routed_bytes(tokens, mlp.experts_per_token, expert_ranks, mlp.width(hidden_size))
    launch = Seconds(fit.launch + fit.traffic * routed / gpu.memory_bandwidth)
    rate = gpu.rate(weights.math)
    return roofline(moved, work, gpu.memory_bandwidth, rate, fit.memory, fit.compute, launch, fit.sharpness)
