"""What the fitting scripts share about residuals."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(weighed: Sequence[tuple[float, float]], share: float) -> float:
    """The value below which ``share`` of the weight lies; ``weighed`` are (value, weight), ascending."""
    wanted = share * sum(weight for _, weight in weighed)
    for value, weight in weighed:
        wanted -= weight
        if wanted <= 0:
            return value
    return weighed[-1][0]
