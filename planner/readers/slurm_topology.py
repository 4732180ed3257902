"""Slurm's ``topology.conf`` and ``topology.yaml`` → the tree of switches.

    SwitchName=s1 Nodes=node[01-04,7]  LinkSpeed=100
    SwitchName=root Switches=s[1-2]

Keys are case-insensitive, ``#`` starts a comment, a backslash at the end of a line continues it (topology.conf(5)).
``LinkSpeed`` has no unit and is not used, by Slurm neither. Blocks (``BlockName=``) are nodes that are near each other:
they are read as leaf switches under one spine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from planner.documents.slurm import SlurmSwitch, parse_slurm_topology
from planner.errors import BadInput
from planner.graph.network import Switch

MAX_NAMES = 65_536
"""Slurm's own bound on a hostlist."""
MAX_DIGITS = 9
BLOCK_SPINE = "blocks"
"""What the switch above a file's blocks is called."""

_PAIR = re.compile(r"(?P<key>[A-Za-z_]+)\s*=\s*(?P<value>\"[^\"]*\"|\S*)")
_PART = re.compile(r"(?P<literal>[^\[\],\s]+)|\[(?P<ranges>[^\[\]]*)\]")
_RANGE = re.compile(r"(?P<low>[0-9]+)(?:-(?P<high>[0-9]+))?")


def read_slurm_topology(text: str, source: str) -> tuple[Switch, ...]:
    r"""The switches of a file, in its order. Raises ``BadInput`` with the line or the place.

    >>> read_slurm_topology("SwitchName=s1 Nodes=n[1-2]\n", "topology.conf")
    (Switch(name='s1', nodes=('n1', 'n2'), switches=()),)
    """
    if _is_yaml(text):
        found, blocks = parse_slurm_topology(text, source)
        places = [source] * len(found)
    else:
        lines = list(_lines(text, source))
        found, places = [switch for switch, _, _ in lines], [place for _, place, _ in lines]
        blocks = any(block for _, _, block in lines)
    if not found:
        raise BadInput("names no switch", path=source, hint="lines of topology.conf start with SwitchName=")
    switches = tuple(
        Switch(one.name, expand_hostlist(one.nodes, place), expand_hostlist(one.children, place))
        for one, place in zip(found, places, strict=True)
    )
    if blocks:
        switches = (*switches, Switch(BLOCK_SPINE, (), tuple(switch.name for switch in switches)))
    _check(switches, source)
    return switches


def _is_yaml(text: str) -> bool:
    """Whether the first thing that is no comment starts a list or a YAML document."""
    first = next((line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")), "")
    return first.startswith(("-", "%")) or re.match(r"\w+\s*:", first) is not None


def _lines(text: str, source: str) -> Iterator[tuple[SlurmSwitch, str, bool]]:
    """What each line says, its place, and whether it is a block."""
    waiting, started = "", 0
    for number, raw in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        line = raw.split("#")[0].rstrip()
        started = started or number
        if line.endswith("\\"):
            waiting += line[:-1] + " "
            continue
        line, place = waiting + line, f"{source}, line {started}"
        waiting, started = "", 0
        if not line.strip():
            continue
        found = {match["key"].lower(): match["value"].strip('"') for match in _PAIR.finditer(line)}
        if _PAIR.sub("", line).strip():
            raise BadInput(f"{_PAIR.sub('', line).strip()[:40]!r} is not KEY=VALUE", path=place)
        if set(found) <= {"blocksizes"}:
            continue
        name = found.get("switchname") or found.get("blockname")
        if not name:
            raise BadInput("names no switch", path=place, hint="expected SwitchName=NAME Nodes=… or Switches=…")
        unknown = set(found) - {"switchname", "blockname", "nodes", "switches", "linkspeed", "blocksizes"}
        if unknown:
            raise BadInput(
                f"the key {min(unknown)!r} is not known", path=place, hint="known: SwitchName, Nodes, Switches, LinkSpeed"
            )
        yield SlurmSwitch(name, found.get("nodes", ""), found.get("switches", "")), place, "blockname" in found
    if waiting:
        raise BadInput("the last line goes on, but nothing follows", path=f"{source}, line {started}")


def expand_hostlist(text: str, source: str) -> tuple[str, ...]:
    """The names of a Slurm hostlist. Raises ``BadInput`` where it is none, or holds more than ``MAX_NAMES``.

    >>> expand_hostlist("node[01-03,7],login", "topology.conf")
    ('node01', 'node02', 'node03', 'node7', 'login')
    """
    names: list[str] = []
    for word in re.split(r",(?![^\[]*\])", text.strip()):
        if not word.strip():
            continue
        found = [""]
        rest = word.strip()
        while rest:
            part = _PART.match(rest)
            if part is None:
                raise BadInput(f"{word!r} is not a hostlist", path=source, hint="write node[01-04,7]")
            literal: str | None = part["literal"]
            ends = [literal] if literal else list(_ranges(part["ranges"] or "", word, source))
            if len(found) * len(ends) + len(names) > MAX_NAMES:
                raise BadInput(f"{word!r} is more than {MAX_NAMES} names", path=source)
            found = [start + end for start in found for end in ends]
            rest = rest[part.end() :]
        names += found
    return tuple(dict.fromkeys(names))


def _ranges(text: str, word: str, source: str) -> Iterator[str]:
    for one in text.split(","):
        match = _RANGE.fullmatch(one.strip())
        if match is None or len(match["low"]) > MAX_DIGITS or len(match["high"] or "") > MAX_DIGITS:
            raise BadInput(f"{one!r} in {word!r} is not a range", path=source, hint="write node[01-04,7]")
        low, high = int(match["low"]), int(match["high"] or match["low"])
        if high < low or high - low >= MAX_NAMES:
            raise BadInput(f"the range {one!r} in {word!r} runs backwards, or is more than {MAX_NAMES} names", path=source)
        yield from (f"{number:0{len(match['low'])}d}" for number in range(low, high + 1))


def _check(switches: Sequence[Switch], source: str) -> None:
    """Names once, children that are there, no switch above itself."""
    by_name: dict[str, Switch] = {}
    for switch in switches:
        if switch.name in by_name:
            raise BadInput(f"switch {switch.name!r} is there twice", path=source)
        by_name[switch.name] = switch
    for switch in switches:
        for child in switch.switches:
            if child not in by_name:
                raise BadInput(f"switch {switch.name!r} has a child {child!r} that is not there", path=source)
    done: set[str] = set()
    for switch in switches:
        ways = [(switch.name, iter(switch.switches))]
        above = {switch.name}
        while ways:
            name, children = ways[-1]
            below = next((one for one in children if one not in done), None)
            if below is None:
                done.add(name)
                above.discard(name)
                ways.pop()
            elif below in above:
                raise BadInput(f"switch {below!r} is above itself", path=source)
            else:
                above.add(below)
                ways.append((below, iter(by_name[below].switches)))
