"""Speculative decoding: tokens that are guessed and then verified together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from planner.errors import BadInput

Method = Literal["mtp", "eagle3", "ngram"]
"""Who guesses: the model's own prediction layers, one layer trained for it (a checkpoint of its own), or the prompt's own words."""
METHODS: tuple[str, ...] = get_args(Method)
MOST_DRAFT_TOKENS = 16
LOOKED_UP = 4
"""Tokens in a row that are looked for in the prompt, at most, where guesses come from there."""


@dataclass(frozen=True, slots=True)
class Speculation:
    """``draft_tokens`` are guessed for every one that is verified; each is accepted with the chance ``acceptance``, given that those
    before it are. ``checkpoint`` names the layer of ``eagle3``.
    """

    method: Method
    draft_tokens: int
    acceptance: float
    checkpoint: str = ""

    def __post_init__(self) -> None:
        """Raise ``BadInput`` for an unknown method, a count or a chance out of range, and a checkpoint that is missing or idle."""
        if self.method not in METHODS:
            raise BadInput(f"is none of {', '.join(METHODS)}: {self.method!r}", path="method")
        if not 1 <= self.draft_tokens <= MOST_DRAFT_TOKENS:
            raise BadInput(f"must be from 1 to {MOST_DRAFT_TOKENS}, found {self.draft_tokens}", path="draft_tokens")
        if not 0 <= self.acceptance < 1:
            raise BadInput(f"must be from 0 to below 1, found {self.acceptance}", path="acceptance")
        if bool(self.checkpoint) != (self.method == "eagle3"):
            raise BadInput("is for eagle3, which needs one", path="checkpoint")

    @property
    def verified(self) -> int:
        """Tokens of one sequence that a step runs through the model: the guesses, and the one that is sure."""
        return self.draft_tokens + 1

    def __str__(self) -> str:
        return f"{self.method} with {self.draft_tokens} draft tokens, {self.acceptance:.4g} of them accepted"
