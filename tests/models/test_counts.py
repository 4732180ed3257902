"""Parameters of small made-up configs of every family, counted by hand; and what of a config makes which layer."""

from __future__ import annotations

from typing import Any

import pytest

from planner.core.model import Attention, DenseMlp, LatentAttention, LinearAttention, ModelSpec, MoeMlp
from planner.errors import BadInput
from planner.models import families, read_config

H, V = 64, 1000
TABLES = 2 * V * H  # embedding and head
PLAIN = {
    "hidden_size": H,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 256,
    "vocab_size": V,
    "max_position_embeddings": 4096,
}
GQA = H * 16 * (8 + 2 + 2 + 8)
GATED = 3 * H * 256
LATENT = {
    "kv_lora_rank": 32,
    "q_lora_rank": 48,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
}
MLA = H * 48 + 48 + 48 * 8 * 24 + H * (32 + 8) + 32 + 32 * 8 * (16 + 16) + 8 * 16 * H
EXPERT = 3 * H * 32
INDEXER = 48 * 4 * 16 + H * (16 + 4) + 2 * 16
DELTA_NET = H * (2 * 2 * 8 + 2 * 4 * 16 + 2 * 4) + 4 * 16 * H + 4 * (2 * 2 * 8 + 4 * 16) + 2 * 4 + 16
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
}
GATED_GQA = GQA + H * 16 * 8 + 2 * 16  # the queries twice, a norm on queries and keys
GPTJ = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
}
MAMBA = H * (2 * 4 * 16 + 2 * 2 * 32 + 4) + 4 * 16 * H + (4 * 16 + 2 * 2 * 32) * (4 + 1) + 3 * 4 + 4 * 16


def read(architecture: str, changes: dict[str, Any]) -> ModelSpec:
    return read_config({"architectures": [architecture], **PLAIN, **changes}, "m", "config.json")


