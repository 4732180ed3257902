"""Results of serving benchmarks (JSON) → :class:`planner.core.benchmark.Served`, told apart by their fields.

The fields were read in the sources of the tools, in November 2026:

- ``vllm bench serve --save-result``: vllm-project/vllm, ``vllm/benchmarks/serve.py``. Times are there only for the metrics that
  ``--percentile-metrics`` names; ``request_rate`` is a number or ``inf``. With ``--append-result`` a record a line.
- ``sglang.bench_serving --output-file``: sgl-project/sglang, ``python/sglang/bench_serving.py``. The names of vLLM, from which it
  stems, with ``total_throughput`` and ``concurrency``, the mean number in flight. A record a line, appended.
- ``trtllm-bench --report_json``: NVIDIA/TensorRT-LLM, ``tensorrt_llm/bench/dataclasses/reporting.py``. Times only of ``--streaming``.
- AIPerf: the page "profile_export_aiperf.json Schema" of its documentation and ``src/aiperf/common/models/export_models.py`` of
  ai-dynamo/aiperf; GenAI-Perf, whose layout that is: ``genai_perf/export_data/json_exporter.py`` of
  triton-inference-server/perf_analyzer. The unit beside a value decides. Where the concurrency stands in ``input_config`` depends on
  the release; the places are those of tools that read such files.

Times are means, as predictions are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.core.benchmark import Served
from planner.core.plan import Parallelism
from planner.documents import json_file
from planner.documents.files import read_text
from planner.errors import BadInput
from planner.units import Seconds

EXPECTED = (
    "expected what 'vllm bench serve --save-result', 'sglang.bench_serving --output-file', 'trtllm-bench --report_json' or AIPerf "
    "(profile_export_aiperf.json) writes"
)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
_LEAST, _MOST = 1e-9, 1e15
"""What no tool measures is beyond."""
_UNBOUNDED = frozenset({"inf", "Infinity"})


def looks_like_json(text: str) -> bool:
    """Whether a text is JSON rather than a table."""
    return text.lstrip()[:1] in {"{", "["}


def read_result(path: Path) -> Served:
    """The result in a file. Raises ``BadInput`` with the field that cannot be read."""
    return parse_result(read_text(path), str(path))


def parse_result(text: str, source: str) -> Served:
    """The same of a text; ``source`` is what messages call it. Of several records, a line each, the last."""
    if not looks_like_json(text):
        raise BadInput("is no JSON", path=source, hint=EXPECTED)
    record, where, notes = _record(text, source)
    fields = _Fields(record, where)
    if "request_info" in record and "performance" in record:
        found = _trtllm(fields)
    elif any(name in record for name in ("mean_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "output_throughput")):
        found = _vllm_or_sglang(fields)
    elif any(_is_block(record.get(name)) for name in ("time_to_first_token", "inter_token_latency", "output_token_throughput")):
        found = _aiperf(fields)
    else:
        raise BadInput("is no result of a benchmark that is known", path=where, hint=EXPECTED)
    if found["completed"] == 0:
        raise BadInput("no request was completed: nothing was measured", path=where)
    if all(found[name] is None for name in ("ttft", "tpot", "output_tokens_per_second")):
        raise BadInput("holds no time to first token, time per output token or rate above 0", path=where, hint=EXPECTED)
    return Served(source=source, notes=notes, **found)


def _record(text: str, source: str) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """The record, what messages call it, and what to say of the others."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) == 1 or not _is_object(lines[0][1]):
        return json_file.load(text, source), source, ()
    number, last = lines[-1]
    where = f"{source}, line {number}"
    try:
        record = json_file.load(last, where)
    except BadInput as error:
        raise BadInput(error.problem, path=where) from None
    return record, where, (f"the file holds {len(lines)} records: the last is compared",)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_block(value: object) -> bool:
    return isinstance(value, dict) and "avg" in value


class _Fields:
    """Typed access to a record; what is not there is ``None``."""

    def __init__(self, record: Mapping[str, Any], where: str) -> None:
        self._record = record
        self._where = where

    def find(self, *path: str) -> Any:
        """The value at a path."""
        value: Any = self._record
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def number(self, *path: str) -> float | None:
        """A number, 0 or more. Raises ``BadInput`` with the field."""
        value = self.find(*path)
        return None if value is None else self.checked(value, ".".join(path))

    def checked(self, value: object, name: str) -> float:
        """``value`` as a number, 0 or more. Raises ``BadInput`` with the field."""
        place = f"{self._where}: $.{name}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput(f"is {_shown(value)}; expected a number", path=place)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or not 0 <= number <= _MOST:
            raise BadInput(f"is {_shown(value)}; expected a number from 0 to {_MOST:g}", path=place)
        return number

    def measured(self, *path: str) -> float | None:
        """A number above 0: tools write 0 where they measured nothing."""
        value = self.number(*path)
        return value if value is not None and value > _LEAST else None

    def milliseconds(self, *path: str) -> Seconds | None:
        """A time in milliseconds above 0."""
        value = self.measured(*path)
        return None if value is None else Seconds(value * 1e-3)

    def word(self, *path: str) -> str | None:
        """A text, if it is one."""
        value = self.find(*path)
        return value if isinstance(value, str) and value else None

    def block_time(self, name: str) -> Seconds | None:
        """The mean of a block with a unit of time; milliseconds where it says none."""
        value, unit = self.measured(name, "avg"), self.find(name, "unit")
        if value is None:
            return None
        if unit is None:
            unit = "ms"
        if not isinstance(unit, str) or unit not in _SECONDS:
            raise BadInput(f"is {_shown(unit)}; expected one of {', '.join(_SECONDS)}", path=f"{self._where}: $.{name}.unit")
        return Seconds(value * _SECONDS[unit])

    def paced(self, *path: str) -> str:
        """How requests were sent, in words; empty where as many as fit."""
        value = self.find(*path)
        if value is None or (isinstance(value, str) and value in _UNBOUNDED):
            return ""
        return (
            f"by {_shown(value)}" if isinstance(value, str) else f"at {self.checked(value, '.'.join(path)):g} requests a second"
        )


