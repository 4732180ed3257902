"""The formulas of queues against queues that are run: events in a list, no formula."""

from __future__ import annotations

import heapq
import random

import pytest

from planner.cost import latency, serving
from planner.units import Seconds

ARRIVALS = 400_000


def run(rate: float, service: float, servers: int) -> list[float]:
    """Waits of Poisson arrivals, first come first served, each for the same time, the first tenth left out."""
    dice = random.Random(7)  # noqa: S311 - a simulation
    free = [0.0] * servers
    now, waits = 0.0, []
    for _ in range(ARRIVALS):
        now += dice.expovariate(rate)
        start = max(now, heapq.heappop(free))
        waits.append(start - now)
        heapq.heappush(free, start + service)
    return sorted(waits[ARRIVALS // 10 :])


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8, 0.9])
def test_prompts_behind_each_other(load: float) -> None:
    waits = run(load / 0.1, 0.1, 1)
    mean = serving.prompt_wait(Seconds(0.1), load / 0.1)
    assert mean == pytest.approx(sum(waits) / len(waits), rel=0.1)
    for share in (0.9, 0.99):
        measured = waits[int(share * len(waits))]
        assert latency.queue_quantile(mean, load, share) == pytest.approx(measured, rel=0.2, abs=0.05)


@pytest.mark.parametrize("servers", [4, 16])
@pytest.mark.parametrize("load", [0.8, 0.95])
def test_requests_that_wait_for_room(load: float, servers: int) -> None:
    waits = run(load * servers, 1.0, servers)
    mean = serving.slot_wait(load * servers, Seconds(1.0), servers)
    assert mean == pytest.approx(sum(waits) / len(waits), rel=0.35)


def test_poisson_counts() -> None:
    dice = random.Random(3)  # noqa: S311
    for mean in (0.3, 2.0, 20.0):
        counts = []
        for _ in range(20_000):
            now, count = dice.expovariate(1.0), 0
            while now < mean:
                now, count = now + dice.expovariate(1.0), count + 1
            counts.append(count)
        counts.sort()
        for share in (0.5, 0.9, 0.99):
            assert latency.poisson_quantile(mean, share) == pytest.approx(counts[int(share * len(counts))], abs=1)
