"""Weight formats: how many bytes a weight takes, in which arithmetic it is multiplied, and which shards are legal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CacheDtype = Literal["auto", "fp8"]
"""What engines keep keys and values in: 16 bits or what the checkpoint asks for, or 8 bits."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the matrices of the decoder layers are stored. Embeddings, head, norms, router and biases stay 16-bit.

    ``bytes_per_weight`` counts scales and zero points. ``math`` is the dtype of the matrix product on hardware that
    has it (16-bit otherwise). ``group`` is the number of input features one scale covers: a shard must be a multiple
    of it. ``block`` is the (output, input) tile of block-scaled FP8. ``minimum_capability`` is the oldest CUDA compute
    capability the engines' kernels run on, native or weight-only. ``like`` names the format whose kernels this one shares.
    ``expert_multiples`` are what engines pad an expert's intermediate size, on each rank, and hidden size to.
    """

    name: str
    bytes_per_weight: float
    math: str
    source: str
    group: int | None = None
    block: tuple[int, int] | None = None
    minimum_capability: tuple[int, int] = (7, 0)
    needs_own_checkpoint: bool = False
    like: str | None = None
    expert_multiples: tuple[int, int] = (1, 1)

    @property
    def kernels(self) -> str:
        """The name its kernels were measured under."""
        return self.like or self.name

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
            expert_multiples=(128, 256),
        ),
        WeightFormat(
            "bnb-4bit",
            grouped(4, 64, 8.125),
            "bf16",
            "bitsandbytes NF4: 4 bits a weight, an 8-bit scale for every 64, those scales scaled again in groups of 256",
            minimum_capability=(7, 0),
            needs_own_checkpoint=True,
            like="awq",
        ),
    )
}


BITS_OF_AWQ = 4
W8A16 = "w8a16"
"""Kernels of weights in 8-bit integers that are multiplied in 16 bits, as tables call them."""


def integers(name: str, bits: int, group: int | None, *, zeros: bool) -> WeightFormat:
    """Weight-only integers of ``bits`` bits, an fp16 scale (and a zero point, where ``zeros``) for every ``group`` inputs, one for
    a whole row where that is ``None``; multiplied in 16 bits. The format of that ``name`` where it is just that.

    >>> integers("gptq", 4, 128, zeros=True) is FORMATS["gptq"]
    True
    >>> integers("w4a16", 4, 32, zeros=False).bytes_per_weight, integers("gptq", 8, 128, zeros=True).name
    (0.5625, 'gptq-int8')
    """
    size = grouped(bits, group, 16, bits if zeros else 0) if group else bits / 8
    known = FORMATS.get(name)
    if known is not None:
        if (group, size) == (known.group, known.bytes_per_weight):
            return known
        name = f"{name}-int{bits}"
    scales = f"an fp16 scale{' and a zero point' if zeros else ''} for every {group} inputs" if group else "one scale a row"
    return WeightFormat(
        name if group in {None, 128} else f"{name}-g{group}",
        size,
        "bf16",
        f"{bits} bits a weight, {scales}; weight-only, 16-bit arithmetic",
        group=group,
        minimum_capability=(7, 5),
        needs_own_checkpoint=True,
        like="awq" if bits == BITS_OF_AWQ else W8A16,
    )


ALIASES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "int4": "awq", "awq-int4": "awq", "gptq-int4": "gptq"}
