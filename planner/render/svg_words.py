"""What stands in the boxes of a picture, and how wide it is."""

from __future__ import annotations

from collections.abc import Sequence

from planner.core.topology import DeviceKind
from planner.render.scene import HostScene, Node, Wire, ranges
from planner.render.text import count, printable, shorten

LETTER = 6.3
"""Width of a letter of 11 units in the widest of the usual sans-serif fonts."""
BIG_LETTER = 7.3
LINE = 14.0
BOX = 22.0
"""Height of a box with one line of words."""
SIDE = 8.0
"""Between the words of a box and its edge."""
LEAST_GPU = 64.0


def width_of(words: str, letter: float = LETTER) -> float:
    """An estimate of how wide words are, on the safe side."""
    from rich.cells import cell_len

    return cell_len(words) * letter


def box_width(words: Sequence[str]) -> float:
    """The width of a box whose first line is bold."""
    return max(width_of(line, LETTER if place else BIG_LETTER) for place, line in enumerate(words)) + 2 * SIDE


def box_height(words: Sequence[str]) -> float:
    """The height of a box with that many lines."""
    return BOX + LINE * (len(words) - 1)


def rate(wire: Wire) -> str:
    """The line rate one way, in words; empty where nobody knows it."""
    return "" if wire.bandwidth is None else f"{count(wire.bandwidth / 1e9)} GB/s"


def class_of(wire: Wire) -> str:
    """The class of a wire, with a star where it is assumed."""
    return f"{wire.word}*" if wire.assumed and wire.word else wire.word


def inner_words(node: Node) -> list[str]:
    """A socket, bridge or switch: its name, its link upwards, what is wrong."""
    device, wire = node.device, node.wire
    if device.kind is DeviceKind.SOCKET and device.numa_node is not None:
        return [*_lines([f"{node.name} · NUMA {device.numa_node}"]), *marks(node)]
    words = [node.name]
    if wire is not None and device.kind is DeviceKind.PCIE_SWITCH:
        words += [class_of(wire), rate(wire)]
    return [*_lines(words), *marks(node)]


def gpu_words(gpu: Node, host: HostScene) -> list[str]:
    """A GPU: its name, its model where the host has several, its link upwards, what is wrong."""
    words = [gpu.name]
    if len(host.hardware) > 1:
        words.append(gpu.device.hardware or "model not stated")
    if gpu.wire is not None:
        words += [class_of(gpu.wire) or str(gpu.wire.kind), rate(gpu.wire)]
    return [*_lines(words), *marks(gpu)]


def gpu_width(gpu: Node, host: HostScene) -> float:
    """The width of a GPU's box."""
    return max(LEAST_GPU, box_width(gpu_words(gpu, host)))


def gpu_height(host: HostScene) -> float:
    """The height of the boxes of all GPUs of a host."""
    return max((box_height(gpu_words(gpu, host)) for gpu in host.gpus), default=0.0) + 2


def card_words(cards: Sequence[Node]) -> list[str]:
    """Network cards of one make in a row, or one of them: their names, what each carries, what is wrong."""
    first = cards[0].device
    speed = f"{count(first.rate / 1e9)} GB/s" if first.rate is not None else ""
    if len(cards) > 1:
        return _lines([ranges([card.name for card in cards]), f"{speed} each" if speed else ""])
    labels = [first.label] if first.label and first.label != cards[0].name else []
    return [*_lines([" ".join([cards[0].name, shorten(labels, 1)]).strip(), speed]), *marks(cards[0])]


def marks(node: Node) -> list[str]:
    """What is wrong with a device, a line each."""
    return _lines([f"! {problem}" for problem in dict.fromkeys(node.problems)])


def _lines(words: Sequence[str]) -> list[str]:
    return [printable(line).replace("\n", " ") for line in words if line]
