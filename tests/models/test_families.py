"""A config.json becomes the model it describes, or a refusal that says what of it is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner import api
from planner.core.model import Attention, DenseMlp, MoeMlp
from planner.errors import BadInput
from planner.models import families, read_config

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def test_an_architecture_belongs_to_one_family() -> None:
    named = [architecture for family in set(families().values()) for architecture in family.architectures]
    assert len(named) == len(set(named)) >= 50
    assert {"llama", "llama4", "deepseek", "gpt-oss", "gemma", "nemotron"} <= {family.name for family in families().values()}


def test_llama_by_hand() -> None:
    model = read_config(LLAMA, "m", "config.json")
    attention = 4096 * 128 * (32 + 8 + 8 + 32)
    mlp = 3 * 4096 * 14336
    assert model.parameters == 32 * (attention + mlp + 2 * 4096) + 2 * 128256 * 4096 + 4096 == 8_030_261_248
    assert (model.family, len(model.layers), model.weight_format.name) == ("llama", 32, "bf16")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"tie_word_embeddings": True}, -128256 * 4096),
        ({"attention_bias": True}, 32 * ((32 + 16) * 128 + 4096)),
        ({"architectures": ["Qwen2ForCausalLM"]}, 32 * (32 + 16) * 128),
        ({"architectures": ["Qwen3ForCausalLM"]}, 32 * 2 * 128),
        ({"head_dim": 256}, 32 * 4096 * 128 * 80),
        ({"num_key_value_heads": None}, 32 * 4096 * 128 * 48),
    ],
    ids=str,
)
def test_what_a_field_changes(change: dict[str, Any], difference: int) -> None:
    plain = read_config(LLAMA, "m", "config.json").parameters
    assert read_config(LLAMA | change, "m", "config.json").parameters - plain == difference


def test_experts_only_on_the_layers_the_config_names() -> None:
    config = LLAMA | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_experts": 16,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 768,
        "mlp_only_layers": [0],
        "decoder_sparse_step": 2,
    }
    model = read_config(config, "m", "config.json")
    mlps = [type(layer.mlp) for layer in model.layers]
    assert mlps[:4] == [DenseMlp, MoeMlp, DenseMlp, MoeMlp]
    assert model.experts == 16
    expert = 3 * 4096 * 768
    assert model.parameters - model.active_parameters == 16 * (16 - 4) * expert


def test_mistral_keeps_its_window() -> None:
    config = LLAMA | {"architectures": ["MistralForCausalLM"], "sliding_window": 4096}
    form = read_config(config, "m", "config.json").layers[0].attention
    assert isinstance(form, Attention)
    assert form.window == 4096


@pytest.mark.parametrize(
    ("quantization", "name"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
    ],
)
def test_the_checkpoints_own_format(quantization: dict[str, Any], name: str) -> None:
    model = read_config(LLAMA | {"quantization_config": quantization}, "m", "config.json")
    assert model.weight_format.name == model.checkpoint_format.name == name


@pytest.mark.parametrize(
    ("change", "place", "problem"),
    [
        ({"hidden_size": None}, "$.hidden_size", "is missing"),
        ({"hidden_size": "4096"}, "$.hidden_size", "whole number"),
        ({"hidden_size": True}, "$.hidden_size", "whole number"),
        ({"num_hidden_layers": 0}, "$.num_hidden_layers", "positive"),
        ({"num_hidden_layers": -3}, "$.num_hidden_layers", "positive"),
        ({"num_attention_heads": 33}, "$.num_attention_heads", "not divisible"),
        ({"num_key_value_heads": 5}, "$.num_key_value_heads", "not divisible"),
        ({"vocab_size": 10**12}, "$.vocab_size", "whole number"),
        ({"torch_dtype": "int3"}, "$.torch_dtype", "int3"),
        ({"quantization_config": {"quant_method": "magic"}}, "$.quantization_config", "magic"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "$.quantization_config", "3 bits"),
        ({"quantization_config": [1]}, "$.quantization_config", "object"),
        ({"architectures": []}, "$.architectures", "no architecture"),
        ({"architectures": "LlamaForCausalLM"}, "$.architectures", "no architecture"),
        ({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True}, "$.sliding_window", "is missing"),
        (
            {"architectures": ["GptOssForCausalLM"], "num_local_experts": 2, "num_experts_per_tok": 3},
            "_per_tok",
            "cannot visit 3 of 2",
        ),
        ({"architectures": ["NemotronHForCausalLM"], "hybrid_override_pattern": "*Q"}, "$.hybrid_override_pattern", "'Q'"),
        ({"architectures": ["NemotronHForCausalLM"], "hybrid_override_pattern": "----"}, "$.num_hidden_layers", "has attention"),
        ({"architectures": ["DeciLMForCausalLM"], "block_configs": [{}]}, "$.block_configs", "describes 1 layers"),
        ({"architectures": ["DeciLMForCausalLM"], "block_configs": [{"ffn": 3}] * 32}, "$.block_configs[0].ffn", "object"),
        ({"architectures": ["GemmaForCausalLM"], "num_kv_shared_layers": 10}, "$.num_kv_shared_layers", "E models"),
        ({"architectures": ["OPTForCausalLM"], "ffn_dim": 8, "word_embed_proj_dim": 512}, "$.word_embed_proj_dim", "OPT 350M"),
        ({"architectures": ["MinistralForCausalLM"], "layer_types": ["full_attention"]}, "$.layer_types", "names 1 layers"),
        (
            {"architectures": ["X"], "text_config": {"model_type": "llama", "hidden_size": 64, "num_attention_heads": -1}},
            "$.text_config.num_attention_heads",
            "positive",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_that_is_wrong_is_named(change: dict[str, Any], place: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as caught:
        read_config(LLAMA | change, "m", "config.json")
    assert place in caught.value.path


def test_quant_overrides_what_cannot_be_read(tmp_path: Path) -> None:
    config = LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="3 bits"):
        api.load_model(str(tmp_path))
    assert api.load_model(str(tmp_path), quant="gptq").weight_format.name == "gptq"


def test_a_format_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    assert api.load_model(str(tmp_path)).weight_format.name == "nvfp4"
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "W1"}}))
    with pytest.raises(BadInput, match="W1"):
        api.load_model(str(tmp_path))


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1, "a": 2}', "null", "[" * 100_000, '"x"'])
def test_a_file_that_is_no_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput):
        api.load_model(str(tmp_path))


def test_infinity_in_a_field_nobody_reads_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"time_step_limit": [0.0, float("inf")]}))
    assert api.load_model(str(tmp_path)).parameters == 8_030_261_248


def test_a_directory_a_file_and_the_name_they_are_launched_by(tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    assert api.load_model(str(folder)).name == str(folder)
    assert api.load_model(str(folder / "config.json")).name == str(folder)
    with pytest.raises(BadInput, match=r"no config\.json"):
        api.load_model(str(tmp_path))


PUBLISHED = {  # billions, from the names' own model cards
    "Qwen--Qwen3-0.6B": 0.6,
    "Qwen--Qwen3-8B": 8.2,
    "Qwen--Qwen3-32B": 32.8,
    "Qwen--Qwen3-30B-A3B": 30.5,
    "Qwen--Qwen3-235B-A22B": 235.0,
    "Qwen--Qwen3-Coder-480B-A35B-Instruct": 480.0,
    "meta-llama--Meta-Llama-3.1-8B": 8.03,
    "meta-llama--Meta-Llama-3.1-70B": 70.6,
    "meta-llama--Meta-Llama-3.1-405B": 405.0,
    "mistralai--Mixtral-8x7B-v0.1": 46.7,
    "mistralai--Mixtral-8x22B-v0.1": 141.0,
}


@pytest.mark.parametrize("folder", sorted(PUBLISHED))
def test_real_configs_have_the_published_sizes(shared: Path, folder: str) -> None:
    assert api.load_model(str(shared / "models" / folder)).parameters / 1e9 == pytest.approx(PUBLISHED[folder], rel=0.012)


@pytest.mark.parametrize(
    ("scaling", "served", "table"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 131072, 131072),
        ({"type": "dynamic", "factor": 2.0}, 65536, 65536),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 32768, 32768),
        ({"rope_type": "longrope", "factor": 8.0, "original_max_position_embeddings": 4096}, 32768, 32768),
        ({"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096}, 32768, 32768),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 32768, 131072),
        ({"rope_type": "linear", "factor": None}, 32768, 32768),
        ({"rope_type": ["linear"], "factor": "4"}, 32768, 32768),
    ],
    ids=str,
)
def test_positions_are_stretched_as_vllm_stretches_them(scaling: dict[str, Any], served: int, table: int) -> None:
    model = read_config(LLAMA | {"max_position_embeddings": 32768, "rope_scaling": scaling}, "m", "config.json")
    assert (model.max_positions, model.rope_tables) == (served, ((table, 128),))
    said = "YaRN reaches 131072 positions, max_position_embeddings is 32768: engines take 32768"
    assert any(said in note for note in model.notes) == (table > served)


def test_the_length_a_model_is_meant_for_goes_before_its_positions() -> None:
    command_r = LLAMA | {"max_position_embeddings": 8192, "model_max_length": 131072}
    assert read_config(command_r, "m", "config.json").max_positions == 131072


def test_positions_of_gemma_3_are_stated_as_stretched() -> None:
    scaling = {"rope_type": "linear", "factor": 8.0}
    config = LLAMA | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "sliding_window": 1024}
    model = read_config(config | {"rope_scaling": scaling}, "m", "config.json")
    assert model.max_positions == LLAMA["max_position_embeddings"]


@pytest.mark.parametrize("rank", [0, [], {}], ids=str)
def test_a_latent_of_no_size_is_refused(rank: Any) -> None:
    config = LLAMA | {"architectures": ["DeepseekV3ForCausalLM"], "n_routed_experts": 8, "num_experts_per_tok": 2}
    with pytest.raises(BadInput, match="positive whole number") as caught:
        read_config(config | {"kv_lora_rank": rank, "moe_intermediate_size": 64}, "m", "config.json")
    assert "$.kv_lora_rank" in caught.value.path