CASES: list[tuple[str, dict[str, Any], int]] = [
    ("LlamaForCausalLM", {"mlp_bias": True}, 4 * (GQA + GATED + 2 * 256 + H + 2 * H)),
    ("GraniteForCausalLM", {"tie_word_embeddings": True}, 4 * (GQA + GATED + 2 * H) - V * H),
    ("MistralForCausalLM", {}, 4 * (GQA + GATED + 2 * H)),
    ("Qwen2ForCausalLM", {}, 4 * (GQA + (8 + 4) * 16 + GATED + 2 * H)),
    ("Qwen3ForCausalLM", {}, 4 * (GQA + 2 * 16 + GATED + 2 * H)),
    ("MixtralForCausalLM", {"num_local_experts": 4, "num_experts_per_tok": 2}, 4 * (GQA + 4 * GATED + 4 * H + 2 * H)),
    (
        "Qwen2MoeForCausalLM",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 128},
        4 * (GQA + (8 + 4) * 16 + 4 * EXPERT + 4 * H + 3 * H * 128 + H + 2 * H),
    ),
    (
        "Qwen3MoeForCausalLM",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 2},
        4 * (GQA + 2 * 16 + 2 * H) + 2 * (4 * EXPERT + 4 * H) + 2 * GATED,
    ),
    ("DeepseekV2ForCausalLM", LATENT, 4 * (MLA + 2 * H) + GATED + 3 * (8 * EXPERT + 8 * H + 2 * EXPERT)),
    (
        "DeepseekV2ForCausalLM",
        {**LATENT, "q_lora_rank": None},
        4 * (MLA - H * 48 - 48 - 48 * 8 * 24 + H * 8 * 24 + 2 * H) + GATED + 3 * (8 * EXPERT + 8 * H + 2 * EXPERT),
    ),
    (
        "DeepseekV3ForCausalLM",
        {**LATENT, "topk_method": "noaux_tc", "num_nextn_predict_layers": 1},
        4 * (MLA + 2 * H) + GATED + 3 * (8 * EXPERT + 8 * H + 8 + 2 * EXPERT),
    ),
    (
        "DeepseekV32ForCausalLM",
        {**LATENT, "index_topk": 64, "index_n_heads": 4, "index_head_dim": 16},
        4 * (MLA + INDEXER + 2 * H) + GATED + 3 * (8 * EXPERT + 8 * H + 2 * EXPERT),
    ),
    (
        "GlmMoeDsaForCausalLM",
        {**LATENT, "index_topk": 64, "index_n_heads": 4, "index_head_dim": 16},
        4 * (MLA + INDEXER + 2 * H) + GATED + 3 * (8 * EXPERT + 8 * H + 2 * EXPERT),
    ),
    (
        "Glm4MoeForCausalLM",
        {**{key: LATENT[key] for key in list(LATENT)[5:]}, "attention_bias": True, "use_qk_norm": True},
        4 * (GQA + (8 + 4) * 16 + 2 * 16 + 2 * H) + GATED + 3 * (8 * EXPERT + 8 * H + 8 + 2 * EXPERT),
    ),
    ("Glm4ForCausalLM", {}, 4 * (GQA + GATED + 4 * H)),
    (
        "MiniMaxM2ForCausalLM",
        {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 32},
        4 * (GQA + (8 + 2) * 16 + 8 * EXPERT + 8 * H + 8 + 2 * H),
    ),
    (
        "GptOssForCausalLM",
        {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 32, "sliding_window": 128},
        4 * (GQA + (8 + 4) * 16 + H + 8 + 8 * (EXPERT + 2 * 32 + H) + 8 * H + 8 + 2 * H),
    ),
    (
        "Llama4ForCausalLM",
        {"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 512, "interleave_moe_layer_step": 2},
        4 * (GQA + 2 * H) + 2 * 3 * H * 512 + 2 * (4 * GATED + 4 * H + GATED),
    ),
    ("Qwen3NextForCausalLM", LINEAR, 3 * DELTA_NET + GATED_GQA + 4 * (GATED + 2 * H)),
    (
        "Qwen3_5MoeForCausalLM",
        {
            **LINEAR,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "layer_types": ["linear_attention", "full_attention"] * 2,
        },
        2 * DELTA_NET + 2 * GATED_GQA + 4 * (4 * EXPERT + EXPERT + 4 * H + H + 2 * H),
    ),
    ("GemmaForCausalLM", {"model_type": "gemma"}, 4 * (GQA + GATED + 2 * H) - V * H),
    ("Gemma2ForCausalLM", {"model_type": "gemma2", "sliding_window": 512}, 4 * (GQA + GATED + 4 * H) - V * H),
    ("Gemma3ForCausalLM", {"model_type": "gemma3_text", "sliding_window": 512}, 4 * (GQA + 2 * 16 + GATED + 4 * H) - V * H),
    (
        "Gemma4ForCausalLM",
        {
            "model_type": "gemma4_text",
            "sliding_window": 512,
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
            "global_head_dim": 32,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 32,
        },
        3 * (GQA + 2 * 16) + H * 32 * (8 + 1 + 8) + 2 * 32 + 4 * (GATED + 4 * EXPERT + 4 * H + 4 + 7 * H) - V * H,
    ),
    (
        "PhiForCausalLM",
        {"model_type": "phi", "num_key_value_heads": None},
        4 * (4 * H * 128 + 3 * 128 + H + 2 * H * 256 + 256 + H + 2 * H) + H + V,
    ),
    ("Phi3ForCausalLM", {"model_type": "phi3", "sliding_window": 262_144}, 4 * (GQA + GATED + 2 * H)),
    (
        "DeciLMForCausalLM",
        {
            "intermediate_size": None,
            "num_key_value_heads": None,
            "block_configs": [
                {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 6.0}},
                {"attention": {"no_op": True}, "ffn": {"ffn_mult": 12.0}},
                {"attention": {"n_heads_in_group": 8}, "ffn": {"no_op": True}},
                {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 6.0}},
            ],
        },
        2 * (GQA + 3 * H * 256 + 2 * H) + 3 * H * 512 + H + H * 16 * (8 + 1 + 1 + 8) + H,
    ),
    (
        "NemotronHForCausalLM",
        {
            "hybrid_override_pattern": "M-*E",
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "n_groups": 2,
            "ssm_state_size": 32,
            "conv_kernel": 4,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "n_shared_experts": 1,
            "moe_shared_expert_intermediate_size": 128,
        },
        MAMBA + 2 * H * 256 + GQA + 8 * 2 * H * 32 + 8 * H + 8 + 2 * H * 128 + 4 * H,
    ),
    ("NemotronForCausalLM", {}, 4 * (GQA + 2 * H * 256 + 4 * H) + H),
    ("CohereForCausalLM", {"model_type": "cohere", "use_qk_norm": True}, 4 * (GQA + 10 * 16 + GATED + H) - V * H),
    (
        "FalconForCausalLM",
        {"num_kv_heads": 2, "new_decoder_architecture": True},
        4 * (GQA + 2 * H * 4 * H + 4 * H) - V * H + H,
    ),
    (
        "OPTForCausalLM",
        {"ffn_dim": 256, "num_key_value_heads": None},
        4 * (4 * H * 128 + 3 * 128 + H + 2 * H * 256 + 256 + H + 4 * H) - V * H + 4098 * H + H,
    ),
    (
        "GPTNeoXForCausalLM",
        {"num_key_value_heads": None},
        4 * (4 * H * 128 + 3 * 128 + H + 2 * H * 256 + 256 + H + 4 * H) + H,
    ),
    (
        "GPTJForCausalLM",
        {
            **dict.fromkeys((*GPTJ.values(), "num_key_value_heads", "head_dim", "intermediate_size")),
            **{own: PLAIN[usual] for own, usual in GPTJ.items()},
            "rotary_dim": 4,
        },
        4 * (4 * H * H + 2 * H * 4 * H + 4 * H + H + 2 * H) + H + V,
    ),
    ("Starcoder2ForCausalLM", {}, 4 * (GQA + 12 * 16 + H + 2 * H * 256 + 256 + H + 4 * H) - V * H + H),
]


