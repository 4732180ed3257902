"""The wires between the GPUs of a host in its picture: arcs below them, and bars for switches and meshes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from planner.render.scene import LEAST_MESH, HostScene, Joined, Wire, ranges
from planner.render.svg_layout import STEP, Box, Drawing, Label, Stroke
from planner.render.svg_words import BIG_LETTER, BOX, LINE, rate, width_of

LANE = 27.0
"""Between two arcs, one below the other, each with its words beneath it."""
FIRST_LANE = 14.0
LABEL_GAP = 4.0


@dataclass(frozen=True, slots=True)
class _Arc:
    """A wire from ``left`` to ``right``; ``low`` to ``high`` is the room that it and its words take."""

    wire: Wire
    words: str
    left: tuple[float, float]
    right: tuple[float, float]

    @property
    def span(self) -> float:
        return self.right[0] - self.left[0]

    @property
    def room(self) -> tuple[float, float]:
        middle, half = (self.left[0] + self.right[0]) / 2, max(self.span / 2, width_of(self.words) / 2 + LABEL_GAP)
        return middle - half, middle + half


def add_wires(host: HostScene, drawing: Drawing) -> None:
    """Put the wires between GPUs, and between GPUs and NVSwitches, into the drawing of a host."""
    small = [mesh for mesh in host.meshes if len(mesh[0]) <= LEAST_MESH]
    pairs = [Joined(a, b, wire) for gpus, wire in small for place, a in enumerate(gpus) for b in gpus[place + 1 :]]
    _add_arcs([one for one in (*host.direct, *pairs) if {one.a, one.b} <= set(drawing.gpus)], drawing)
    for switch, ports in host.ports.items():
        _add_bar(switch, [(one.a, one.wire) for one in ports], "nvswitch", drawing)
    for mesh in host.meshes:
        if mesh not in small:
            gpus, wire = mesh
            _add_bar(f"{ranges(gpus)} each with each", [(gpu, wire) for gpu in gpus], "mesh", drawing)


def _add_arcs(wires: Sequence[Joined], drawing: Drawing) -> None:
    """Short arcs above long ones, each in the highest lane where it meets no other."""
    lanes: list[list[tuple[float, float]]] = []
    placed: list[tuple[int, _Arc]] = []
    for arc in sorted(_arcs(wires, drawing), key=lambda arc: (arc.span, arc.left)):
        low, high = arc.room
        free = (k for k, taken in enumerate(lanes) if all(high < left or right < low for left, right in taken))
        lane = next(free, len(lanes))
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((low, high))
        placed.append((lane, arc))
    floor = drawing.height + FIRST_LANE
    for lane, arc in placed:
        y = floor + LANE * lane
        (a, _), (b, _) = arc.left, arc.right
        drawing.strokes.append(Stroke([arc.left, (a, y), (b, y), arc.right], arc.wire, rounded=True))
        crossing = (x for deeper, other in placed if deeper > lane for x in (other.left[0], other.right[0]) if a < x < b)
        place = _free_place([a, *sorted(crossing), b], width_of(arc.words))
        drawing.labels.append(Label(place, y + LANE / 2 - 2, arc.words, bool(arc.wire.problem)))
    if lanes:
        drawing.height = floor + LANE * len(lanes)


def _arcs(wires: Sequence[Joined], drawing: Drawing) -> list[_Arc]:
    """The wires with the places where they leave their GPUs: none on another, nested rather than crossed."""
    ports: dict[tuple[int, str], tuple[float, float]] = {}
    for name, box in drawing.gpus.items():
        mine = []
        for number, one in enumerate(wires):
            if name in (one.a, one.b):
                there = drawing.gpus[one.b if one.a == name else one.a].centre
                mine.append((there > box.centre, -there, number))
        for place, (_, _, number) in enumerate(sorted(mine)):
            ports[number, name] = (box.x + box.width * (place + 1) / (len(mine) + 1), box.bottom)
    arcs = []
    for number, one in enumerate(wires):
        left, right = sorted((ports[number, one.a], ports[number, one.b]))
        words = [one.wire.word, rate(one.wire), f"! {one.wire.problem}" if one.wire.problem else ""]
        arcs.append(_Arc(one.wire, " ".join(word for word in words if word), left, right))
    return arcs


def _free_place(places: Sequence[float], width: float) -> float:
    """The middle of the whole stretch where a label fits there, else of the widest gap between what crosses it."""
    middle = (places[0] + places[-1]) / 2
    if all(abs(x - middle) > width / 2 + 2 for x in places[1:-1]):
        return middle
    gaps = [(right - left, (left + right) / 2) for left, right in pairwise(places)]
    return max(gaps)[1]


def _add_bar(name: str, ports: Sequence[tuple[str, Wire]], kind: str, drawing: Drawing) -> None:
    """A switch, or a mesh of more GPUs than can be drawn wire by wire, under the GPUs it joins."""
    boxes = [drawing.gpus[gpu] for gpu, _ in ports if gpu in drawing.gpus]
    if not boxes:
        return
    usual = next((wire for _, wire in ports if not wire.problem), ports[0][1])
    what = " ".join(word for word in (usual.word, rate(usual)) if word)
    words = f"{name}: {what} {'a pair' if kind == 'mesh' else 'a GPU'}, one way" if what else name
    left = min(box.x for box in boxes)
    right = max(*(box.x + box.width for box in boxes), left + width_of(words, BIG_LETTER) + 20)
    y = drawing.height + STEP + LINE
    drawing.boxes.append(Box(left, y, right - left, BOX + 4, [words], kind, about=name))
    for gpu, wire in ports:
        if (box := drawing.gpus.get(gpu)) is None:
            continue
        drawing.strokes.append(Stroke([(box.centre, box.bottom), (box.centre, y)], wire))
        said = f"! {wire.problem}" if wire.problem else "" if kind == "mesh" else wire.word
        if said:
            drawing.labels.append(Label(box.centre, y - STEP / 2 - 4, said, bool(wire.problem)))
    drawing.height = y + BOX + 4
    drawing.width = max(drawing.width, right)
