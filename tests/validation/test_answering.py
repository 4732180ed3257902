"""What rows of a table lean on: models by plain names, and requests longer than a model was trained for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner import api
from planner.core.plan import Infeasible, Parallelism
from planner.core.workload import Workload
from planner.validation import Library
from planner.validation.answering import served_beyond


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(api.load_model, api.priced)


@pytest.mark.parametrize(
    ("name", "quant", "hub_id", "weights"),
    [
        ("LLaMA 7B", "fp16", "meta-llama/Llama-2-7b-chat-hf", "bf16"),
        ("LLaMA 13B", "fp8", "meta-llama/Llama-2-13b-chat-hf", "fp8"),
        ("LLaMA 70B", "fp8", "meta-llama/Llama-2-70b-chat-hf", "fp8"),
        ("GPT-J 6B", "fp8", "EleutherAI/gpt-j-6b", "fp8"),
        ("CodeLlama-34B", "int4", "codellama/CodeLlama-34b-hf", "awq"),
    ],
)
def test_plain_names_of_tables(library: Library, name: str, quant: str, hub_id: str, weights: str) -> None:
    model = library.model(name, quant)
    assert not isinstance(model, str), model
    assert (model.name, model.weight_format.name) == (hub_id, weights)


def test_a_checkpoint_is_its_model_in_the_format_that_name_and_row_agree_on(library: Library) -> None:
    model = library.model("nvidia/DeepSeek-R1-NVFP4", "nvfp4")
    assert not isinstance(model, str), model
    assert (model, model.weight_format.name) == (library.model("deepseek-ai/DeepSeek-R1", "nvfp4"), "nvfp4")
    for quant in ("", "fp8", "bf16"):
        assert library.model("nvidia/DeepSeek-R1-NVFP4", quant) == ("unknown model 'nvidia/DeepSeek-R1-NVFP4'")
    assert library.model("nobody-nvfp4", "nvfp4") == "unknown model 'nobody-nvfp4'"
    own = library.model("nvidia/DeepSeek-V3.1-NVFP4", "nvfp4")  # in the catalogue, with what it leaves in 16 bits
    assert own == api.load_model("nvidia/DeepSeek-V3.1-NVFP4")


def test_a_name_that_nobody_knows_stays_a_reason(library: Library) -> None:
    assert library.model("LLaMA 8B", "fp16") == "unknown model 'LLaMA 8B'"


def test_kinds_of_models(library: Library) -> None:
    asked = {"LLaMA 7B": "dense", "mixtral-8x7b": "moe", "nobody": ""}
    assert {name: library.kind_of({"model": name, "quant": ""}) for name in asked} == asked


def test_a_measured_run_beyond_the_trained_positions_is_priced(library: Library) -> None:
    model, machine = api.load_model("gpt-j-6b"), library.machine("1xA100-SXM4-80GB")
    assert not isinstance(machine, str)
    workload = Workload(2048, 2048, 8)
    refused = api.priced(model, machine, workload, Parallelism(1, 1, 1, 1), "tensorrt-llm")
    assert isinstance(refused, Infeasible)
    assert refused.rule == "context"
    found = library.estimate(model, machine, workload, Parallelism(1, 1, 1, 1), "tensorrt-llm")
    assert not isinstance(found, Infeasible)
    assert found.estimate.tpot > 0


def test_positions_that_were_learned_cannot_be_made_up(library: Library) -> None:
    model = api.load_model("opt-6.7b")
    assert served_beyond(model, 4096) is model
    turned = api.load_model("gpt-j-6b")
    assert served_beyond(turned, 2048) is turned
    assert served_beyond(turned, 4096) == replace(turned, max_positions=4096, rope_tables=((4096, 64),))
