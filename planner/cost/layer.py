"""One decoder layer on one GPU, without communication: a decode step and a whole prompt."""

from __future__ import annotations

from dataclasses import dataclass

from planner.core.engine import replicated_kv_heads
from planner.core.hardware import GpuSpec
from planner.core.model import DenseMlp, Layer, ModelSpec
from planner.core.plan import Parallelism
from planner.cost import attention
from planner.cost.calibration import Calibration
from planner.cost.gemm import gemm
from planner.cost.moe import experts_time
from planner.units import Seconds


@dataclass(frozen=True, slots=True)
class Chunks:
    """A prompt cut into chunks: ``whole`` of ``size`` tokens and, if ``rest``, one more of ``rest`` tokens."""

    size: int
    whole: int
    rest: int

    @property
    def count(self) -> int:
        """How many passes the prompt takes."""
        return self.whole + (self.rest > 0)

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """(tokens, how many chunks of that size)."""
        return tuple((tokens, times) for tokens, times in ((self.size, self.whole), (self.rest, 1)) if tokens and times)


def cut(tokens: int, most: int) -> Chunks:
    """A prompt of ``tokens`` under a limit of ``most`` tokens a step.

    >>> cut(5000, 2048)
    Chunks(size=2048, whole=2, rest=904)
    >>> cut(1024, 2048)
    Chunks(size=1024, whole=1, rest=0)
    """
    size = min(tokens, most)
    return Chunks(size, tokens // size, tokens % size)


class LayerCost:
    """Prices layers of one model on one kind of GPU under one parallelism."""

    def __init__(self, model: ModelSpec, parallelism: Parallelism, gpu: GpuSpec, calibration: Calibration) -> None:
        self.model = model
        self.parallelism = parallelism
        self.gpu = gpu
        self.calibration = calibration
        self._fit = calibration.gemm_fit(model.weight_format.name)

    def _product(self, tokens: float, outputs: float, inputs: float) -> Seconds:
        return gemm(tokens, outputs, inputs, self.model.weight_format, self.gpu, self._fit)

    def linear(self, layer: Layer, tokens: float) -> Seconds:
        """The dense matrices of a layer for ``tokens`` tokens: attention's four, and the feed-forward's unless routed."""
        tensor, hidden, form = self.parallelism.tensor, self.model.hidden_size, layer.attention
        queries = form.query_heads // tensor * form.head_size
        keys = 2 * replicated_kv_heads(form.kv_heads, tensor) * form.head_size
        time = self._product(tokens, queries + keys, hidden) + self._product(tokens, hidden, queries)
        if isinstance(layer.mlp, DenseMlp):
            inner = layer.mlp.intermediate_size / tensor
            time += self._product(tokens, 2 * inner, hidden) + self._product(tokens, hidden, inner)
        return Seconds(time)

    def experts(self, layer: Layer, tokens: float) -> Seconds:
        """The routed experts of a layer when each attention replica brings ``tokens`` tokens."""
        if isinstance(layer.mlp, DenseMlp):
            return Seconds(0.0)
        degrees = self.parallelism
        together = tokens * degrees.data if degrees.attention_data_parallel else tokens
        ranks = degrees.expert
        shards = degrees.tensor * (degrees.data if degrees.attention_data_parallel else 1) // ranks
        return experts_time(
            layer.mlp,
            self.model.hidden_size,
            together,
            shards,
            ranks,
            self.model.weight_format,
            self.gpu,
            self.calibration,
        )

    def decode(self, layer: Layer, sequences: float, context: int) -> dict[str, Seconds]:
        """One token of each of ``sequences`` requests, by part."""
        tensor = self.parallelism.tensor
        fit = self.calibration.decode_attention
        return {
            "linear": self.linear(layer, sequences),
            "attention": attention.decode(layer.attention, tensor, sequences, context, self.gpu, fit),
            "experts": self.experts(layer, sequences),
            "elementwise": self.calibration.elementwise,
        }

    def prefill(self, layer: Layer, chunks: Chunks) -> dict[str, Seconds]:
        """A whole prompt, by part."""
        tokens = chunks.size * chunks.whole + chunks.rest
        work = attention.prompt_work(layer.attention, self.parallelism.tensor, tokens)
        return {
            "linear": Seconds(sum(times * self.linear(layer, size) for size, times in chunks.parts)),
            "attention": attention.prefill(work, chunks.count, self.gpu, self.calibration.prefill_attention),
            "experts": Seconds(sum(times * self.experts(layer, size) for size, times in chunks.parts)),
            "elementwise": Seconds(chunks.count * self.calibration.elementwise),
        }

    def riding(self, layer: Layer, chunks: Chunks, sequences: float) -> Seconds:
        """What a prompt adds to steps that decode ``sequences`` tokens anyway: their weights are read once for both."""
        added = 0.0
        for size, times in chunks.parts:
            linear = self.linear(layer, sequences + size) - self.linear(layer, sequences)
            experts = self.experts(layer, sequences + size) - self.experts(layer, sequences)
            added += times * (linear + experts)
        tokens = chunks.size * chunks.whole + chunks.rest
        work = attention.prompt_work(layer.attention, self.parallelism.tensor, tokens)
        fit = self.calibration.prefill_attention
        return Seconds(added + attention.prefill(work, chunks.count, self.gpu, fit))
