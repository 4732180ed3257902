"""What can go wrong, and the exit code each kind ends with.

Infeasible plans are not here: "it does not fit" is an answer (:class:`planner.core.plan.Infeasible`), exit code 1.

    PlannerError
    ├── BadInput      usage or bad input        exit 2
    └── Unavailable   the environment refuses   exit 3
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """The contract of every command; stable from the first release."""

    ANSWERED = 0
    NO = 1
    BAD_INPUT = 2
    ENVIRONMENT = 3
    BUG = 70
    INTERRUPTED = 130


class PlannerError(Exception):
    """A problem we can explain. ``str()`` is one message: what, where, and on its own line a hint.

    ``problem`` is lower case without a full stop; ``path`` says where (a file and line, or ``$.field[3]``).
    """

    exit_code = ExitCode.BUG

    def __init__(self, problem: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path
        self.hint = hint

    def within(self, prefix: str) -> PlannerError:
        """The same problem, seen from the document ``prefix`` that holds it."""
        path = f"{prefix}: {self.path}" if self.path else prefix
        return type(self)(self.problem, path=path, hint=self.hint)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.problem}" + (f"\nhint: {self.hint}" if self.hint else "")


class BadInput(PlannerError):
    """What the user gave cannot be used. Exit code 2."""

    exit_code = ExitCode.BAD_INPUT


class Unavailable(PlannerError):
    """The machine we run on cannot do it: no driver, no GPU, cannot write. Exit code 3."""

    exit_code = ExitCode.ENVIRONMENT


def folded(name: str) -> str:
    """``name`` as names are compared: without case, spaces, dashes and underscores.

    >>> folded("Llama-3.1 70B") == folded("llama_3.1-70b")
    True
    """
    return "".join(character for character in name.casefold() if character not in " -_")


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names most like ``name``, best first.

    >>> nearest("H100-SXM", ["H100-SXM5-80GB", "T4", "L4"], count=1)
    ['H100-SXM5-80GB']
    """
    by_fold = {folded(candidate): candidate for candidate in known}
    key = folded(name)
    starting = [
        candidate for fold, candidate in sorted(by_fold.items()) if key and (fold.startswith(key) or key.startswith(fold))
    ]
    close = [by_fold[fold] for fold in difflib.get_close_matches(key, by_fold, n=count + len(starting), cutoff=0.4)]
    return list(dict.fromkeys([*starting, *close]))[:count]


def unknown_name(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> BadInput:
    """The error for a name that is in no list: it says the nearest ones."""
    near = nearest(name, known)
    suggestion = f"the nearest known: {', '.join(near)}" if near else ""
    return BadInput(f"unknown {kind} {name!r}", hint="; ".join(part for part in (suggestion, hint) if part))


def named_once(what: str, name: str, problem: str) -> str:
    """A problem with the name of what it is of before it, unless it says that itself.

    >>> named_once("topology", "box", "no file"), named_once("model", "x", "unknown model 'x'")
    ("topology 'box': no file", "unknown model 'x'")
    """
    return problem if repr(name) in problem else f"{what} {name!r}: {problem}"
