"""Families that packed steps would compute wrongly are refused at load, with a sentence that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from batching.model_gate import check_config, usable_model_len
from batching.model_loader import load_model, no_progress
from contracts.errors import ModelNotUsable
from tests.batching.real_engine import engine_settings
from tests.batching.tiny_models import GQA, TinyModels, make_config, make_model, save

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2}
SEQ2SEQ: dict[str, Any] = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "decoder_attention_heads": 2}

NO_INTERFACE: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon": ("FalconConfig", SMALL),
    "falcon with ALiBi": ("FalconConfig", SMALL | {"alibi": True}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
    "gptj": ("GPTJConfig", GPT | {"rotary_dim": 8}),
    "codegen": ("CodeGenConfig", GPT | {"n_head": 4, "rotary_dim": 8}),
    "xglm": ("XGLMConfig", {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 2}),
    "rwkv": ("RwkvConfig", {"hidden_size": 32, "num_hidden_layers": 2}),
    "diffllama": ("DiffLlamaConfig", GQA),
}
"""Their layers, or some of what the layers compute, never reach transformers' attention interface."""

WRONG_OTHERWISE: dict[str, tuple[str, dict[str, Any], str]] = {
    "mpt": ("MptConfig", {"d_model": 32, "n_layers": 2, "n_heads": 2}, "cannot run a packed step"),
    "doge": ("DogeConfig", GQA, "brings an attention mask of its own"),
    "bert": ("BertConfig", SMALL | {"intermediate_size": 48}, "attends to later tokens"),
    "pegasus decoder": ("PegasusConfig", SEQ2SEQ | {"is_encoder_decoder": False}, "ignores position_ids"),
}

OTHER_STATE: dict[str, tuple[str, dict[str, Any], str]] = {
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2}, "linear_attention"),
    "qwen3-next": ("Qwen3NextConfig", GQA | {"layer_types": ["linear_attention", "full_attention"]}, "linear"),
    "jamba": ("JambaConfig", GQA | {"attn_layer_period": 2, "attn_layer_offset": 1}, "linear_attention"),
    "lfm2": ("Lfm2Config", GQA | {"layer_types": ["conv", "full_attention"]}, "conv"),
    "falcon-h1": ("FalconH1Config", GQA, "hybrid"),
    "llama4": ("Llama4TextConfig", GQA | {"attention_chunk_size": 16}, "chunked_attention"),
}


def make_tiny_config(class_name: str, fields: dict[str, Any]) -> Any:
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return getattr(transformers, class_name)(**({"vocab_size": 64} | special | fields))


def refusal_of(path: Path, **settings: Any) -> str:
    with pytest.raises(ModelNotUsable) as caught:
        load_model(engine_settings(path, **settings), no_progress)
    return caught.value.message


@pytest.mark.parametrize("family", NO_INTERFACE)
def test_family_with_attention_of_its_own_is_refused(family: str, tmp_path: Path) -> None:
    config = make_tiny_config(*NO_INTERFACE[family])
    message = refusal_of(save(make_model(config, 0), tmp_path))
    assert "attention interface" in message
    assert repr(config.model_type) in message


@pytest.mark.parametrize("family", WRONG_OTHERWISE)
def test_family_that_a_packed_step_computes_wrongly_is_refused(family: str, tmp_path: Path) -> None:
    class_name, fields, reason = WRONG_OTHERWISE[family]
    config = make_tiny_config(class_name, fields)
    message = refusal_of(save(make_model(config, 0), tmp_path))
    assert reason in message
    assert repr(config.model_type) in message


@pytest.mark.parametrize("family", OTHER_STATE)
def test_family_with_state_outside_the_cache_is_refused_by_its_config(family: str) -> None:
    class_name, fields, layer_type = OTHER_STATE[family]
    config = make_tiny_config(class_name, fields)
    with pytest.raises(ModelNotUsable, match=f"{config.model_type}.*{layer_type}.*paged KV cache"):
        check_config(config)


@pytest.mark.parametrize("class_name", ["T5Config", "BartConfig"])
def test_encoder_decoder_is_refused_by_its_config(class_name: str) -> None:
    with pytest.raises(ModelNotUsable, match="encoder-decoder"):
        check_config(getattr(transformers, class_name)())


def test_decoder_half_of_bert_is_served(tmp_path: Path) -> None:
    config = make_tiny_config("BertConfig", SMALL | {"intermediate_size": 48, "is_decoder": True})
    path = save(make_model(config, 0), tmp_path)
    assert len(load_model(engine_settings(path), no_progress).layers) == 2


@pytest.mark.parametrize(("family", "limit"), [("phi3_longrope", 128), ("llama_dynamic", 512), ("llama", 512)])
def test_default_window_ends_where_rope_would_depend_on_the_batch(family: str, limit: int) -> None:
    assert usable_model_len(make_config(family), None) == limit
    assert usable_model_len(make_config(family), limit) == limit


@pytest.mark.parametrize(("family", "limit"), [("phi3_longrope", 128), ("llama_dynamic", 512), ("llama", 512)])
def test_window_above_what_can_be_served_is_refused(family: str, limit: int) -> None:
    with pytest.raises(ModelNotUsable, match=f"--max-model-len {limit + 1} is above the {limit} tokens"):
        usable_model_len(make_config(family), limit + 1)


def test_window_is_checked_when_loading(tiny_models: TinyModels) -> None:
    path = tiny_models.reference("phi3_longrope").path
    assert "--max-model-len 129" in refusal_of(path, max_model_len=129)
    assert load_model(engine_settings(path, max_model_len=None), no_progress).max_model_len == 128


def test_layers_are_probed_in_order_with_their_own_shape_and_variant(tiny_models: TinyModels) -> None:
    loaded = load_model(engine_settings(tiny_models.reference("gemma2").path), no_progress)
    assert [variant.sliding_window for variant in loaded.layer_variants] == [8, None]
    assert {variant.softcap for variant in loaded.layer_variants} == {2.0}
    assert [(shape.num_kv_heads, shape.k_dim, shape.v_dim) for shape in loaded.layer_shapes] == [(2, 16, 16)] * 2


def test_sinks_are_probed(tiny_models: TinyModels) -> None:
    loaded = load_model(engine_settings(tiny_models.reference("gpt_oss").path), no_progress)
    sinks = [variant.sinks for variant in loaded.layer_variants]
    assert [tuple(sink.shape) for sink in sinks if isinstance(sink, torch.Tensor)] == [(4,), (4,)]
