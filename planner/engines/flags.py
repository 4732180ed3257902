"""An engine's flags as a table, and argument vectors written from it: no flag is spelled anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its name, what the engine takes where it is left out, since which version it is there, and what it was before."""

    name: str
    default: str = ""
    since: str = ""
    before: str = ""


@dataclass(frozen=True, slots=True)
class FlagTable:
    """The flags a planner writes, by what they decide; the same in all ``versions``, but for those with a ``since``."""

    engine: str
    versions: tuple[str, ...]
    read_from: str
    flags: Mapping[str, Flag]


@dataclass
class Command:
    """An argument vector as it grows. ``notes`` say why a flag is there, where that is not plain, and which is new."""

    table: FlagTable
    argv: list[str]
    notes: list[str] = field(default_factory=list)

    def state(self, what: str, *values: object, why: str = "") -> None:
        """Write a flag with its values (none for a switch), default or not."""
        flag = self.table.flags[what]
        self.argv += [flag.name, *(str(value) for value in values)]
        if why:
            self.notes.append(f"{flag.name}: {why}")
        if flag.since:
            self.notes.append(f"{flag.name} is there since {self.table.engine} {flag.since}; before: {flag.before}")

    def set(self, what: str, value: object, why: str = "") -> None:
        """Write a flag unless the value is what the engine takes anyway."""
        if str(value) != self.table.flags[what].default:
            self.state(what, value, why=why)