def _at(rate: float) -> str:
    return f"at {rate:g} requests a second"


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20 else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _each(total: float | None, count: float | None) -> float | None:
    return total / count if total and count else None


def _vllm_or_sglang(fields: _Fields) -> dict[str, Any]:
    completed = fields.number("completed")
    sglang = fields.find("total_throughput") is not None or fields.find("total_output_tokens_retokenized") is not None
    return {
        "tool": "sglang.bench_serving" if sglang else "vllm bench serve",
        "model": fields.word("model_id"),
        "concurrency": fields.measured("max_concurrency"),
        "in_flight": fields.measured("concurrency") if sglang else None,
        "paced": fields.paced("request_rate"),
        "input_tokens": _each(fields.number("total_input_tokens"), completed),
        "output_tokens": _each(fields.number("total_output_tokens"), completed),
        "completed": completed,
        "failed": fields.number("failed"),
        "ttft": fields.milliseconds("mean_ttft_ms"),
        "tpot": fields.milliseconds("mean_tpot_ms") or fields.milliseconds("mean_itl_ms"),
        "output_tokens_per_second": fields.measured("output_throughput"),
    }


def _trtllm(fields: _Fields) -> dict[str, Any]:
    tensor, pipeline = fields.measured("world_info", "tp_size"), fields.measured("world_info", "pp_size")
    known = tensor is not None and pipeline is not None
    return {
        "tool": "trtllm-bench",
        "model": fields.word("engine", "model"),
        "engine": "tensorrt-llm",
        "parallelism": Parallelism(int(tensor or 1), int(pipeline or 1)) if known else None,
        "in_flight": fields.measured("request_info", "avg_num_concurrent_requests"),
        "input_tokens": fields.measured("request_info", "avg_input_length"),
        "output_tokens": fields.measured("request_info", "avg_output_length"),
        "completed": fields.number("request_info", "num_requests"),
        "ttft": fields.milliseconds("streaming_metrics", "avg_ttft_ms"),
        "tpot": fields.milliseconds("streaming_metrics", "avg_tpot_ms"),
        "output_tokens_per_second": fields.measured("performance", "system_output_throughput_tok_s"),
    }


def _aiperf(fields: _Fields) -> dict[str, Any]:
    concurrency, paced = _aiperf_load(fields)
    return {
        "tool": "aiperf" if fields.find("aiperf_version") is not None else "aiperf or genai-perf",
        "concurrency": concurrency,
        "paced": paced,
        "input_tokens": fields.measured("input_sequence_length", "avg"),
        "output_tokens": fields.measured("output_sequence_length", "avg"),
        "completed": fields.number("request_count", "avg"),
        "failed": fields.number("error_request_count", "avg"),
        "ttft": fields.block_time("time_to_first_token"),
        "tpot": fields.block_time("inter_token_latency"),
        "output_tokens_per_second": fields.measured("output_token_throughput", "avg"),
    }


def _aiperf_load(fields: _Fields) -> tuple[float | None, str]:
    """Concurrency and pace of the phase that was measured; not known where there are several of them."""
    for path in (("loadgen",), ("perf_analyzer", "stimulus"), ()):
        place: tuple[str, ...] = ("input_config", *path)
        concurrency, paced = fields.find(*place, "concurrency"), fields.paced(*place, "request_rate")
        if isinstance(concurrency, int | float) or paced:
            return (fields.measured(*place, "concurrency") if isinstance(concurrency, int | float) else None), paced
    phases = fields.find("input_config", "phases")
    measuring = [
        (f"input_config.phases[{number}]", one)
        for number, one in enumerate(phases if isinstance(phases, list) else ())
        if isinstance(one, dict) and "warmup" not in (one.get("name"), one.get("kind"))
    ]
    if len(measuring) != 1:
        return None, ""
    name, one = measuring[0]
    concurrency, rate = one.get("concurrency"), one.get("rate")
    return (
        fields.checked(concurrency, f"{name}.concurrency") or None if isinstance(concurrency, int | float) else None,
        _at(fields.checked(rate, f"{name}.rate")) if isinstance(rate, int | float) else "",
    )
