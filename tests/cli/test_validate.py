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


def test_the_document_says_what_the_table_says_of_rows_without_a_prediction(planner: Planner, table: Path) -> None:
    document = planner("validate", str(table), "--format", "json").document
    assert document["flagged_left_out"] == 1
    assert document["unanswered"] == [
        {"reason": "topology '4xnothing, known': unknown GPU 'nothing, known'", "rows": 1},
        {"reason": "topology 4xL40S has 4 GPUs, the row asks for 8", "rows": 1},
        {"reason": "unknown implementation 'gloo-1'", "rows": 1},
        {"reason": "unknown operation 'gossip'", "rows": 1},
    ]
    document = planner("validate", str(table), "--include-flagged", "--format", "json").document
    assert document["flagged_left_out"] == 0


def test_an_unknown_topology_is_named_once(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "unknown.csv"
    path.write_text(HEADER + 2 * "nothing,a,nccl-2.27.3,all_reduce,fp16,4,1,64,10,me,\n")
    run = planner("validate", str(path))
    assert run.code == 0
    assert "no prediction for 2 rows: unknown topology 'nothing'" in run.words


def test_one_gpu_exchanges_nothing_and_is_no_prediction(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text(HEADER + f"8xL40S,a,nccl-2.27.3,all_reduce,fp16,1,1,{2**20},10,me,\n")
    document = planner("validate", str(path), "--format", "json").document
    assert (document["rows"], document["answered"], document["overall"]["mape"]) == (1, 0, None)
    assert document["unanswered"] == [{"reason": "one GPU exchanges nothing", "rows": 1}]


def test_without_groups_there_are_none(planner: Planner, table: Path) -> None:
    assert planner("validate", str(table), "--format", "json").document["groups"] == []


def test_the_table_says_what_has_no_prediction_and_why(planner: Planner, table: Path) -> None:
    run = planner("validate", str(table))
    assert run.code == 0
    for words in (
        "2 of 6 rows answered, 1 flagged row left out",
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


def test_predictions_are_never_written_over_the_measurements(planner: Planner, table: Path, tmp_path: Path) -> None:
    before = table.read_text()
    (tmp_path / "link.csv").symlink_to(table)
    for out in (table, table.parent / "." / table.name, tmp_path / "link.csv"):
        run = planner("validate", str(table), "--predictions", str(out), "--force")
        assert (run.code, run.out) == (2, "")
        assert "is the file of the measurements" in run.err
        assert table.read_text() == before


def test_predictions_go_to_standard_output_and_nothing_else_does(
    planner: Planner, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert planner("validate", str(table), "--predictions", "out.csv").code == 0
    run = planner("validate", str(table), "--predictions", "-", "--format", "json")
    assert (run.code, run.err) == (0, "")
    assert run.out == Path("out.csv").read_text()
    assert not Path("-").exists()


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


SERVED = "topology,model,quant,engine,tp,pp,ep,dp,isl,osl,load_kind,load,system,output_tokens_per_s,tpot_ms,ttft_ms,flag\n"


def served(planner: Planner, gpus: int, *degrees: int, load: int = 32) -> dict[str, float]:
    """What a layout of Llama 3.1 8B is predicted to serve."""
    names = zip(("--tp", "--pp", "--dp"), map(str, degrees), strict=True)
    asked = [word for pair in names for word in pair] + ["--concurrency", str(load), "--format", "json"]
    (plan,) = planner("estimate", "llama-3.1-8b", "-t", f"{gpus}xH100-SXM5-80GB", *asked).document["plans"]
    said = plan["estimate"]
    return {"rate": said["output_tokens_per_s"], "tpot": said["tpot_s"] * 1e3, "ttft": said["ttft_s"] * 1e3}


def row(gpus: int, degrees: tuple[int, int, int], measured: dict[str, float], load: int = 32) -> str:
    """A measured run; a figure that is not there was not measured."""
    tensor, stages, data = degrees
    question = f"{gpus}xH100-SXM5-80GB,llama-3.1-8b,bf16,vllm-0.9,{tensor},{stages},1,{data},1024,256,concurrency,{load},me"
    figures = ",".join(f"{measured[name]:.9g}" if name in measured else "" for name in ("rate", "tpot", "ttft"))
    return f"{question},{figures},\n"


LAYOUTS = ((4, 1, 1), (2, 1, 2), (1, 1, 4))


@pytest.fixture
def runs(tmp_path: Path, planner: Planner) -> Path:
    """Three layouts of four GPUs, the predicted order turned round for two of them; one of two GPUs; rows to refuse."""
    best, middle, worst = sorted(((served(planner, 4, *one), one) for one in LAYOUTS), key=lambda pair: -pair[0]["rate"])
    two = served(planner, 2, 2, 1, 1)
    path = tmp_path / "served.csv"
    path.write_text(
        SERVED
        + row(4, best[1], {**best[0], "rate": middle[0]["rate"] / 2})
        + row(4, middle[1], {**middle[0], "rate": middle[0]["rate"]})
        + row(4, worst[1], {**worst[0], "rate": middle[0]["rate"] / 4})
        + row(2, (2, 1, 1), {**two, "rate": middle[0]["rate"] / 16})
        + row(4, (4, 1, 1), {"tpot": 7.0}, load=8).replace("vllm", "nobody")
        + row(4, (4, 1, 1), {"tpot": 7.0}, load=8).replace("concurrency", "poisson")
        + row(4, (3, 1, 1), {"tpot": 7.0}, load=8)
    )
    return path


def conforms(document: object) -> None:
    assert [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)] == []


def test_served_layouts_are_graded_by_figure_and_ranked(planner: Planner, runs: Path) -> None:
    document = planner("validate", str(runs), "--format", "json").document
    conforms(document)
    assert (document["kind"], document["rows"], document["answered"]) == ("serving", 7, 4)
    for name in ("tpot_ms", "ttft_ms"):
        assert document["overall"][name]["measurements"] == 4
        assert document["overall"][name]["mape"] == pytest.approx(0, abs=1e-6)
        assert document["overall"][name]["inside_interval"] == 1.0
    same, every = document["ranking"]["same_gpus"], document["ranking"]["per_gpu"]
    assert (same["groups"], same["pairs"], every["groups"], every["pairs"]) == (1, 3, 1, 6)
    assert same["top1_regret"] == pytest.approx(0.5)  # the chosen layout serves half of the best
    assert same["agreement"] == pytest.approx(2 / 3)
    for at in same["at_tpot_target"]:  # all meet every target, in truth and by the prediction
        assert (at["groups"], at["top1_regret"], at["lost"]) == (1, pytest.approx(0.5), 0)
    run = planner("validate", str(runs))
    for words in (
        "4 of 7 rows answered",
        "ranking of all, equally many GPUs: 1 group, regret 50.0%, 67% of 3 pairs in order",
        "TPOT within 20 ms: 1 group, regret 50.0%, all lost in 0",
        "no prediction for 1 row: engine 'nobody-0.9' is not planned for",
        "no prediction for 1 row: load kind 'poisson' is not predicted",
        "no prediction for 1 row: does not fit by this estimate",
    ):
        assert words in run.words, words


def test_rankings_are_told_by_group_where_a_group_has_several_layouts(planner: Planner, runs: Path) -> None:
    document = planner("validate", str(runs), "--by", "engine,load", "--format", "json").document
    conforms(document)
    ranked = {(group["engine"], group["load"]): "ranking" in group for group in document["groups"]}
    assert ranked == {("vllm-0.9", "32"): True, ("vllm-0.9", "8"): False, ("nobody-0.9", "8"): False}
    assert "ranking of vllm-0.9, 32, equally many GPUs" in planner("validate", str(runs), "--by", "engine,load").words


def test_a_target_is_lost_where_the_choice_misses_it_or_there_is_none(planner: Planner, tmp_path: Path) -> None:
    """Times per token alone: of two layouts that both keep 20 ms by the prediction, the chosen one is measured at 30 ms."""
    fast, slow = sorted(((served(planner, 4, *one), one) for one in LAYOUTS[:2]), key=lambda pair: pair[0]["tpot"])
    assert slow[0]["tpot"] < 20
    path = tmp_path / "served.csv"
    path.write_text(SERVED + row(4, fast[1], {"tpot": 30.0}) + row(4, slow[1], {"tpot": 15.0}))
    same = planner("validate", str(path), "--format", "json").document["ranking"]["same_gpus"]
    assert (same["top1_regret"], same["agreement"]) == (pytest.approx(0.5), 0.0)
    found = {at["tpot_ms"]: (at["top1_regret"], at["lost"]) for at in same["at_tpot_target"]}
    assert found == {20.0: (1.0, 1), 50.0: (pytest.approx(0.5), 0), 100.0: (pytest.approx(0.5), 0)}
    path.write_text(SERVED + row(4, fast[1], {"tpot": 130.0}) + row(4, slow[1], {"tpot": 150.0}))
    same = planner("validate", str(path), "--format", "json").document["ranking"]["same_gpus"]
    assert [(at["groups"], at["top1_regret"]) for at in same["at_tpot_target"]] == [(0, None)] * 3


def test_layout_and_load_are_chosen_at_a_target(planner: Planner, tmp_path: Path) -> None:
    """Two layouts under two loads, measured as predicted but for the run that is believed to serve most: it takes 60 ms a token."""
    layouts = ((4, 1, 1), (2, 1, 2))
    said = {(one, load): served(planner, 4, *one, load=load) for one in layouts for load in (8, 64)}
    best = max(said, key=lambda run: said[run]["rate"])
    assert said[best]["tpot"] < 20
    path = tmp_path / "served.csv"
    runs = {run: {"tpot": 60.0 if run == best else one["tpot"], "ttft": one["ttft"]} for run, one in said.items()}
    path.write_text(SERVED + "".join(row(4, one, measured, load) for (one, load), measured in runs.items()))
    document = planner("validate", str(path), "--format", "json").document
    conforms(document)
    chosen = {(one["load"], one["tpot_ms"]): one for one in document["ranking"]["layout_and_load"]}
    assert {one["models"] for one in chosen.values()} == {"all"}
    assert set(chosen) == {(load, ms) for load in ("interpolated", "discrete", "cautious") for ms in (20, 50, 100, None)}
    lost = chosen["discrete", 20]
    assert (lost["groups"], lost["mean_regret"], lost["median_regret"]) == (1, 1.0, 1.0)
    assert (lost["missed"], lost["nothing_believed"]) == (1, 0)
    together = chosen["discrete", None]
    assert (together["groups"], together["missed"]) == (3, 2)
    assert together["mean_regret"] == pytest.approx((2 + chosen["discrete", 100]["mean_regret"]) / 3)
    assert 0 < chosen["interpolated", 20]["mean_regret"] < 1  # the layout meets it under less load
    words = planner("validate", str(path)).words
    assert "layout and load of all chosen at a TPOT target" in words
    assert "all 20 ms discrete 1 100.0% 100.0% 1 0" in " ".join(words.split())
    by_engine = planner("validate", str(path), "--by", "engine").out.splitlines()
    # overall at each target and all together, of the group all together
    assert sum(line.startswith("all ") and " discrete " in line for line in by_engine) == 4 + 1


def test_tensor_against_pipeline_apart_by_who_wins(planner: Planner, tmp_path: Path) -> None:
    """Measured as predicted at one load; at another the stages are said to be twice as fast as tensor ranks."""
    tensor, stages = served(planner, 2, 2, 1, 1), served(planner, 2, 1, 2, 1)
    assert tensor["rate"] > stages["rate"]
    path = tmp_path / "served.csv"
    path.write_text(
        SERVED
        + row(2, (2, 1, 1), {"rate": tensor["rate"]})
        + row(2, (1, 2, 1), {"rate": stages["rate"]})
        + row(2, (2, 1, 1), {"rate": 100.0}, load=8)
        + row(2, (1, 2, 1), {"rate": 200.0}, load=8)
    )
    document = planner("validate", str(path), "--by", "load", "--format", "json").document
    conforms(document)
    sides = document["ranking"]["tp_against_pp"]
    assert (sides["tp_wins"]["cells"], sides["tp_wins"]["called_right"]) == (1, 1)
    assert sides["tp_wins"]["median_error_of_ratio"] == pytest.approx(0, abs=1e-6)
    assert (sides["pp_wins"]["cells"], sides["pp_wins"]["called_right"]) == (1, 0)
    assert sides["pp_wins"]["median_error_of_ratio"] > 1
    assert [group["ranking"]["tp_against_pp"]["pp_wins"]["cells"] for group in document["groups"]] == [0, 1]
    words = " ".join(planner("validate", str(path)).words.split())
    assert (
        "TP against PP of all, equally many GPUs at one load: TP wins 1 cell, median error of the ratio 0.0%, 1 called right"
        in words
    )
    assert "PP wins 1 cell, median error" in words


def test_the_poorest_group_is_named_where_it_has_rows_enough(planner: Planner, tmp_path: Path) -> None:
    """20 rows with one outside its bar, 20 with all inside, 19 with none inside."""
    time = served(planner, 4, 4, 1, 1)["tpot"]
    right, wrong = (row(4, (4, 1, 1), {"tpot": value}) for value in (time, 9 * time))
    path = tmp_path / "served.csv"
    rows = (
        [wrong.replace("me,", "good,")]
        + 19 * [right.replace("me,", "good,")]
        + 20 * [right]
        + 19 * [wrong.replace("me,", "few,")]
    )
    path.write_text(SERVED + "".join(rows))
    words = " ".join(planner("validate", str(path), "--by", "system").words.split())
    assert "inside the bar: 66% of 59 rows; poorest group of at least 20 rows: good with 95% of 20" in words
    assert "poorest group" not in planner("validate", str(path)).words
    path.write_text(SERVED + "".join(rows[:19]))
    assert "poorest group" not in planner("validate", str(path), "--by", "system").words


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_narrow_terminal_gets_narrow_lines(planner: Planner, runs: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = planner("validate", str(runs), "--by", "engine,topology,tp").out.splitlines()
    table = next(index for index, line in enumerate(lines) if "mean error" in line)
    assert (lines[table].startswith("group")) == (columns == 200)
    assert any(line.startswith("vllm-0.9, 4xH100-SXM5-80GB, 4: tpot_ms") for line in lines)
    longest = max(len(line) for line in lines if str(runs) not in line)
    assert longest <= max(columns, 60)


def test_a_measured_layout_that_does_not_fit_by_the_estimate_is_never_chosen(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "served.csv"
    text = row(2, (2, 1, 1), {"rate": 100.0}) + row(2, (1, 1, 2), {"rate": 400.0})
    path.write_text(SERVED + text.replace("llama-3.1-8b", "llama-3.1-70b"))
    same = planner("validate", str(path), "--format", "json").document["ranking"]["same_gpus"]
    assert (same["groups"], same["pairs"]) == (1, 0)
    assert (same["top1_regret"], same["agreement"]) == (pytest.approx(0.75), None)


def test_predictions_of_served_layouts_are_written_with_their_bars(planner: Planner, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert planner("validate", str(runs), "--predictions", str(out)).code == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    for name in ("ttft_ms", "tpot_ms", "output_tokens_per_s", "total_tokens_per_s", "e2e_latency_s"):
        for one in rows[:4]:
            low, said, high = (float(one[f"predicted_{name}{end}"]) for end in ("_low", "", "_high"))
            assert low < said < high
        assert [one[f"predicted_{name}"] for one in rows[4:]] == [""] * 3
    for one in rows[:4]:
        assert float(one["predicted_tpot_ms"]) == pytest.approx(float(one["tpot_ms"]), rel=1e-4)
        assert float(one["predicted_total_tokens_per_s"]) == pytest.approx(
            5 * float(one["predicted_output_tokens_per_s"]), rel=1e-4
        )


def test_memory_is_graded_by_metric(planner: Planner, tmp_path: Path) -> None:
    """Measured a fifth above what is predicted."""
    header = "topology,engine,model,quant,tp,metric,value\n"
    rows = [f"2xH100-SXM5-80GB,vllm,llama-3.1-8b,bf16,2,{metric}" for metric in ("weights_gib_per_gpu", "kv_tokens_total")]
    path, out = tmp_path / "memory.csv", tmp_path / "out.csv"
    path.write_text(header + "".join(f"{one},1\n" for one in rows))
    assert planner("validate", str(path), "--predictions", str(out)).code == 0
    said = [float(one["predicted_value"]) for one in csv.DictReader(out.read_text().splitlines())]
    path.write_text(
        header
        + "".join(f"{one},{1.25 * value:.6f}\n" for one, value in zip(rows, said, strict=True))
        + "2xH100-SXM5-80GB,vllm,llama-3.1-8b,bf16,2,mood,1\n"
    )
    document = planner("validate", str(path), "--by", "tp", "--format", "json").document
    conforms(document)
    assert (document["kind"], document["answered"], document["rows"]) == ("memory", 2, 3)
    assert set(document["overall"]) == {"weights_gib_per_gpu", "kv_tokens_total"}
    for grade in document["overall"].values():
        assert grade["bias"] == pytest.approx(-0.2, abs=1e-4)
        assert grade["inside_interval"] == 0.0
    assert document["groups"][0]["weights_gib_per_gpu"]["measurements"] == 1
    assert "no prediction for 1 row: mood is not predicted" in planner("validate", str(path)).words


KERNELS = {
    "gemm": ("gpu,quant,m,n,k", "H100-SXM5-80GB,bfloat16,64,8192,4096", "H100-SXM5-80GB,int3,64,8192,4096"),
    "attention": (
        "gpu,phase,batch,seq,n_heads,n_kv_heads,head_dim,kv_dtype",
        "H100-SXM5-80GB,decode,8,1024,32,8,128,bfloat16",
        "nothing,decode,8,1024,32,8,128,bfloat16",
    ),
    "moe": (
        "gpu,quant,tokens,hidden,inter,topk,experts,moe_tp,moe_ep",
        "H100-SXM5-80GB,fp8,64,4096,1536,8,128,1,8",
        "H100-SXM5-80GB,int3,64,4096,1536,8,128,1,8",
    ),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_are_graded_by_time(planner: Planner, tmp_path: Path, kind: str) -> None:
    columns, asked, refused = KERNELS[kind]
    path, out = tmp_path / "kernels.csv", tmp_path / "out.csv"
    path.write_text(f"{columns},time_us\n{asked},1\n")
    assert planner("validate", str(path), "--predictions", str(out)).code == 0
    (one,) = csv.DictReader(out.read_text().splitlines())
    low, said, high = (float(one[f"predicted_time_us{end}"]) for end in ("_low", "", "_high"))
    assert low < said < high
    path.write_text(f"{columns},time_us\n{asked},{said / 1.1:.6f}\n{asked},{2 * high:.6f}\n{refused},1\n")
    run = planner("validate", str(path), "--by", "gpu", "--format", "json")
    document = run.document
    conforms(document)
    assert (document["kind"], document["answered"], document["rows"]) == (kind, 2, 3)
    grade = document["overall"]["time_us"]
    assert grade["measurements"] == 2
    assert grade["mape"] == pytest.approx((0.1 + 1 - said / (2 * high)) / 2, abs=1e-3)
    assert grade["inside_interval"] == 0.5
    assert "ranking" not in document
    words = planner("validate", str(path)).words
    assert "2 of 3 rows answered" in words
    assert "no prediction for 1 row: " in words


@pytest.mark.parametrize("text", ["1e-320", "1e300", "nan", "inf", "-1", "many"])
def test_numbers_that_nobody_measured_are_refused_with_their_line(planner: Planner, tmp_path: Path, text: str) -> None:
    path = tmp_path / "served.csv"
    path.write_text(SERVED + row(4, (4, 1, 1), {"tpot": 7.0}).replace(",7,", f",{text},"))
    run = planner("validate", str(path), "--format", "json")
    assert (run.code, run.out) == (2, "")
    assert f"line 2: tpot_ms is '{text}'; expected a number" in run.words


def test_rows_that_are_not_answered_may_say_anything(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "served.csv"
    text = row(4, (4, 1, 1), {"rate": 100.0}).replace("vllm", "nobody")
    odd = [text.replace(",4,1,1,1,1024", f",{tensor},1,1,1,1024") for tensor in ("0.5", "nan", "inf", "-1", "many", "1e308")]
    path.write_text(SERVED + text + "".join(odd) + text.replace(",100,", ",none,"))
    document = planner("validate", str(path), "--format", "json").document
    conforms(document)
    assert (document["rows"], document["answered"], "ranking" in document) == (8, 0, False)
