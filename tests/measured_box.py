"""A box whose links are chosen, and what programs would print that measure it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from planner.core.operation import Operation
from planner.core.topology import LinkKind, Topology
from planner.cost.interconnect import Interconnect
from planner.cost.link_fit import with_rates
from planner.cost.nccl_ops import bus_factor
from planner.cost.operations import Operations
from planner.documents.calibration import load_calibration
from planner.documents.topology import parse_topology
from planner.engines.implementations import implementations
from planner.units import Bytes, BytesPerSecond
from planner.validation import wires_of

GIGA = 1e9
BUS_IDS = ("0000:01:00.0", "0000:41:00.0", "0000:81:00.0", "0000:c1:00.0")

BOX = """\
schema_version: 1
name: box
origin: {kind: written, source: by hand}
hosts:
- name: node0
  peer_to_peer: enabled
  devices:
  - {id: socket0, kind: socket}
  - {id: socket1, kind: socket}
  - {id: bridge0, kind: host-bridge}
  - {id: bridge1, kind: host-bridge}
  - {id: gpu0, kind: gpu, index: 0, gpu: L40S, bus_id: '0000:01:00.0'}
  - {id: gpu1, kind: gpu, index: 1, gpu: L40S, bus_id: '0000:41:00.0'}
  - {id: gpu2, kind: gpu, index: 2, gpu: L40S, bus_id: '0000:81:00.0'}
  - {id: gpu3, kind: gpu, index: 3, gpu: L40S, bus_id: '0000:c1:00.0'}
  links:
  - {between: [socket0, bridge0], kind: pcie}
  - {between: [socket1, bridge1], kind: pcie}
  - {between: [bridge0, gpu0], kind: pcie, generation: 4, count: 16}
  - {between: [bridge0, gpu1], kind: pcie, generation: 4, count: 16}
  - {between: [bridge1, gpu2], kind: pcie, generation: 4, count: 16}
  - {between: [bridge1, gpu3], kind: pcie, generation: 4, count: 16}
  - {between: [socket0, socket1], kind: socket-interconnect}
"""


def box() -> Topology:
    """Two sockets with two L40S each, PCIe 4 x16: 24 GB/s assumed a slot, 16 GB/s between the sockets."""
    return parse_topology(BOX, "box.yaml")


def number_of(topology: Topology, device: str) -> int:
    """The link that ends at a device from above; ``sockets`` for the one between two sockets."""
    if device == "sockets":
        return next(number for number, link in enumerate(topology.links) if link.kind is LinkKind.SOCKET)
    return next(number for number, link in enumerate(topology.links) if link.b == device)


def truth(topology: Topology, rates: Mapping[str, float]) -> Interconnect:
    """The wires of a machine whose links ``rates`` carry what it says, GB/s."""
    wires = wires_of(topology)
    chosen = {number_of(topology, name): BytesPerSecond(rate * GIGA) for name, rate in rates.items()}
    return Interconnect(with_rates(wires.topology, chosen), wires.specs)


def pair_rates(wires: Interconnect) -> dict[tuple[int, int], BytesPerSecond]:
    """What a copy between any two GPUs reaches."""
    gpus = range(len(wires.topology.gpus))
    return {(a, b): wires.rate(wires.path(a, b)) for a in gpus for b in gpus if a != b}


def peer_matrix(title: str, gpus: int, value: Callable[[int, int], float]) -> str:
    """One matrix of p2pBandwidthLatencyTest; ``value`` in GB/s."""
    head = "   D\\D  " + " ".join(f"{column:6d}" for column in range(gpus))
    rows = [
        f"{row:6d} " + " ".join(f"{900.0 if row == column else value(row, column):6.2f}" for column in range(gpus))
        for row in range(gpus)
    ]
    return "\n".join([title, head, *rows]) + "\n"


def peer_test(
    rates: Mapping[tuple[int, int], float],
    gpus: int,
    *,
    can: bool = True,
    model: str = "NVIDIA L40S",
    bus_ids: Sequence[str] = BUS_IDS,
) -> str:
    """p2pBandwidthLatencyTest of a machine that copies at ``rates`` (B/s) each way, both ways at once or alone."""
    text = "[P2P (Peer-to-Peer) GPU Bandwidth Latency Test]\n"
    for gpu in range(gpus):
        bus = int(bus_ids[gpu].split(":")[1], 16)
        text += f"Device: {gpu}, {model}, pciBusID: {bus:x}, pciDeviceID: 0, pciDomainID:0\n"
    word = "CAN" if can else "CANNOT"
    text += "".join(f"Device={a} {word} Access Peer Device={b}\n" for a in range(gpus) for b in range(gpus) if a != b)
    for state in ("Disabled", "Enabled"):
        for way, times in (("Uni", 1), ("Bi", 2)):
            told = {pair: times * rate / GIGA for pair, rate in rates.items()}
            text += peer_matrix(f"{way}directional P2P={state} Bandwidth Matrix (GB/s)", gpus, lambda a, b, told=told: told[a, b])  # type: ignore[misc]
    return text


def nccl_table(
    operation: str,
    times: Mapping[int, float],
    ranks: int,
    *,
    model: str = "NVIDIA L40S",
    bus_ids: Sequence[str] = BUS_IDS,
    listed: bool = True,
    factor: float | None = None,
) -> str:
    """A table of nccl-tests; ``times`` in seconds by size, ``factor`` of bus over algorithm bandwidth instead of the operation's."""
    ratio = bus_factor(operation, ranks) if factor is None else factor
    lines = [f"# nThread 1 nGpus {ranks} minBytes 8 maxBytes {max(times)} step: 2(factor) warmup iters: 5 iters: 20", "#"]
    if listed:
        lines.append("# Using devices")
        lines += [
            f"#  Rank {rank:2d} Group  0 Pid  31706 on box device {rank:2d} [{bus_ids[rank][:-2]}] {model}"
            for rank in range(ranks)
        ]
    lines.append(
        "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong"
    )
    lines.append("#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)")
    redop = "sum" if operation in {"all_reduce", "reduce_scatter"} else "none"
    shares = ranks if operation in {"all_gather", "reduce_scatter", "all_to_all"} else 1
    for size, time in times.items():
        algorithm = size / time / GIGA
        numbers = f"{time * 1e6:8.2f} {algorithm:7.2f} {algorithm * ratio:7.2f}"
        lines.append(f"{size:12d} {size // 4 // shares:12d} float {redop:>6} -1 {numbers} 0 {numbers} 0")
    return "\n".join([*lines, "# Out of bounds values : 0 OK", "# Avg bus bandwidth    : 12.345", "#"]) + "\n"


def predicted(
    wires: Interconnect, operation: Operation, gpus: Sequence[int], sizes: Sequence[int], stack: str = "nccl"
) -> dict[int, float]:
    """What an operation takes on these wires by the model, s by size: the measurement of a machine that is as they are."""
    asked = Operations(wires, load_calibration(), implementations()[stack])
    return {size: asked.predict(operation, gpus, Bytes(float(size))).taken.time for size in sizes}


def rates_of(topology: Topology) -> dict[str, float | None]:
    """What is written of links, GB/s, by link."""
    return {link.name: None if link.measured is None else link.measured / GIGA for link in topology.links}
