"""A topology as a Graphviz graph: a cluster a host and a socket, every wire an edge with its class and bandwidth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from planner.core.topology import DeviceKind
from planner.render.scene import HostScene, Joined, Node, Scene, Wire, ranges
from planner.render.svg_words import card_words, class_of, marks, rate
from planner.render.text import printable

ALARM = "#c11f2b"
COLOURS = {
    "nvlink": "#3f8600", "xgmi": "#b35900", "pcie": "#2f6fb3", "c2c": "#0a7d73", "socket-interconnect": "#7a6a55",
    "network": "#7b3fa0",
}  # fmt: skip
SHAPES = {
    DeviceKind.GPU: ("box", "#e3f1d6"),
    DeviceKind.NIC: ("box", "#f1e6f7"),
    DeviceKind.PCIE_SWITCH: ("box", "#e1ecf8"),
    DeviceKind.HOST_BRIDGE: ("box", "#eef2f6"),
    DeviceKind.SOCKET: ("box", "#efe9e0"),
    DeviceKind.NVSWITCH: ("hexagon", "#d3eabd"),
    DeviceKind.NETWORK: ("ellipse", "#f1e6f7"),
}


def dot(scene: Scene) -> str:
    """The graph in the DOT language. Every id and label is quoted; hosts that are alike are drawn once, with their number."""
    body = [
        f"label={quoted(scene.title)};",
        'labelloc="t"; fontname="Helvetica"; bgcolor="white"; newrank="true"; splines="polyline";',
        'node [fontname="Helvetica", fontsize="10", shape="box", style="filled,rounded"];',
        'edge [fontname="Helvetica", fontsize="9"];',
    ]
    for number, host in enumerate(scene.hosts):
        body += _host(host, number)
    body += [_node(f"/{one.name}", [one.name], one.kind) for one in scene.shared]
    body += [_edge(f"/{one.a}", f"/{one.b}", one.wire) for one in scene.trunks]
    body += [f"// ! {_comment(finding.code)}: {_comment(finding.message)}" for finding in scene.problems]
    return "graph topology {\n" + "".join(f"  {line}\n" for line in body) + "}\n"


def quoted(words: str) -> str:
    r"""A string of the DOT language, as data: no escapes, no markup, one line a line.

    >>> quoted('a "b" \\N')
    '"a \\"b\\" \\\\N"'
    """
    lines = (printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in words.split("\n"))
    return '"' + "\\n".join(lines) + '"'


def _comment(words: str) -> str:
    return printable(words).replace("\n", " ")


def _host(host: HostScene, number: int) -> Iterator[str]:
    prefix = f"{host.host.name}/"
    count = f" ×{len(host.names)} ({ranges(host.names)})" if len(host.names) > 1 else ""
    problems = "".join(f"\n! {code}" for code in host.problems)
    yield f"subgraph cluster_host{number} {{"
    yield f'  label={quoted(f"{host.host.name}{count}{problems}")}; style="rounded"; color="#8795a5";'
    for place, socket in enumerate(host.sockets):
        yield f"  subgraph cluster_host{number}_socket{place} {{"
        numa = socket.device.numa_node
        yield f'    label={quoted("" if numa is None else f"NUMA {numa}")}; color="#c3cad2";'
        yield from (f"    {line}" for line in _tree(socket, prefix, host))
        yield "  }"
    own = host.own_switches
    yield from (f"  {_node(prefix + name, [name], DeviceKind.NVSWITCH)}" for name in own)
    yield from (f"  {line}" for line in _wires(host, prefix, own))
    yield "}"


def _tree(node: Node, prefix: str, host: HostScene, above: str = "") -> Iterator[str]:
    identifier = prefix + node.name
    device = node.device
    words = card_words((node,)) if device.kind is DeviceKind.NIC else [node.name, *marks(node)]
    if device.kind is DeviceKind.GPU and device.hardware:
        words.insert(1, device.hardware)
    yield _node(identifier, words, device.kind, problem=bool(node.problems))
    if above and node.wire is not None:
        inside = device.kind is DeviceKind.HOST_BRIDGE  # of the CPU: no slot, no class
        yield _edge(above, identifier, replace(node.wire, word="") if inside else node.wire)
    for child in node.below:
        yield from _tree(child, prefix, host, identifier)


def _wires(host: HostScene, prefix: str, own: Sequence[str]) -> Iterator[str]:
    def end(name: str) -> str:
        return prefix + name if name in own else f"/{name}"

    yield from (_edge(prefix + one.a, prefix + one.b, one.wire, level=False) for one in host.between_sockets)
    pairs = [Joined(a, b, wire) for gpus, wire in host.meshes for place, a in enumerate(gpus) for b in gpus[place + 1 :]]
    yield from (_edge(prefix + one.a, prefix + one.b, one.wire, level=False) for one in (*host.direct, *pairs))
    for ports in (*host.ports.values(), *host.uplinks.values()):
        yield from (_edge(prefix + one.a, end(one.b), one.wire) for one in ports)


def _node(identifier: str, words: Sequence[str], kind: DeviceKind, *, problem: bool = False) -> str:
    shape, fill = SHAPES[kind]
    mark = f', color="{ALARM}", penwidth="2"' if problem else ""
    return f'{quoted(identifier)} [label={quoted(chr(10).join(words))}, shape="{shape}", fillcolor="{fill}"{mark}];'


def _edge(a: str, b: str, wire: Wire, *, level: bool = True) -> str:
    lines = [class_of(wire), rate(wire), f"! {wire.problem}" if wire.problem else ""]
    label = "\n".join(line for line in lines if line)
    colour = ALARM if wire.problem else COLOURS[str(wire.kind)]
    rank = "" if level else ', constraint="false"'
    return f'{quoted(a)} -- {quoted(b)} [label={quoted(label)}, color="{colour}"{rank}];'
