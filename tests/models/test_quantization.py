"""How a checkpoint says that it is stored, part by part and layer by layer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from planner import api
from planner.core.model import Layer, ModelSpec, Part
from planner.errors import BadInput
from planner.models import read_config
from planner.models.exclusions import Exclusions

DENSE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 4096,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
}
MOE: dict[str, Any] = DENSE | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "kv_lora_rank": 512,
    "q_lora_rank": 256,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "moe_intermediate_size": 512,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
INT4 = {
    "targets": ["Linear"],
    "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
}


def read(config: dict[str, Any], quantization: dict[str, Any]) -> ModelSpec:
    return read_config(config | {"quantization_config": quantization}, "m", "config.json")


def formats(model: ModelSpec, layer: Layer) -> dict[Part, str]:
    parts: tuple[Part, ...] = ("attention", "mlp", "experts", "shared_experts")
    return {part: layer.format_of(part, model.weight_format).name for part in parts}


def scheme(bits: int, kind: str, strategy: str, activations: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "strategy": strategy, **more}
    return {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": weights, "input_activations": activations}}}


@pytest.mark.parametrize(
    ("quantization", "name", "size"),
    [
        ({"quant_method": "fp8"}, "fp8", 1.0),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block", 1.000244140625),
        ({"quant_method": "fbgemm_fp8"}, "fp8", 1.0),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "awq-int4-g64", (4 + 20 / 64) / 8),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "gptq-int8", (8 + 24 / 128) / 8),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "gptq-int4", 0.5),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bnb-4bit", 0.515869140625),
        ({"quant_method": "mxfp4"}, "mxfp4", 0.53125),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8", 1.0),
        ({"quant_method": "modelopt_fp4", "quant_algo": "NVFP4"}, "nvfp4", 0.5625),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}, "fp8", 1.0),
        (scheme(8, "float", "channel", {"num_bits": 8}), "fp8", 1.0),
        (scheme(8, "float", "block", {"num_bits": 8}), "fp8-block", 1.000244140625),
        (scheme(8, "int", "channel", {"num_bits": 8}), "int8", 1.0),
        (scheme(8, "int", "channel"), "w8a16", 1.0),
        (scheme(4, "int", "group", group_size=128), "w4a16", 0.515625),
        (scheme(4, "int", "group", group_size=128, symmetric=False), "w4a16", 0.51953125),
        (scheme(4, "float", "tensor_group", group_size=16), "nvfp4", 0.5625),
    ],
    ids=str,
)
def test_what_a_weight_takes(quantization: dict[str, Any], name: str, size: float) -> None:
    model = read(DENSE, quantization)
    assert (model.weight_format.name, model.weight_format.bytes_per_weight) == (name, size)
    assert formats(model, model.layers[0])["mlp"] == name


@pytest.mark.parametrize(
    "ignored",
    [
        {"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "self_attn"]},
        {"quant_method": "fp8", "modules_to_not_convert": [f"model.layers.{number}.self_attn" for number in range(4)]},
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["lm_head", "*self_attn*"]},
        {"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": [f"model.layers.{n}.self_attn*" for n in range(4)]},
        {"quant_method": "compressed-tensors", "config_groups": {"g": INT4}, "ignore": ["lm_head", "re:.*self_attn.*"]},
        {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
    ],
    ids=lambda one: one["quant_method"],
)
def test_attention_that_stays_16_bit(ignored: dict[str, Any]) -> None:
    model = read(MOE, ignored)
    for layer in model.layers:
        found = formats(model, layer)
        assert found.pop("attention") == "bf16"
        assert set(found.values()) == {model.weight_format.name} != {"bf16"}


def test_parts_by_regular_expression() -> None:
    """As Kimi K2.5 says it: only routed experts are integers."""
    ignored = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"]
    model = read(MOE, {"quant_method": "compressed-tensors", "config_groups": {"g": INT4}, "ignore": ignored})
    experts = {"attention": "bf16", "mlp": "bf16", "shared_experts": "bf16", "experts": "w4a16-g32"}
    assert formats(model, model.layers[-1]) | {"mlp": "bf16"} == experts
    assert formats(model, model.layers[0])["mlp"] == "bf16"
    assert len(set(map(id, model.layers))) == 2


def test_how_it_is_stored_in_words() -> None:
    assert api.load_model("llama-3.1-8b").storage == "bf16"
    assert api.load_model("gpt-oss-20b").storage == "mxfp4, attention bf16"
    assert api.load_model("kimi-k2.5").storage == "w4a16-g32, attention and mlp and shared experts bf16"


def test_a_first_layer_that_stays_16_bit() -> None:
    model = read(DENSE, {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0"]})
    assert [formats(model, layer)["mlp"] for layer in model.layers] == ["bf16", "fp8", "fp8", "fp8"]


def test_one_matrix_of_a_part_left_alone_does_not_make_the_part_16_bit() -> None:
    model = read(DENSE, {"quant_method": "fp8", "modules_to_not_convert": ["gate", "o_proj", "down_proj"]})
    assert formats(model, model.layers[0])["attention"] == "fp8"
    assert formats(model, model.layers[0])["mlp"] == "fp8"


def test_mixed_precision_names_every_module() -> None:
    modules = {
        f"model.layers.{n}.mlp.experts.{e}.{m}_proj": "NVFP4" for n in range(4) for e in range(8) for m in ("gate", "down")
    }
    modules |= {f"model.layers.{n}.self_attn.{m}": "FP8" for n in range(4) for m in ("q_b_proj", "o_proj")}
    quantized = {name: {"quant_algo": algorithm} for name, algorithm in modules.items()}
    model = read(MOE, {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": quantized})
    assert model.weight_format.name == "nvfp4"
    assert formats(model, model.layers[-1]) | {"mlp": "bf16"} == {
        "attention": "fp8",
        "mlp": "bf16",
        "experts": "nvfp4",
        "shared_experts": "bf16",
    }


@pytest.mark.parametrize(
    ("quantization", "size"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, 1),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}, 1),
        (scheme(8, "float", "tensor") | {"kv_cache_scheme": {"num_bits": 8}}, 1),
        ({"quant_method": "fp8"}, 2),
    ],
    ids=str,
)
def test_the_cache_a_checkpoint_asks_for(quantization: dict[str, Any], size: int) -> None:
    assert read(DENSE, quantization).kv_element_bytes == size


def test_what_is_planned_as_something_near_is_said() -> None:
    (note,) = read(DENSE, {"quant_method": "fp8", "weight_block_size": [64, 64]}).notes
    assert note == "weight_block_size [64, 64]: planned as blocks of 128 × 128"
    (note,) = read(DENSE, {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP6"}).notes
    assert note == "a KV cache in FP6 is not read: planned with 16 bits a number"


def test_another_format_starts_anew() -> None:
    model = read(MOE, {"quant_method": "fp8", "modules_to_not_convert": ["self_attn"]})
    assert formats(model.stored_as(model.checkpoint_format), model.layers[1])["attention"] == "bf16"
    there = api.load_model("llama-3.1-8b", quant="nvfp4")
    assert formats(there, there.layers[0])["attention"] == "nvfp4"
    latent = api.load_model("deepseek-v3", quant="nvfp4")
    assert formats(latent, latent.layers[5]) | {"mlp": "nvfp4"} == {
        "attention": "bf16",
        "mlp": "nvfp4",
        "experts": "nvfp4",
        "shared_experts": "nvfp4",
    }
    assert len(set(map(id, latent.layers))) == 2


def test_modelopts_own_file_is_named_in_messages(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MOE))
    own: dict[str, dict[str, Any]] = {
        "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head", "*self_attn*"]}
    }
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(own))
    for reference in (tmp_path, tmp_path / "config.json"):
        model = api.load_model(str(reference))
        assert (model.weight_format.name, model.kv_element_bytes) == ("nvfp4", 1)
        assert formats(model, model.layers[0])["attention"] == "bf16"
    own["quantization"]["exclude_modules"] = 3
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(own))
    with pytest.raises(BadInput, match="list of module names") as caught:
        api.load_model(str(tmp_path))
    assert "hf_quant_config.json: $.quantization.exclude_modules" in caught.value.path


@pytest.mark.parametrize(
    ("quantization", "place", "problem"),
    [
        ({"quant_method": "fp8", "modules_to_not_convert": "lm_head"}, "modules_to_not_convert", "list"),
        ({"quant_method": "compressed-tensors"}, "config_groups", "object"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": 3}}, "config_groups", "object"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": 3}}}, "config_groups.g.weights", "object"),
        (scheme(3, "int", "group"), "config_groups.g.weights", "3 bits"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "quantized_layers", "missing"),
        ({"quant_method": "modelopt", "quant_algo": ["x"]}, "quant_algo", "not read"),
        ({"quant_method": "quark"}, "global_quant_config", "quark"),
        ({"quant_method": "awq", "group_size": "many"}, "quantization_config.group_size", "whole number, found 'many'"),
        ({"quant_method": "gptq", "bits": "4", "group_size": 128}, "quantization_config.bits", "whole number, found '4'"),
        ({"quant_method": "auto-round", "bits": 4.0}, "quantization_config.bits", "whole number, found 4.0"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "quantization_config", "3 bits in groups of 128"),
        ({"quant_method": "fp8", "weight_block_size": "x"}, "weight_block_size", "two whole numbers"),
        ({"quant_method": "fp8", "weight_block_size": True}, "weight_block_size", "two whole numbers"),
        ({"quant_method": "fp8", "weight_block_size": -1}, "weight_block_size", "two whole numbers"),
        ({"quant_method": "fp8", "weight_block_size": float("nan")}, "weight_block_size", "two whole numbers"),
        ({"quant_method": "fp8", "weight_block_size": [128, 0]}, "weight_block_size", "two whole numbers"),
        (scheme(8, "float", "tensor") | {"kv_cache_scheme": {"num_bits": 4}}, "kv_cache_scheme", "must be 8, found 4"),
        (scheme(8, "float", "tensor") | {"kv_cache_scheme": 8}, "kv_cache_scheme", "must be 8, found None"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(quantization: dict[str, Any], place: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as caught:
        read(DENSE, quantization)
    assert place in caught.value.path


def test_patterns() -> None:
    def covers(entry: str, path: str) -> bool:
        return Exclusions([entry]).cover(path)

    assert covers("model.layers.1", "model.layers.1.mlp.up_proj")
    assert not covers("model.layers.1", "model.layers.10.mlp.up_proj")
    assert not covers("gate", "model.layers.1.mlp.gate_proj")
    assert covers("*.mlp.up_proj", "model.layers.1.mlp.up_proj")
    assert not covers("*.mlp.up", "model.layers.1.mlp.up_proj")
    assert covers(r"re:model\.layers\.\d+\.mlp\..*", "model.layers.31.mlp.up_proj")
    assert covers(r"re:.*mlp\.up_proj$", "model.layers.31.mlp.up_proj")
    assert not covers(r"re:.*mlp\.up$", "model.layers.31.mlp.up_proj")
    assert not covers(r"re:mlp.*", "model.layers.31.mlp.up_proj")
    assert covers(r"re:.*layers\.(0|1|2)\.mlp.*", "model.layers.2.mlp.up_proj")
    assert not covers(r"re:.*layers\.(0|1|2)\.mlp.*", "model.layers.3.mlp.up_proj")


def test_a_pattern_that_is_not_understood_is_said_and_matches_nothing() -> None:
    ignored = ["re:(?!.*mlp).*", "lm_head"]
    model = read(DENSE, {"quant_method": "compressed-tensors", "config_groups": {"g": INT4}, "ignore": ignored})
    assert "is not understood" in model.notes[0]
    assert formats(model, model.layers[0])["attention"] == "w4a16-g32"


@pytest.mark.parametrize("bomb", ["re:" + "(a|a)" * 30, "re:(a+)+$", "re:" + ".*a" * 90, "*a" * 100_000, "re:" + "(" * 100_000])
def test_patterns_cannot_hang_the_reader(bomb: str) -> None:
    begin = time.perf_counter()
    Exclusions([bomb] * 50).cover("model.layers.3." + "a" * 200)
    assert time.perf_counter() - begin < 2
