"""Constants that are not on any data sheet: fitted or measured, read from ``data/calibration`` and handed in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.core.hardware import GpuSpec
from planner.units import Bytes, BytesPerSecond, Flop, Seconds

NOTHING = Seconds(0.0)
NO_WORK = Flop(0.0)


@dataclass(frozen=True, slots=True)
class KernelFit:
    """A roofline with efficiencies: memory / ``memory`` beside arithmetic / ``compute``, its corner as round as ``sharpness`` says,
    plus ``launch``, ``loop`` for every input of a product, and ``traffic`` times the bytes that are only passed on: 16-bit inputs of
    a product that are quantised first, routed tokens of experts. ``fill`` is the work at which a product's arithmetic is half as
    efficient as a large one's. ``error`` is the mean error on machines left out, ``interval`` measured over predicted of nine of
    ten of their rows.
    """

    launch: Seconds
    memory: float
    compute: float
    error: float | None
    sharpness: float = math.inf
    loop: Seconds = NOTHING
    traffic: float = 0.0
    fill: Flop = NO_WORK
    interval: tuple[float, float] = (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class AttentionFit:
    """Work over ``efficiency``, plus ``launch``; work is KV bytes (decode) or causal FLOP (prefill) at the data sheet's rate.

    Decode adds ``context`` for every position that a sequence sees. Prefill adds ``elements`` for every million elements of the
    queries, its arithmetic takes (1 + ``short`` / tokens) to the power of ``steepness`` as long, and the last tile ``last`` of its
    time on one multiprocessor. What does not depend on size (``launch``, ``context``) is at the clock of an H100.
    """

    launch: Seconds
    efficiency: float
    error: float | None
    context: Seconds = NOTHING
    elements: Seconds = NOTHING
    short: float = 0.0
    steepness: float = 0.0
    last: float = 0.0
    interval: tuple[float, float] = (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Anchor:
    """Measured all-reduces of one stack on one machine whose GPUs are all joined by NVLink.

    ``system`` names the machine, ``versions`` those of the stack that agree, of which ``version`` is the newest.
    ``nvlink_bandwidth`` is the line rate of all NVLinks of one such GPU, one direction. ``points`` are (bytes, s),
    ascending in both.
    """

    system: str
    gpu: str
    compute_capability: tuple[int, int]
    nvlink_bandwidth: BytesPerSecond
    stack: str
    versions: tuple[str, ...]
    ranks: int
    points: tuple[tuple[Bytes, Seconds], ...]

    @property
    def version(self) -> str:
        """The newest of the versions."""
        return self.versions[-1]


@dataclass(frozen=True, slots=True)
class NcclFactors:
    """Measured over modelled time of NCCL's model for small, middle and large messages, and the error left."""

    factors: tuple[float, float, float]
    error: float


@dataclass(frozen=True, slots=True)
class OperationFit:
    """Measured over modelled time of an operation by number of ranks, at ascending ``sizes`` (bytes); and the error left."""

    sizes: tuple[Bytes, ...]
    factors: Mapping[int, tuple[float, ...]]
    error: float


@dataclass(frozen=True, slots=True)
class CustomAllReduceFit:
    """An engine's own NVLink kernel where nothing was measured: latencies on a generation where NCCL's small messages take as long
    as NCCL's model says (on others they grow as those do), and the share of the NVLinks' rate it reaches.
    """

    floor: Seconds
    second_barrier: Seconds
    efficiency: float


@dataclass(frozen=True, slots=True)
class PointToPointFit:
    """Latency of a send by kind of path, and the share of the line rate it reaches."""

    nvlink: Seconds
    pcie: Seconds
    staged: Seconds
    network: Seconds
    nvlink_efficiency: float
    pcie_efficiency: float
    network_efficiency: float


@dataclass(frozen=True, slots=True)
class OverheadFit:
    """What an engine adds to the kernels that were timed: every small one of a layer with experts (in one without, products hide
    them), a step, and to it every ``sequence``. A prompt keeps others from decoding ``interference`` times as long as its kernels
    take. ``stack`` names the engine.
    """

    small_kernel: Seconds
    step: Seconds
    sequence: Seconds
    stack: str = ""
    interference: float = 1.0

    def of_step(self, sequences: float) -> Seconds:
        """What is added to a step of ``sequences``, its layers apart."""
        return Seconds(self.step + sequences * self.sequence)


NO_OVERHEAD = OverheadFit(NOTHING, NOTHING, NOTHING)


@dataclass(frozen=True, slots=True)
class TtftFit:
    """``base`` + ``prefill_factor`` × prompt + ``queue_share`` × half the others' prefills + ``decode_factor`` × step; of models with
    latent attention also ``latent``.
    """

    base: Seconds
    prefill_factor: float
    queue_share: float
    decode_factor: float
    latent: Seconds = NOTHING


@dataclass(frozen=True, slots=True)
class UncertaintyFit:
    """Measured over predicted, from and to, that held 90 % of published runs: TPOT by kind of model (``dense``, ``moe``),
    TTFT by engine; output tokens a second by load (``batch``, ``full``), and by vendor of GPUs that nothing was fitted on. The last
    three widen it both ways, as shares of the time that depends on them.
    """

    tpot: Mapping[str, tuple[float, float]]
    ttft: Mapping[str, tuple[float, float]]
    rates: Mapping[str, tuple[float, float]]
    vendors: Mapping[str, tuple[float, float]]
    pipeline: float
    unmeasured_links: float
    modelled_links: float