@pytest.mark.parametrize(("architecture", "changes", "layers"), CASES, ids=[case[0] for case in CASES])
def test_counted_by_hand(architecture: str, changes: dict[str, Any], layers: int) -> None:
    assert read(architecture, changes).parameters == layers + TABLES + H


def test_every_family_is_counted() -> None:
    assert {families()[architecture].name for architecture, _, _ in CASES} == {family.name for family in families().values()}


def test_gpt_j_is_read_as_published_and_a_wrong_field_is_called_by_its_own_name() -> None:
    """The published count; half of a head's 256 numbers and more do not turn with the position."""
    config = {
        "architectures": ["GPTJForCausalLM"],
        "model_type": "gptj",
        "n_embd": 4096,
        "n_layer": 28,
        "n_head": 16,
        "n_inner": None,
        "rotary_dim": 64,
        "n_positions": 2048,
        "vocab_size": 50400,
        "tie_word_embeddings": False,
    }
    model = read_config(config, "m", "config.json")
    assert (model.family, model.parameters, model.rope_tables) == ("gpt-j", 6_050_882_784, ((2048, 64),))
    assert all(layer.parallel and layer.reductions == 1 for layer in model.layers)
    usual = {GPTJ.get(field, field): value for field, value in config.items()}
    assert read_config(usual, "m", "config.json") == model
    for wrong in ({"n_head": 0}, {"n_embd": None}, {"n_positions": "2048"}):
        (field,) = wrong
        with pytest.raises(BadInput) as caught:
            read_config({**config, **wrong}, "m", "config.json")
        assert caught.value.path == f"config.json: $.{field}"


def test_latent_attention_then_dense_then_experts() -> None:
    model = read("DeepseekV3ForCausalLM", {**LATENT, "num_nextn_predict_layers": 1})
    assert [type(layer.mlp) for layer in model.layers] == [DenseMlp, MoeMlp, MoeMlp, MoeMlp]
    assert all(isinstance(layer.attention, LatentAttention) for layer in model.layers)
    drafting = model.layers[-1].parameters(H) + 2 * H * H + 3 * H
    assert model.prediction_parameters == drafting
    assert model.parameters - model.active_parameters == 3 * (8 - 2) * EXPERT
    assert "1 multi-token-prediction layer" in model.notes[0]
    assert model.rope_tables == ((4096, 8),)


def test_which_layers_have_a_window() -> None:
    def windows(architecture: str, **changes: Any) -> list[int | None]:
        layers = read(architecture, {"sliding_window": 128, **changes}).layers
        return [layer.attention.window for layer in layers if isinstance(layer.attention, Attention)]

    experts = {"num_local_experts": 4, "num_experts_per_tok": 1}
    assert windows("MistralForCausalLM") == [128] * 4
    assert windows("GptOssForCausalLM", **experts) == [128, None, 128, None]
    assert windows("Gemma2ForCausalLM", model_type="gemma2") == [128, None, 128, None]
    assert windows("Gemma3ForCausalLM", model_type="gemma3_text", num_hidden_layers=7) == [128] * 5 + [None, 128]
    assert windows("Cohere2ForCausalLM", model_type="cohere2") == [128, 128, 128, None]
    assert windows("Qwen2ForCausalLM", use_sliding_window=True, max_window_layers=3) == [None] * 3 + [128]
    assert windows("Qwen2ForCausalLM", use_sliding_window=False, max_window_layers=3) == [None] * 4
    chunked = {"intermediate_size_mlp": 512, "attention_chunk_size": 64}
    assert windows("Llama4ForCausalLM", **experts, **chunked) == [64, 64, 64, None]
    assert windows("Llama4ForCausalLM", **experts, **chunked, no_rope_layers=[0, 1, 1, 0]) == [None, 64, 64, None]
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    assert windows("MinistralForCausalLM", layer_types=kinds) == [None, 128, None, 128]


