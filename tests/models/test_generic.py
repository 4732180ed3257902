"""Architectures that no family knows: read by their standard fields with a warning, or refused with what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner import api
from planner.core.model import Attention, LatentAttention, MoeMlp
from planner.core.workload import Workload
from planner.cost.attention import cache_bytes
from planner.errors import BadInput
from planner.models import read_config
from support import Planner

STANDARD: dict[str, Any] = {
    "architectures": ["NewThingForCausalLM"],
    "model_type": "new_thing",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
}


def test_standard_fields_are_read_with_a_warning() -> None:
    model = read_config(STANDARD, "m", "config.json")
    assert model.parameters == 4 * (64 * 8 * 20 + 3 * 64 * 256 + 2 * 64) + 2 * 1000 * 64 + 64
    assert model.family == "generic"
    assert "no family here knows this architecture (new_thing)" in model.notes[0]


def test_values_of_another_size_than_keys() -> None:
    model = read_config(STANDARD | {"head_dim": 24, "v_head_dim": 16}, "m", "config.json")
    attention = 64 * (8 * 24 + 2 * (24 + 16) + 8 * 16)
    assert model.parameters == 4 * (attention + 3 * 64 * 256 + 2 * 64) + 2 * 1000 * 64 + 64
    assert int(cache_bytes(model.layers[0].attention or Attention(1, 1, 1), 1, 2)) == 2 * (24 + 16) * 2


def test_a_window_is_taken_where_the_config_says_on_which_layers() -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    model = read_config(STANDARD | {"sliding_window": 128, "layer_types": kinds}, "m", "config.json")
    assert [layer.attention.window for layer in model.layers if layer.attention] == [128, None, 128, None]
    careful = read_config(STANDARD | {"sliding_window": 128}, "m", "config.json")
    assert {layer.attention.window for layer in careful.layers if layer.attention} == {None}
    assert "sliding_window is passed over" in careful.notes[0]


def test_code_beside_the_config_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(STANDARD | {"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}))
    (tmp_path / "modeling.py").write_text("raise SystemExit('run!')")
    assert "its own code is not run" in api.load_model(str(tmp_path)).notes[0]


def test_experts_and_latents_by_their_fields() -> None:
    experts = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1}
    latent = {"kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
    model = read_config(STANDARD | experts | latent, "m", "config.json")
    assert isinstance(model.layers[0].attention, LatentAttention)
    assert [isinstance(layer.mlp, MoeMlp) for layer in model.layers] == [False, True, True, True]
    assert "latent attention and experts" in model.notes[0]


def test_the_warning_reaches_the_answer(tmp_path: Path, planner: Planner) -> None:
    (tmp_path / "config.json").write_text(json.dumps(STANDARD))
    answer = api.recommend(api.load_model(str(tmp_path)), api.load_topology("1xRTX-3090"), Workload(128, 32, 4))
    assert any("no family here knows this architecture" in warning for warning in answer.warnings)
    printed = planner("recommend", str(tmp_path), "--topology", "1xRTX-3090", "--input-tokens", "128", "--output-tokens", "32")
    assert "no family here knows" in " ".join(printed.out.split())


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"ssm_state_size": 128}, "state-space"),
        ({"linear_attn_config": {"kda_layers": [1]}}, "linear-attention"),
        ({"cross_attention_layers": [3]}, "cross-attention"),
        ({"is_encoder_decoder": True}, "an encoder and a decoder"),
        ({"o_lora_rank": 1024}, "compressed attention"),
        ({"q_lora_rank": 1024}, "compressed attention"),
        ({"hidden_size": None}, "ordinary decoder"),
        ({"intermediate_size": None}, "ordinary decoder"),
    ],
    ids=str,
)
def test_what_changes_a_layer_in_unknown_ways_is_refused(change: dict[str, Any], missing: str) -> None:
    with pytest.raises(BadInput, match="NewThingForCausalLM") as caught:
        read_config(STANDARD | change, "m", "config.json")
    assert missing in caught.value.problem
    assert "the nearest supported" in caught.value.hint


def test_layers_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(BadInput, match="spiral_attention") as caught:
        read_config(STANDARD | {"layer_types": ["spiral_attention"] * 4}, "m", "config.json")
    assert "$.layer_types" in caught.value.path


@pytest.mark.parametrize(
    "architecture",
    [
        "BertForMaskedLM",
        "BertModel",
        "BertLMHeadModel",
        "XLMRobertaForSequenceClassification",
        "DebertaV2ForTokenClassification",
        "ElectraForPreTraining",
        "ModernBertForMaskedLM",
        "NomicBertModel",
        "LlamaForSequenceClassification",
        "MistralModel",
        "Qwen2ForRewardModel",
    ],
)
def test_what_writes_no_text_is_refused(architecture: str) -> None:
    with pytest.raises(BadInput, match=f"'{architecture}' writes no text") as caught:
        read_config(STANDARD | {"architectures": [architecture]}, "m", "config.json")
    assert caught.value.path == "config.json: $.architectures[0]"


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen3ForCausalLM", "NewLMHeadModel", "NewChatModel"])
def test_a_decoder_is_read_whatever_its_name_ends_in(architecture: str) -> None:
    assert read_config(STANDARD | {"architectures": [architecture]}, "m", "config.json").layers


def test_an_encoder_that_was_made_a_decoder_is_read() -> None:
    made = {"architectures": ["RobertaForCausalLM"], "is_decoder": True}
    assert read_config(STANDARD | made, "m", "config.json").family == "generic"


def test_a_latent_of_no_size_is_no_other_attention() -> None:
    with pytest.raises(BadInput, match="positive whole number") as caught:
        read_config(STANDARD | {"kv_lora_rank": 0}, "m", "config.json")
    assert "$.kv_lora_rank" in caught.value.path
