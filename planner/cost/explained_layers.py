"""The kernels of a pipeline stage one by one, from the same functions that price it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.core.explanation import Quantity, Step, added, part, repeated
from planner.core.hardware import GpuSpec
from planner.core.model import Layer, Mixer, MoeMlp, kinds
from planner.core.quantization import BF16, WeightFormat
from planner.cost.attention import narrow_heads, prompt_heads
from planner.cost.elementwise import small_kernels
from planner.cost.explained_constants import (
    ENGINES,
    attention_constants,
    data_sheet,
    entry,
    experts_constants,
    gemm_constants,
    kernel_bar,
    key_of,
    quantities,
)
from planner.cost.layer import Chunks, LayerCost
from planner.cost.strategy import Strategy
from planner.units import Seconds

Shape = tuple[float, float, float, str]
"""Tokens, inputs, outputs and weight format of a product."""


class ExplainedLayers(LayerCost):
    """Prices layers as its base does, and says of which kernels the prices are made."""

    def __init__(self, strategy: Strategy, gpu: GpuSpec) -> None:
        calibration, stack = strategy.calibration, strategy.traits.stack
        super().__init__(strategy.model, strategy.parallelism, gpu, calibration, calibration.overhead(stack))
        self._context = strategy.workload.mean_context
        self._products: list[tuple[Shape, Seconds, WeightFormat]] = []

    def _product(self, tokens: float, outputs: float, inputs: float, weights: WeightFormat) -> Seconds:
        time = super()._product(tokens, outputs, inputs, weights)
        if time > 0:
            self._products.append(((tokens, inputs, outputs, weights.name), time, weights))
        return time

    def decode_parts(self, layers: Sequence[Layer], batch: int, verified: int = 1) -> dict[str, Step]:
        """A decode step of ``batch`` sequences with ``verified`` tokens of each, by part."""
        tokens = batch * verified
        return {
            "linear": part("linear", self._linear(layers, ((tokens, 1),))),
            "attention": part("attention", self._attention(layers, lambda layer: self._decode_attention(layer, batch))),
            "experts": part("experts", self._experts(layers, ((tokens, 1),))),
            "elementwise": part("elementwise", self._small(layers, 1)),
        }

    def drafting_part(self, drafting: Sequence[Layer], batch: int, passes: int) -> Step:
        """``passes`` guesses for each of ``batch`` sequences."""
        head = self.head_step(batch, self.head(batch))
        kernels = (*self.decode_parts(drafting, batch).values(), head)
        return added("drafting", tuple(one for one in kernels if one.value), times=passes)

    def prefill_parts(self, layers: Sequence[Layer], chunks: Chunks) -> dict[str, Step]:
        """A whole prompt, by part."""
        return {
            "linear": part("linear", self._linear(layers, chunks.parts)),
            "attention": part("attention", self._attention(layers, lambda layer: self._prompt_attention(layer, chunks))),
            "experts": part("experts", self._experts(layers, chunks.parts)),
            "elementwise": part("elementwise", self._small(layers, chunks.count)),
        }

    def riding_parts(self, layers: Sequence[Layer], chunks: Chunks, batch: int) -> tuple[Step, ...]:
        """What a prompt adds to the decode steps of ``batch`` sequences that it shares, by part."""
        both = [(batch + size, times) for size, times in chunks.parts]
        alone = [(batch, -times) for _, times in chunks.parts]
        return (
            part("linear, beside decoding", (*self._linear(layers, both), *self._linear(layers, alone))),
            part("attention", self._attention(layers, lambda layer: self._prompt_attention(layer, chunks))),
            part("experts, beside decoding", (*self._experts(layers, both), *self._experts(layers, alone))),
        )

    def _linear(self, layers: Sequence[Layer], passes: Sequence[tuple[int, int]]) -> tuple[Step, ...]:
        """The matrix products of ``passes`` of (tokens, how often), those of one shape together."""
        found: dict[Shape, tuple[int, Seconds, WeightFormat]] = {}
        for tokens, times in passes:
            for layer, count in kinds(layers):
                self._products.clear()
                self.linear(layer, tokens)
                for shape, time, weights in self._products:
                    before = found.get(shape, (0, time, weights))[0]
                    found[shape] = before + times * count, time, weights
        return tuple(self.product(shape, count, time, weights) for shape, (count, time, weights) in found.items())

    def product(self, shape: Shape, count: float, time: Seconds, weights: WeightFormat) -> Step:
        """A matrix product, ``count`` times."""
        tokens, inputs, outputs, name = shape
        fit = self.calibration.gemm_fit(weights.kernels)
        value = count * time
        return Step(
            f"product in {name}",
            value,
            "s",
            "formula",
            count,
            "gemm",
            (
                Quantity("m", tokens),
                Quantity("k", inputs),
                Quantity("n", outputs),
                Quantity("weight size", weights.bytes_per_weight, "B"),
            ),
            (gemm_constants(self.calibration, fit), data_sheet(self.gpu, weights.math)),
            bar=kernel_bar(value, fit),
        )

    def _attention(self, layers: Sequence[Layer], priced: Callable[[Layer], Step]) -> tuple[Step, ...]:
        """Attention of every kind of it."""
        counts: dict[object, tuple[int, Layer]] = {}
        for layer, count in kinds(layers):
            if layer.attention is not None:
                before = counts.get(layer.attention, (0, layer))[0]
                counts[layer.attention] = before + count, layer
        return tuple(repeated(priced(layer), count) for count, layer in counts.values())

    def _decode_attention(self, layer: Layer, batch: int) -> Step:
        time, fit = self.decode(layer, batch, self._context)["attention"], self.token_fit
        heads, seen = self.shared_out(self._context)
        asked = (
            Quantity("sequences", self.share(batch)),
            Quantity("context", seen, "tokens"),
            Quantity("cache element", self.model.kv_element_bytes, "B"),
            Quantity("tensor degree", heads),
            *quantities(layer.attention),
        )
        constants = (attention_constants(self.calibration, fit), data_sheet(self.gpu, "bf16"))
        name = _kind(layer.attention)
        return Step(name, time, "s", "formula", 1.0, "decode_attention", asked, constants, bar=kernel_bar(time, fit))

    def _prompt_attention(self, layer: Layer, chunks: Chunks) -> Step:
        time, fit = self._prompt(layer, chunks), self.prompt_fit
        longer = 1.0 if layer.attention is None else narrow_heads(prompt_heads(layer.attention))
        asked = (
            Quantity("tokens", self.share(chunks.tokens)),
            Quantity("chunks", chunks.count),
            Quantity("seen by the last of a chunk", chunks.seen, "tokens"),
            *((Quantity("prompts", chunks.prompts),) if chunks.prompts > 1 else ()),
            *((Quantity("cached before them", chunks.prefix),) if chunks.prefix else ()),
            Quantity("tensor degree", self.parallelism.tensor),
            *((Quantity("times as long for narrow heads", longer),) if longer != 1 else ()),
            *quantities(layer.attention),
        )
        constants = (attention_constants(self.calibration, fit), data_sheet(self.gpu, "bf16"))
        name = _kind(layer.attention)
        return Step(name, time, "s", "formula", 1.0, "prompt_attention", asked, constants, bar=kernel_bar(time, fit))

    def _experts(self, layers: Sequence[Layer], passes: Sequence[tuple[int, int]]) -> tuple[Step, ...]:
        """The routed experts of ``passes`` of (tokens, how often)."""
        steps = []
        for tokens, times in passes:
            for layer, count in kinds(layers):
                if isinstance(layer.mlp, MoeMlp):
                    steps.append(self._experts_step(layer, layer.mlp, tokens, times * count))
        return tuple(steps)

    def _experts_step(self, layer: Layer, mlp: MoeMlp, tokens: int, times: int) -> Step:
        weights = layer.format_of("experts", self.model.weight_format)
        fit, degrees = self.calibration.moe_fit(weights.kernels, self.gpu), self.parallelism
        time = self.experts(layer, tokens)
        replicas = degrees.data if degrees.attention_data_parallel else 1
        asked = (
            Quantity("tokens", tokens * replicas),
            Quantity("hidden size", mlp.width(self.model.hidden_size)),
            Quantity("expert ranks", degrees.expert),
            Quantity("tensor degree", degrees.gpus_per_stage),
            *quantities(mlp),
            Quantity("weight size", weights.bytes_per_weight, "B"),
        )
        constants = (experts_constants(self.calibration, fit), data_sheet(self.gpu, weights.math))
        name, bar = f"experts of {tokens:g} tokens in {weights.name}", kernel_bar(time, fit)
        return repeated(Step(name, time, "s", "formula", 1.0, "experts_time", asked, constants, bar=bar), times)

    def _small(self, layers: Sequence[Layer], passes: int) -> tuple[Step, ...]:
        """The small kernels of layers with experts."""
        overheads = self.calibration.overheads
        constants = entry(f"engines.{key_of(overheads, self.overhead)}.overhead", ENGINES, self.overhead)
        routed = [(layer, passes * count) for layer, count in kinds(layers) if isinstance(layer.mlp, MoeMlp)]
        value = sum(count * self._elementwise(layer) for layer, count in routed)
        if not value:
            return ()
        kernels = sum(count * small_kernels(layer) for layer, count in routed)
        return (Step("small kernels", value, "s", "formula", kernels, "small_kernels", (), (constants,)),)

    def head_step(self, batch: int, time: Seconds) -> Step:
        """The language-model head, which takes ``time``."""
        vocabulary = self.model.vocabulary_size / self.parallelism.tensor
        return self.product((batch, self.model.hidden_size, vocabulary, "bf16"), 1, time, BF16)


def _kind(mixer: Mixer | None) -> str:
    """What a kind of mixer is called: ``latent attention``."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(mixer).__name__)
    return words.strip()