def test_hybrids_keep_a_state() -> None:
    model = read("Qwen3NextForCausalLM", LINEAR)
    linear = model.layers[0].attention
    assert isinstance(linear, LinearAttention)
    assert linear.state_elements() == 4 * 8 * 16
    assert linear.state_bytes(1) == 4 * 8 * 16 * 4 + 3 * (2 * 2 * 8 + 4 * 16) * 2
    assert linear.state_bytes(2) == linear.state_bytes(1) / 2
    assert isinstance(model.layers[3].attention, Attention)


def test_layers_of_one_block_meet_once() -> None:
    parallel = read("PhiForCausalLM", {"model_type": "phi", "num_key_value_heads": None}).layers[0]
    pruned = read("DeciLMForCausalLM", CASES[[case[0] for case in CASES].index("DeciLMForCausalLM")][1]).layers
    assert parallel.reductions == 1
    assert [layer.reductions for layer in pruned] == [2, 1, 1, 2]


def test_rotary_tables() -> None:
    stretched = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 512}
    assert read("Gemma3ForCausalLM", {"model_type": "gemma3_text", **stretched}).rope_tables == ((8 * 4096, 16), (4096, 16))
    assert read("LlamaForCausalLM", {"rope_scaling": stretched["rope_scaling"]}).rope_tables == ((8 * 4096, 16),)
    assert read("GPTNeoXForCausalLM", {"rotary_pct": 0.25}).rope_tables == ((4096, 4),)
    assert read("NemotronHForCausalLM", {"hybrid_override_pattern": "*-"}).rope_tables == ()


@pytest.mark.parametrize("wrapper", ["text_config", "llm_config"])
def test_a_model_of_pictures_is_its_language_model_and_an_encoder(wrapper: str) -> None:
    text = {"architectures": ["Qwen2ForCausalLM"], **PLAIN}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 128, "patch_size": 4, "spatial_merge_size": 2}
    config = {"architectures": ["AnythingForConditionalGeneration"], wrapper: text, "vision_config": vision, "dtype": "float16"}
    model = read_config(config, "m", "config.json")
    layers = 2 * (4 * 32**2 + 2 * 32 * 128 + 9 * 32 + 128)
    merged = 32 * 4
    assert model.encoder_parameters == layers + 3 * 16 * 32 + merged**2 + merged * H
    assert model.parameters - model.encoder_parameters == read("Qwen2ForCausalLM", {}).parameters
    assert (model.family, model.weight_format.name) == ("qwen2", "fp16")
    assert "encoders of pictures or sound" in model.notes[0]


def test_an_encoder_of_unusual_fields_is_said_to_be_left_out() -> None:
    config = {"architectures": ["X"], "text_config": {"model_type": "llama", **PLAIN}, "audio_config": {"conv_stem": 3}}
    model = read_config(config, "m", "config.json")
    assert model.encoder_parameters == 0
    assert "left out of the memory" in model.notes[0]


def test_of_a_model_that_speaks_the_part_that_writes_is_planned() -> None:
    text = {"model_type": "qwen3", **PLAIN}
    config = {"architectures": ["OmniForConditionalGeneration"], "thinker_config": {"text_config": text}, "talker_config": {}}
    model = read_config(config, "m", "config.json")
    assert model.parameters == read("Qwen3ForCausalLM", {}).parameters
    assert "not the one that speaks" in model.notes[0]


def test_a_wrapper_is_told_by_the_model_type_within() -> None:
    config = {"architectures": ["LlavaNextForConditionalGeneration"], "text_config": {"model_type": "granite", **PLAIN}}
    assert read_config(config, "m", "config.json").family == "llama"
