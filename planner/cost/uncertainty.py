"""Between which values nine of ten measurements of an estimate are expected, and why that far apart."""

from __future__ import annotations

from collections.abc import Sequence

from planner.core.estimate import Breakdown, Communication, Uncertainty
from planner.cost.replica import ReplicaMetrics
from planner.cost.strategy import Strategy
from planner.units import Seconds

FITTED_ON = "NVIDIA"
"""The vendor of the GPUs that constants were fitted on."""
WORTH_SAYING = 0.01
EXCHANGED = ("all_reduce", "context_exchange", "shared_links")


def uncertainty_of(
    strategy: Strategy, metrics: Sequence[ReplicaMetrics], communication: Communication, decode: Breakdown
) -> Uncertainty:
    """What held 90 % of published runs of the kind, wider by what the wires and the layout are unsure of."""
    fit, stack, load = strategy.calibration.uncertainty, strategy.traits.first_token, strategy.workload.load
    reasons = [f"90 % of published {_RUNS.get(load, 'runs on NVSwitch machines')} fell within"]
    wider = _wider(strategy, communication, decode, reasons)
    low, high = fit.tpot["moe" if strategy.model.experts else "dense"]
    first_low, first_high = fit.ttft.get(stack) or fit.ttft["vllm"]
    if stack not in fit.ttft:
        reasons.append(f"no run of {strategy.traits.name} was measured: vLLM's constants stand in")
    least, most = 1 / high, 1 / low
    measured = fit.vendors.get(strategy.vendor) if strategy.vendor != FITTED_ON else fit.rates.get(load)
    if strategy.vendor != FITTED_ON:
        reasons[0] = f"static batches on {strategy.vendor} GPUs of 2024 fell within; constants are those of {FITTED_ON} GPUs"
        if strategy.slower != 1:
            reasons[0] += f", times {strategy.slower:g}, or as they are at best"
    if measured is not None:
        least, most = min(least, measured[0]), max(most, measured[1], strategy.slower)
    if load == "batch" or strategy.vendor != FITTED_ON:
        low, high = 1 / most, 1 / least
    if load == "batch":
        first_low, first_high = low, high
    ttft, tpot = max(one.ttft for one in metrics), max(one.tpot for one in metrics)
    rate = sum(one.throughput for one in metrics)
    return Uncertainty(
        ttft=(Seconds(ttft * first_low / wider), Seconds(ttft * first_high * wider)),
        tpot=(Seconds(tpot * low / wider), Seconds(tpot * high * wider)),
        output_tokens_per_second=(rate * least / wider, rate * most * wider),
        basis="; ".join(reasons),
    )


_RUNS = {"batch": "static batches", "full": "maximum throughputs"}
"""What a load is compared with, where that is not a closed loop."""


def _wider(strategy: Strategy, communication: Communication, decode: Breakdown, reasons: list[str]) -> float:
    """How many times wider the bars are than those of what was measured; ``reasons`` takes why."""
    fit = strategy.calibration.uncertainty
    wires = {"high": 0.0, "medium": fit.modelled_links, "low": fit.unmeasured_links}[communication.confidence]
    share = sum(decode.parts.get(part, 0.0) for part in EXCHANGED) / decode.total
    if wires * share > WORTH_SAYING:
        modelled = communication.confidence == "medium"
        reasons.append("these links are modelled, not measured" if modelled else "no measurement of these links: measure them")
    unproven = [
        ("pipelines are", len(strategy.stages) > 1),
        ("decode context parallelism is", strategy.parallelism.decode_context > 1),
        ("prefill context parallelism is", strategy.parallelism.prefill_context > 1),
        ("speculative decoding is", strategy.workload.speculation is not None),
        ("queues are", strategy.workload.load == "request-rate"),
    ]
    reasons += [f"{what} not validated against measurement" for what, there in unproven if there]
    return 1 + wires * share + fit.pipeline * sum(there for _, there in unproven)
