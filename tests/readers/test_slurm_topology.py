from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import BadInput
from planner.graph.network import Switch
from planner.readers.slurm_topology import MAX_NAMES, expand_hostlist, read_slurm_topology

CONF = """\
# two leaves under one switch
SwitchName=s1 Nodes=node[01-02] LinkSpeed=100   # of what, nobody says
switchname=s2 \\
    nodes=node03,node[04,06]

SwitchName=root Switches=s[1-2]
"""
YAML = """\
---
- topology: plain
  flat: true
- topology: racks
  block:
    block_sizes: [2, 4]
    blocks:
    - {block: b1, nodes: "node[01-02]"}
- topology: fabric
  cluster_default: true
  tree:
    switches:
    - switch: root   # the top
      children: s[1-2]
    - switch: s1
      nodes: node[01-02]
    - switch: s2
      nodes: node03,node[04,06]
"""
SWITCHES = {
    Switch("root", (), ("s1", "s2")),
    Switch("s1", ("node01", "node02")),
    Switch("s2", ("node03", "node04", "node06")),
}


@pytest.mark.parametrize("text", [CONF, CONF.replace("\n", "\r\n"), YAML], ids=["conf", "conf from Windows", "yaml"])
def test_both_formats_say_the_same(text: str) -> None:
    assert set(read_slurm_topology(text, "topology")) == SWITCHES


@pytest.mark.parametrize(
    "text",
    [
        "BlockName=b1 Nodes=n[1-2]\nBlockName=b2 Nodes=n[3-4]\nBlockSizes=2,4\n",
        "- topology: t\n  block: {block_sizes: [2], blocks: [{block: b1, nodes: 'n[1-2]'}, {block: b2, nodes: 'n[3-4]'}]}\n",
    ],
)
def test_blocks_are_leaves_under_one_switch(text: str) -> None:
    assert read_slurm_topology(text, "topology") == (
        Switch("b1", ("n1", "n2")),
        Switch("b2", ("n3", "n4")),
        Switch("blocks", (), ("b1", "b2")),
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ("a",)),
        ("a,b,a", ("a", "b")),
        ("n[1-3]", ("n1", "n2", "n3")),
        ("n[08-11]", ("n08", "n09", "n10", "n11")),
        ("n[1,3-4]", ("n1", "n3", "n4")),
        ("r[1-2]n[1-2]x", ("r1n1x", "r1n2x", "r2n1x", "r2n2x")),
        ("n[9-10].example.com , m", ("n9.example.com", "n10.example.com", "m")),
        ("", ()),
    ],
)
def test_hostlists(text: str, names: tuple[str, ...]) -> None:
    assert expand_hostlist(text, "x") == names


@pytest.mark.parametrize(
    "text",
    ["n[", "n]", "n[]", "n[1-]", "n[3-1]", "n[a-b]", "n[1-99999999]", "n[0-65535][0-65535]", "n[0-40000],m[0-40000]", "n[1-2", "a b",
     "n[0-9999999999]", "n[1[2]]"],
)  # fmt: skip
def test_what_is_no_hostlist_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        expand_hostlist(text, "x")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("SwitchName=a Nodes=n1\nNodes=n2\n", "line 2", "names no switch"),
        ("SwitchName=a Nodes=n1\nhello there\n", "line 2", "'hello there' is not KEY=VALUE"),
        ("SwitchName=a Nodes=n1 Colour=red\n", "line 1", "'colour' is not known"),
        ("SwitchName=a Nodes=n[2-1]\n", "line 1", "backwards"),
        ("\n\nSwitchName=a \\\n Nodes=n[2-1]\n", "line 3", "backwards"),
        ("SwitchName=a Nodes=n1\nSwitchName=a Nodes=n2\n", "", "there twice"),
        ("SwitchName=a Switches=b\n", "", "'b' that is not there"),
        ("SwitchName=a Switches=b\nSwitchName=b Switches=c\nSwitchName=c Switches=a\n", "", "above itself"),
        ("SwitchName=a Switches=a\n", "", "above itself"),
        ("SwitchName=a \\", "line 1", "nothing follows"),
        ("# nothing\n", "", "names no switch"),
        ("topology: x\n", "", "not a list"),
        ("- 1\n", "$[0]", ""),
        ("- topology: x\n  flat: true\n", "", "neither a tree"),
        ("- topology: x\n  tree: {switches: [{nodes: a}]}\n", "$[0].tree.switches[0].switch", "is missing"),
        ("- topology: x\n  cluster_default: yes\n  flat: true\n", "line 2", "different things"),
        ("- topology: x\n  tree: &t {switches: []}\n", "line 2", "anchors"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, where: str, what: str) -> None:
    with pytest.raises(BadInput) as refusal:
        read_slurm_topology(text, "topology.conf")
    assert refusal.value.path.startswith("topology.conf")
    assert where in refusal.value.path
    assert what in refusal.value.problem


@given(st.text(alphabet="SwitchName=odes,[]0123456789-\\#\n :abc", max_size=200))
def test_any_text_is_switches_or_a_refusal(text: str) -> None:
    try:
        switches = read_slurm_topology(text, "x")
    except BadInput:
        return
    assert sum(len(switch.nodes) for switch in switches) <= MAX_NAMES * len(switches)


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=20, unique=True), st.integers(1, 6))
def test_expanding_a_compressed_list_gives_it_back(numbers: list[int], width: int) -> None:
    text = f"n[{','.join(f'{number:0{width}d}' for number in numbers)}]"
    assert expand_hostlist(text, "x") == tuple(f"n{number:0{width}d}" for number in numbers)
