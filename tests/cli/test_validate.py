"""planner validate: a table of measurements in, how far off the predictions are out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jsonschema
import pytest

from planner.documents.files import DATA
from support import Planner

SCHEMA = json.loads((DATA / "schemas" / "validation.schema.json").read_text("utf-8"))
HEADER = "topology,system,impl,op,dtype,n_gpus,n_nodes,message_bytes,time_us,source,flag\n"


def predicted(planner: Planner, operation: str, topology: str, gpus: str, size: int, implementation: str) -> float:
    question = ("collective", operation, "-t", topology, "--gpus", gpus, "-b", str(size), "-e", str(size))
    (one,) = planner(*question, "--impl", implementation, "--format", "json").document["predictions"]
    return float(one["time_s"]) * 1e6


@pytest.fixture
def table(tmp_path: Path, planner: Planner) -> Path:
    """Measurements made up from predictions: 10 % above the first, 20 % below the second; then rows to leave out and refuse."""
    one = predicted(planner, "all-gather", "8xH100-SXM5-80GB", "0,1", 2**20, "nccl")
    two = predicted(planner, "all-reduce", "4xL40S", "0,1,2,3", 2**24, "vllm")
    path = tmp_path / "measured.csv"
    path.write_text(
        HEADER
        + f"8xH100-SXM5-80GB,a,nccl-2.27.3,all_gather,fp16,2,1,{2**20},{one / 1.1:.6f},me,\n"
        + f"4xL40S,b,vllm-custom-graph-0.24,all_reduce,bf16,4,1,{2**24},{two / 0.8:.6f},me,\n"
        + "4xL40S,b,vllm-custom-graph-0.24,all_reduce,bf16,4,1,64,1e6,me,noisy;\n"
        + "4xL40S,b,gloo-1,all_reduce,bf16,4,1,64,10,me,\n"
        + "4xL40S,b,nccl-2,gossip,bf16,4,1,64,10,me,\n"
        + "4xL40S,b,nccl-2,all_reduce,bf16,8,1,64,10,me,\n"
        + '"4xnothing, known",b,nccl-2,all_reduce,bf16,4,1,64,10,me,\n'
    )
    return path


def test_the_document_is_what_was_agreed(planner: Planner, table: Path) -> None:
    run = planner("validate", str(table), "--by", "op,system", "--format", "json")
    assert (run.code, run.err) == (0, "")
    document = run.document
    assert [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)] == []
    assert (document["kind"], document["rows"], document["answered"]) == ("collectives", 6, 2)
    overall = document["overall"]
    assert overall["mape"] == pytest.approx(0.15, abs=1e-4)
    assert overall["median_ape"] == pytest.approx(0.15, abs=1e-4)
    assert overall["bias"] == pytest.approx(-0.05, abs=1e-4)
    assert overall["p90_ape"] == pytest.approx(0.2, abs=1e-4)
    assert overall["inside_interval"] == 1.0  # 10 and 20 % off are within the bars of both
    groups = {(group["op"], group["system"]): group for group in document["groups"]}
    assert groups["all_gather", "a"]["mape"] == pytest.approx(0.1, abs=1e-4)
    assert (groups["all_reduce", "b"]["rows"], groups["all_reduce", "b"]["answered"]) == (4, 1)
    assert groups["gossip", "b"]["mape"] is None


def test_without_groups_there_are_none(planner: Planner, table: Path) -> None:
    assert planner("validate", str(table), "--format", "json").document["groups"] == []


def test_the_table_says_what_has_no_prediction_and_why(planner: Planner, table: Path) -> None:
    run = planner("validate", str(table))
    assert run.code == 0
    for words in (
        "2 of 6 rows answered, 1 flagged rows left out",
        "15.0%",
        "no prediction for 1 row: unknown implementation 'gloo-1'",
        "no prediction for 1 row: unknown operation 'gossip'",
        "no prediction for 1 row: topology 4xL40S has 4 GPUs, the row asks for 8",
        "no prediction for 1 row: topology '4xnothing, known'",
    ):
        assert words in run.words, words


def test_flagged_rows_count_where_they_are_asked_for(planner: Planner, table: Path) -> None:
    document = planner("validate", str(table), "--include-flagged", "--format", "json").document
    assert (document["rows"], document["answered"]) == (7, 3)


def test_predictions_are_written_beside_the_measurements(planner: Planner, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    run = planner("validate", str(table), "--predictions", str(out))
    assert (run.code, run.err) == (0, f"wrote {out}\n")
    given = list(csv.DictReader(table.read_text().splitlines()))
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [{name: row[name] for name in given[0]} for row in rows] == [row for row in given if not row["flag"]]
    assert float(rows[0]["predicted_time_us"]) == pytest.approx(1.1 * float(rows[0]["time_us"]), abs=1e-3)
    assert [row["predicted_time_us"] for row in rows[2:]] == [""] * 4
    for row in rows[:2]:
        low, time, high = (float(row[f"predicted_time_us{end}"]) for end in ("_low", "", "_high"))
        assert low < time < high
    before = out.read_text()
    again = planner("validate", str(table), "--predictions", str(out), "--include-flagged")
    assert again.code == 2
    assert "--force" in again.err
    assert out.read_text() == before
    assert planner("validate", str(table), "--predictions", str(out), "--include-flagged", "--force").code == 0
    assert len(out.read_text().splitlines()) == len(given) + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("topology,impl\n1,2\n", "line 1: no column op"),
        (HEADER, "holds no rows"),
        (HEADER + "8xL40S,a,nccl-2,all_reduce,f,8,1,64,0,me,\n", "line 2: time_us is '0'; expected a number above 0"),
        (HEADER + "8xL40S,a,nccl-2,all_reduce,f,8,1,64,inf,me,\n", "line 2: time_us is 'inf'"),
        (HEADER + "8xL40S,a,nccl-2,all_reduce,f,8,1,6.5,1,me,\n", "line 2: message_bytes is '6.5'; expected a whole number"),
        (HEADER + "8xL40S,a,nccl-2,all_reduce,f,many,1,64,1,me,\n", "line 2: n_gpus is 'many'; expected a number"),
        (HEADER + "8xL40S,a\n", "line 2: has another number of cells"),
        (HEADER + "8xL40S,a,nccl-2,all_reduce,f,8,1,64,1,me,,more\n", "line 2: has another number of cells"),
        ("topology," + HEADER + ",,,,,,,,,,,\n", "line 1: a column is there twice"),
        (HEADER + '8xL40S,"a\n', "is not CSV"),
        ("", "is empty"),
    ],
)
def test_what_is_no_such_table_is_refused(planner: Planner, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    run = planner("validate", str(path))
    assert (run.code, run.out) == (2, "")
    assert words in run.words


def test_tables_gathered_from_nccl_tests_are_read_as_they_are(planner: Planner, tmp_path: Path) -> None:
    time = predicted(planner, "all-reduce", "8xH100-SXM5-80GB", "0,1", 2**20, "nccl")
    path = tmp_path / "nccl_tests.csv"
    path.write_text(
        f"topology,op,n_gpus,bytes,time_us_out_of_place,flag\n8xH100-SXM5-80GB,all_reduce,2,{2**20},{time / 2:.6f},\n"
    )
    document = planner("validate", str(path), "--format", "json").document
    assert document["answered"] == 1
    assert document["overall"]["bias"] == pytest.approx(1.0, abs=1e-4)
    assert document["overall"]["inside_interval"] == 0.0


def test_an_unknown_column_is_refused(planner: Planner, table: Path) -> None:
    run = planner("validate", str(table), "--by", "opp")
    assert run.code == 2
    assert "unknown column 'opp'" in run.words


def test_rows_that_move_nothing_or_lack_a_flagged_fact_are_counted_not_refused(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "measured.csv"
    path.write_text(
        "topology,impl,op,n_gpus,message_bytes,time_us,flag\n"
        "8xH100-SXM5-80GB,nccl-2.27,all_reduce,8,1048576,30,\n"
        "8xH100-SXM5-80GB,nccl-2.27,all_reduce,8,0,5,\n"
        "8xH100-SXM5-80GB,nccl-2.27,all_reduce,,1048576,30,not_gradable\n"
    )
    document = planner("validate", str(path), "--format", "json").document
    assert (document["rows"], document["answered"]) == (2, 1)
    every = planner("validate", str(path), "--include-flagged", "--format", "json").document
    assert (every["rows"], every["answered"]) == (3, 1)
    path.write_text("topology,impl,op,n_gpus,message_bytes,time_us\n8xH100-SXM5-80GB,nccl-2.27,all_reduce,,1048576,30\n")
    assert planner("validate", str(path)).code == 2
