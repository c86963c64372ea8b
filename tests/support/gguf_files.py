"""Small GGUF files of Llama models, as llama.cpp writes them."""

from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="needs the package gguf")

_PLACES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write(path: Path, model, tokenizer, *, kind="F32", template=None, left_out=()) -> Path:
    """Write a Llama with a byte-level tokenizer; matrices as `kind`, without the weights in `left_out`."""
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, template)
    for name, weight in model.state_dict().items():
        if name not in left_out and not (name == "lm_head.weight" and config.tie_word_embeddings):
            _add_weight(writer, name, weight.float().numpy(), config, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer, tokenizer, template):
    import json

    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([gguf.TokenType.CONTROL if n in special else gguf.TokenType.NORMAL for _, n in vocab])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if template is not None:
        writer.add_chat_template(template)


def _add_weight(writer, name, weight, config, kind):
    stem = name.removesuffix(".weight")
    if stem in _OUTSIDE:
        place = _OUTSIDE[stem]
    else:
        _, _, layer, part = stem.split(".", 3)
        place = f"blk.{layer}.{_PLACES[part]}"
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(_PLACES[part])
        if heads is not None:  # rotary pairs stand side by side
            weight = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
    weight = np.ascontiguousarray(weight, dtype=np.float32)
    if weight.ndim < 2 or kind == "F32":
        writer.add_tensor(f"{place}.weight", weight)
        return
    quantised = gguf.GGMLQuantizationType[kind]
    writer.add_tensor(f"{place}.weight", gguf.quants.quantize(weight, quantised), raw_dtype=quantised)
