"""Matrix products."""

from __future__ import annotations

import math

from planner.core.hardware import GpuSpec
from planner.core.quantization import BF16, WeightFormat
from planner.cost.calibration import Calibration, KernelFit
from planner.cost.formula import formula
from planner.units import Bytes, BytesPerSecond, Flop, FlopPerSecond, Seconds

ACTIVATION_BYTES = 2


@formula(source="roofline model (Williams, Waterman, Patterson 2009), its corner rounded: the p-norm of both times")
def smooth(one: float, other: float, sharpness: float = math.inf) -> float:
    """Two times that overlap: the longer one, or more where neither dominates; the sharper, the less.

    >>> smooth(3.0, 4.0), smooth(3.0, 4.0, 2.0), smooth(0.0, 4.0, 2.0)
    (4.0, 5.0, 4.0)
    """
    longer, shorter = max(one, other), min(one, other)
    if shorter <= 0 or math.isinf(sharpness):
        return longer
    return float(longer * (1 + (shorter / longer) ** sharpness) ** (1 / sharpness))


@formula(source="roofline model (Williams, Waterman, Patterson 2009) with fitted efficiencies and launch time")
def roofline(
    moved: Bytes,
    work: Flop,
    bandwidth: BytesPerSecond,
    rate: FlopPerSecond,
    memory: float,
    compute: float,
    launch: Seconds,
    sharpness: float = math.inf,
) -> Seconds:
    """Moving ``moved`` bytes beside doing ``work`` FLOP, plus the launch.

    >>> round(roofline(Bytes(3.35e12), Flop(0), BytesPerSecond(3.35e12), FlopPerSecond(1e15), 0.8, 0.8, Seconds(0)), 2)
    1.25
    """
    return Seconds(smooth(moved / (bandwidth * memory), work / (rate * compute), sharpness) + launch)


@formula(source="operation count of a dense matrix product")
def gemm_work(m: float, n: float, k: float) -> Flop:
    """FLOP of an (m, k) by (k, n) product.

    >>> gemm_work(1, 8192, 8192)
    134217728
    """
    return Flop(2 * m * n * k)


@formula(source="weights once, activations in and out once")
def gemm_bytes(m: float, n: float, k: float, weight_bytes: float) -> Bytes:
    """Bytes that cross memory for an (m, k) by (k, n) product with ``weight_bytes`` a weight.

    >>> gemm_bytes(1, 8192, 8192, 2)
    134250496
    """
    return Bytes(weight_bytes * n * k + ACTIVATION_BYTES * m * (n + k))


@formula(
    source="roofline of its bytes and FLOP, and the inputs that are quantised; fitted by weight format (data/calibration/kernels.yaml)"
)
def gemm(m: float, n: float, k: float, weights: WeightFormat, gpu: GpuSpec, fit: KernelFit) -> Seconds:
    """Time of an (m, k) by (k, n) product on ``gpu``; zero if there is nothing to do."""
    if m <= 0 or n <= 0 or k <= 0:
        return Seconds(0.0)
    moved, work = gemm_bytes(m, n, k, weights.bytes_per_weight), Flop(gemm_work(m, n, k) + fit.fill)
    started = gpu.cycle * (fit.launch + k * fit.loop)
    launch = Seconds(started + fit.traffic * ACTIVATION_BYTES * m * k / gpu.memory_bandwidth)
    rate = gpu.rate(weights.math)
    return roofline(moved, work, gpu.memory_bandwidth, rate, fit.memory, fit.compute, launch, fit.sharpness)


def head(tokens: float, vocabulary: float, hidden_size: int, gpu: GpuSpec, calibration: Calibration) -> Seconds:
    """The language-model head, in 16 bit whatever the layers are stored in. ``vocabulary`` is one rank's share."""
    return gemm(tokens, vocabulary, hidden_size, BF16, gpu, calibration.gemm_fit("bf16"))
