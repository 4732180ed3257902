"""One decoder layer on one GPU, without communication: a decode step and a whole prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.core.hardware import GpuSpec
from planner.core.model import DenseMlp, LatentAttention, Layer, Mixer, ModelSpec, MoeMlp
from planner.core.plan import Parallelism
from planner.core.quantization import BF16, WeightFormat
from planner.cost import attention
from planner.cost.calibration import NO_OVERHEAD, AttentionFit, Calibration, OverheadFit
from planner.cost.elementwise import small_kernels
from planner.cost.gemm import gemm, head
from planner.cost.moe import experts_time
from planner.units import Flop, Seconds


@dataclass(frozen=True, slots=True)
class Chunks:
    """A prompt cut into chunks: ``whole`` of ``size`` tokens and, if ``rest``, one more of ``rest`` tokens; or ``prompts`` of them end
    to end. Each comes after ``prefix`` tokens whose keys and values are there.
    """

    size: int
    whole: int
    rest: int
    prompts: int = 1
    prefix: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of all chunks."""
        return self.size * self.whole + self.rest

    @property
    def count(self) -> int:
        """How many passes the prompt takes."""
        return self.whole + (self.rest > 0)

    @property
    def seen(self) -> float:
        """How many positions the last token of a chunk sees, on average."""
        each, parts = self.tokens / self.prompts, max(1.0, self.count / self.prompts)
        return self.prefix + each * (1 + 1 / parts) / 2

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """(tokens, how many chunks of that size)."""
        return tuple((tokens, times) for tokens, times in ((self.size, self.whole), (self.rest, 1)) if tokens and times)


