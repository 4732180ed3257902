"""How far predictions are from measurements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Errors as shares of the measured value: mean and median of their size, their mean with its sign, and what nine of
    ten stay within.
    """

    mape: float
    median_ape: float
    bias: float
    p90_ape: float


@dataclass(frozen=True)
class Grade:
    """The accuracy over the answered rows of a group (its value of every column asked for); ``None`` where none was answered."""

    of: Mapping[str, str]
    rows: int
    answered: int
    accuracy: Accuracy | None


def accuracy(pairs: Iterable[tuple[float, float]]) -> Accuracy:
    """The accuracy of (predicted, measured) pairs, of which there is at least one; measured values are above 0.

    >>> accuracy([(15.0, 10.0), (5.0, 10.0), (10.0, 10.0)])
    Accuracy(mape=0.3333333333333333, median_ape=0.5, bias=0.0, p90_ape=0.5)
    """
    errors = [(predicted - measured) / measured for predicted, measured in pairs]
    sizes = sorted(abs(error) for error in errors)
    nine_of_ten = sizes[max(0, math.ceil(0.9 * len(sizes)) - 1)]
    return Accuracy(fmean(sizes), median(sizes), fmean(errors), nine_of_ten)
