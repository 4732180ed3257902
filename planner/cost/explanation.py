"""An estimate as a tree: from time per output token, time to first token, throughput and memory down to formulas.

Every step is priced by the functions that the estimate is made of (:mod:`planner.cost.placed`, :mod:`planner.cost.layer`); nothing
is computed a second way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from planner.core.explanation import Bar, Constants, Explanation, Quantity, Step, added, numbered, part
from planner.core.plan import Infeasible, Placement, Plan, Replica
from planner.cost import serving
from planner.cost.calibration import TtftFit
from planner.cost.drafting import drafting_layers
from planner.cost.explained_constants import ENGINES, entry, key_of
from planner.cost.explained_layers import ExplainedLayers
from planner.cost.explained_memory import memory_step
from planner.cost.explained_wires import ExplainedWires
from planner.cost.placed import Placed
from planner.cost.pricer import Pricer
from planner.cost.replica import ReplicaMetrics, ReplicaTimes, service_time
from planner.cost.strategy import stages_of
from planner.units import Seconds

NOT_A_WAIT = 1e-9
_WAITS = {"request-rate": "slot_wait", "batch": "turns"}
"""Seconds."""


def explain(pricer: Pricer, plan: Plan) -> Explanation | Infeasible:
    """How the estimate of a plan came about."""
    used = [gpu for replica in plan.placement for group in replica for gpu in group]
    limits = replace(plan.limits, max_model_tokens=0)  # plans are priced before it is known how long a request may be
    strategy = pricer.strategy(plan.parallelism, plan.layer_partition, limits, used)
    if isinstance(strategy, Infeasible):
        return strategy
    placed = pricer.placed(strategy)
    estimate = placed.estimate(plan.placement)
    tree = _Tree(placed, plan.placement, ExplainedLayers(strategy, pricer.weakest_of(used)[0]))
    unsure = estimate.uncertainty

    def bar(low: float, high: float) -> Bar:
        return Bar(low, high, unsure.basis)

    roots = (
        replace(tree.time_per_output_token(), bar=bar(*unsure.tpot)),
        replace(tree.time_to_first_token(), bar=bar(*unsure.ttft)),
        replace(tree.throughput(), bar=bar(*unsure.output_tokens_per_second)),
        memory_step(strategy, nvlink=pricer.has_nvlink),
    )
    return Explanation(plan, estimate, roots)


class _Tree:
    """The steps of one placement."""

    def __init__(self, placed: Placed, placement: Placement, layers: ExplainedLayers) -> None:
        self.placed = placed
        self.strategy = placed.strategy
        self.placement = placement
        self.layers = layers
        self.sharing = placed.sharing(placement)
        self.exchange = placed.exchange_of(placement)
        self.wires = ExplainedWires(placed, placement, self.sharing)
        self.times, self.metrics = placed.outcomes(placement, self.sharing, self.exchange)

    def time_per_output_token(self) -> Step:
        """TPOT of the slowest replica: its decode step, and its share of the others' prompts."""
        replica = self._slowest(lambda one: one.tpot)
        strategy, output = self.strategy, self.strategy.workload.output_tokens
        share, decode = strategy.interference, self._decode_token(replica)
        if not share:  # alone, or a static batch: all prompts are done before the first token
            return added("TPOT", (decode,))
        riding = self._riding(replica)
        interference = Step(
            "prefill of other requests",
            share * sum(one.value for one in riding),
            "s",
            "sum",
            share,
            inputs=(Quantity("requests", strategy.requests), Quantity("output tokens", output)),
            source="(requests - 1) / output tokens",
            children=riding,
        )
        return added("TPOT", (decode, interference), formula="time_per_output_token")

    def _decode_token(self, replica: int) -> Step:
        """A decode step, or its share of one token where it yields several."""
        step, guess = self._decode(replica), self.strategy.workload.speculation
        if guess is None:
            return step
        each = 1 / self.strategy.tokens_a_step
        asked = (Quantity("acceptance", guess.acceptance), Quantity("draft tokens", guess.draft_tokens))
        return Step("decode step, by token", each * step.value, "s", "sum", each, "tokens_per_iteration", asked, children=(step,))

    def time_to_first_token(self) -> Step:
        """TTFT of the slowest replica."""
        replica = self._slowest(lambda one: one.ttft)
        strategy, metrics = self.strategy, self.metrics[replica]
        if strategy.workload.load == "batch":
            parts = [self._prompt(replica), self._step_overhead()]
            return added("TTFT", tuple(one for one in (*parts, *self._wait(metrics)) if one.value))
        fit, prompt = strategy.calibration.first_token(strategy.traits.first_token), self._prompt(replica)
        constants = (entry(f"first_token.{key_of(strategy.calibration.ttft, fit)}", ENGINES, fit),)
        step_time = Step("decode step", metrics.decode_period, "s", "reference")
        parts = [
            Step("before the first kernel", fit.base, "s", "given", constants=constants),
            Step("the same of latent attention", strategy.model.latent * fit.latent, "s", "given", constants=constants),
            Step("prompt", fit.prefill_factor * prompt.value, "s", "sum", fit.prefill_factor, children=(prompt,)),
            self._queue(replica, fit),
            Step(
                "rest of a running step",
                fit.decode_factor * step_time.value,
                "s",
                "sum",
                fit.decode_factor,
                children=(step_time,),
            ),
            *self._wait(metrics),
        ]
        return added("TTFT", tuple(one for one in parts if one.value), formula="time_to_first_token")

    def _queue(self, replica: int, fit: TtftFit) -> Step:
        """The prompts before one: those of a burst, or those that came by chance."""
        strategy, metrics = self.strategy, self.metrics[replica]
        service = service_time(strategy, metrics.decode_period, metrics.riding)
        one = Quantity("one prompt", service, "s")
        if strategy.workload.load == "request-rate":
            asked = (one, Quantity("requests a second", strategy.workload.request_rate / strategy.parallelism.data))
            return Step("prompts before it", metrics.queue, "s", "formula", 1.0, "prompt_wait", asked)
        share = serving.share_before(strategy.workload.output_tokens, fit) * (strategy.requests - 1)
        name = "a prompt" if strategy.traits.prompts_apart else "a prompt, and its share of the steps it takes"
        each = Step(name, service, "s", "reference")
        return Step("prompts before it", share * service, "s", "sum", share, "burst_wait", children=(each,))

    def _wait(self, metrics: ReplicaMetrics) -> tuple[Step, ...]:
        """The wait for KV cache, where there is one."""
        strategy = self.strategy
        if metrics.wait <= NOT_A_WAIT:
            return ()
        asked = (Quantity("requests offered", strategy.offered), Quantity("room for", strategy.room))
        formula = _WAITS.get(strategy.workload.load, "saturation_wait")
        return (Step("wait for KV cache", metrics.wait, "s", "formula", 1.0, formula, asked),)

    def _step_overhead(self) -> Step:
        """What an engine adds to a step."""
        strategy = self.strategy
        asked = (Quantity("requests", strategy.requests),)
        return Step("step_overhead", strategy.step_overhead, "s", "given", inputs=asked, constants=self._overhead())

    def _overhead(self) -> tuple[Constants, ...]:
        fits = self.strategy.calibration.overheads
        fit = self.strategy.calibration.overhead(self.strategy.traits.stack)
        return (entry(f"engines.{key_of(fits, fit)}.overhead", ENGINES, fit),)

    def throughput(self) -> Step:
        """Output tokens per second of all replicas, without the wait for KV cache: those who wait are not running."""
        strategy = self.strategy
        running = min(strategy.offered, strategy.requests)
        steps = []
        for metrics in self.metrics:
            ttft = Seconds(metrics.ttft - metrics.wait)
            served = serving.throughput(running, ttft, metrics.tpot, strategy.workload.output_tokens)
            asked = (
                Quantity("requests", running),
                Quantity("TTFT", ttft, "s"),
                Quantity("TPOT", metrics.tpot, "s"),
                Quantity("output tokens", strategy.workload.output_tokens),
            )
            step = Step("replica", served, "tokens/s", "formula", 1.0, "throughput", asked)
            if strategy.workload.load == "batch" and strategy.offered > strategy.requests:
                offered = Quantity("requests in all", strategy.offered)
                weights = Quantity("of a step, what it takes to read weights", strategy.weights_read)
                step = Step("replica", metrics.throughput, "tokens/s", "formula", 1.0, "turns", (offered, *asked, weights))
            elif not math.isclose(metrics.throughput, served):
                step = Step("as many as are asked for", metrics.throughput, "tokens/s", "given")
            steps.append(step)
        return added("output tokens per second", numbered("replica", steps, together=True), unit="tokens/s")

    def _slowest(self, key: Callable[[ReplicaMetrics], float]) -> int:
        return max(range(len(self.metrics)), key=lambda number: key(self.metrics[number]))

    def _longest(self, replica: int, key: Callable[[ReplicaTimes], float]) -> Replica:
        """The replica that a time is of: the one itself, or the slowest of those that step together."""
        if not self.strategy.parallelism.attention_data_parallel:
            return self.placement[replica]
        return max(self.placement, key=lambda one: key(self.placed.replica_times(one, self.sharing)))

    def _decode(self, replica: int) -> Step:
        """A decode step: what the GPUs do, and what the engine adds."""
        device = (*self._period(replica), *self.wires.exchange(prompt=False))
        if self.strategy.slower != 1:
            device = (self._slower("kernels and wires", device),)
        overhead = (self._step_overhead(),) if self.strategy.step_overhead else ()
        return added("decode step", (*device, *overhead))

    def _slower(self, name: str, children: tuple[Step, ...], more: float = 1.0) -> Step:
        """What GPUs do, as many times as long as runs on those of the vendor took, and ``more`` times that."""
        vendor, times = self.strategy.vendor, self.strategy.slower
        source = f"published runs on {vendor} GPUs took {times:g} times as long as constants of others say" if times != 1 else ""
        return replace(added(name, children, times=times * more), source=source)

    def _held_up(self, name: str, children: tuple[Step, ...]) -> Step:
        """How long a prompt keeps others from decoding: longer than its kernels take."""
        fit = self.strategy.calibration.overhead(self.strategy.traits.stack)
        found = self._slower(name, children, fit.interference)
        return found if fit.interference == 1 else replace(found, constants=self._overhead())

    def _period(self, replica: int) -> tuple[Step, ...]:
        """Every stage in turn, or as often the slowest as there are micro-batches, whichever is longer."""
        strategy = self.strategy
        stages = self._decode_stages(self._longest(replica, lambda one: one.decode_sum))
        if len(stages) == 1:
            return stages[0].children
        count, micro_batches = len(stages), strategy.micro_batches
        hopped = self._longest(replica, lambda one: one.hops_decode)
        hops = tuple(
            self.wires.hops(number, senders, receivers, prompt=False)
            for number, (senders, receivers) in enumerate(pairwise(hopped))
        )
        back = added("sends, and back to the first stage", hops, times=count / (count - 1))
        around = added("once through all stages", (*numbered("stage", stages, together=True), back))
        if strategy.workload.load == "batch":
            return (added("parts one after another", (around,), times=micro_batches),)
        slowest = Step(
            "slowest stage",
            max(stage.value for stage in self._decode_stages(self._longest(replica, lambda one: one.decode_max))),
            "s",
            "reference",
        )
        held_up = added("slowest stage with every micro-batch", (slowest,), times=micro_batches)
        return (Step("pipeline", max(around.value, held_up.value), "s", "max", 1.0, "decode_period", children=(around, held_up)),)

    def _decode_stages(self, replica: Replica) -> list[Step]:
        strategy = self.strategy
        steps = []
        for number, (group, layers) in enumerate(zip(replica, stages_of(strategy.model, strategy.partition), strict=True)):
            parts = self.layers.decode_parts(layers, strategy.batch, strategy.workload.verified)
            head = strategy.stages[number].decode.get("head", Seconds(0.0))
            if head:
                parts["head"] = part("head", (self.layers.head_step(strategy.step_tokens, head),))
            if strategy.stages[number].draft_passes:
                drafting = drafting_layers(strategy.model, strategy.workload.speculation)
                parts["drafting"] = self.layers.drafting_part(drafting, strategy.batch, strategy.stages[number].draft_passes)
            kernels = tuple(part for part in parts.values() if part.value)
            steps.append(added("stage", (*kernels, *self.wires.decode(number, group))))
        return steps

    def _riding(self, replica: int) -> tuple[Step, ...]:
        """What one prompt adds to decode steps: on the busiest stage, and exchanges; all of it where it has steps of its own."""
        strategy = self.strategy
        longest, exchange = self._longest(replica, lambda one: one.riding_max), self.wires.exchange(prompt=True)
        if strategy.traits.prompts_apart:
            name, steps = "one prompt between decode steps", self._prompt_stages(longest)
        else:
            name, steps = "one prompt beside decoding", self._riding_stages(longest)
        if len(steps) == 1:
            return (self._held_up(name, (*steps[0].children, *exchange)),)
        value = max(step.value for step in steps)
        busiest = Step("busiest stage", value, "s", "max", children=numbered("stage", steps, together=False))
        return (self._held_up(name, (busiest, *exchange)),)

    def _riding_stages(self, longest: Replica) -> list[Step]:
        strategy, steps = self.strategy, []
        for number, (group, layers) in enumerate(zip(longest, stages_of(strategy.model, strategy.partition), strict=True)):
            parts = self.layers.riding_parts(layers, strategy.chunks, strategy.step_tokens)
            kernels = tuple(part for part in parts if part.value)
            steps.append(added("stage", (*kernels, *self.wires.riding(number, group))))
        return steps

    def _prompt(self, replica: int) -> Step:
        """A prompt's own way: its chunks one after another, or in several stages at once, as far as the engine does so."""
        strategy, times = self.strategy, self.times[replica]
        chunks, exchange = strategy.chunks, self.wires.exchange(prompt=True)
        stages = self._prompt_stages(self._longest(replica, lambda one: one.prefill_sum))
        if len(stages) == 1:
            return self._slower("one prompt", (*stages[0].children, *exchange))
        hopped = self._longest(replica, lambda one: one.hops_prefill)
        hops = tuple(
            self.wires.hops(number, senders, receivers, prompt=True)
            for number, (senders, receivers) in enumerate(pairwise(hopped))
        )
        sends = added("sends of all chunks", hops, times=chunks.count)
        serial = (*numbered("stage", stages, together=True), sends, *exchange)
        overlap = strategy.traits.chunk_pipelining
        parts = [added("chunks one after another", serial, times=1 - overlap)]
        if overlap:
            mean = Step("a chunk through all stages", times.prefill_sum / chunks.count, "s", "reference")
            sent = Step("its sends", times.hops_prefill, "s", "reference")
            rest = Step(
                "other chunks in the busiest stage",
                (chunks.count - 1) * times.prefill_max / chunks.count,
                "s",
                "reference",
                chunks.count - 1,
            )
            ideal = tuple(one for one in (mean, sent, rest) if one.value)
            parts.append(added("chunks in several stages at once", (*ideal, *exchange), times=overlap))
        return replace(self._slower("one prompt", tuple(one for one in parts if one.value)), formula="prompt_makespan")

    def _prompt_stages(self, replica: Replica) -> list[Step]:
        strategy = self.strategy
        steps = []
        for number, (group, layers) in enumerate(zip(replica, stages_of(strategy.model, strategy.partition), strict=True)):
            parts = self.layers.prefill_parts(layers, strategy.chunks)
            kernels = tuple(part for part in parts.values() if part.value)
            steps.append(added("stage", (*kernels, *self.wires.prompt(number, group))))
        return steps
