"""A topology drawn with characters: a box a socket, the tree in it, the wires between GPUs below."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from planner.core.topology import DeviceKind, LinkKind
from planner.render.scene import HostScene, Joined, Node, Scene, Wire, gathered, ranges
from planner.render.text import count as digits
from planner.render.text import printable, shorten

LEAST_WIDTH = 24
GAP = 1
FRAME = 4
"""Columns of a box beside what stands in it: an edge and a blank on either side."""
UNBOUNDED = 10_000
SHOWN_NAMES = 4
SHOWN_PAIRS = 4
"""Wires between two GPUs up to which each has its own words; more are said together, make by make."""
_TIE = "\u00a0"
"""Between a number and its unit, where a line must not break; written as a blank."""

_ASCII = str.maketrans(
    {
        "─": "-", "│": "|", "┌": "+", "┐": "+", "└": "+", "┘": "+", "├": "+", "┬": "+", "×": "x", "·": ",", "–": "-",
        "…": "...", "µ": "u", "≈": "~", "→": "->",
    }
)  # fmt: skip


def lines(scene: Scene, width: int = 80, *, ascii_only: bool = False) -> list[str]:
    """The picture, no line wider than ``width`` (24 at least); in ASCII alone where that is asked for."""
    width = max(LEAST_WIDTH, width)
    drawn: list[str] = []
    for number, host in enumerate(scene.hosts):
        drawn += [""] if number else []
        drawn += _host(host, scene, width)
    for one in scene.trunks:
        drawn += _wrapped(f"{one.a} to {one.b}: {_rate(one.wire)}{scene.each(one.a)}", width)
    return [plain(line) for line in drawn] if ascii_only else drawn


def plain(line: str) -> str:
    r"""A line in ASCII: frames and signs by their nearest, letters that have none escaped.

    >>> plain("├─ gpu0 × 2 ö")
    '+- gpu0 x 2 \\xf6'
    """
    return line.translate(_ASCII).encode("ascii", "backslashreplace").decode()


def _host(host: HostScene, scene: Scene, width: int) -> list[str]:
    drawn = _wrapped(_headline(host, scene), width)
    contents = [(_title(socket), lambda room, socket=socket: _below(socket.below, host, room)) for socket in host.sockets]
    drawn += _boxes(contents, width)
    for line in _wires(host):
        drawn += _wrapped(line, width)
    return drawn


def _headline(host: HostScene, scene: Scene) -> str:
    count = len(host.names)
    name = host.names[0] if count == 1 else f"{host.names[0]} and {count - 1} more like it ({_others(host.names[1:])})"
    gpus = f"{len(host.gpus)} GPUs each" if count > 1 else ""
    mixed = len(scene.hosts) > 1 or count > 1
    models = ", ".join(host.hardware) if mixed else ""
    cpu = host.host.facts.cpu_name
    barred = "no peer-to-peer over PCIe" if host.host.peer_to_peer == "disabled" else ""
    marks = [f"! {code}" for code in host.problems]
    parts = [part for part in (gpus, models, cpu if isinstance(cpu, str) else "", barred, *marks) if part]
    return f"{name}" + (f": {', '.join(parts)}" if parts else "")


def _others(names: Sequence[str]) -> str:
    together = ranges(names)
    return together if together.count(",") < SHOWN_NAMES else shorten(names, SHOWN_NAMES)


def _title(socket: Node) -> str:
    node = socket.device.numa_node
    return f"{socket.name} · NUMA {node}" if node is not None else socket.name


def _boxes(contents: Sequence[tuple[str, Callable[[int], list[str]]]], width: int) -> list[str]:
    """Boxes side by side where they fit at their natural width, otherwise fewer in a row."""
    natural = [max([_cells(title) + 6, *(_cells(line) + FRAME for line in body(UNBOUNDED))]) for title, body in contents]
    fitting = (count for count in range(len(contents), 1, -1) if _row_width(natural, count) <= width)
    rows = -(-len(contents) // next(fitting, 1))
    per_row = -(-len(contents) // rows) if rows else 1  # four boxes of which three fit stand two by two
    drawn: list[str] = []
    for start in range(0, len(contents), per_row):
        row = contents[start : start + per_row]
        outer = [min(width, max(natural[column::per_row])) for column in range(len(row))]
        bodies = [body(room - FRAME) for (_, body), room in zip(row, outer, strict=True)]
        height = max(len(body) for body in bodies)
        framed = [
            _framed(title, [*body, *[""] * (height - len(body))], room)
            for (title, _), body, room in zip(row, bodies, outer, strict=True)
        ]
        drawn += [(" " * GAP).join(parts).rstrip() for parts in zip(*framed, strict=True)]
    return drawn


def _row_width(natural: Sequence[int], count: int) -> int:
    """How wide a row of so many boxes is, columns as wide as their widest."""
    return sum(max(natural[column::count]) for column in range(count)) + (count - 1) * GAP


def _framed(title: str, body: Sequence[str], outer: int) -> list[str]:
    inner = outer - FRAME
    title = title if _cells(title) <= inner - 2 else ""
    top = f"┌─ {title} " if title else "┌─"
    return [
        top + "─" * (outer - 1 - _cells(top)) + "┐",
        *(f"│ {line}{' ' * (inner - _cells(line))} │" for line in body),
        "└" + "─" * (outer - 2) + "┘",
    ]


def _below(nodes: Sequence[Node], host: HostScene, room: int, prefix: str = "", *, top: bool = True) -> list[str]:
    """The lines of what hangs from one device; a chain of single children stands on one line."""
    drawn: list[str] = []
    items = gathered(nodes)
    for place, item in enumerate(items):
        last = place == len(items) - 1
        stem, under = ("", "") if top else ("└ ", "  ") if last else ("├ ", "│ ")
        chain = [item[0]]
        while len(item) == 1 and len(chain[-1].below) == 1 and not chain[-1].problems:
            chain.append(chain[-1].below[0])
        label = _cards(item) if len(item) > 1 else " ─ ".join(_label(node, host) for node in chain)
        drawn += _wrapped(label, room, prefix + stem, prefix + under + "  ")
        if len(item) == 1:
            drawn += _below(chain[-1].below, host, room, prefix + under, top=False)
    return drawn


def _label(node: Node, host: HostScene) -> str:
    device = node.device
    parts = [node.name]
    if device.kind is DeviceKind.GPU and len(host.hardware) > 1:
        parts.append(device.hardware or "model not stated")
    if device.label and device.label != node.name:
        parts.append(device.label)
    if device.rate is not None:
        parts.append(f"{_number(device.rate)} GB/s")
    told = device.kind is not DeviceKind.HOST_BRIDGE  # its link is inside the CPU
    if node.wire is not None and not node.wire.assumed and not node.wire.problem and told:
        parts.append(node.wire.word)
        if node.wire.kind is LinkKind.C2C and node.wire.bandwidth:
            parts.append(f"{_number(node.wire.bandwidth)} GB/s")
    parts += [f"! {problem}" for problem in dict.fromkeys(node.problems)]
    return printable(" ".join(part for part in parts if part)).replace("\n", " ")


def _cards(nodes: Sequence[Node]) -> str:
    rate = nodes[0].device.rate
    each = f" {_number(rate)} GB/s each" if rate is not None else ""
    labels = [node.device.label for node in nodes if node.device.label]
    names = f" ({shorten(labels, 2)})" if labels else ""
    return printable(f"{ranges([node.name for node in nodes])}{each}{names}").replace("\n", " ")


def _wires(host: HostScene) -> list[str]:
    """What no tree shows: NVLinks, Infinity Fabric, the links between sockets, networks."""
    drawn = [f"{switch}: {_ports(ports)}" for switch, ports in host.ports.items()]
    drawn += [f"{ranges(gpus)} each with each: {_named(wire)}, {_rate(wire)}" for gpus, wire in host.meshes]
    drawn += _direct(host.direct)
    if host.between_sockets:
        drawn.append(f"between sockets: {_sockets(host.between_sockets)}")
    for network, uplinks in host.uplinks.items():
        rates = {one.wire.bandwidth for one in uplinks}
        rate = f", {_rate(uplinks[0].wire)} each" if len(rates) == 1 and None not in rates else ""
        drawn.append(f"{ranges([one.a for one in uplinks])} to {network}{rate}")
    return [*drawn, *_assumed(host)]


def _assumed(host: HostScene) -> list[str]:
    """The PCIe slots whose generation and width nobody stated, and those that were measured."""
    slots: dict[Wire, list[str]] = {}
    for gpu in host.gpus:
        if gpu.wire is not None and (gpu.wire.assumed or gpu.wire.measured) and gpu.wire.word:
            slots.setdefault(gpu.wire, []).append(gpu.name)
    return [f"{ranges(names)}: PCIe {wire.word}{' assumed' * wire.assumed}, {_rate(wire)}" for wire, names in slots.items()]


def _direct(joined: Sequence[Joined]) -> list[str]:
    names = {LinkKind.NVLINK: "NVLinks", LinkKind.XGMI: "xGMI"}
    if len(joined) <= SHOWN_PAIRS:
        kinds = dict.fromkeys(one.wire.kind for one in joined)
        return [
            f"{names[kind]}: {', '.join(f'{one.a}–{one.b}{_make(one.wire)}' for one in joined if one.wire.kind is kind)}"
            for kind in kinds
        ]
    makes: dict[Wire, list[str]] = {}
    for one in joined:
        makes.setdefault(one.wire, []).append(f"{one.a}–{one.b}")
    order = sorted(makes.items(), key=lambda make: (bool(make[0].problem), -(make[0].count or 0)))
    return [f"{names[wire.kind]}{_make(wire)}: {', '.join(pairs)}" for wire, pairs in order]


def _make(wire: Wire) -> str:
    """How many and how fast transfers over them are, in brackets; and what is wrong."""
    parts = [f"×{wire.count}" if wire.count else "", f"{_number(wire.achieved)}{_TIE}GB/s" if wire.achieved else ""]
    parts[1] += f"{_TIE}measured" * wire.measured
    inside = f",{_TIE}".join(part for part in parts if part)
    return (f"{_TIE}({inside})" if inside else "") + (f"{_TIE}!{_TIE}{wire.problem}" if wire.problem else "")


def _ports(ports: Sequence[Joined]) -> str:
    """Ports of one switch, those of one make together, those with a problem last."""
    makes: dict[Wire, list[str]] = {}
    for one in ports:
        makes.setdefault(one.wire, []).append(one.a)
    parts = []
    for wire, gpus in sorted(makes.items(), key=lambda make: bool(make[0].problem)):
        problem = f" ! {wire.problem}" if wire.problem else ""
        parts.append(f"{ranges(gpus)}, {_named(wire)}{' each' * (len(gpus) > 1)}, {_rate(wire)}{problem}")
    return "; ".join(parts)


def _named(wire: Wire) -> str:
    return wire.word or str(wire.kind)


def _sockets(joined: Sequence[Joined]) -> str:
    rates = {one.wire.bandwidth for one in joined}
    if len(rates) == 1:
        return _rate(joined[0].wire)
    return ", ".join(f"{one.a}–{one.b} {_rate(one.wire)}" for one in joined)


def _rate(wire: Wire) -> str:
    """The line rate one way, and what transfers reach where that is another number."""
    if wire.bandwidth is None:
        return "bandwidth not known"
    peak = f"{_number(wire.bandwidth)} GB/s one way"
    if wire.achieved is None:
        return peak
    reached = wire.measured or abs(wire.achieved / wire.bandwidth - 1) > 0.005
    return f"{peak} ({_number(wire.achieved)} {'measured' if wire.measured else 'reached'})" if reached else peak


def _number(rate: float) -> str:
    return digits(rate / 1e9)


def _wrapped(words: str, width: int, first: str = "", then: str = "  ") -> list[str]:
    words = "".join(letter if letter == _TIE else printable(letter) for letter in words).replace("\n", " ")
    if _cells(first + words) <= width:
        return [(first + words).replace(_TIE, " ")]
    wrapped = textwrap.wrap(
        words,
        max(width, len(then) + 8),
        initial_indent=first,
        subsequent_indent=then,
        break_on_hyphens=False,
    )
    if any(_cells(line) > width for line in wrapped):
        wrapped = _by_cells(words, width, first, then)
    return [line.replace(_TIE, " ").rstrip() for line in wrapped]


def _by_cells(words: str, width: int, first: str, then: str) -> list[str]:
    """Wrapped by character, for letters that take two columns."""
    lines_ = [first]
    for letter in words:
        if _cells(lines_[-1] + letter) > width:
            lines_.append(then)
        lines_[-1] += letter
    return lines_


def _cells(words: str) -> int:
    """The columns a terminal gives to words."""
    if words.isascii():
        return len(words)
    from rich.cells import cell_len

    return cell_len(words)
