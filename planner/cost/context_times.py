"""What ranks exchange that share out the KV cache of every request by tokens, or split prompts: in a decode step, and for a prompt.

For a chunk that comes after cached tokens, vLLM gathers the latents of those (mla_attention.py), or attends to them as in a decode
step, with the queries of all ranks brought together (flash_attn.py); there a chunk that shares its step with decoding always does.

Tensor groups that split prompts deal out the requests that decode, too (v1/worker/gpu/pcp_manager.py). Before attention they gather what goes
into the cache, which each keeps whole; around experts, which all of them share, they gather hidden states, and reduce and scatter what comes out
(fused_moe/runner/moe_runner.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from planner.core.model import Attention, LatentAttention, Mixer, MoeMlp
from planner.core.plan import Group, context_groups
from planner.cost.exchanges import ContextExchange, context_messages
from planner.cost.layer import Chunks
from planner.cost.strategy import HIDDEN_BYTES, Strategy
from planner.units import Bytes, Seconds

AllGather = Callable[[Sequence[int], Bytes, float], Seconds]
"""The time of an all-gather over GPUs, of the bytes they hold together, that keeps a share of the bandwidth."""


def chunks_behind(chunks: Chunks) -> tuple[float, float]:
    """How many chunks come after tokens of their prompts that are cached, and how many tokens those are in the mean.

    Exact for one prompt; the mean over all ways they fall where several lie end to end.

    >>> chunks_behind(Chunks(size=2048, whole=2, rest=904)), chunks_behind(Chunks(size=1024, whole=1, rest=0))
    ((2, 3072.0), (0, 0.0))
    """
    count, each = chunks.count, chunks.tokens / chunks.prompts
    if chunks.prompts == 1:
        number: float = count if chunks.prefix else count - 1
        tokens = chunks.prefix * count + chunks.size * count * (count - 1) / 2
    else:
        step = math.gcd(chunks.size, chunks.tokens // chunks.prompts)
        cut = count * (1 - step / each)
        number = count if chunks.prefix else cut
        tokens = count * (each - step) / 2 + chunks.prefix * (chunks.prompts + cut)
    return number, tokens / number if number else 0.0


class ContextTimes:
    """The exchanges of the stages of one strategy: over the links of a whole tensor-parallel group where its ranks share out the cache,
    over those between the same ranks of every tensor group where these split prompts.
    """

    def __init__(self, strategy: Strategy, all_gather: AllGather) -> None:
        self.strategy = strategy
        self._all_gather = all_gather
        self._layers: dict[tuple[Group, Mixer | MoeMlp, float], tuple[Seconds, Seconds, Seconds]] = {}

    def decode(self, stage: int, gpus: Sequence[int], kept: float = 1.0) -> Seconds:
        """A decode step; nothing where the cache is not shared out, here as below."""
        return self._of_stage(stage, gpus, kept, 0)

    def prompt(self, stage: int, gpus: Sequence[int], kept: float = 1.0) -> Seconds:
        """A whole prompt alone."""
        return self._of_stage(stage, gpus, kept, 1)

    def riding(self, stage: int, gpus: Sequence[int], kept: float = 1.0) -> Seconds:
        """What a whole prompt adds to decode steps that it shares."""
        return self._of_stage(stage, gpus, kept, 2)

    def _of_stage(self, stage: int, gpus: Sequence[int], kept: float, which: int) -> Seconds:
        contexts = self.strategy.stages[stage].contexts
        return Seconds(sum(count * self.layer(gpus, mixer, kept)[which] for mixer, count in contexts))

    def layer(self, gpus: Sequence[int], mixer: Mixer | MoeMlp, kept: float = 1.0) -> tuple[Seconds, Seconds, Seconds]:
        """One layer: a decode step, a whole prompt alone, a whole prompt beside decoding."""
        split = self.strategy.parallelism.prefill_context > 1
        key = tuple(gpus) if split else tuple(sorted(gpus)), mixer, kept
        found = self._layers.get(key)
        if found is None:
            found = self._layers[key] = self._split(key[0], mixer, kept) if split else self._layer(gpus, mixer, kept)
        return found

    def _split(self, gpus: Group, block: Mixer | MoeMlp, kept: float) -> tuple[Seconds, Seconds, Seconds]:
        """Where tensor groups split prompts: what the slowest ranks gather, and for experts scatter."""
        strategy = self.strategy
        ranks, rounds = context_groups(gpus, strategy.parallelism.tensor), 2 if isinstance(block, MoeMlp) else 1

        def exchange(tokens: float) -> float:
            return rounds * max(self._all_gather(one, self.together(block, tokens), kept) for one in ranks)

        decode, parts = exchange(strategy.step_tokens), strategy.chunks.parts
        alone = sum(times * exchange(size) for size, times in parts)
        riding = sum(times * (exchange(size + strategy.step_tokens) - decode) for size, times in parts)
        return Seconds(decode), Seconds(alone), Seconds(riding)

    def together(self, block: Mixer | MoeMlp, tokens: float) -> Bytes:
        """What a block needs of all tokens where tensor groups split them: latents (and keys of an indexer), or hidden states."""
        if isinstance(block, LatentAttention):
            keys = 0 if block.indexer is None else block.indexer.head_size
            return Bytes(tokens * (block.cached + keys) * HIDDEN_BYTES)
        return Bytes(tokens * self.strategy.model.hidden_size * HIDDEN_BYTES)

    def _layer(self, gpus: Sequence[int], mixer: Mixer | MoeMlp, kept: float) -> tuple[Seconds, Seconds, Seconds]:
        strategy = self.strategy

        def exchange(tokens: float) -> float:
            held = self.messages(mixer, tokens)
            return sum(self._all_gather(gpus, size, kept) for size in (held.queries, held.outputs, held.sums))

        chunks, decode = strategy.chunks, exchange(strategy.step_tokens)
        number, _ = chunks_behind(chunks)
        if isinstance(mixer, LatentAttention):
            gathers = Seconds(number * self._all_gather(gpus, self.gathered(mixer), kept)) if number else Seconds(0.0)
            return Seconds(decode), gathers, gathers
        alone = number / chunks.count * sum(times * exchange(size) for size, times in chunks.parts)
        riding = sum(times * (exchange(size + strategy.step_tokens) - decode) for size, times in chunks.parts)
        return Seconds(decode), Seconds(alone), Seconds(riding)

    def messages(self, mixer: Mixer | MoeMlp, tokens: float) -> ContextExchange:
        """What the ranks which share a cache hold together for ``tokens`` new ones."""
        degrees = self.strategy.parallelism
        assert isinstance(mixer, Attention | LatentAttention)
        heads = mixer.query_heads * degrees.decode_context // degrees.tensor
        if isinstance(mixer, LatentAttention):
            width, output = mixer.cached, mixer.latent_size
        else:
            width, output = mixer.head_size, mixer.values
        return context_messages(tokens, heads, width, output, HIDDEN_BYTES)

    def gathered(self, mixer: LatentAttention) -> Bytes:
        """The latents before a chunk of a prompt, in the mean over the chunks that have any, as attention takes them."""
        return Bytes(chunks_behind(self.strategy.chunks)[1] * mixer.cached * HIDDEN_BYTES)
