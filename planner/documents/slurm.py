"""Slurm's ``topology.yaml``: named topologies, each flat, a tree of switches or blocks.

Slurm's manual page topology.yaml(5) says what the keys mean; what a plan does not need is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

from planner.documents import strict_yaml
from planner.documents.base import Document, validate
from planner.errors import BadInput


class _Tolerant(Document):
    """Slurm adds keys from release to release."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class SwitchDocument(_Tolerant):
    """A switch; ``children`` and ``nodes`` are Slurm hostlists."""

    switch: str
    children: str | None = None
    nodes: str | None = None


class BlockDocument(_Tolerant):
    """A block of nodes that are near each other."""

    block: str
    nodes: str | None = None


class TreeDocument(_Tolerant):
    """The switches of a tree."""

    switches: list[SwitchDocument]


class BlocksDocument(_Tolerant):
    """The blocks of a block topology."""

    blocks: list[BlockDocument]


class OneDocument(_Tolerant):
    """One named topology."""

    topology: str
    cluster_default: bool = False
    tree: TreeDocument | None = None
    block: BlocksDocument | None = None
    flat: Any = None


class SlurmDocument(_Tolerant):
    """The whole file, which is a list."""

    topologies: list[OneDocument]


@dataclass(frozen=True, slots=True)
class SlurmSwitch:
    """A switch, or a block, as the file writes it: hostlists that are not expanded yet."""

    name: str
    nodes: str = ""
    children: str = ""


def parse_slurm_topology(text: str, name: str) -> tuple[list[SlurmSwitch], bool]:
    """The switches of the cluster's default topology, or of the first that is not flat; and whether they are blocks.

    Raises ``BadInput`` with the place.
    """
    data = strict_yaml.load(text, name)
    if not isinstance(data, list):
        raise BadInput(
            "is no topology.yaml of Slurm: it is not a list",
            path=name,
            hint="it starts with '- topology: NAME'; see topology.yaml(5)",
        )
    try:
        document = validate(SlurmDocument, {"topologies": data}, name)
    except BadInput as error:
        raise BadInput(error.problem, path=error.path.replace("$.topologies", "$"), hint=error.hint) from None
    wired = [one for one in document.topologies if one.tree or one.block]
    if not wired:
        raise BadInput("has neither a tree of switches nor blocks", path=name, hint="for a flat network say --network 8x400")
    chosen = next((one for one in wired if one.cluster_default), wired[0])
    if chosen.tree is not None:
        return [SlurmSwitch(one.switch, one.nodes or "", one.children or "") for one in chosen.tree.switches], False
    assert chosen.block is not None
    return [SlurmSwitch(one.block, one.nodes or "") for one in chosen.block.blocks], True
