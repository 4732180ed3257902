"""Prefill and decode on pools of their own: rates, and what of the transfer between them is seen.

Nothing was measured against these: no table of this project's has a disaggregated run.
"""

from __future__ import annotations

from collections.abc import Mapping

from planner.cost.formula import formula
from planner.graph.paths import DirectedLink
from planner.units import Seconds

PREFILL_SHARE = 0.9
DECODE_SHARE = 0.92
"""What of its own rate a pool serves in a pair whose halves are never quite matched: what aiconfigurator assumes (ai-dynamo,
``sdk/picking.py``, rate-matching degradation factors of prefill and decode); not measured here.
"""
LINK_SHARE = 0.9
"""What of a link's capacity transfers may fill: this project's assumption, for the queue before it to stay finite."""
UNMEASURED = 0.25
"""What widens error bars of a pair both ways, beyond those of its pools: an assumption, nothing was measured."""


@formula(
    source="prompts one after the other keep every stage of a pipeline busy: the slowest one sets the pace; prompts that are shorter than a "
    "step share one where that is faster",
    valid="a pool that only prefills",
)
def prefill_rate(replicas: int, alone: Seconds, together: Seconds, prompts: int) -> float:
    """Prompts a second of ``replicas`` whose slowest stage takes ``alone`` for one prompt, ``together`` for so many ``prompts`` in a step.

    >>> prefill_rate(2, Seconds(0.1), Seconds(0.1), 1), prefill_rate(1, Seconds(0.1), Seconds(0.25), 4)
    (20.0, 16.0)
    """
    return replicas / min(alone, together / prompts)


@formula(source="Little's law: a place is held while an answer is decoded, and before it while its prompt's cache arrives")
def decode_rate(replicas: int, requests: int, room: int, residence: Seconds, held: Seconds) -> float:
    """Requests a second of ``replicas`` that decode ``requests`` at once for ``residence`` each and have ``room`` for some, which
    also those fill that come in, for ``held`` each.

    >>> decode_rate(2, 50, 100, Seconds(5), Seconds(0.5)), decode_rate(1, 100, 100, Seconds(4), Seconds(1))
    (20.0, 20.0)
    """
    return replicas * min(requests / residence, room / (residence + held))


@formula(
    source="rate matching of aiconfigurator (ai-dynamo): X_p r_p 0.9 = X_d r_d 0.92 where pools are balanced; and the links' part"
)
def pair_rate(prefill: float, decode: float, link: float) -> float:
    """Requests a second of a pair of pools that serve so many each, over links that carry the caches of ``link`` prompts a second.

    >>> pair_rate(10, 20, 100), round(pair_rate(10, 5, 100), 3), round(pair_rate(10, 5, 2), 3)
    (9.0, 4.6, 1.8)
    """
    return min(PREFILL_SHARE * prefill, DECODE_SHARE * decode, LINK_SHARE * link)


@formula(
    source="sends that start together, at rates in proportion to their sizes: the busiest link is the last to be done (max-flow bound)"
)
def together_time(
    sizes: Mapping[DirectedLink, float], capacity: Mapping[DirectedLink, float]
) -> tuple[Seconds, DirectedLink | None]:
    """Time of all sends that put ``sizes`` bytes on links of ``capacity`` B/s, and the link that takes longest.

    >>> together_time({(0, True): 4e9, (1, True): 1e9}, {(0, True): 50e9, (1, True): 10e9})
    (0.1, (1, True))
    """
    if not sizes:
        return Seconds(0.0), None
    link = max(sorted(sizes), key=lambda one: sizes[one] / capacity[one] if capacity[one] else float("inf"))
    return Seconds(sizes[link] / capacity[link]) if capacity[link] else Seconds(float("inf")), link


@formula(
    source="fill and drain of two stages, computing and sending, in parts (Splitwise, Patel et al. 2024: layer by layer): all is hidden but "
    "the last part, or what the links cannot keep up with",
    valid="equal parts; with one part nothing is sent before all is done",
)
def exposed_transfer(transfer: Seconds, prompt: Seconds, parts: int, latency: Seconds) -> Seconds:
    """What is left of a ``transfer`` in ``parts`` when the ``prompt`` is done.

    >>> round(exposed_transfer(Seconds(0.05), Seconds(0.2), 80, Seconds(18e-6)) * 1e3, 3)
    0.643
    >>> exposed_transfer(Seconds(0.5), Seconds(0.2), 1, Seconds(0)), exposed_transfer(Seconds(0.5), Seconds(0.2), 80, Seconds(0))
    (0.5, 0.3025)
    """
    hidden = prompt * (parts - 1) / parts
    return Seconds(max(transfer - hidden, transfer / parts) + latency)
