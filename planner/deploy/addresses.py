"""Where arguments name a node of the plan, and the same arguments with something else in its place.

Only options that are known to carry addresses are looked at: a model may be called like a node.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

OPTIONS = frozenset({"--master-addr", "--data-parallel-address", "--dist-init-addr", "--nodelist"})
"""vLLM's two, SGLang's (with a port), and srun's (several, with commas)."""
_SEPARATORS = re.compile(r"([:,])")
Part = TypeVar("Part")


def with_nodes(argv: Sequence[str], replaced: Mapping[str, Part]) -> list[str | tuple[str | Part, ...]]:
    """``argv`` with the nodes that its addresses name ``replaced``; such arguments become tuples of text and replacements.

    >>> with_nodes(["serve", "node0", "--dist-init-addr", "node0:5000"], {"node0": 1})
    ['serve', 'node0', '--dist-init-addr', (1, ':', '5000')]
    """
    words: list[str | tuple[str | Part, ...]] = []
    for before, word in zip(["", *argv], argv, strict=False):
        parts = [part for part in _SEPARATORS.split(word) if part]
        if before in OPTIONS and any(part in replaced for part in parts):
            words.append(tuple(replaced.get(part, part) for part in parts))
        else:
            words.append(word)
    return words


def with_option(argv: Sequence[str], option: str, value: str) -> tuple[str, ...]:
    """``argv`` with another value for an option that it has.

    >>> with_option(("serve", "--port", "8001"), "--port", "8000")
    ('serve', '--port', '8000')
    """
    return tuple(value if before == option else word for before, word in zip(["", *argv], argv, strict=False))


def without_options(argv: Sequence[str], options: frozenset[str]) -> tuple[str, ...]:
    """``argv`` without options that take one value.

    >>> without_options(("serve", "--nnodes", "2", "--port", "8000"), frozenset({"--nnodes"}))
    ('serve', '--port', '8000')
    """
    kept = zip(["", *argv], argv, strict=False)
    return tuple(word for before, word in kept if word not in options and before not in options)
