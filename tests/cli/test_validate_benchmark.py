"""planner validate --plan: results of benchmarks, made up from a plan's own predictions, held against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch_support import saved
from planner import api
from planner.core.benchmark import Served
from planner.core.plan import Parallelism
from planner.core.saved import SavedPlan
from planner.core.workload import Workload
from planner.documents.benchmark_results import parse_result
from planner.documents.files import DATA
from planner.documents.plan import dump_plan
from planner.errors import BadInput
from planner.validation.benchmark import communication_of, hold
from support import Planner

SCHEMA = json.loads((DATA / "schemas" / "benchmark.schema.json").read_text("utf-8"))
PLAN = saved("replicas")
"""Llama 3.1 8B, four replicas of two bridged GPUs each: 32 in flight, 1024 tokens in, 256 out; little communication."""
ROUNDS = 256
Record = dict[str, Any]


def vllm(ttft: float, tpot: float, rate: float, flight: int = 32) -> Record:
    """The fields of ``vllm bench serve``."""
    return {
        "backend": "openai",
        "model_id": PLAN.model.name,
        "num_prompts": ROUNDS,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": flight,
        "duration": 100.0,
        "completed": ROUNDS,
        "failed": 0,
        "total_input_tokens": 1024 * ROUNDS,
        "total_output_tokens": 256 * ROUNDS,
        "request_throughput": rate / 256,
        "output_throughput": rate,
        "total_token_throughput": 5 * rate,
        "mean_ttft_ms": ttft * 1e3,
        "p99_ttft_ms": 9e3,
        "mean_tpot_ms": tpot * 1e3,
        "mean_itl_ms": 77.0,
    }


def sglang(ttft: float, tpot: float, rate: float, flight: int = 32) -> Record:
    """Those of ``sglang.bench_serving``, which writes Infinity for as many requests as fit."""
    record = vllm(ttft, tpot, rate, flight) | {
        "request_rate": float("inf"),
        "total_throughput": 5 * rate,
        "concurrency": 0.9 * flight,
    }
    return {name: value for name, value in record.items() if name not in {"model_id", "total_token_throughput", "failed"}}


def trtllm(ttft: float, tpot: float, rate: float, flight: int = 32) -> Record:
    """Those of ``trtllm-bench``."""
    return {
        "engine": {"model": PLAN.model.name, "backend": "Pytorch"},
        "world_info": {"tp_size": 2, "pp_size": 1, "world_size": 2},
        "request_info": {
            "num_requests": ROUNDS,
            "avg_num_concurrent_requests": 0.97 * flight,
            "avg_input_length": 1024.0,
            "avg_output_length": 256.0,
        },
        "performance": {"request_throughput_req_s": rate / 256, "system_output_throughput_tok_s": rate},
        "streaming_metrics": {"avg_ttft_ms": ttft * 1e3, "avg_tpot_ms": tpot * 1e3},
    }


def aiperf(ttft: float, tpot: float, rate: float, flight: int = 32) -> Record:
    """Those of AIPerf, with a unit of its own for the time to first token."""
    return {
        "schema_version": "1.5",
        "aiperf_version": "0.13.0",
        "request_throughput": {"unit": "requests/sec", "avg": rate / 256},
        "request_count": {"unit": "requests", "avg": float(ROUNDS)},
        "time_to_first_token": {"unit": "sec", "avg": ttft, "p99": 9.0},
        "inter_token_latency": {"unit": "ms", "avg": tpot * 1e3},
        "output_token_throughput": {"unit": "tokens/sec", "avg": rate},
        "input_sequence_length": {"unit": "tokens", "avg": 1024.0},
        "output_sequence_length": {"unit": "tokens", "avg": 256.0},
        "input_config": {
            "phases": [{"name": "warmup", "concurrency": 4}, {"name": "profiling", "type": "concurrency", "concurrency": flight}]
        },
    }


def genai_perf(ttft: float, tpot: float, rate: float, flight: int = 32) -> Record:
    """Those of GenAI-Perf: no version, the concurrency elsewhere."""
    record = aiperf(ttft, tpot, rate) | {"input_config": {"perf_analyzer": {"stimulus": {"concurrency": flight}}}}
    return {name: value for name, value in record.items() if not name.endswith("_version")}


KINDS = {
    "vllm bench serve": vllm,
    "sglang.bench_serving": sglang,
    "trtllm-bench": trtllm,
    "aiperf": aiperf,
    "aiperf or genai-perf": genai_perf,
}


@pytest.fixture
def held(planner: Planner, tmp_path: Path) -> Callable[..., Any]:
    """Runs the command for a record and a plan, checks the document against its schema."""

    def run(record: Record | str, plan: SavedPlan = PLAN) -> dict[str, Any]:
        result, where = tmp_path / "result.json", tmp_path / "plan.yaml"
        result.write_text(record if isinstance(record, str) else json.dumps(record))
        where.write_text(dump_plan(plan))
        done = planner("validate", str(result), "--plan", str(where), "--format", "json")
        assert (done.code, done.err) == (0, "")
        assert [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(done.document)] == []
        return done.document

    return run


def expected(plan: SavedPlan = PLAN, slower: float = 1.0) -> tuple[float, float, float]:
    """What a plan predicts, ``slower`` by a factor."""
    said = plan.expected
    return said.ttft * slower, said.tpot * slower, said.output_tokens_per_second / slower


def codes(document: dict[str, Any]) -> list[str]:
    return [flag["code"] for flag in document["flags"]]


@pytest.mark.parametrize("tool", KINDS)
def test_what_was_predicted_is_found_as_predicted(tool: str, held: Callable[..., Any]) -> None:
    document = held(KINDS[tool](*expected()))
    assert document["tool"] == tool
    assert (document["same_workload"], document["differences"], document["compared_with"]) == (True, [], "plan")
    assert [one["name"] for one in document["figures"]] == ["ttft_s", "tpot_s", "output_tokens_per_s"]
    for one in document["figures"]:
        assert one["ratio"] == pytest.approx(1, rel=1e-9)
        assert one["inside_interval"]
    assert document["flags"] == []
    assert document["communication"]["share_of_tpot"] < 0.2


@pytest.mark.parametrize("tool", KINDS)
def test_less_than_70_percent_of_the_predicted_speed_is_flagged(tool: str, held: Callable[..., Any]) -> None:
    document = held(KINDS[tool](*expected(slower=1 / 0.6)))
    assert codes(document) == ["ttft", "tpot", "output"]
    messages = [flag["message"] for flag in document["flags"]]
    assert "60 % of the speed" in messages[0]
    assert "60 % of the speed" in messages[1]
    assert "output is 60 % of predicted" in messages[2]
    assert all("planner doctor" in flag["remedy"] for flag in document["flags"])
    assert codes(held(KINDS[tool](*expected(slower=1 / 0.71)))) == []
    assert codes(held(KINDS[tool](*expected(slower=0.1)))) == []  # faster is no fault


@pytest.mark.parametrize("tool", KINDS)
def test_other_traffic_is_said_and_priced_anew(tool: str, held: Callable[..., Any]) -> None:
    plan = PLAN.plan
    answer = api.estimate(PLAN.model, PLAN.topology, Workload(concurrency=64), plan.parallelism)
    estimate = answer.plans[0].ranked.estimate
    document = held(KINDS[tool](estimate.ttft, estimate.tpot, estimate.output_tokens_per_second, 64))
    assert (document["same_workload"], document["compared_with"]) == (False, "estimate")
    (said,) = document["differences"]
    assert said.endswith("planned 32")
    assert document["workload"]["concurrency"] == (62 if tool == "trtllm-bench" else 64)  # which says how many there were
    for one in document["figures"]:
        assert one["ratio"] == pytest.approx(1, rel=0.05 if tool == "trtllm-bench" else 1e-6)
    assert document["flags"] == []


def test_lengths_count_as_traffic(held: Callable[..., Any]) -> None:
    document = held(vllm(*expected()) | {"total_input_tokens": 2048 * ROUNDS, "total_output_tokens": 230 * ROUNDS})
    assert document["differences"] == ["input tokens 2048, planned 1024", "output tokens 230, planned 256"]
    assert document["workload"] == {"input_tokens": 2048, "output_tokens": 230, "concurrency": 32}
    near = held(vllm(*expected()) | {"total_input_tokens": 1100 * ROUNDS, "total_output_tokens": 240 * ROUNDS})
    assert near["same_workload"]


def test_traffic_that_the_plan_cannot_serve_is_compared_with_nothing(
    held: Callable[..., Any], planner: Planner, tmp_path: Path
) -> None:
    document = held(vllm(*expected(slower=9)) | {"total_input_tokens": 10**6 * ROUNDS})
    assert (document["compared_with"], document["figures"], document["flags"]) == ("nothing", [], [])
    assert any(note.startswith("the plan cannot be priced for this traffic: ") for note in document["notes"])
    run = planner("validate", str(tmp_path / "result.json"), "--plan", str(tmp_path / "plan.yaml"))
    assert run.code == 0
    assert "NOT THE PLAN'S TRAFFIC: input tokens 1000000, planned 1024 compared with nothing" in run.words


def test_communication_above_a_fifth_of_the_time_per_token_is_flagged(held: Callable[..., Any]) -> None:
    """Eight L40S, over two sockets: all-reduces cross between them."""
    topology = api.load_topology("8x-l40s")
    answer = api.estimate(api.load_model("llama-3.1-70b", quant="fp8"), topology, Workload(), Parallelism(8))
    plan = api.plan_of(answer, topology, model="llama-3.1-70b", reference="8x-l40s")
    estimate = answer.plans[0].ranked.estimate
    document = held(vllm(*expected(plan)) | {"model_id": plan.model.name}, plan)
    wires, parts = document["communication"], estimate.decode.parts
    assert wires["decode_s"] == pytest.approx(parts["all_reduce"] + parts.get("shared_links", 0.0))
    assert wires["decode_s"] / estimate.tpot > 0.2  # even without what other prompts add
    assert wires["share_of_tpot"] == pytest.approx((wires["decode_s"] + wires["prefill_s"]) / estimate.tpot)
    assert "socket interconnect" in wires["limiting_link"]
    (flag,) = document["flags"]
    assert flag["code"] == "communication"
    assert wires["limiting_link"] in flag["remedy"]
    slow = held(vllm(*expected(plan, slower=2)), plan)
    assert codes(slow) == ["communication", "ttft", "tpot", "output"]
    assert "planner probe --measure" in slow["flags"][2]["remedy"]


@pytest.mark.parametrize("name", ["bridged", "pipeline", "shared experts", "replicas"])
def test_communication_is_a_share_of_the_time_per_token(name: str) -> None:
    plan = saved(name)
    answer = api.estimate(plan.model, plan.topology, plan.workload, plan.plan.parallelism)
    estimate = answer.plans[0].ranked.estimate
    exposed = communication_of(estimate)
    at_least = sum(
        estimate.decode.parts.get(part, 0.0) for part in ("all_reduce", "point_to_point", "expert_exchange", "shared_links")
    )
    assert at_least / estimate.tpot <= exposed.share < 1


def test_of_several_records_the_last_is_compared(held: Callable[..., Any]) -> None:
    lines = [json.dumps(sglang(*expected(slower=5))), json.dumps(sglang(*expected())), ""]
    document = held("\n".join(lines))
    assert document["flags"] == []
    assert document["notes"] == ["the file holds 2 records: the last is compared"]
    assert held(json.dumps(vllm(*expected()), indent=1))["notes"] == []


def test_requests_at_a_rate_count_by_how_many_were_in_flight(held: Callable[..., Any]) -> None:
    """Little's law: at the predicted rate and times as many are in flight as were planned for."""
    record = vllm(*expected()) | {"request_rate": 3.5, "max_concurrency": None}
    document = held(record)
    assert document["measured"]["mean_in_flight"] == pytest.approx(32, rel=1e-3)
    assert document["same_workload"]
    assert any("at 3.5 requests a second" in note for note in document["notes"])
    phases = [{"name": "profiling", "type": "poisson", "rate": 3.5}]
    assert held(aiperf(*expected()) | {"input_config": {"phases": phases}})["same_workload"]
    assert held(sglang(*expected()) | {"request_rate": "trace"})["measured"]["mean_in_flight"] == pytest.approx(28.8)


