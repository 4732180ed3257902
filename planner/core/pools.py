"""Prefill and decode on pools of their own: what an engine can hand over, and what a pair of pools comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.core.engine import LaunchSpec
from planner.core.estimate import Breakdown, Estimate, Serving, Uncertainty
from planner.core.plan import Plan
from planner.units import Bytes, Seconds

Role = Literal["prefill", "decode"]
Handover = Literal["prompt", "chunk", "layer"]
"""What an engine hands over at once: the cache of a whole prompt when it is done, of each chunk, or of each layer."""
DecodeStages = Literal["one", "one-or-equal", "any"]
Limit = Literal["prefill", "decode", "link", "prefill-cache", "ttft", "asked"]
"""What keeps a pair from serving more: a pool, the links between them, the room for prompts that wait to be read, the target for
the first token, or that no more is asked for.
"""


@dataclass(frozen=True, slots=True)
class HandoverRules:
    """How an engine moves the cache of a prompt from one pool to another, and which pools it can join.

    ``connector`` is what moves it. ``copies`` is whether prefill ranks that hold copies of one KV head may be more than the decode
    ranks; ``early`` whether room in the decode pool is kept from the start of the prompt, not from its end.
    """

    connector: str
    handover: Handover
    prefill_stages: bool
    decode_stages: DecodeStages
    copies: bool
    early: bool
    source: str


@dataclass(frozen=True, slots=True)
class Pool:
    """GPUs that do one of the two, as a plan. ``estimate`` is what it costs for its own half of the work.

    ``requests_per_second`` is what it serves when it never waits, all its replicas together; ``requests`` how many share a step of one of
    them: prompts of one after the other that are short enough, or answers at the rate of the pair.
    ``proven`` as for any placement, on the GPUs that were left to it.
    """

    role: Role
    plan: Plan
    estimate: Estimate
    requests_per_second: float
    requests: int
    proven: bool

    @property
    def gpus(self) -> tuple[int, ...]:
        """Its GPUs, ascending."""
        return tuple(sorted(gpu for replica in self.plan.placement for group in replica for gpu in group))


@dataclass(frozen=True, slots=True)
class Transfer:
    """The cache of one prompt on its way from a prefill replica to a decode replica, of those that are farthest apart.

    ``size`` is all of it, ``time`` on empty links, ``exposed`` the part of it that is not hidden behind the prompt, ``by_layer`` what that
    would be if every layer were sent when it is done. ``wait`` is behind the caches of other prompts. ``link`` is what limits it,
    ``requests_per_second`` what that carries, ``kinds`` the ways it goes, ``regrouping`` who reads from whom.
    """

    size: Bytes
    time: Seconds
    exposed: Seconds
    by_layer: Seconds
    wait: Seconds
    link: str
    requests_per_second: float
    kinds: tuple[str, ...]
    regrouping: str


@dataclass(frozen=True, slots=True)
class PoolPair:
    """A prefill pool and a decode pool at the rate they settle at.

    ``limits`` are requests a second that each part of the pair would allow, the least of which ``limited_by`` names. ``first_token`` are
    the parts of the mean time to first token; ``tpot`` is a decode step at the batch the rate brings about.
    """

    prefill: Pool
    decode: Pool
    transfer: Transfer
    requests_per_second: float
    limits: dict[Limit, float]
    limited_by: Limit
    first_token: Breakdown
    tpot: Seconds
    output_tokens_per_second: float
    serving: Serving
    uncertainty: Uncertainty
    missed: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def ttft(self) -> Seconds:
        """Mean time to first token."""
        return self.first_token.total

    @property
    def gpus(self) -> int:
        """GPUs of both pools."""
        return self.prefill.plan.parallelism.gpus + self.decode.plan.parallelism.gpus


@dataclass(frozen=True, slots=True)
class PairLaunch:
    """What starts both pools, and what goes before them. ``files`` are of all three."""

    prefill: LaunchSpec
    decode: LaunchSpec
    router: LaunchSpec
    notes: tuple[str, ...]
