#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a Hugging Face folder as the GGUF file that llama.cpp's converter would make of it.

    write_gguf.py FOLDER OUT.gguf [f32|f16]        (numpy, safetensors, gguf; torch for BF16)

Names come from the gguf package; what the converter does to values (order of q and k rows, 1 + w in Gemma's norms,
transposed Conv1D, regrouped NeoX rows, stacked experts, frequency factors) is done here. Only for tests.
"""
import json
import math
import re
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open

ARCHES = {"llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen2_moe": "qwen2moe",
          "qwen3_moe": "qwen3moe", "phi3": "phi3", "gemma2": "gemma2", "gemma3_text": "gemma3", "gpt2": "gpt2", "gpt_neox": "gptneox"}
BUFFERS = ("rotary_emb.inv_freq", ".attn.bias", ".masked_bias", ".attention.bias")


def tensors_of(folder):
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as f:
            for name in f.keys():
                yield name, f.get_tensor(name).float().numpy()


def paired(w, heads):
    d = w.shape[0] // heads
    return w.reshape(heads, 2, d // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def changed(name, w, kind, heads, kv_heads):
    """What the converter does to one tensor."""
    if kind in ("llama", "mistral", "mixtral"):
        if ".q_proj." in name:
            return paired(w, heads)
        if ".k_proj." in name:
            return paired(w, kv_heads)
    if kind.startswith("gemma") and name.endswith("norm.weight"):
        return w + 1
    if kind == "gpt2" and re.search(r"(c_attn|c_proj|c_fc)\.weight$", name):
        return w.T
    if kind == "gpt_neox" and "query_key_value" in name:
        d = w.shape[0] // heads // 3
        return w.reshape(heads, 3, d, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape)
    return w


def stacked_experts(tensors):
    experts = {}
    for name, w in tensors:
        found = re.match(r"(.*\.experts)\.(\d+)\.(\w+)\.weight$", name)
        if found:
            experts.setdefault(f"{found[1]}.{found[3]}.weight", {})[int(found[2])] = w
        else:
            yield name, w
    for name, parts in experts.items():
        yield name, np.stack([parts[i] for i in range(len(parts))])


def get(cfg, *names, default=None):
    return next((cfg[n] for n in names if cfg.get(n) is not None), default)


def rope_of(cfg):
    """The scaling of all (or the full-attention) blocks, and the base of sliding ones."""
    new = cfg.get("rope_parameters") or {}
    full = new.get("full_attention", new)
    scaling = full if new else cfg.get("rope_scaling") or {}
    theta = full.get("rope_theta") or get(cfg, "rope_theta", "rotary_emb_base", default=10000.0)
    share = full.get("partial_rotary_factor") or get(cfg, "partial_rotary_factor", "rotary_pct", default=1.0)
    return theta, scaling, share, new.get("sliding_attention", {}).get("rope_theta", cfg.get("rope_local_base_freq"))


def write_rope(writer, cfg, head_dim):
    theta, s, share, local = rope_of(cfg)
    dims = int(head_dim * share)
    writer.add_rope_freq_base(theta)
    writer.add_rope_dimension_count(dims)
    if local:
        writer.add_float32(f"{writer.arch}.rope.freq_base_swa", local)
    kind = s.get("rope_type", s.get("type", "default"))
    context = cfg["max_position_embeddings"] if "max_position_embeddings" in cfg else 0
    original = get(cfg, "original_max_position_embeddings") or s.get("original_max_position_embeddings")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(s["factor"])
        if original:
            writer.add_rope_scaling_orig_ctx_len(original)
    elif kind == "llama3":
        factors = []
        for i in range(0, dims, 2):
            wavelength = 2 * math.pi * theta ** (i / dims)
            if wavelength < original / s["high_freq_factor"]:
                factors.append(1.0)
            elif wavelength > original / s["low_freq_factor"]:
                factors.append(s["factor"])
            else:
                smooth = (original / wavelength - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
                factors.append(1 / ((1 - smooth) / s["factor"] + smooth))
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    elif kind in ("longrope", "su"):
        scale = context / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(1.0 if scale <= 1 else math.sqrt(1 + math.log(scale) / math.log(original)))
        writer.add_tensor("rope_factors_long.weight", np.array(s["long_factor"], np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(s["short_factor"], np.float32))
    elif kind != "default":
        raise SystemExit(f"rope {kind}")


def write_metadata(writer, cfg, kind, file_type):
    hidden, heads = get(cfg, "hidden_size", "n_embd"), get(cfg, "num_attention_heads", "n_head")
    kv_heads, head_dim = cfg.get("num_key_value_heads") or heads, cfg.get("head_dim") or hidden // heads
    writer.add_type("model")
    writer.add_file_type({"f32": 0, "f16": 1}[file_type])
    writer.add_context_length(get(cfg, "max_position_embeddings", "n_positions"))
    writer.add_embedding_length(hidden)
    writer.add_block_count(get(cfg, "num_hidden_layers", "n_layer"))
    writer.add_feed_forward_length(get(cfg, "intermediate_size", "n_inner", default=4 * hidden))
    writer.add_head_count(heads)
    if kind in ("gpt2", "gpt_neox"):
        writer.add_layer_norm_eps(get(cfg, "layer_norm_epsilon", "layer_norm_eps", default=1e-5))
    else:
        writer.add_head_count_kv(kv_heads)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_layer_norm_rms_eps(get(cfg, "rms_norm_eps", default=1e-6))
    if kind != "gpt2":
        write_rope(writer, cfg, head_dim)
    if kind == "gpt_neox":
        writer.add_parallel_residual(cfg.get("use_parallel_residual", True))
    if cfg.get("sliding_window") and cfg.get("use_sliding_window", True):
        writer.add_sliding_window(cfg["sliding_window"])
    if kind == "gemma3_text" and cfg.get("layer_types"):
        writer.add_array(f"{writer.arch}.attention.sliding_window_pattern", [t == "sliding_attention" for t in cfg["layer_types"]])
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(cfg["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(cfg["final_logit_softcapping"])
    if kind.startswith("gemma") and cfg["query_pre_attn_scalar"] != head_dim:
        writer.add_attention_scale(cfg["query_pre_attn_scalar"] ** -0.5)
    experts = get(cfg, "num_experts", "num_local_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(cfg["num_experts_per_tok"])
        if "moe_intermediate_size" in cfg:
            writer.add_expert_feed_forward_length(cfg["moe_intermediate_size"])
        if "shared_expert_intermediate_size" in cfg:
            writer.add_expert_shared_feed_forward_length(cfg["shared_expert_intermediate_size"])


def write_tokenizer(writer, folder, size):
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    names = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokens, types = [f"[PAD{i}]" for i in range(size)], [gguf.TokenType.UNUSED] * size
    for token, i in tokenizer["model"]["vocab"].items():
        tokens[i] = token
        types[i] = gguf.TokenType.BYTE if re.fullmatch(r"<0x[0-9A-F]{2}>", token) else gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    spm = (folder / "tokenizer.model").exists()
    writer.add_tokenizer_model("llama" if spm else "gpt2")
    if spm:
        import sentencepiece
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        writer.add_token_scores([model.get_score(i) if i < model.vocab_size() else 0.0 for i in range(size)])
        writer.add_tokenizer_pre("default")
        types[model.unk_id()] = gguf.TokenType.UNKNOWN
    else:
        text = json.dumps(tokenizer["pre_tokenizer"])
        writer.add_tokenizer_pre("llama-bpe" if "{1,3}" in text else "qwen2" if "Split" in text else "gpt-2")
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for key, add in (("bos_token", writer.add_bos_token_id), ("eos_token", writer.add_eos_token_id), ("unk_token", writer.add_unk_token_id)):
        token = names.get(key)
        token = token["content"] if isinstance(token, dict) else token
        if token in tokens:
            add(tokens.index(token))
    post = json.dumps(tokenizer.get("post_processor"))
    writer.add_add_bos_token(bool(names.get("bos_token")) and "TemplateProcessing" in post)
    writer.add_add_space_prefix("Prepend" in json.dumps(tokenizer.get("normalizer")))


def convert(folder, out, file_type="f32"):
    cfg = json.loads((folder / "config.json").read_text())
    kind = cfg["model_type"]
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == ARCHES[kind])
    writer = gguf.GGUFWriter(str(out), ARCHES[kind])
    write_metadata(writer, cfg, kind, file_type)
    if (folder / "tokenizer.json").exists():
        write_tokenizer(writer, folder, cfg["vocab_size"])
    names = gguf.get_tensor_name_map(arch, get(cfg, "num_hidden_layers", "n_layer"))
    heads = get(cfg, "num_attention_heads", "n_head")
    for name, w in stacked_experts(tensors_of(folder)):
        if name.endswith(BUFFERS):
            continue
        if kind == "gpt2" and not name.startswith(("transformer.", "lm_head.")):
            name = "transformer." + name
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored is None:
            raise SystemExit(f"{name} has no counterpart")
        w = np.ascontiguousarray(changed(name, w, kind, heads, cfg.get("num_key_value_heads") or heads))
        if name.endswith("shared_expert_gate.weight"):
            w = w.reshape(-1)
        writer.add_tensor(stored, w.astype(np.float16 if file_type == "f16" and w.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "f32")
