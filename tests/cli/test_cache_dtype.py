"""``--kv-cache-dtype``: twice the room, a word to every engine, and the way back from a launch."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from planner import api
from planner.core.plan import Parallelism
from planner.core.workload import Workload
from support import Planner

EIGHT = ("--kv-cache-dtype", "fp8")
ASKED = ("llama-3.1-70b", "-t", "dgx-h100", "--tp", "8")


def test_a_cache_in_8_bits_has_twice_the_room_and_is_read_in_less_time(planner: Planner) -> None:
    wide, narrow = (planner("estimate", *ASKED, *more, "--concurrency", "256", "--format", "json") for more in ((), EIGHT))
    assert (wide.document["model"]["kv_cache_dtype"], narrow.document["model"]["kv_cache_dtype"]) == ("auto", "fp8")
    before, after = (run.document["plans"][0] for run in (wide, narrow))
    assert after["memory"]["max_concurrency"] == pytest.approx(2 * before["memory"]["max_concurrency"], rel=0.01)
    assert after["estimate"]["tpot_s"] < before["estimate"]["tpot_s"]
    assert "KV cache fp8" in planner("estimate", *ASKED, *EIGHT).words


@pytest.mark.parametrize(
    ("engine", "said"),
    [("vllm", "--kv-cache-dtype fp8"), ("sglang", "--kv-cache-dtype fp8_e4m3"), ("tgi", "--kv-cache-dtype fp8_e4m3fn")],
)
def test_engines_are_told(planner: Planner, engine: str, said: str) -> None:
    assert said in planner("estimate", *ASKED, *EIGHT, "--engine", engine).words
    assert "--kv-cache-dtype" not in planner("estimate", *ASKED, "--engine", engine).words


def test_the_options_file_of_tensorrt_llm_says_so() -> None:
    model, machine = api.load_model("llama-3.1-70b", cache="fp8"), api.load_topology("dgx-h100")
    (plan,) = api.estimate(model, machine, Workload(), Parallelism(8), engine="tensorrt-llm").plans
    (options,) = plan.launch.files.values()
    assert yaml.safe_load(options)["kv_cache_config"]["dtype"] == "fp8"


def test_a_kept_plan_keeps_it(planner: Planner, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    assert planner("estimate", *ASKED, *EIGHT, "-o", str(file)).code == 0
    assert "--kv-cache-dtype fp8" in planner("emit", str(file)).words
    assert planner("check", str(file)).code in (0, 1)
    assert "not the model that was planned" not in planner("check", str(file)).words


def test_what_does_not_fit_may_fit_with_it(planner: Planner) -> None:
    asked = ("estimate", "llama-3.1-8b", "-t", "1xL4", "--input-tokens", "60000")
    run = planner(*asked)
    assert run.code == 1
    assert "--kv-cache-dtype fp8 would fit it on these" in run.words
    assert planner(*asked, *EIGHT).code == 0


def test_gpus_without_attention_for_it_are_told(planner: Planner) -> None:
    assert "reads a cache in 8 bits" in planner("estimate", "qwen2.5-1.5b", "-t", "1xT4", *EIGHT).words
    assert "reads a cache in 8 bits" not in planner("estimate", "qwen2.5-1.5b", "-t", "1xA10", *EIGHT).words


def test_another_word_is_refused(planner: Planner) -> None:
    run = planner("estimate", *ASKED, "--kv-cache-dtype", "int4")
    assert run.code == 2
    assert "fp8" in run.err


def test_a_launch_says_what_its_cache_is_kept_in(planner: Planner) -> None:
    launch = ("vllm", "serve", "meta-llama/Llama-3.1-70B-Instruct", "-tp", "8")
    wide, narrow = (
        planner("import", "-t", "dgx-h100", "--concurrency", "256", "--format", "json", "--", *launch, *more)
        for more in ((), EIGHT)
    )
    assert narrow.document["now"]["tpot_s"] < wide.document["now"]["tpot_s"]


@pytest.mark.parametrize(
    "launch",
    [
        ("vllm", "serve", "deepseek-ai/DeepSeek-V3", "-tp", "8", "--speculative-config", '{"method":"mtp","num_speculative_tokens":2}'),
        ("sglang", "serve", "--model-path", "deepseek-ai/DeepSeek-V3", "--tp", "8", "--speculative-algorithm", "EAGLE",
         "--speculative-num-steps", "2"),
    ],
    ids=["vllm", "sglang"],
)  # fmt: skip
def test_a_launch_that_guesses_is_priced_with_what_is_right(planner: Planner, launch: tuple[str, ...]) -> None:
    ask = ("import", "-t", "dgx-h200", "--format", "json")
    without, right = planner(*ask, "--", *launch), planner(*ask, "--acceptance-rate", "0.8", "--", *launch)
    assert any("guesses 2 tokens at a time" in note for note in without.document["notes"])
    assert right.document["now"]["tpot_s"] < 0.8 * without.document["now"]["tpot_s"]
    plan = planner("import", "-t", "dgx-h200", "--acceptance-rate", "0.8", "-o", "-", "--", *launch)
    assert yaml.safe_load(plan.out)["workload"]["speculation"]["draft_tokens"] == 2


def test_a_launch_with_a_draft_model_is_priced_without_and_says_so(planner: Planner) -> None:
    said = '{"model":"meta-llama/Llama-3.2-1B","num_speculative_tokens":4}'
    launch = ("vllm", "serve", "meta-llama/Llama-3.1-70B-Instruct", "-tp", "8", "--speculative-config")
    run = planner("import", "-t", "dgx-h100", "--acceptance-rate", "0.7", "--", *launch, said)
    assert "draft_model, which is not planned" in run.words
    assert planner("import", "-t", "dgx-h100", "--", *launch, "[1").code == 2
    assert planner("import", "-t", "dgx-h100", "--acceptance-rate", "0.7", "--", *launch[:-1]).code == 2


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('{"method":"suffix","num_speculative_tokens":32}', "suffix, which is not planned"),
        ('{"method":"ngram","num_speculative_tokens":1}', "guesses 1 token at a time"),
        ("null", "stands"),
    ],
)
def test_ways_to_guess_are_told_apart(planner: Planner, said: str, words: str) -> None:
    launch = ("vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct", "--speculative-config")
    run = planner("import", "-t", "1xH100-SXM5-80GB", "--", *launch, said)
    assert words in run.words
    assert (
        planner("import", "-t", "1xH100-SXM5-80GB", "--", *launch, '{"method":"ngram","num_speculative_tokens":"00165"}').code
        == 2
    )


def test_a_cache_in_another_format_is_noted(planner: Planner) -> None:
    launch = ("vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct", "--kv-cache-dtype", "nvfp4")
    assert "a KV cache in nvfp4 is not planned" in planner("import", "-t", "1xH100-SXM5-80GB", "--", *launch).words
