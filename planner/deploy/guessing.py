"""How a server that somebody has guesses tokens, whichever way its engine is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner.core.speculation import MOST_DRAFT_TOKENS, Method
from planner.errors import BadInput

_METHODS: Mapping[str, Method] = {
    "mtp": "mtp",
    "nextn": "mtp",
    "deepseek_mtp": "mtp",
    "eagle3": "eagle3",
    "eagle": "eagle3",
    "ngram": "ngram",
}
"""What engines call the ways that planner knows; an EAGLE layer of before takes as long as one of EAGLE-3."""
_COUNTS = ("num_speculative_tokens", "num_nextn_predict_layers", "max_draft_len")
_DIGITS = 4
_CHECKPOINTS = ("model", "speculative_model_dir", "speculative_model")


@dataclass(frozen=True, slots=True)
class Guesses:
    """Tokens that are guessed at a time, by what the engine calls the way, and the checkpoint it is told; ``method`` is ``None`` for
    one that is not planned.
    """

    said: str
    method: Method | None
    tokens: int
    checkpoint: str

    def __str__(self) -> str:
        return f"{self.tokens} token{'s' * (self.tokens != 1)} at a time by {self.said}"


def guesses_of(engine: str, said: Mapping[str, str], source: str) -> Guesses | None:
    """What ``said``, values by what they decide, has on guessing. Raises ``BadInput`` for a document that is none."""
    if engine == "tgi":
        return _guesses("ngram", said["guesses"], "", source) if said.get("guesses", "0") != "0" else None
    if engine == "sglang":
        checkpoint = said.get("guess checkpoint", "")
        called = said.get("guess method", "")
        if not called:
            return None
        # the model's own layers where no checkpoint is named
        method = "nextn" if called.lower() == "eagle" and not checkpoint else called
        verified = said.get("guesses verified", "")
        counted = str(int(verified[:4]) - 1) if verified.isdecimal() and int(verified[:4]) > 1 else "1"
        return _guesses(method, said.get("guesses", counted), checkpoint, source)
    if said.get("guesses", "null") == "null":
        return None
    try:
        document: Any = json.loads(said["guesses"])
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BadInput("is no mapping in JSON", path=f"{source}: the way tokens are guessed")
    method = str(document.get("method") or document.get("decoding_type") or ("draft_model" if "model" in document else ""))
    count = next((str(document[key]) for key in _COUNTS if key in document), "1")
    return _guesses(method, count, next((str(document[key]) for key in _CHECKPOINTS if key in document), ""), source)


def _guesses(called: str, count: str, checkpoint: str, source: str) -> Guesses:
    method = _METHODS.get(called.lower())
    counted = count.isascii() and count.isdecimal() and len(count) <= _DIGITS
    if method is not None and not (counted and 1 <= int(count) <= MOST_DRAFT_TOKENS):
        raise BadInput(f"{count!r} is no count from 1 to {MOST_DRAFT_TOKENS}", path=f"{source}: tokens that are guessed")
    return Guesses(called, method, int(count) if counted else 1, checkpoint)
