"""A topology as SVG: one file without scripts, links or fonts of its own, on its own background."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from html import escape

from planner.core.topology import LinkKind
from planner.render.scene import HostScene, Joined, Scene, counted_names, ranges, walk
from planner.render.svg_layout import Box, Drawing, Label, Stroke, layout
from planner.render.svg_wires import add_wires
from planner.render.svg_words import LETTER, LINE, rate, width_of
from planner.render.text import printable

MARGIN = 20.0
RAIL = 26.0
"""Left of the hosts, for what goes from them to what they share."""
TEXT_COLUMNS = 80
LEAST_WIDTH = 560.0

INK, SOFT, PAPER, ALARM = "#1f2328", "#57606a", "#ffffff", "#c11f2b"
COLOURS = {
    LinkKind.NVLINK: "#3f8600",
    LinkKind.XGMI: "#b35900",
    LinkKind.PCIE: "#2f6fb3",
    LinkKind.C2C: "#0a7d73",
    LinkKind.SOCKET: "#7a6a55",
    LinkKind.NETWORK: "#7b3fa0",
}
WORDS = {
    LinkKind.NVLINK: "NVLink",
    LinkKind.XGMI: "Infinity Fabric (xGMI)",
    LinkKind.PCIE: "PCIe",
    LinkKind.C2C: "NVLink-C2C",
    LinkKind.SOCKET: "between sockets",
    LinkKind.NETWORK: "network",
}
FILLS = {
    "gpu": ("#e3f1d6", COLOURS[LinkKind.NVLINK]),
    "nic": ("#f1e6f7", COLOURS[LinkKind.NETWORK]),
    "pcie-switch": ("#e1ecf8", COLOURS[LinkKind.PCIE]),
    "host-bridge": ("#eef2f6", "#8795a5"),
    "socket": ("#efe9e0", COLOURS[LinkKind.SOCKET]),
    "socket-bar": ("#efe9e0", COLOURS[LinkKind.SOCKET]),
    "nvswitch": ("#d3eabd", COLOURS[LinkKind.NVLINK]),
    "mesh": ("#f7e8d6", COLOURS[LinkKind.XGMI]),
    "network": ("#f1e6f7", COLOURS[LinkKind.NETWORK]),
    "frame": ("#fafafa", "#c3cad2"),
    "host": (PAPER, "#8795a5"),
}
FAST, MIDDLING = 200e9, 40e9


def svg(scene: Scene) -> str:
    """The picture of a scene, as the text of an SVG file."""
    parts: list[str] = []
    y = MARGIN + 18
    parts.append(_words(MARGIN, y, scene.title, size=17, bold=True))
    y += 22
    rails: dict[str, list[float]] = {}
    drawn = []
    for host in scene.hosts:
        drawing = layout(host)
        add_wires(host, drawing)
        drawn.append((host, drawing))
    shared = [one.name for one in scene.shared]
    left = MARGIN + (RAIL if shared else 0.0)
    width = max(LEAST_WIDTH, width_of(scene.title, 10.0), *(drawing.width + 2 * MARGIN for _, drawing in drawn))
    for host, drawing in drawn:
        y = _host(host, drawing, left, y, width, shared, rails, parts) + 16
    for name in shared:
        parts += _shared(name, scene, left, y, width, rails)
        y += 44
    right = left + width + MARGIN
    for line in _notes(scene, y, right):
        parts.append(line)
    y += _notes_height(scene, right)
    whole = f"{right:.0f} {y + MARGIN:.0f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole}" width="{right:.0f}" height="{y + MARGIN:.0f}" '
        f'role="img" font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" font-size="11" fill="{INK}">\n'
        f"<title>{_safe(scene.title)}</title>\n"
        f'<rect width="100%" height="100%" fill="{PAPER}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _host(
    host: HostScene,
    drawing: Drawing,
    left: float,
    y: float,
    width: float,
    shared: Sequence[str],
    rails: dict[str, list[float]],
    parts: list[str],
) -> float:
    """A host in its frame; gives where it ends."""
    uplinks = [(name, _uplink(name, joined)) for name, joined in host.uplinks.items()]
    height = 30 + drawing.height + MARGIN + 30 * len(uplinks)
    parts.append(_rectangle(left, y, width, height, "host", radius=8))
    parts.append(_words(left + 12, y + 20, _headline(host), size=13, bold=True))
    inside = left + (width - drawing.width) / 2
    parts += [f'<g transform="translate({inside:.1f} {y + 32:.1f})">', *_shapes(drawing), "</g>"]
    at = y + 32 + drawing.height + 12
    for name in shared:
        if name in host.ports:
            box = next(box for box in drawing.boxes if box.about == name)
            middle = y + 32 + box.y + box.height / 2
            parts.append(_line([(left - RAIL / 2, middle), (inside + box.x, middle)], LinkKind.NVLINK, 900e9, problem=False))
            rails.setdefault(name, []).append(middle)
    for name, words in uplinks:
        parts.append(_rectangle(left + 12, at, width_of(words) + 20, 22, "network"))
        parts.append(_words(left + 22, at + 15, words))
        if name in shared:
            parts.append(_line([(left - RAIL / 2, at + 11), (left + 12, at + 11)], LinkKind.NETWORK, 50e9, problem=False))
            rails.setdefault(name, []).append(at + 11)
        at += 30
    return y + height


def _headline(host: HostScene) -> str:
    more = f" ×{len(host.names)} ({ranges(host.names)})" if len(host.names) > 1 else ""
    cpu = host.host.facts.cpu_name
    barred = "no peer-to-peer over PCIe" if host.host.peer_to_peer == "disabled" else ""
    marks = [f"! {code}" for code in host.problems]
    models = counted_names([gpu.device.hardware for gpu in host.gpus])
    parts = [models, cpu if isinstance(cpu, str) else "", barred, *marks]
    return f"{host.names[0]}{more}: {', '.join(part for part in parts if part)}"


def _uplink(name: str, joined: Sequence[Joined]) -> str:
    rates = {rate(one.wire) for one in joined}
    each = f", {rates.pop()} each" if len(rates) == 1 and "" not in rates else ""
    return f"{ranges([one.a for one in joined])} to {name}{each}"


def _shared(name: str, scene: Scene, left: float, y: float, width: float, rails: dict[str, list[float]]) -> Iterator[str]:
    """A switch or network that hosts share, and the rail to it."""
    kind = LinkKind.NVLINK if any(name in host.ports for host in scene.hosts) else LinkKind.NETWORK
    hosts = sum(len(host.names) for host in scene.hosts if name in host.ports or name in host.uplinks)
    trunks = [f"{rate(one.wire)} to {one.b}{scene.each(one.a)}" for one in scene.trunks if name == one.a]
    said = [f"{hosts} host{'s' * (hosts > 1)}" if hosts else "", *trunks]
    words = f"{name}: {'; '.join(part for part in said if part)}" if any(said) else name
    place = list(rails).index(name) if name in rails else 0
    for top in rails.get(name, []):
        x = left - RAIL / 2 - 5 * place
        yield _line([(x, top), (x, y + 15), (left, y + 15)], kind, 50e9, problem=False)
    yield _rectangle(left, y, width, 30, "nvswitch" if kind is LinkKind.NVLINK else "network")
    yield _words(left + 12, y + 20, words, size=12, bold=True)


def _shapes(drawing: Drawing) -> Iterator[str]:
    frames = [box for box in drawing.boxes if box.kind == "frame"]
    for box in frames:
        yield _rectangle(box.x, box.y, box.width, box.height, "frame", radius=6)
    for stroke in drawing.strokes:
        yield _stroke(stroke)
    for box in drawing.boxes:
        if box.kind != "frame":
            yield from _box(box)
    for label in drawing.labels:
        yield from _label(label)


def _box(box: Box) -> Iterator[str]:
    yield _rectangle(box.x, box.y, box.width, box.height, box.kind, problem=box.problem, about=box.about)
    middle = box.x + box.width / 2
    wide = box.kind in {"nvswitch", "mesh", "socket-bar"}
    y = box.y + (box.height + 8) / 2 if len(box.words) == 1 else box.y + LINE + 2
    for place, words in enumerate(box.words):
        bold = place == 0 and box.kind != "nic"
        colour = ALARM if words.startswith("! ") else INK if place == 0 else SOFT
        yield _words(middle, y, words, size=12 if bold and not wide else 11, bold=bold, colour=colour, anchor="middle")
        y += LINE


def _label(label: Label) -> Iterator[str]:
    width = width_of(label.words) * 0.95 + 6
    yield f'<rect x="{label.x - width / 2:.1f}" y="{label.y - 8:.1f}" width="{width:.1f}" height="16" rx="3" fill="#fafafa"/>'
    colour = ALARM if label.problem else INK
    yield _words(label.x, label.y + 4, label.words, bold=label.problem, colour=colour, anchor="middle")


def _rectangle(
    x: float, y: float, width: float, height: float, kind: str, *, problem: bool = False, radius: float = 4, about: str = ""
) -> str:
    fill, edge = FILLS[kind]
    edge, weight = (ALARM, 2.2) if problem else (edge, 1.2)
    shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}"'
    style = f' fill="{fill}" stroke="{edge}" stroke-width="{weight:g}"'
    return f"{shape}{style}><title>{_safe(about)}</title></rect>" if about else f"{shape}{style}/>"


def _stroke(stroke: Stroke) -> str:
    wire = stroke.wire
    return _line(stroke.points, wire.kind, wire.bandwidth, problem=bool(wire.problem), rounded=stroke.rounded)


def _line(
    points: Sequence[tuple[float, float]], kind: LinkKind, bandwidth: float | None, *, problem: bool, rounded: bool = False
) -> str:
    speed = bandwidth or 0.0
    weight = 3.2 if speed >= FAST else 2.2 if speed >= MIDDLING else 1.5
    colour = ALARM if problem else COLOURS[kind]
    dashes = ' stroke-dasharray="5 3"' if problem else ""
    return (
        f'<path d="{_path(points, rounded=rounded)}" fill="none" stroke="{colour}" stroke-width="{weight:g}" '
        f'stroke-linejoin="round"{dashes}/>'
    )


def _path(points: Sequence[tuple[float, float]], *, rounded: bool) -> str:
    if not rounded:
        return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    (ax, ay), (_, low), (bx, _), (_, by) = points
    bend = max(2.0, min(14.0, (bx - ax) / 2, low - ay, low - by))
    return (
        f"M{ax:.1f} {ay:.1f} L{ax:.1f} {low - bend:.1f} Q{ax:.1f} {low:.1f} {ax + bend:.1f} {low:.1f} "
        f"L{bx - bend:.1f} {low:.1f} Q{bx:.1f} {low:.1f} {bx:.1f} {low - bend:.1f} L{bx:.1f} {by:.1f}"
    )


def _words(
    x: float, y: float, words: str, *, size: float = 11, bold: bool = False, colour: str = INK, anchor: str = "start"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}"{weight}{place}>{_safe(words)}</text>'


def _safe(words: str) -> str:
    return escape(printable(words).replace("\n", " "))


def _note_lines(scene: Scene, width: float) -> list[tuple[str, str]]:
    lines = []
    columns = max(TEXT_COLUMNS, int(width / LETTER))
    for finding in scene.problems:
        for place, line in enumerate(textwrap.wrap(f"! {finding.code}: {finding.message}", columns)):
            lines.append((ALARM, line if place == 0 else f"   {line}"))
    for assumption in scene.assumptions:
        for place, line in enumerate(textwrap.wrap(f"assumed: {assumption}", columns)):
            lines.append((SOFT, line if place == 0 else f"   {line}"))
    return lines


def _notes(scene: Scene, y: float, right: float) -> Iterator[str]:
    """The legend of colours, the problems in words, what was assumed."""
    x = MARGIN
    assumed = any(node.wire is not None and node.wire.assumed for host in scene.hosts for node in walk(host.sockets))
    star = "; * assumed" if assumed else ""
    for kind in scene.kinds:
        yield _line([(x, y + 10), (x + 26, y + 10)], kind, FAST, problem=False)
        yield _words(x + 32, y + 14, WORDS[kind])
        x += 32 + width_of(WORDS[kind]) + 22
    yield _words(x, y + 14, f"bandwidths are line rates, one way{star}", colour=SOFT)
    for number, (colour, line) in enumerate(_note_lines(scene, right)):
        yield _words(MARGIN, y + 38 + number * 15, line, colour=colour)


def _notes_height(scene: Scene, width: float) -> float:
    return 30 + 15 * len(_note_lines(scene, width))