def test_what_speaks_against_the_result_is_said(held: Callable[..., Any]) -> None:
    other = trtllm(*expected()) | {"world_info": {"tp_size": 8, "pp_size": 1}, "engine": {"model": "somebody/else"}}
    words = " | ".join(held(other)["notes"])
    for part in ("the result is of somebody/else", "trtllm-bench measures tensorrt-llm", "measured was TP 8 × PP 1"):
        assert part in words
    few = held(vllm(*expected()) | {"completed": 40, "failed": 3, "total_input_tokens": 40960, "total_output_tokens": 10240})
    words = " | ".join(few["notes"])
    assert "40 requests with 32 in flight: the server was seldom full" in words
    assert "3 requests failed" in words
    assert few["same_workload"]
    alone = held({"mean_itl_ms": PLAN.expected.tpot * 1e3})
    assert [one["name"] for one in alone["figures"]] == ["tpot_s"]
    assert sum(note.startswith("the result says nothing of ") for note in alone["notes"]) == 3


def test_what_is_not_streamed_has_no_times(held: Callable[..., Any]) -> None:
    record = {name: value for name, value in trtllm(*expected()).items() if name != "streaming_metrics"}
    assert [one["name"] for one in held(record)["figures"]] == ["output_tokens_per_s"]
    silent = vllm(*expected()) | {"mean_ttft_ms": 0.0, "mean_tpot_ms": 0.0, "mean_itl_ms": 0.0}
    assert [one["name"] for one in held(silent)["figures"]] == ["output_tokens_per_s"]


