"""All-reduces, sends and exchanges of a placement as steps, with what each rests on."""

from __future__ import annotations

from planner.core.estimate import Basis, CollectiveTime
from planner.core.explanation import Bar, Constants, Quantity, Step, added, part
from planner.core.model import LatentAttention, Mixer, MoeMlp
from planner.core.plan import Group, Placement
from planner.cost.collectives import factor_key
from planner.cost.contention import Sharing
from planner.cost.context_times import chunks_behind
from planner.cost.explained_constants import COLLECTIVES, SERVING, entry
from planner.cost.interconnect import GroupFacts
from planner.cost.placed import Placed
from planner.cost.point_to_point import boundary_bytes
from planner.cost.strategy import HIDDEN_BYTES
from planner.units import Bytes, Seconds

_MEASURED = "measured"
_RESTS_ON: dict[Basis, str] = {
    "here": "a measurement of the same machine",
    "same": "a measurement of the same GPUs",
    "alike": "a measurement of GPUs joined alike",
    "nvlink": "the model over NVLink",
    "pcie": "the model over PCIe",
    "staged": "the model through host memory",
    "network": "the model over a network",
}


class ExplainedWires:
    """What the wires of one placement take, step by step."""

    def __init__(self, placed: Placed, placement: Placement, sharing: Sharing) -> None:
        self.placed = placed
        self.placement = placement
        self.sharing = sharing
        self.strategy = placed.strategy

    def decode(self, stage: int, group: Group) -> tuple[Step, ...]:
        """The all-reduces of a stage in one decode step, and on the last stage the gathering of logits."""
        strategy, work, kept = self.strategy, self.strategy.stages[stage], self.sharing.group(group)
        alone, shared = self.placed.times.group(group), self.placed.times.group(group, kept)
        reduced = self._reduces("all_reduce", group, [(alone.decode, strategy.decode_bytes, work.all_reduces)])
        slower = work.all_reduces * (shared.decode.time - alone.decode.time) + work.last * (shared.logits - alone.logits)
        contexts = self.placed.times.contexts
        slower += contexts.decode(stage, group, kept) - contexts.decode(stage, group)
        slower += self.placed.times.drafting(stage, group, kept) - self.placed.times.drafting(stage, group)
        slower += self.placed.times.norms(stage, group, kept)[0] - self.placed.times.norms(stage, group)[0]
        reduced = (*reduced, *self._norms(stage, group), *self._contexts(stage, group), *self._drafting(stage, group))
        steps = [*reduced, *self._logits(group, alone.logits)] if work.last else [*reduced]
        return (*steps, *_shared(slower))

    def prompt(self, stage: int, group: Group) -> tuple[Step, ...]:
        """The all-reduces of a stage for a whole prompt alone."""
        strategy, count = self.strategy, self.strategy.stages[stage].all_reduces
        chunks, kept = strategy.chunks, self.sharing.group(group)
        alone, shared = self.placed.times.group(group), self.placed.times.group(group, kept)
        parts = [
            (alone.chunk, strategy.chunk_bytes(chunks.size), count * chunks.whole),
            (alone.rest, strategy.chunk_bytes(chunks.rest), count),
        ]
        slower = count * (chunks.whole * (shared.chunk.time - alone.chunk.time) + shared.rest.time - alone.rest.time)
        contexts = self.placed.times.contexts
        slower += contexts.prompt(stage, group, kept) - contexts.prompt(stage, group)
        slower += self.placed.times.norms(stage, group, kept)[1] - self.placed.times.norms(stage, group)[1]
        reduced = (*self._reduces("all_reduce", group, parts), *self._prompt_norms(stage, group, 1))
        return (*reduced, *self._prompt_contexts(stage, group, 1), *_shared(slower))

    def riding(self, stage: int, group: Group) -> tuple[Step, ...]:
        """What the all-reduces of a stage grow by when a prompt shares its steps with decoding."""
        count, kept = self.strategy.stages[stage].all_reduces, self.sharing.group(group)
        value = count * self.placed.times.group(group, kept).riding
        others = (*self._prompt_norms(stage, group, 2, kept), *self._prompt_contexts(stage, group, 2, kept))
        if not value:
            return others
        sizes = (
            Quantity("decode message", self.strategy.decode_bytes, "B"),
            Quantity("chunk", self.strategy.chunk_bytes(self.strategy.chunks.size), "B"),
        )
        source = "all-reduces of chunk and decoding together, less those of decoding"
        return (Step("all_reduce, beside decoding", value, "s", "formula", count, "all_reduce", sizes, source=source), *others)

    def _reduces(self, name: str, group: Group, parts: list[tuple[CollectiveTime, Bytes, int]]) -> tuple[Step, ...]:
        """All-reduces of one group; nothing where there are none."""
        steps = tuple(self._reduce(group, *part) for part in parts if part[0].time > 0 and part[2])
        return (part(name, steps),) if steps else ()

    def _reduce(self, group: Group, one: CollectiveTime, size: Bytes, times: int) -> Step:
        """All-reduces of one size, ``times`` of them."""
        reducing = self.placed.times.reducing(group)
        calibration, facts = self.strategy.calibration, self.placed.wires.group(reducing)
        formula, constants = self._model(one, facts)
        value, interval = times * one.time, calibration.intervals.get(one.basis)
        asked = [Quantity("message", size, "B"), Quantity("ranks", len(reducing)), Quantity("algorithm", one.algorithm)]
        if one.limiting_link:
            asked.append(Quantity("limiting link", one.limiting_link))
        basis = f"nine of ten collectives of machines left out of the fit, predicted from {_RESTS_ON.get(one.basis, 'a model')}"
        bar = Bar(value * interval[0], value * interval[1], basis) if interval else None
        name = f"all-reduces of {size / 2**10:,.0f} KiB"
        return Step(name, value, "s", "formula", times, formula, tuple(asked), constants, one.source, bar)

    def _model(self, one: CollectiveTime, facts: GroupFacts) -> tuple[str, tuple[Constants, ...]]:
        """The formula that a collective's time comes from, and its constants."""
        calibration = self.strategy.calibration
        if one.algorithm == _MEASURED or (not one.algorithm.startswith("NCCL") and "wire time" not in one.source):
            return "interpolate", ()
        if one.algorithm.startswith("NCCL"):
            key = factor_key(facts)
            factors = zip(("small", "middle", "large"), calibration.nccl[key].factors, strict=True)
            values = tuple(Quantity(f"{name} messages", factor) for name, factor in factors)
            return "all_reduce", (Constants(f"nccl_factors.{key}", COLLECTIVES, values),)
        stack = self.strategy.traits.stack
        return "custom_all_reduce", (entry(f"custom_all_reduce.{stack}", COLLECTIVES, calibration.custom_all_reduce[stack]),)

    def _logits(self, group: Group, time: Seconds) -> tuple[Step, ...]:
        if not time:
            return ()
        asked = (Quantity("message", self.strategy.logits_bytes, "B"), Quantity("ranks", len(group)))
        source = "an all-gather is the second half of a ring all-reduce, or as measured on this machine"
        return (Step("gather_logits", time, "s", "formula", 1.0, "all_reduce", asked, source=source),)

    def _norms(self, stage: int, group: Group) -> tuple[Step, ...]:
        """The sums of norms of a stage in a decode step."""
        strategy, times = self.strategy, self.placed.times.group(group)
        if times.norm is None:
            return ()
        part = times.norm, strategy.norm_bytes(strategy.step_tokens), strategy.stages[stage].norm_sums
        return self._reduces("all_reduce of norms", group, [part])

    def _prompt_norms(self, stage: int, group: Group, which: int, kept: float = 1.0) -> tuple[Step, ...]:
        """The same for a whole prompt (``which`` is 1), or what it adds to steps that it shares (2)."""
        value = self.placed.times.norms(stage, group, kept)[which]
        if not value:
            return ()
        size = Quantity("message", self.strategy.norm_bytes(self.strategy.chunks.size), "B")
        name = "all_reduce of norms" if which == 1 else "all_reduce of norms, beside decoding"
        count = self.strategy.stages[stage].norm_sums
        return (Step(name, value, "s", "formula", count, "all_reduce", (size,), source="a sum of squares of every token"),)

    def _drafting(self, stage: int, group: Group) -> tuple[Step, ...]:
        """The all-reduces and logits of a stage while tokens are guessed."""
        strategy, work = self.strategy, self.strategy.stages[stage]
        times = self.placed.times.group(group)
        if times.draft is None or not self.placed.times.drafting(stage, group):
            return ()
        reduced = self._reduces("all_reduce, guessing", group, [(times.draft, strategy.draft_bytes, work.draft_all_reduces)])
        asked = (Quantity("message", strategy.draft_logits_bytes, "B"), Quantity("ranks", len(group)))
        value, source = work.draft_passes * times.draft_logits, "the logits of every guess, gathered"
        logits = Step("gather_logits, guessing", value, "s", "formula", work.draft_passes, "all_reduce", asked, source=source)
        return (*reduced, logits) if value else reduced

    def _contexts(self, stage: int, group: Group) -> tuple[Step, ...]:
        """What ranks that share out the cache exchange in the layers of a stage, in a decode step."""
        steps = []
        for mixer, count in self.strategy.stages[stage].contexts:
            value, tokens = count * self.placed.times.contexts.layer(group, mixer)[0], self.strategy.step_tokens
            split = self.strategy.parallelism.prefill_context > 1
            step = (
                self._split(mixer, tokens, value, count)
                if split
                else self._context("context_exchange", mixer, tokens, value, count)
            )
            steps.append(step)
        return (part("context_exchange", tuple(steps)),) if steps else ()

    def _prompt_contexts(self, stage: int, group: Group, which: int, kept: float = 1.0) -> tuple[Step, ...]:
        """The same for a prompt: ``which`` is 1 for one alone, 2 for one beside decoding."""
        strategy, times, steps = self.strategy, self.placed.times.contexts, []
        for mixer, count in strategy.stages[stage].contexts:
            value = count * times.layer(group, mixer, kept)[which]
            if not value:
                continue
            if strategy.parallelism.prefill_context > 1:
                steps.append(self._split(mixer, strategy.chunks.size, value, count * strategy.chunks.count))
            elif isinstance(mixer, LatentAttention):
                held = Quantity("latents", times.gathered(mixer), "B")
                asked = (held, Quantity("ranks", strategy.parallelism.decode_context))
                chunks = count * chunks_behind(strategy.chunks)[0]
                source = "the cached latents before a chunk, gathered for it: half of an all-reduce over the group's links"
                steps.append(Step("latents of a prompt", value, "s", "formula", chunks, "all_reduce", asked, source=source))
            else:
                steps.append(
                    self._context("chunks of a prompt", mixer, strategy.chunks.size, value, count * strategy.chunks.count)
                )
        return (part("context_exchange", tuple(steps)),) if steps else ()

    def _split(self, block: Mixer | MoeMlp, tokens: int, value: float, times: float) -> Step:
        """What tensor groups that split prompts bring together of ``tokens`` for a block."""
        held, groups = self.placed.times.contexts.together(block, tokens), self.strategy.parallelism.prefill_context
        asked = (Quantity("together", held, "B"), Quantity("ranks", groups))
        if isinstance(block, MoeMlp):
            name, source = (
                "tokens of experts",
                "hidden states gathered before experts, their outputs reduced and scattered: an all-reduce in two halves",
            )
        else:
            name, source = "latents for the cache", "gathered, for every rank keeps the whole cache: half of an all-reduce"
        return Step(name, value, "s", "formula", times, "all_reduce", asked, source=source)

    def _context(self, name: str, mixer: Mixer | MoeMlp, tokens: int, value: float, times: float) -> Step:
        """The exchange of queries and partial results for ``tokens`` new ones."""
        held = self.placed.times.contexts.messages(mixer, tokens)
        asked = [Quantity(one, getattr(held, one), "B") for one in ("queries", "outputs", "sums")]
        asked.append(Quantity("ranks", self.strategy.parallelism.decode_context))
        source = "queries and sums gathered, outputs reduced and scattered, each the half of an all-reduce over the group's links"
        return Step(name, value, "s", "formula", times, "context_messages", tuple(asked), source=source)

    def hops(self, stage: int, senders: Group, receivers: Group, *, prompt: bool) -> Step:
        """From one stage to the next: a decode micro-batch, or a prompt's mean chunk."""
        strategy, traits, place = self.strategy, self.strategy.traits, int(prompt)
        whole = self.placed.times.boundary(senders, receivers, self.sharing)[place]
        gather = self.placed.times.gather(receivers, self.sharing.group(receivers))[place]
        tokens = strategy.chunks.size if prompt else strategy.step_tokens
        slices = strategy.parallelism.tensor if traits.pipeline_sliced else 1
        hidden = strategy.model.hidden_size
        size = boundary_bytes(tokens, hidden, HIDDEN_BYTES, traits.pipeline_tensors, slices)
        asked = [Quantity("message", size, "B"), Quantity("tensors", traits.pipeline_tensors), Quantity("slices", slices)]
        path = self.placed.wires.path(senders[0], receivers[0])
        weakest = min(path.links, key=lambda one: self.placed.wires.capacity[one], default=None)
        if weakest is not None:
            asked.append(Quantity("narrowest link", self.placed.wires.describe(weakest)))
        constants = (entry("point_to_point", SERVING, strategy.calibration.point_to_point),)
        source = f"the slowest send from stage {stage + 1} to stage {stage + 2}"
        send = Step("send", whole - gather, "s", "formula", 1.0, "send", tuple(asked), constants, source)
        gathered = "puts the slices together again"
        gathers = (Step("gather", gather, "s", "formula", 1.0, "all_reduce", (), (), gathered),) if gather else ()
        return added(f"stage {stage + 1} to stage {stage + 2}", (send, *gathers))

    def exchange(self, *, prompt: bool) -> tuple[Step, ...]:
        """The exchanges between replicas that share their experts."""
        value = self.placed.exchange_of(self.placement)[int(prompt)]
        if not value:
            return ()
        strategy, data = self.strategy, self.strategy.parallelism.data
        size = strategy.chunk_bytes(strategy.chunks.size) if prompt else strategy.decode_bytes
        asked = (Quantity("message", data * size, "B"), Quantity("ranks", strategy.parallelism.gpus))
        count = max(work.exchanges for work in strategy.stages) * (strategy.chunks.count if prompt else 1)
        source = "an all-reduce over the expert group for every layer with experts, by NCCL"
        return (Step("expert_exchange", value, "s", "formula", count, "all_reduce", asked, source=source),)


def _shared(slower: float) -> tuple[Step, ...]:
    """What the others on the wires add."""
    if not slower:
        return ()
    source = "others of the plan meet on the same links"
    return (Step("shared_links", slower, "s", "formula", 1.0, "shared_rate", source=source),)