def cut(tokens: int, most: int, prompts: int = 1, prefix: int = 0) -> Chunks:
    """``prompts`` of ``tokens`` each after ``prefix`` others, under a limit of ``most`` tokens a step.

    >>> cut(5000, 2048)
    Chunks(size=2048, whole=2, rest=904, prompts=1, prefix=0)
    >>> cut(1024, 2048)
    Chunks(size=1024, whole=1, rest=0, prompts=1, prefix=0)
    """
    together = tokens * prompts
    size = min(together, most)
    return Chunks(size, together // size, together % size, prompts, prefix)


class LayerCost:
    """Prices layers of one model on one kind of GPU under one parallelism."""

    def __init__(
        self,
        model: ModelSpec,
        parallelism: Parallelism,
        gpu: GpuSpec,
        calibration: Calibration,
        overhead: OverheadFit = NO_OVERHEAD,
    ) -> None:
        self.overhead = overhead
        self.model = model
        self.parallelism = parallelism
        self.gpu = gpu
        self.calibration = calibration
        self.token_fit, self.prompt_fit = self._attention_fit("decode"), self._attention_fit("prefill")

    def _attention_fit(self, phase: str) -> AttentionFit:
        return self.calibration.attention_fit(phase, self.gpu, self.overhead.stack, self.model.kv_element_bytes)

    def _product(self, tokens: float, outputs: float, inputs: float, weights: WeightFormat) -> Seconds:
        return gemm(tokens, outputs, inputs, weights, self.gpu, self.calibration.gemm_fit(weights.kernels))

    def share(self, tokens: float) -> float:
        """Of the tokens or requests of a step, those that fall to one tensor group where several split them."""
        groups = self.parallelism.prefill_context
        return tokens if groups == 1 else math.ceil(tokens / groups)

    def linear(self, layer: Layer, tokens: float) -> Seconds:
        """The dense matrices of a layer for ``tokens`` tokens: attention's, and the feed-forward's that every token meets. Where
        several tensor groups split prompts and requests, for the share of one.
        """
        tokens = self.share(tokens)
        stored, time = self.model.weight_format, 0.0
        if layer.attention is not None:
            time += self._projections(layer.attention, tokens, layer.format_of("attention", stored))
        if isinstance(layer.mlp, DenseMlp):
            time += self._dense(layer.mlp, tokens, layer.format_of("mlp", stored))
        elif layer.mlp is not None:
            shared_format = layer.format_of("shared_experts", stored)
            if layer.mlp.shared is not None:
                time += self._dense(layer.mlp.shared, tokens, shared_format)
            if layer.mlp.latent_size is not None:
                time += self._product(tokens, layer.mlp.latent_size, self.model.hidden_size, BF16)
                time += self._product(tokens, self.model.hidden_size, layer.mlp.latent_size, BF16)
        return Seconds(time)

    def _projections(self, mixer: Mixer, tokens: float, stored: WeightFormat) -> float:
        tensor, hidden = self.parallelism.tensor, self.model.hidden_size
        if not isinstance(mixer, LatentAttention):
            inputs = self._product(tokens, mixer.input_width(tensor), hidden, stored)
            return inputs + self._product(tokens, hidden, mixer.output_width(tensor), stored)
        heads = mixer.query_heads // tensor
        queries = heads * (mixer.nope_size + mixer.rope_size)
        if mixer.query_rank is None:
            time: float = self._product(tokens, queries + mixer.cached, hidden, stored)
        else:
            time = self._product(tokens, mixer.query_rank + mixer.cached, hidden, stored)
            time += self._product(tokens, queries, mixer.query_rank, stored)
        if mixer.indexer is not None:
            index = mixer.indexer
            time += self._product(tokens, index.heads * index.head_size, mixer.query_rank or hidden, stored)
            time += self._product(tokens, index.head_size + index.heads, hidden, stored)
        time += self._product(tokens, heads * (mixer.nope_size + mixer.value_size), mixer.latent_size, BF16)
        return time + self._product(tokens, hidden, heads * mixer.value_size, stored)

    def _dense(self, mlp: DenseMlp, tokens: float, stored: WeightFormat) -> float:
        inner, hidden = mlp.intermediate_size / self.parallelism.tensor, self.model.hidden_size
        return self._product(tokens, mlp.inputs * inner, hidden, stored) + self._product(tokens, hidden, inner, stored)

    def head(self, tokens: float) -> Seconds:
        """The language-model head for ``tokens`` tokens."""
        model = self.model
        return head(tokens, model.vocabulary_size / self.parallelism.tensor, model.hidden_size, self.gpu, self.calibration)

    def experts(self, layer: Layer, tokens: float) -> Seconds:
        """The routed experts of a layer when each attention replica brings ``tokens`` tokens."""
        if not isinstance(layer.mlp, MoeMlp):
            return Seconds(0.0)
        degrees = self.parallelism
        together = tokens * degrees.data if degrees.attention_data_parallel else tokens
        ranks = degrees.expert
        shards = degrees.gpus_per_stage * (degrees.data if degrees.attention_data_parallel else 1) // ranks
        return experts_time(
            layer.mlp,
            self.model.hidden_size,
            together,
            shards,
            ranks,
            layer.format_of("experts", self.model.weight_format),
            self.gpu,
            self.calibration,
        )

    def _elementwise(self, layer: Layer) -> Seconds:
        """The small kernels of a layer with experts."""
        if not isinstance(layer.mlp, MoeMlp):
            return Seconds(0.0)
        return Seconds(small_kernels(layer) * self.gpu.cycle * self.overhead.small_kernel)

    def _prompt(self, layer: Layer, chunks: Chunks) -> Seconds:
        """Attention of a whole prompt."""
        if layer.attention is None:
            return Seconds(0.0)
        tensor, each = self.parallelism.tensor, chunks.tokens // chunks.prompts
        work = attention.prompt_work(layer.attention, tensor, chunks.prefix + each)
        if chunks.prefix:
            work = Flop(work - attention.prompt_work(layer.attention, tensor, chunks.prefix))
        groups = self.parallelism.prefill_context
        longer = attention.narrow_heads(attention.prompt_heads(layer.attention))
        work = Flop(chunks.prompts * work / groups * longer)
        last = Flop(chunks.count * attention.last_work(layer.attention, chunks.seen) * longer)
        width, tokens, length = layer.attention.output_width(tensor), -(-chunks.tokens // groups), chunks.prefix + each
        return attention.prefill(work, last, width, tokens, length, chunks.count, self.gpu, self.prompt_fit)

    def shared_out(self, context: int) -> tuple[int, int]:
        """Over how many ranks heads are split, and how much of ``context`` one holds: ranks that share out the cache by tokens
        bring their query heads together.
        """
        ranks = self.parallelism.decode_context
        return self.parallelism.tensor // ranks, -(-context // ranks)

    def decode(self, layer: Layer, sequences: float, context: int, verified: int = 1) -> dict[str, Seconds]:
        """One token of each of ``sequences`` requests, by part, or ``verified`` of them at once."""
        cached = self.model.kv_element_bytes
        against = Seconds(0.0)
        if layer.attention is not None:
            heads, seen = self.shared_out(context)
            dealt = self.share(sequences)
            fits = self.token_fit, cached, self.prompt_fit
            against = attention.decode(layer.attention, heads, dealt, seen, self.gpu, *fits, verified)
        return {
            "linear": self.linear(layer, sequences * verified),
            "attention": against,
            "experts": self.experts(layer, sequences * verified),
            "elementwise": self._elementwise(layer),
        }

    def prefill(self, layer: Layer, chunks: Chunks) -> dict[str, Seconds]:
        """A whole prompt, by part."""
        return {
            "linear": Seconds(sum(times * self.linear(layer, size) for size, times in chunks.parts)),
            "attention": self._prompt(layer, chunks),
            "experts": Seconds(sum(times * self.experts(layer, size) for size, times in chunks.parts)),
            "elementwise": Seconds(chunks.count * self._elementwise(layer)),
        }

    def riding(self, layer: Layer, chunks: Chunks, sequences: float) -> Seconds:
        """What a prompt adds to steps that decode ``sequences`` tokens anyway: their weights are read once for both."""
        added = 0.0
        for size, times in chunks.parts:
            linear = self.linear(layer, sequences + size) - self.linear(layer, sequences)
            experts = self.experts(layer, sequences + size) - self.experts(layer, sequences)
            added += times * (linear + experts)
        return Seconds(added + self._prompt(layer, chunks))
