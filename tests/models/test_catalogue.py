"""Models by name, offline."""

from __future__ import annotations

import pytest

from planner import api
from planner.documents.catalogue import find_model, model_names
from planner.errors import BadInput


def test_there_are_enough() -> None:
    assert len(model_names()) >= 20


@pytest.mark.parametrize("name", model_names())
def test_each_has_the_size_it_was_published_with(name: str) -> None:
    entry = find_model(name)
    model = api.load_model(name)
    assert model.parameters / 1e9 == pytest.approx(entry.parameters_billion, rel=0.01)
    assert model.name == entry.hub_id
    assert entry.hub_id.count("/") == 1


@pytest.mark.parametrize(
    "name",
    [
        "llama-3.1-70b",
        "Llama-3.1-70B",
        "LLAMA_3.1_70B",
        "meta-llama/Llama-3.1-70B-Instruct",
        "meta-llama/llama-3.1-70b-instruct",
        "Llama-3.1-70B-Instruct",
        "Meta-Llama-3.1-70B-Instruct",
    ],
)
def test_case_and_prefix_do_not_matter(name: str) -> None:
    assert api.load_model(name).parameters == 70_553_706_496


def test_a_name_is_launched_as_its_hub_id() -> None:
    assert api.load_model("llama-3.1-70b").name == "meta-llama/Llama-3.1-70B-Instruct"


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BadInput, match="unknown model") as caught:
        api.load_model("llama-3.1-7b")
    assert "llama-3.1-70b" in caught.value.hint or "llama-3.1-8b" in caught.value.hint


@pytest.mark.parametrize("name", ["", " ", "llama\x1b[31m", "a\nb", "\u202egnp.exe"])
def test_a_name_that_would_steer_a_terminal_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="name"):
        api.load_model(name)


@pytest.mark.parametrize(("asked", "named"), [("int4", "awq"), ("FP8", "fp8"), ("bfloat16", "bf16"), ("gptq", "gptq")])
def test_weight_formats_by_the_names_people_use(asked: str, named: str) -> None:
    assert api.load_model("llama-3.1-8b", quant=asked).weight_format.name == named


def test_an_unknown_weight_format_gets_the_known_ones() -> None:
    with pytest.raises(BadInput, match="unknown quantisation") as caught:
        api.load_model("llama-3.1-8b", quant="q5")
    assert "nvfp4" in caught.value.hint