@dataclass(frozen=True)
class Calibration:
    """All constants the cost model leans on.

    ``operations`` is by operation, then by GPU generation on NVLink or ``pcie``; ``eager_floors`` what an operation takes at least
    without CUDA graphs, by who launches (``nccl``, ``kernel`` for an engine's own), then by the same; ``intervals`` measured over
    predicted, from and to, that held nine of ten measurements of machines that were left out of the fit, by what a prediction
    rests on (:data:`planner.core.estimate.Basis`). ``custom_all_reduce``, ``overheads`` and ``ttft`` are by stack; ``slower`` is by vendor of GPUs
    that no kernel was timed on how many times as long published runs took.
    ``gemm`` and ``moe`` are by weight format, ``attention`` by phase; where leaving machines out showed that kernels differ, also by
    what they differ in, joined by ``@``: ``fp8@tensorrt-llm``, ``decode@blackwell@sglang@8-bit``.
    """

    gemm: Mapping[str, KernelFit]
    moe: Mapping[str, KernelFit]
    popularity: float
    attention: Mapping[str, AttentionFit]
    exchanges: Mapping[str, AttentionFit]
    anchors: tuple[Anchor, ...]
    nccl: Mapping[str, NcclFactors]
    operations: Mapping[str, Mapping[str, OperationFit]]
    eager_floors: Mapping[str, Mapping[str, Seconds]]
    intervals: Mapping[str, tuple[float, float]]
    custom_all_reduce: Mapping[str, CustomAllReduceFit]
    point_to_point: PointToPointFit
    overheads: Mapping[str, OverheadFit]
    ttft: Mapping[str, TtftFit]
    slower: Mapping[str, float]
    moe_imbalance_factor: float
    uncertainty: UncertaintyFit

    def overhead(self, stack: str) -> OverheadFit:
        """What an engine adds; nothing is known of one that was not measured, so it adds as much as vLLM."""
        return self.overheads.get(stack) or self.overheads["vllm"]

    def first_token(self, stack: str) -> TtftFit:
        """The time to first token of an engine; of one that was not measured, vLLM's."""
        return self.ttft.get(stack) or self.ttft["vllm"]

    def gemm_fit(self, weight_format: str, stack: str = "") -> KernelFit:
        """The fit of a weight format, or of the measured format nearest to it. With ``stack`` it is what tables of that engine's products
        say, timed alone; a step's products are priced without.
        """
        measured = weight_format if weight_format in self.gemm else _NEAREST.get(weight_format, "bf16")
        return self.gemm.get(f"{measured}@{stack}") or self.gemm[measured]

    def moe_fit(self, weight_format: str, gpu: GpuSpec, *, tabled: bool = False, eight: bool = False) -> KernelFit:
        """The fit of an expert kernel, or of the measured format nearest to it: as it is served on ``gpu``, or ``tabled`` alone, where
        its inputs may be in ``eight`` bits.
        """
        if tabled:
            own = f"{weight_format}@{_generation(gpu)}" + "@8-bit" * eight
            if own in self.moe:
                return self.moe[own]
        elif gpu.rate("fp4") > gpu.half_precision:
            weight_format = _SERVED_AS.get(weight_format, weight_format)
        return self.moe.get(weight_format) or self.moe[_NEAREST.get(weight_format, "bf16")]

    def attention_fit(self, phase: str, gpu: GpuSpec, stack: str = "", element_bytes: float = 2) -> AttentionFit:
        """The fit of ``decode`` or ``prefill`` against a cache of ``element_bytes`` an element: the engine's own if that was measured,
        otherwise that of the cache's width; of the GPU's generation, otherwise of all.
        """
        generation = _generation(gpu)
        width = "8-bit" if element_bytes < 2 else ""
        for engine, bits in ((stack, width), (stack, ""), ("", width), ("", "")):
            for family in (generation, ""):
                found = self.attention.get("@".join((phase, *filter(None, (family, engine, bits)))))
                if found is not None:
                    return found
        raise KeyError(phase)


def generation_of(compute_capability: tuple[int, int]) -> str:
    """The GPU generation whose measurements stand for this compute capability."""
    if compute_capability >= (10, 0):
        return "blackwell"
    return "hopper" if compute_capability >= (9, 0) else "ampere"


def _generation(gpu: GpuSpec) -> str:
    """The generation that kernels of ``gpu`` are written for, if they are for it alone."""
    return _WITH_KERNELS_OF_THEIR_OWN.get(gpu.compute_capability[0], "") if gpu.compute_capability else ""


_WITH_KERNELS_OF_THEIR_OWN = {9: "hopper", 10: "blackwell"}
"""Generations whose kernels of attention and of 4-bit experts are written for them, by major compute capability; Blackwell's GeForce (12) has Ampere's."""
_SERVED_AS = {"mxfp4": "nvfp4"}
"""Experts that GPUs with 4-bit units serve with faster kernels than the ones that were timed alone: gpt-oss is a fifth faster there than
those allow."""
_NEAREST = {"fp16": "bf16", "gptq": "awq", "w8a16": "awq", "mxfp4": "nvfp4", "int8": "fp8"}