NONSENSE = [
    ("topology,impl\n1,2\n", "is no JSON"),
    ("[1, 2]", "expected an object"),
    ("{", "not valid JSON"),
    ("{}", "is no result of a benchmark that is known"),
    ('{"kind": "plan", "model": 7}', "is no result of a benchmark that is known"),
    ('{"mean_ttft_ms": "fast"}', "$.mean_ttft_ms: is 'fast'; expected a number"),
    ('{"mean_ttft_ms": true}', "$.mean_ttft_ms: is True; expected a number"),
    ('{"mean_ttft_ms": [1]}', "$.mean_ttft_ms: is [1]; expected a number"),
    ('{"mean_ttft_ms": NaN}', "$.mean_ttft_ms: is 'NaN'; expected a number"),
    ('{"mean_ttft_ms": 1e999}', "$.mean_ttft_ms: is inf; expected a number from 0"),
    ('{"mean_ttft_ms": -1}', "$.mean_ttft_ms: is -1; expected a number from 0"),
    ('{"mean_ttft_ms": 1' + "0" * 400 + "}", "$.mean_ttft_ms: is 1000"),
    ('{"mean_ttft_ms": 1' + "0" * 5000 + "}", "a number of thousands of digits"),
    ('{"mean_ttft_ms": 1, "mean_ttft_ms": 2}', "is there twice"),
    ('{"mean_ttft_ms": 5, "completed": 0}', "no request was completed"),
    ('{"mean_ttft_ms": 5, "max_concurrency": -3}', "$.max_concurrency: is -3"),
    ('{"mean_ttft_ms": 5, "max_concurrency": 1e12}', "concurrency of 1e+12 are no traffic"),
    ('{"mean_ttft_ms": 5, "request_rate": -2}', "$.request_rate: is -2"),
    ('{"mean_ttft_ms": 0, "output_throughput": 0}', "holds no time to first token"),
    ('{"output_throughput": null}', "holds no time to first token"),
    ('{"mean_ttft_ms": 5}\n{"mean_ttft_ms": 6,', "line 2: not valid JSON"),
    ('{"mean_ttft_ms": 5}\n{"mean_ttft_ms": "x"}', "line 2: $.mean_ttft_ms: is 'x'"),
    ('{"request_info": 5, "performance": []}', "holds no time to first token"),
    (
        '{"request_info": {}, "performance": {"system_output_throughput_tok_s": -1}}',
        "$.performance.system_output_throughput_tok_s",
    ),
    ('{"time_to_first_token": {"avg": -4, "unit": "ms"}}', "$.time_to_first_token.avg: is -4"),
    ('{"time_to_first_token": {"avg": 4, "unit": "fortnights"}}', "$.time_to_first_token.unit: is 'fortnights'"),
    ('{"time_to_first_token": {"avg": 4, "unit": {}}}', "$.time_to_first_token.unit: is {}"),
    (
        '{"time_to_first_token": {"avg": 4}, "input_config": {"phases": [{"name": "profiling", "concurrency": -1}]}}',
        "$.input_config.phases[0].concurrency: is -1",
    ),
    ("[" * 100_000, "nested too deep"),
]


