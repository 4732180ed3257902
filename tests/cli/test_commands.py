"""The commands as somebody at a terminal meets them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from planner import __version__, api
from planner.errors import BadInput, Unavailable
from support import Planner

ESCAPE = re.compile(r"\x1b")
FLAGSHIP = ("recommend", "llama-3.1-70b", "--topology", "4x-rtx-3090-bridged", "--quant", "awq", "--concurrency", "32")


def test_version_and_help(planner: Planner) -> None:
    assert planner("--version").out == f"planner {__version__}\n"
    text = planner("--help")
    assert text.code == 0
    for command in ("probe", "recommend", "estimate"):
        assert command in text.out
        assert planner(command, "--help").code == 0


def test_the_table_says_what_a_plan_is_and_costs(planner: Planner) -> None:
    run = planner(*FLAGSHIP)
    assert (run.code, run.err) == (0, "")
    for words in (
        "TP 2 × PP 2 × DP 1",  # degrees
        "GPUs {0,2} → {1,3}",  # the GPUs of each group
        "/24.0",  # memory against capacity
        "all-reduce a layer",
        "P2P a boundary",
        "bubble 50 % in prefill",
        "idle",
        "TTFT",
        "TPOT",
        "tok/s",
        "per GPU",
        "fraction of total time, (P-1)/(M+P-1)",  # which convention
        "why",
        "error bars of #1",
        "CUDA_VISIBLE_DEVICES=0,2,1,3 vllm serve",
    ):
        assert words in run.words, words


def test_the_command_to_copy_stands_on_one_line(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    run = planner(*FLAGSHIP)
    (line,) = [line for line in run.out.splitlines() if " vllm serve " in line]
    assert line.startswith("CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=")
    assert line.endswith("--port 8000")


def test_every_word_is_explained_by_the_wire_that_limits(planner: Planner) -> None:
    run = planner(*FLAGSHIP)
    why = run.words.split(" why ")[1].split(" not possible ")[0]
    assert "gpu0–gpu2 (48 GB/s)" in why
    assert why.count(" - TP") + why.startswith("- TP") >= 3


def test_a_no_says_by_how_much_and_what_would_fit(planner: Planner) -> None:
    run = planner("recommend", "llama-3.1-70b", "--topology", "2xRTX-3090")
    assert (run.code, run.err) == (1, "")
    assert "the engine's budget is 22.1 GiB of 24.0 GiB" in run.words
    assert "7× RTX-3090 would fit" in run.words
    assert "--quant awq, gptq" in run.words


def test_a_layout_that_does_not_fit_says_what_of_these_gpus_would(planner: Planner) -> None:
    run = planner("estimate", "llama-3.1-70b", "-t", "dgx-h100")
    assert run.code == 1
    assert "2× H100-SXM5-80GB would fit it, as TP 2 × PP 1 × DP 1" in run.words
    assert planner("estimate", "llama-3.1-70b", "-t", "dgx-h100", "--tp", "2").code == 0


def test_an_estimate_of_degrees_no_engine_runs(planner: Planner) -> None:
    run = planner("estimate", "llama-3.1-70b", "-t", "dgx-h100", "--tp", "3")
    assert run.code == 1
    assert "64 attention heads are not divisible by TP 3" in run.words
    assert "vllm runs EP" in planner("estimate", "qwen3-30b-a3b", "-t", "dgx-h100", "--tp", "4", "--ep", "3").words


def test_ranks_that_share_out_the_cache_are_an_option_and_a_flag_of_the_launch(planner: Planner) -> None:
    asked = ("estimate", "deepseek-v3", "-t", "8xH200-SXM5-141GB", "--tp", "8", "--ep", "8", "--dcp", "8")
    run = planner(*asked)
    assert run.code == 0
    assert "× DCP 8" in run.words
    assert "--decode-context-parallel-size 8" in run.words
    refused = planner(*asked, "--engine", "tensorrt-llm")
    assert refused.code == 1
    assert "tensorrt-llm is not planned with decode context parallelism" in refused.words


def test_tensor_groups_that_split_prompts_are_an_option_and_a_flag_of_the_launch(planner: Planner) -> None:
    asked = ("estimate", "deepseek-v3", "-t", "8xH200-SXM5-141GB", "--tp", "4", "--pcp", "2")
    run = planner(*asked)
    assert run.code == 0
    assert "× PCP 2" in run.words
    assert "--prefill-context-parallel-size 2" in run.words
    assert "splitting prompts takes" in run.words
    refused = planner(*asked, "--engine", "sglang")
    assert refused.code == 1
    assert "sglang is not planned with prefill context parallelism" in refused.words


def test_a_shared_cache_is_ranked_and_named_in_a_launch(planner: Planner) -> None:
    run = planner("recommend", "deepseek-v2-lite", "-t", "2xL4", "--input-tokens", "150000", "--concurrency", "4", "--top", "1")
    assert run.code == 0
    assert "--decode-context-parallel-size" in run.words
    assert "sharing out the cache takes" in run.words


def test_on_a_host_without_a_gpu_it_says_how_to_name_a_topology(planner: Planner) -> None:
    run = planner("recommend", "llama-3.1-8b")
    assert run.code == 3
    assert "--topology" in run.err
    assert "dgx-h100" in run.err
    probe = planner("probe")
    assert probe.code == 3
    assert "nvidia-smi topo -m" in probe.err


def test_probe_draws_the_tree_the_bridges_and_the_matrix(planner: Planner) -> None:
    run = planner("probe", "4x-rtx-3090-bridged")
    assert run.code == 0
    assert "NVLinks: gpu0–gpu2 (×4, 48 GB/s), gpu1–gpu3 (×4, 48 GB/s)" in run.words
    assert "GPU0 X PHB NV4 NODE" in run.words


def test_what_probe_writes_it_reads_back_and_never_overwrites(planner: Planner, tmp_path: Path) -> None:
    text = "\tGPU0\tGPU1\tmlx5_0\nGPU0\t X \tNV4\tPIX\nGPU1\tNV4\t X \tSYS\nmlx5_0\tPIX\tSYS\t X \n"
    path = tmp_path / "box.yaml"
    first = planner("probe", "-", "--gpu", "RTX-3090", "-o", str(path), "--format", "json", stdin=text)
    assert first.code == 0
    assert f"wrote {path}" in first.err
    again = planner("probe", str(path), "--format", "json")
    for part in ("gpus", "nics", "matrix"):
        assert again.document[part] == first.document[part]
    written = path.read_text()
    refused = planner("probe", "-", "-o", str(path), stdin=text)
    assert refused.code == 2
    assert "--force" in refused.err
    assert path.read_text() == written
    assert planner("probe", "-", "-o", str(path), "--force", stdin=text).code == 0
    assert path.read_text() != written
    assert planner("probe", "-", "-o", str(tmp_path / "no" / "where.yaml"), stdin=text).code == 3
    assert planner("recommend", "llama-3.1-8b", "-t", str(path), "--gpu", "RTX-3090").code == 0


def test_a_topology_from_standard_input(planner: Planner) -> None:
    text = "\tGPU0\tGPU1\nGPU0\t X \tNV4\nGPU1\tNV4\t X \n"
    run = planner("recommend", "llama-3.1-8b", "-t", "-", "--gpu", "rtx 3090", stdin=text)
    assert run.code == 0
    assert "on capture" in run.words


def test_all_names_of_a_machine_mean_the_same(planner: Planner, root: Path) -> None:
    by_name = planner("recommend", "llama-3.1-8b", "-t", "dgx-a100", "--format", "json").document
    by_case = planner("recommend", "llama-3.1-8b", "-t", "DGX_A100", "--format", "json").document
    by_file = planner("recommend", "llama-3.1-8b", "-t", str(root / "topologies" / "dgx-a100.yaml"), "--format", "json").document
    assert by_name == by_case == by_file


@pytest.mark.parametrize("width", [30, 50, 80, 200])
@pytest.mark.parametrize("command", [FLAGSHIP, ("recommend", "qwen3-30b-a3b", "-t", "dgx-h100"), ("probe", "dgx-h100")])
def test_it_keeps_to_the_terminal_and_cuts_nothing_short(
    planner: Planner, monkeypatch: pytest.MonkeyPatch, width: int, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    run = planner(*command)
    whole = re.compile(r"^(CUDA_|GPU\d| {6}|# )")  # commands, comments to copy and the matrix are never wrapped
    long = [line for line in run.out.splitlines() if len(line) > width and " " in line.strip() and not whole.match(line)]
    assert long == []
    assert "…" not in run.out
    assert ESCAPE.search(run.out) is None
    if "recommend" in command:
        assert "TPOT" in run.out
        assert "tok/s" in run.out


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (KeyboardInterrupt(), 130),
        (BadInput("no"), 2),
        (Unavailable("no"), 3),
        (RuntimeError("no"), 70),
        (ZeroDivisionError(), 70),
    ],
    ids=lambda value: str(type(value).__name__ if isinstance(value, BaseException) else value),
)
def test_every_end_has_its_exit_code_and_one_message(
    planner: Planner, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(api, "recommend", fail)
    run = planner("recommend", "llama-3.1-8b", "-t", "2x-l4")
    assert run.code == code
    assert run.out == ""
    assert run.err.startswith("planner: ")
    assert "Traceback" not in run.err


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "planner", *arguments]


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_reader_who_has_enough_gets_no_complaint(form: str) -> None:
    process = subprocess.Popen(
        command("recommend", "llama-3.1-8b", "-t", "dgx-h100", "--format", form, "--top", "100"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before anything is written
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 3  # never 1: that is the answer that nothing fits


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_only_where_it_is_wanted(environment: dict[str, str], *, coloured: bool) -> None:
    ours, theirs = os.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TERM", "COLUMNS"}}
    process = subprocess.Popen(
        command(*FLAGSHIP), stdout=theirs, stderr=theirs, env={"TERM": "xterm-256color", **inherited, **environment}
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert process.wait() == 0
    assert b"TP 2" in seen
    colours = re.compile(rb"\x1b\[[0-9;]*m")
    assert (b"\x1b[" in seen) is coloured or (not coloured and set(colours.findall(seen)) <= {b"\x1b[1m", b"\x1b[2m", b"\x1b[0m"})


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['planner', '--help']; from planner.cli import main; main(); "
        "print(sorted({'pydantic', 'yaml', 'rich.table', 'pynvml', 'planner.api'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_memory_is_drawn_to_scale(planner: Planner, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setattr("planner.render.terminal.draws_lines", lambda: encoding == "utf-8")
    glyphs = "█▓▒░·" if encoding == "utf-8" else "#=+-."
    asked = ("estimate", "llama-3.1-70b", "-t", "dgx-h100", "--tp", "4")
    (stage,) = planner(*asked, "--format", "json").document["plans"][0]["memory"]["stages"]
    (bar,) = re.findall(r"\[([^\]\w]{20,})\]", planner(*asked).out)
    assert set(bar) <= set(glyphs)
    parts = ("weights_bytes", "kv_cache_bytes", "activation_bytes", "overhead_bytes")
    for glyph, part in zip(glyphs, parts, strict=False):
        assert bar.count(glyph) / len(bar) == pytest.approx(stage[part] / stage["capacity_bytes"], abs=1 / len(bar))
    assert bar == "".join(sorted(bar, key=glyphs.index))


def test_the_words_under_a_bar_are_indented_as_the_bar_is(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.render.terminal.draws_lines", lambda: False)
    printed = planner("estimate", "llama-3.1-8b", "-t", "1x-l4").out
    assert "\n   # weights" in printed
    assert "\n   [#" in printed


def test_large_numbers_are_written_out_and_one_is_singular(planner: Planner) -> None:
    asked = ("llama-3.2-1b", "-t", "dgx-h100", "--input-tokens", "1", "--output-tokens", "2", "--concurrency", "max")
    printed = planner("recommend", *asked).words
    assert "1 token in, 2 out" in printed
    assert re.search(r" \d\d,\d\d\d requests a second", printed)
    pools = planner("disaggregate", "llama-3.2-1b", "-t", "dgx-h100", "--input-tokens", "16", "--output-tokens", "2").out
    assert not re.search(r"\de\+\d", printed + pools.split("\nwhy")[0])


def test_a_request_too_long_is_told_how_long_it_may_be(planner: Planner) -> None:
    run = planner("estimate", "llama-3.1-8b", "-t", "1x-l4", "--input-tokens", "120000", "--output-tokens", "1000")
    assert run.code == 1
    found = re.search(r"at most ([\d,]+) tokens, in and out together, would fit", run.words)
    assert found
    most = int(found[1].replace(",", ""))
    fits = ("estimate", "llama-3.1-8b", "-t", "1x-l4", "--concurrency", "1", "--output-tokens", "1", "--input-tokens")
    assert planner(*fits, str(most - 1)).code == 0
    assert planner(*fits, str(most + 64)).code == 1
