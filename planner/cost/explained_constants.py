"""Where the constants of a step come from: entries of calibrations, data sheets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from planner.core.explanation import Bar, Constants, Quantity
from planner.core.hardware import GpuSpec
from planner.cost.calibration import AttentionFit, Calibration, KernelFit

KERNELS = "data/calibration/kernels.yaml"
ENGINES = "data/calibration/engines.yaml"
SERVING = "data/calibration/serving.yaml"
COLLECTIVES = "data/calibration/collectives.yaml"
_LEFT_OUT = "nine of ten measured kernels of machines left out of the fit"
_IN_SECONDS = frozenset(
    {
        *("launch", "loop", "context", "elements", "small_kernel", "step", "sequence", "base", "floor", "second_barrier"),
        *("nvlink", "pcie", "staged", "network"),
    }
)
_IN_FLOP = frozenset({"fill"})
_MEANT_FOR_BARS = frozenset({"error", "interval"})


def quantities(record: Any, *leave_out: str) -> tuple[Quantity, ...]:
    """The numbers of a record, by the names of its fields; what is infinite, absent or none is left out."""
    found = []
    for field in fields(record):
        value = getattr(record, field.name)
        counts = isinstance(value, int | float) and not isinstance(value, bool) and not math.isinf(value)
        if field.name in leave_out or not counts or not value:
            continue
        unit = "s" if field.name in _IN_SECONDS else "FLOP" if field.name in _IN_FLOP else ""
        found.append(Quantity(field.name, float(value), unit))
    return tuple(found)


def entry(name: str, source: str, record: Any) -> Constants:
    """A record of a calibration as constants."""
    assert is_dataclass(record)
    return Constants(name, source, quantities(record, *_MEANT_FOR_BARS))


def key_of(entries: Mapping[str, Any], chosen: object) -> str:
    """Under which name an entry stands that was chosen, for itself or for one that was not measured."""
    return next(name for name, one in entries.items() if one is chosen)


def gemm_constants(calibration: Calibration, fit: KernelFit) -> Constants:
    """Of matrix products in one weight format."""
    return entry(f"gemm.{key_of(calibration.gemm, fit)}", KERNELS, fit)


def experts_constants(calibration: Calibration, fit: KernelFit) -> Constants:
    """Of experts in one weight format."""
    found = entry(f"moe.{key_of(calibration.moe, fit)}", KERNELS, fit)
    more = Quantity("imbalance_factor", calibration.moe_imbalance_factor)
    return Constants(found.name, found.source, (*found.values, more))


def attention_constants(calibration: Calibration, fit: AttentionFit) -> Constants:
    """Of attention in one phase."""
    return entry(f"attention.{key_of(calibration.attention, fit)}", KERNELS, fit)


def data_sheet(gpu: GpuSpec, dtype: str) -> Constants:
    """What a kernel asks of a GPU's data sheet."""
    found = [Quantity("memory bandwidth", gpu.memory_bandwidth, "B/s"), Quantity(f"{dtype} rate", gpu.rate(dtype), "FLOP/s")]
    if gpu.multiprocessors is not None:
        found.append(Quantity("multiprocessors", gpu.multiprocessors))
    if gpu.clock is not None:
        found.append(Quantity("clock", gpu.clock, "Hz"))
    return Constants(gpu.name, "data sheet (data/gpus)", tuple(found))


def kernel_bar(value: float, fit: KernelFit | AttentionFit) -> Bar:
    """The bar of a kernel."""
    low, high = fit.interval
    basis = _LEFT_OUT if fit.error is not None else "nothing was left out of this fit: a factor of two"
    return Bar(min(value * low, value * high), max(value * low, value * high), basis)