@pytest.mark.parametrize(("text", "words"), NONSENSE)
def test_nonsense_is_refused_with_its_field(planner: Planner, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "result.json").write_text(text)
    (tmp_path / "plan.yaml").write_text(dump_plan(PLAN))
    run = planner("validate", str(tmp_path / "result.json"), "--plan", str(tmp_path / "plan.yaml"))
    assert (run.code, run.out) == (2, "")
    assert words in run.words


def test_a_result_without_a_plan_asks_for_it(planner: Planner, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    result.write_text(json.dumps(vllm(*expected())))
    run = planner("validate", str(result))
    assert (run.code, run.out) == (2, "")
    assert "is a result of vllm bench serve, no table" in run.words
    assert "--plan plan.yaml" in run.words
    result.write_text("{}")
    assert "is no result of a benchmark that is known" in planner("validate", str(result)).words


def test_options_of_tables_and_what_is_no_plan_are_refused(planner: Planner, tmp_path: Path) -> None:
    result, plan = tmp_path / "result.json", tmp_path / "plan.yaml"
    result.write_text(json.dumps(vllm(*expected())))
    plan.write_text(dump_plan(PLAN))
    for option in (("--by", "op"), ("--include-flagged",), ("--force",), ("--predictions", str(tmp_path / "out.csv"))):
        run = planner("validate", str(result), "--plan", str(plan), *option)
        assert run.code == 2
        assert f"{option[0]}: is for tables of measurements" in run.words
    assert planner("validate", str(result), "--plan", str(result)).code == 2
    assert planner("validate", str(result), "--plan", str(tmp_path / "absent.yaml")).code == 2


def test_words_for_a_terminal(planner: Planner, tmp_path: Path) -> None:
    result, plan = tmp_path / "result.json", tmp_path / "plan.yaml"
    plan.write_text(dump_plan(PLAN))
    result.write_text(json.dumps(vllm(*expected(slower=2)) | {"model_id": "a\x1b[31m"}))
    run = planner("validate", str(result), "--plan", str(plan))
    assert run.code == 0
    assert "\x1b" not in run.out
    for words in (
        "traffic as planned: 1024 tokens in, 256 out, 32 in flight",
        "TPOT",
        "flagged",
        "- output is 50 % of predicted",
    ):
        assert words in run.words
    result.write_text(json.dumps(vllm(*expected())))
    assert "nothing flagged" in planner("validate", str(result), "--plan", str(plan)).words


def test_a_plan_that_does_not_fit_any_more_still_has_its_figures() -> None:
    served = parse_result(json.dumps(vllm(*expected())), "result.json")
    small = replace(PLAN, model=api.load_model("llama-3.1-405b"))
    refused = api.estimate(small.model, PLAN.topology, PLAN.workload, PLAN.plan.parallelism).infeasible[0]
    answer = hold(PLAN, served, lambda _: refused)
    assert answer.exposed is None
    assert [one.ratio for one in answer.figures] == pytest.approx([1, 1, 1])
    assert any("cannot be priced any more" in note for note in answer.notes)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["avg", "unit", "concurrency", "phases"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(sorted(KINDS)), st.data())
def test_whatever_a_field_holds_is_read_or_refused(tool: str, data: st.DataObject) -> None:
    record = KINDS[tool](*expected())
    record[data.draw(st.sampled_from(sorted(record)))] = data.draw(VALUES)
    try:
        served = parse_result(json.dumps(record), "result.json")
    except BadInput:
        return
    assert isinstance(served, Served)
    for value in (served.ttft, served.tpot, served.output_tokens_per_second, served.mean_in_flight):
        assert value is None or 0 < value < float("inf")


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_the_printed_benchmark_leaves_the_file_that_the_next_line_names(planner: Planner, tmp_path: Path, engine: str) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(dump_plan(saved("bridged", engine=engine)))
    lines = planner("emit", str(plan), "-o", str(tmp_path / "out")).out.splitlines()
    place = lines.index("# then measure what was predicted")
    asked = lines[place + 2].removeprefix("# and hold it against the plan: planner validate ").removesuffix(" --plan PLAN")
    assert asked == {"vllm": "result.json", "sglang": "result.jsonl"}.get(engine, "artifacts/*/profile_export_aiperf.json")
    if engine != "tensorrt-llm":  # AIPerf needs no option for it
        assert asked in lines[place + 1].split()
