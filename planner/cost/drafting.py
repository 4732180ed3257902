"""What guessing tokens takes: the layers that do it, their memory, their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.core.estimate import StageMemory
from planner.core.model import Layer, ModelSpec
from planner.core.plan import Parallelism
from planner.core.speculation import Speculation
from planner.cost import memory
from planner.cost.formula import formula
from planner.cost.layer import LayerCost
from planner.units import Bytes, Seconds

JOINING_BYTES = 2


def drafting_layers(model: ModelSpec, speculation: Speculation | None) -> tuple[Layer, ...]:
    """The layers that guess, run once for every guess: the model's first prediction layer, or one more like its last; none where
    guesses are looked up.
    """
    if speculation is None or speculation.method == "ngram":
        return ()
    return model.prediction_layers[:1] if speculation.method == "mtp" else model.layers[-1:]


@formula(
    source="DeepSeek-V3 (2024) section 2.2, EAGLE-3 (Li et al. 2025): hidden state and embedding joined into one, per guessing layer"
)
def joining_weights(hidden_size: int, tensor: int, element_bytes: float = JOINING_BYTES) -> Bytes:
    """Bytes a rank keeps of the matrix that joins them.

    >>> joining_weights(7168, 8) / 1e6
    25.690112
    """
    return Bytes(2 * hidden_size**2 * element_bytes / tensor)


def drafting_weights(model: ModelSpec, drafting: Sequence[Layer], parallelism: Parallelism) -> Bytes:
    """Bytes of the guessing layers on a rank of the last stage; embedding and head are shared with the model."""
    weights = memory.stage_weights(model, drafting, parallelism, first=False, last=False, multiple=1)
    return Bytes(sum(weights.values()) + len(drafting) * joining_weights(model.hidden_size, parallelism.tensor))


def with_drafting(stage: StageMemory, model: ModelSpec, drafting: Sequence[Layer], parallelism: Parallelism) -> StageMemory:
    """The last stage with the weights of ``drafting`` beside its own."""
    more = drafting_weights(model, drafting, parallelism)
    low, high = stage.kv_cache_range
    return replace(
        stage,
        weights=Bytes(stage.weights + more),
        kv_cache=Bytes(stage.kv_cache - more),
        kv_cache_range=(Bytes(low - more), Bytes(high - more)),
    )


def drafting_time(cost: LayerCost, drafting: Sequence[Layer], batch: int, context: int, passes: int) -> Seconds:
    """``passes`` guesses for each of ``batch`` sequences, one after another: the guessing layers and the head, without wires."""
    once = sum(sum(cost.decode(layer, batch, context).values()) for layer in drafting) + cost.head(batch)
    return Seconds(passes * once)
