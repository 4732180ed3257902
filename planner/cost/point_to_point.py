"""What a send from one pipeline stage to the next takes."""

from __future__ import annotations

from planner.cost.calibration import PointToPointFit
from planner.cost.formula import formula
from planner.cost.interconnect import Interconnect
from planner.graph.paths import PathKind
from planner.units import Bytes, BytesPerSecond, Seconds


@formula(source="alpha-beta model (Hockney 1994)")
def send(size: Bytes, bandwidth: BytesPerSecond, latency: Seconds) -> Seconds:
    """Time of one message of ``size`` bytes.

    >>> round(send(Bytes(524_288), BytesPerSecond(35.6e9), Seconds(18e-6)) * 1e6, 1)
    32.7
    """
    return Seconds(latency + size / bandwidth)


@formula(source="vLLM make_empty_intermediate_tensors_factory: hidden states and residual, sliced over the tensor ranks")
def boundary_bytes(tokens: int, hidden_size: int, element_bytes: int, tensors: int, slices: int) -> Bytes:
    """Bytes that one rank sends to its peer in the next stage.

    >>> boundary_bytes(32, 8192, 2, 2, 4)
    262144.0
    """
    return Bytes(tensors * tokens * hidden_size * element_bytes / slices)


def hop_rate(wires: Interconnect, fit: PointToPointFit, sender: int, receiver: int) -> BytesPerSecond:
    """What a send from GPU ``sender`` to GPU ``receiver`` reaches when alone: never more than was measured on a link of its way."""
    path = wires.path(sender, receiver)
    efficiency = {PathKind.NVLINK: fit.nvlink_efficiency, PathKind.NETWORK: fit.network_efficiency}.get(path.kind)
    if efficiency is None:
        return wires.rate(path)
    return BytesPerSecond(min(efficiency * wires.peak(path), wires.measured(path)))


def hop_time(wires: Interconnect, fit: PointToPointFit, sender: int, receiver: int, size: Bytes, kept: float = 1.0) -> Seconds:
    """One send from GPU ``sender`` to GPU ``receiver`` over the path the graph gives; ``kept`` is the share of its
    bandwidth that others on the way leave it.
    """
    if size <= 0 or sender == receiver:
        return Seconds(0.0)
    path = wires.path(sender, receiver)
    rate = BytesPerSecond(kept * hop_rate(wires, fit, sender, receiver))
    if path.kind is PathKind.NVLINK:
        return send(size, rate, fit.nvlink)
    if path.kind is PathKind.NETWORK:
        return send(size, rate, fit.network)
    return send(size, rate, fit.staged if path.staged else fit.pcie)
