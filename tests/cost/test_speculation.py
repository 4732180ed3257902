"""Tokens that are guessed: what it gains, what it takes, and where it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import api
from planner.core.estimate import Estimate
from planner.core.plan import Infeasible, Parallelism
from planner.core.speculation import Speculation
from planner.core.workload import Workload
from planner.errors import BadInput
from planner.search.rank import Ranked

DENSE, EXPERTS = api.load_model("llama-3.1-70b"), api.load_model("deepseek-v3")
DGX, LARGE = api.load_topology("dgx-h100"), api.load_topology("dgx-h200")
DRAFT = "some/eagle3-head"


def priced(guess: Speculation | None, requests: int = 8, engine: str = "vllm") -> Estimate:
    found = api.priced(DENSE, DGX, Workload(concurrency=requests, speculation=guess), Parallelism(8), engine)
    assert isinstance(found, Ranked)
    return found.estimate


def test_one_step_yields_several_tokens() -> None:
    """With every guess looked up for nothing, a step takes what its tokens take; its share of one is the expected number's."""
    plain, guessed = priced(None, 1), priced(Speculation("ngram", 3, 0.8), 1)
    assert guessed.tpot == pytest.approx(guessed.decode.total / 2.952, rel=1e-3)
    assert plain.decode.total < guessed.decode.total < 1.3 * plain.decode.total
    assert guessed.kv_cache_tokens == plain.kv_cache_tokens


@given(
    chances=st.lists(st.floats(0, 0.99), min_size=2, max_size=2, unique=True).map(sorted),
    tokens=st.integers(1, 8),
    requests=st.sampled_from([1, 16, 200]),
)
def test_better_guesses_are_never_slower(chances: list[float], tokens: int, requests: int) -> None:
    worse, better = (priced(Speculation("eagle3", tokens, chance, DRAFT), requests).tpot for chance in chances)
    assert better <= worse


@pytest.mark.parametrize("requests", [1, 32, 256])
def test_guesses_that_are_never_right_only_cost(requests: int) -> None:
    assert priced(Speculation("ngram", 4, 0.0), requests).tpot > priced(None, requests).tpot


def test_the_gain_fades_with_the_load() -> None:
    gains = [priced(None, count).tpot / priced(Speculation("ngram", 3, 0.7), count).tpot for count in (1, 32, 400)]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 2
    assert gains[-1] < 1.1


def test_layers_that_guess_take_memory_and_time_on_the_last_stage() -> None:
    guess = Speculation("mtp", 2, 0.8)
    plain, guessed = (api.priced(EXPERTS, LARGE, Workload(speculation=one), Parallelism(8), "vllm") for one in (None, guess))
    assert isinstance(plain, Ranked)
    assert isinstance(guessed, Ranked)
    (before,), (after,) = plain.estimate.memory, guessed.estimate.memory
    more = after.weights - before.weights
    joined = EXPERTS.prediction_parameters - EXPERTS.prediction_layers[0].parameters(EXPERTS.hidden_size)
    least = EXPERTS.prediction_layers[0].parameters(EXPERTS.hidden_size) / 8
    assert least < more < 1.3 * least + 2 * joined
    assert after.kv_cache == pytest.approx(before.kv_cache - more)
    assert guessed.estimate.kv_cache_tokens < plain.estimate.kv_cache_tokens
    assert guessed.estimate.decode.parts["drafting"] > 0
    stages = api.priced(DENSE, DGX, Workload(speculation=Speculation("eagle3", 2, 0.7, DRAFT)), Parallelism(4, 2), "vllm")
    whole = api.priced(DENSE, DGX, Workload(), Parallelism(4, 2), "vllm")
    assert isinstance(stages, Ranked)
    assert isinstance(whole, Ranked)
    assert stages.plan.layer_partition[1] < whole.plan.layer_partition[1]  # the last has the guessing to do as well
    held, before_it = (sum(one.weights for one in plan.estimate.memory) for plan in (stages, whole))
    assert held > before_it


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        (("guess", 1, 0.5), "method"),
        (("mtp", 0, 0.5), "draft_tokens"),
        (("mtp", 17, 0.5), "draft_tokens"),
        (("mtp", 1, 1.0), "acceptance"),
        (("mtp", 1, -0.1), "acceptance"),
        (("eagle3", 1, 0.5), "checkpoint"),
        (("mtp", 1, 0.5, "x"), "checkpoint"),
    ],
)
def test_what_is_no_way_to_guess(fields: tuple[object, ...], place: str) -> None:
    with pytest.raises(BadInput) as caught:
        Speculation(*fields)  # type: ignore[arg-type]
    assert caught.value.path == place


def test_engines_and_models_that_cannot() -> None:
    with pytest.raises(BadInput, match="no multi-token-prediction layers"):
        priced(Speculation("mtp", 1, 0.5))
    with pytest.raises(BadInput, match="tgi does not guess tokens by eagle3"):
        priced(Speculation("eagle3", 1, 0.5, DRAFT), engine="tgi")
    workload = Workload(speculation=Speculation("ngram", 1, 0.5))
    refused = api.priced(DENSE, DGX, workload, Parallelism(4, 2), "sglang")
    assert isinstance(refused, Infeasible)
    assert (refused.rule, refused.have, refused.need) == ("speculation", 1, 2)
    assert isinstance(api.priced(DENSE, DGX, workload, Parallelism(4, 2), "vllm"), Ranked)


def test_layers_that_guess_are_counted_where_they_do() -> None:
    model, machine = api.load_model("deepseek-v3"), api.load_topology("dgx-h200")
    answers = [
        api.estimate(model, machine, Workload(speculation=guess), Parallelism(8)) for guess in (None, Speculation("mtp", 1, 0.8))
    ]
    for answer in answers:
        assert any("counted where they guess (mtp)" in warning for warning in answer.warnings)
    without, guessing = (answer.plans[0].ranked.estimate.memory[0].weights for answer in answers)
    assert guessing > without


def test_a_whole_model_is_no_layer_that_guesses() -> None:
    guess = Speculation("eagle3", 3, 0.7, "llama-3.1-8b")
    with pytest.raises(BadInput, match="whole model"):
        api.estimate(api.load_model("llama-3.1-70b"), api.load_topology("dgx-h100"), Workload(speculation=guess), Parallelism(8))
