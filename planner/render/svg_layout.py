"""Where everything of one host stands in its picture: columns for what hangs together, all GPUs on one line.

Sockets stand side by side, bridges and switches above what hangs from them. Network cards are bars below their switch,
beside a trunk that goes on to the GPUs. Everything is sized by the words in it, so words never overlap. Lengths are
user units of SVG, y grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from planner.core.topology import DeviceKind
from planner.render.scene import HostScene, Node, Wire, gathered
from planner.render.svg_words import (
    BOX,
    box_height,
    box_width,
    card_words,
    gpu_height,
    gpu_width,
    gpu_words,
    inner_words,
    marks,
    rate,
    width_of,
)

GAP = 14.0
PAD = 12.0
TRUNK = 14.0
"""How far what hangs from a trunk is indented."""
STEP = 20.0
"""Between a device and what hangs from it."""
SHELF = 5.0
"""Between two cards, one below the other."""
ARC_ROOM = 22.0
"""More room between GPUs that arcs go from."""
_INNER = frozenset({DeviceKind.SOCKET, DeviceKind.HOST_BRIDGE, DeviceKind.PCIE_SWITCH})


@dataclass
class Box:
    """A rectangle with lines of words, the first one bold; ``about`` names it, ``problem`` marks it."""

    x: float
    y: float
    width: float
    height: float
    words: list[str]
    kind: str
    problem: bool = False
    about: str = ""

    @property
    def bottom(self) -> float:
        """Where it ends."""
        return self.y + self.height

    @property
    def centre(self) -> float:
        """The middle of its width."""
        return self.x + self.width / 2


@dataclass
class Stroke:
    """A line through points, of a kind of wire."""

    points: list[tuple[float, float]]
    wire: Wire
    rounded: bool = False


@dataclass
class Label:
    """Words at a wire, centred, on their own background."""

    x: float
    y: float
    words: str
    problem: bool = False


@dataclass
class Drawing:
    """All the shapes of a host, in its own coordinates, and how large they are together."""

    boxes: list[Box] = field(default_factory=list)
    strokes: list[Stroke] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    gpus: dict[str, Box] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0


@dataclass
class _Block:
    """A device and the columns below it: inner devices, then one column of cards and GPUs."""

    node: Node
    columns: list[_Block]
    gpus: list[Node]
    cards: list[tuple[Node, ...]]
    leaf_width: float = 0.0
    inner_width: float = 0.0
    width: float = 0.0


def layout(host: HostScene) -> Drawing:
    """The shapes of one host, but for the wires between its GPUs (:mod:`planner.render.svg_wires`)."""
    drawing = Drawing()
    top = BOX + STEP if host.between_sockets else 0.0
    blocks = [_measured(socket, host) for socket in host.sockets]
    gpu_line = max((_depth(block, top + PAD) for block in blocks), default=top)
    x = 0.0
    heads = []
    for block in blocks:
        width = block.width + 2 * PAD
        drawing.boxes.append(Box(x, top, width, gpu_line + gpu_height(host) + PAD - top, [], "frame"))
        heads.append(x + width / 2)
        _Placing(host, gpu_line, drawing).place(block, x + PAD, top + PAD)
        x += width + GAP
    drawing.width = max(0.0, x - GAP)
    drawing.height = max((box.bottom for box in drawing.boxes), default=0.0)
    if host.between_sockets:
        _socket_bar(host, heads, top, drawing)
    return drawing


def gap(host: HostScene) -> float:
    """Between two columns."""
    return GAP + (ARC_ROOM if host.direct else 0.0)


def _measured(node: Node, host: HostScene) -> _Block:
    columns = [_measured(child, host) for child in node.below if child.below or child.device.kind in _INNER]
    leaves = [child for child in node.below if not child.below and child.device.kind not in _INNER]
    gpus = [leaf for leaf in leaves if leaf.device.kind is DeviceKind.GPU]
    cards = gathered([leaf for leaf in leaves if leaf.device.kind is not DeviceKind.GPU])
    block = _Block(node, columns, gpus, cards)
    parts = [column.width for column in columns]
    if gpus or cards:
        side_by_side = sum(gpu_width(gpu, host) for gpu in gpus) + gap(host) * max(0, len(gpus) - 1)
        stacked = max((box_width(card_words(card)) for card in cards), default=0.0)
        indent = TRUNK if cards else 0.0
        block.leaf_width = max(side_by_side + (indent if len(gpus) == 1 else 0.0), stacked + indent)
        parts.append(block.leaf_width)
    block.inner_width = sum(parts) + gap(host) * max(0, len(parts) - 1)
    block.width = max(box_width(inner_words(node)), block.inner_width)
    return block


def _depth(block: _Block, y: float) -> float:
    """Where the line of GPUs may begin at the highest."""
    below = y + box_height(inner_words(block.node)) + STEP
    deepest = [_depth(column, below) for column in block.columns]
    shelves = sum(box_height(card_words(card)) + SHELF for card in block.cards)
    if block.gpus:
        deepest.append(below + shelves + (GAP if block.cards else 0.0))
    return max(deepest, default=below + shelves)


def _socket_bar(host: HostScene, heads: Sequence[float], top: float, drawing: Drawing) -> None:
    """One bar above all sockets: what joins them, said once where it is the same."""
    wires = {one.wire for one in host.between_sockets}
    one = host.between_sockets[0].wire
    if len(wires) == 1:
        words = f"between sockets: {rate(one) or 'bandwidth not known'}"
    else:
        words = ", ".join(f"{joined.a}–{joined.b} {rate(joined.wire)}" for joined in host.between_sockets)
    drawing.width = max(drawing.width, width_of(words) + 16)
    drawing.boxes.append(Box(0, 0, drawing.width, BOX, [words], "socket-bar"))
    drawing.strokes += [Stroke([(x, BOX), (x, top)], one) for x in heads]


class _Placing:
    """Puts the blocks of one host where they belong."""

    def __init__(self, host: HostScene, gpu_line: float, drawing: Drawing) -> None:
        self._host = host
        self._gpu_line = gpu_line
        self._drawing = drawing

    def place(self, block: _Block, x: float, y: float) -> Box:
        """Put a device at the top of its column, and what hangs from it below."""
        words = inner_words(block.node)
        own = box_width(words)
        left = x + (block.width - block.inner_width) / 2
        trunked = not block.columns and bool(block.cards)
        at = x + (block.width - max(own, block.inner_width)) / 2 if trunked else x + (block.width - own) / 2
        left = at if trunked else left
        box = Box(
            at, y, own, box_height(words), words, str(block.node.device.kind), bool(block.node.problems), block.node.device.id
        )
        self._drawing.boxes.append(box)
        for column in block.columns:
            child = self.place(column, left, box.bottom + STEP)
            self._elbow(box, child, column.node)
            left += column.width + gap(self._host)
        if block.gpus or block.cards:
            self._leaves(block, box, left)
        return box

    def _elbow(self, above: Box, below: Box, node: Node) -> None:
        start, end = above.centre, below.centre
        if below.x + 6 < start < below.x + below.width - 6:
            end = start
        middle = above.bottom + STEP / 2
        if node.wire is not None:
            points = [(start, above.bottom), (start, middle), (end, middle), (end, below.y)]
            self._drawing.strokes.append(Stroke(points, node.wire))

    def _leaves(self, block: _Block, above: Box, left: float) -> None:
        """Cards beside a trunk, one below the other; GPUs in a row at its end."""
        start = above.x + TRUNK / 2 if block.cards and not block.columns else above.centre
        trunk = left + TRUNK / 2 if block.cards else left + block.leaf_width / 2
        if not block.columns and not block.cards:
            trunk = start
        turn = above.bottom + STEP * (0.25 if block.columns else 0.5)  # beside the elbows of the other columns
        down = [(start, above.bottom), (start, turn), (trunk, turn)]
        y = above.bottom + STEP
        for card in block.cards:
            words = card_words(card)
            box = Box(left + TRUNK, y, box_width(words), box_height(words), words, "nic", bool(marks(card[0])), card[0].device.id)
            self._drawing.boxes.append(box)
            middle = y + box.height / 2
            if card[0].wire is not None:
                self._drawing.strokes.append(Stroke([*down, (trunk, middle), (box.x, middle)], card[0].wire))
            y += box.height + SHELF
        x = left + (TRUNK if block.cards and len(block.gpus) == 1 else 0.0)
        bus = self._gpu_line - 8
        for gpu in block.gpus:
            words = gpu_words(gpu, self._host)
            width = gpu_width(gpu, self._host)
            box = Box(x, self._gpu_line, width, gpu_height(self._host), words, "gpu", bool(gpu.problems), gpu.device.id)
            self._drawing.boxes.append(box)
            self._drawing.gpus[gpu.name] = box
            if gpu.wire is not None:
                self._drawing.strokes.append(Stroke([*down, (trunk, bus), (box.centre, bus), (box.centre, box.y)], gpu.wire))
            x += width + gap(self._host)
