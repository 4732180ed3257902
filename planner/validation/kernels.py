"""Rows of tables of measured kernels: matrix products, attention, experts. Which one is told by the columns."""

from __future__ import annotations

from collections.abc import Mapping

from planner.core.attention import Attention
from planner.core.feed_forward import MoeMlp
from planner.core.hardware import GpuSpec
from planner.core.quantization import FORMATS, W8A16, WeightFormat, integers
from planner.cost import attention
from planner.cost.accuracy import Figure
from planner.cost.calibration import Calibration
from planner.cost.exchanges import exchange, exchange_name, exchange_rate, exchanged_bytes
from planner.cost.gemm import gemm
from planner.cost.moe import Routing, experts_time
from planner.documents.tables import Table, TableRow
from planner.errors import BadInput
from planner.machines import load_gpu
from planner.units import Flop, Seconds

COMMON = ("gpu", "time_us")
_FORMATS = {
    "bfloat16": "bf16",
    "float16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8-block",
    "nvfp4": "nvfp4",
    "sq": "int8",
    "int4_wo": "awq",
    "int8_wo": W8A16,
    "w4a16_mxfp4": "mxfp4",
    "w4a8_mxfp4_mxfp8": "mxfp4",
}
"""Weight formats by how kernel tables call them."""
_EIGHT_BIT_INPUTS = frozenset({"w4a8_mxfp4_mxfp8"})
"""Those whose inputs are rounded to 8 bits, where the format's other kernels take 16."""
_STACKS = {"trtllm": "tensorrt-llm", "sglang": "sglang", "vllm": "vllm"}
"""Engines by how kernel tables call them."""
_ROUTINGS: Mapping[str, Routing] = {"balanced": "balanced", "uniform": "uniform"}
"""How tables call the ways that tokens choose experts; all others are skewed."""
_KINDS = {
    "gemm": ("m", "n", "k", "quant"),
    "attention": ("phase", "batch", "seq", "n_heads", "n_kv_heads", "head_dim"),
    "moe": ("tokens", "hidden", "inter", "topk", "experts", "moe_tp", "moe_ep", "quant"),
    "moe_a2a": ("ep", "tokens_per_rank", "hidden", "topk"),
}


def kind_of(table: Table) -> str | None:
    """Which kernels a table measures, ``None`` where it measures none."""
    if not set(COMMON) <= set(table.columns):
        return None
    return next((kind for kind, columns in _KINDS.items() if set(columns) <= set(table.columns)), None)


class KernelRows:
    """Times of single kernels, in µs."""

    named_by = ""

    def __init__(self, kind: str, constants: Calibration) -> None:
        self.kind = kind
        self.figures: tuple[str, ...] = ("time_us",)
        self._constants = constants
        self._gpus: dict[str, GpuSpec | str] = {}

    def answer(self, row: TableRow) -> Mapping[str, Figure] | str:
        """The time of a row, or why there is none."""
        gpu = self._gpu(row.word("gpu"))
        if isinstance(gpu, str):
            return gpu
        quant = row.word("quant")
        if self.kind in {"gemm", "moe"} and quant not in _FORMATS:
            return f"weights in {quant!r} are not known"
        if self.kind == "moe_a2a":
            return self._exchange(row, gpu)
        ask = {"gemm": self._gemm, "attention": self._attention, "moe": self._moe}[self.kind]
        time, (low, high) = ask(row, gpu)
        micros = time * 1e6
        return {"time_us": Figure(micros, micros * low, micros * high, row.number("time_us"))}

    def _gpu(self, name: str) -> GpuSpec | str:
        if name not in self._gpus:
            try:
                self._gpus[name] = load_gpu(name)
            except BadInput as error:
                self._gpus[name] = error.problem
        return self._gpus[name]

    def _gemm(self, row: TableRow, gpu: GpuSpec) -> tuple[Seconds, tuple[float, float]]:
        weights = _weights(row)
        fit = self._constants.gemm_fit(weights.name, _stack(row))
        return gemm(row.count("m"), row.count("n"), row.count("k"), weights, gpu, fit), fit.interval

    def _attention(self, row: TableRow, gpu: GpuSpec) -> tuple[Seconds, tuple[float, float]]:
        batch, length, heads, size = (row.count(name) for name in ("batch", "seq", "n_heads", "head_dim"))
        element = 1.0 if row.word("kv_dtype") == "fp8" else 2.0
        phase = "decode" if row.word("phase") == "decode" else "prefill"
        fit = self._constants.attention_fit(phase, gpu, _stack(row), element)
        if phase == "decode":
            form = Attention(heads, row.count("n_kv_heads"), size)
            return attention.decode(form, 1, batch, length, gpu, fit, element), fit.interval
        longer = attention.narrow_heads(size)
        work = Flop(batch * attention.causal_attention_work(heads, size, length) * longer)
        last = Flop(attention.last_tile_work(size, length) * longer)
        return attention.prefill(work, last, heads * size, batch * length, length, 1, gpu, fit), fit.interval

    def _exchange(self, row: TableRow, gpu: GpuSpec) -> Mapping[str, Figure] | str:
        name = exchange_name(row.word("impl"), row.word("phase"), row.word("dtype"))
        fit = self._constants.exchanges.get(name)
        if fit is None:
            return f"exchange {name!r} is not known"
        if gpu.peer_links is None or row.count("n_nodes", 1) > 1:
            return "exchanges are predicted over NVLink, on one node"
        size = exchanged_bytes(*(row.count(column) for column in ("tokens_per_rank", "topk", "ep", "hidden")))
        micros = exchange(size, exchange_rate(name, gpu.peer_links.bandwidth), fit) * 1e6
        low, high = fit.interval
        return {"time_us": Figure(micros, micros * low, micros * high, row.number("time_us"))}

    def _moe(self, row: TableRow, gpu: GpuSpec) -> tuple[Seconds, tuple[float, float]]:
        weights = _weights(row)
        experts = MoeMlp(row.count("experts"), row.count("topk"), row.count("inter"))
        sizes = (row.count("hidden"), float(row.count("tokens")), row.count("moe_tp"), row.count("moe_ep"))
        routing = _ROUTINGS.get(row.word("distribution"), "skewed" if row.word("distribution") else "uniform")
        eight = row.word("quant") in _EIGHT_BIT_INPUTS
        time = experts_time(experts, *sizes, weights, gpu, self._constants, routing, tabled=True, eight=eight)
        return time, self._constants.moe_fit(weights.name, gpu, tabled=True, eight=eight).interval


def _weights(row: TableRow) -> WeightFormat:
    """The weight format of a row."""
    name = _FORMATS[row.word("quant")]
    return FORMATS.get(name) or integers(name, 8, None, zeros=False)


def _stack(row: TableRow) -> str:
    """The engine that a kernel was measured in, without its version."""
    return _STACKS.get(row.word("engine").split("-")[0], "")
