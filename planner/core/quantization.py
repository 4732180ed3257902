"""Weight formats: how many bytes a weight takes, in which arithmetic it is multiplied, and which shards are legal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the matrices of the decoder layers are stored. Embeddings, head, norms and router stay 16-bit.

    ``bytes_per_weight`` counts scales and zero points. ``math`` is the dtype of the matrix product on hardware that
    has it (16-bit otherwise). ``group`` is the number of input features one scale covers: a shard must be a multiple
    of it. ``block`` is the (output, input) tile of block-scaled FP8. ``minimum_capability`` is the oldest CUDA compute
    capability the engines' kernels run on, native or weight-only.
    """

    name: str
    bytes_per_weight: float
    math: str
    source: str
    group: int | None = None
    block: tuple[int, int] | None = None
    minimum_capability: tuple[int, int] = (7, 0)
    needs_own_checkpoint: bool = False

    @property
    def shard_multiple(self) -> int:
        """What a sharded dimension must be a multiple of on every rank."""
        return max(self.block) if self.block else (self.group or 1)


def grouped(bits: float, group: int, scale_bits: float, zero_bits: float = 0.0) -> float:
    """Bytes per weight of a format with one scale (and zero point) for every ``group`` weights.

    >>> grouped(4, 128, 16, 4), grouped(4, 16, 8), grouped(4, 32, 8)
    (0.51953125, 0.5625, 0.53125)
    """
    return (bits + (scale_bits + zero_bits) / group) / 8


BF16 = WeightFormat("bf16", 2.0, "bf16", "16 bits a weight")
FP16 = WeightFormat("fp16", 2.0, "fp16", "16 bits a weight")

FORMATS: dict[str, WeightFormat] = {
    weight_format.name: weight_format
    for weight_format in (
        BF16,
        FP16,
        WeightFormat("fp8", 1.0, "fp8", "8 bits a weight, one scale a tensor or channel", minimum_capability=(8, 0)),
        WeightFormat(
            "fp8-block",
            grouped(8, 128 * 128, 32),
            "fp8",
            "8 bits a weight, one fp32 scale for every 128x128 tile (DeepSeek-V3 and Qwen3 FP8 checkpoints)",
            block=(128, 128),
            minimum_capability=(8, 0),
            needs_own_checkpoint=True,
        ),
        WeightFormat(
            "int8",
            1.0,
            "int8",
            "8 bits a weight, one scale a channel",
            minimum_capability=(7, 5),
            needs_own_checkpoint=True,
        ),
        WeightFormat(
            "awq",
            grouped(4, 128, 16, 4),
            "bf16",
            "4 bits a weight, fp16 scale and 4-bit zero for every 128 inputs; weight-only, 16-bit arithmetic",
            group=128,
            minimum_capability=(7, 5),
            needs_own_checkpoint=True,
        ),
        WeightFormat(
            "gptq",
            grouped(4, 128, 16, 4),
            "bf16",
            "4 bits a weight, fp16 scale and 4-bit zero for every 128 inputs; weight-only, 16-bit arithmetic",
            group=128,
            minimum_capability=(7, 0),
            needs_own_checkpoint=True,
        ),
        WeightFormat(
            "nvfp4",
            grouped(4, 16, 8),
            "fp4",
            "4 bits a weight, one fp8 scale for every 16",
            group=16,
            minimum_capability=(8, 0),
            needs_own_checkpoint=True,
        ),
        WeightFormat(
            "mxfp4",
            grouped(4, 32, 8),
            "fp4",
            "4 bits a weight, one 8-bit exponent for every 32",
            group=32,
            minimum_capability=(8, 0),
            needs_own_checkpoint=True,
        ),
    )
}

ALIASES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "int4": "awq", "awq-int4": "awq", "gptq-int4": "gptq"}
