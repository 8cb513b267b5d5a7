#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the tiny random checkpoints beside this file, with reference logits by transformers in float32.

    python3 make.py [NAME…]            (torch, transformers 5, safetensors and gguf)

Each folder: config.json, model.safetensors (F16), reference.safetensors (ids.N, logits.N). Where one checkpoint
serves several configurations, variants.json maps a name to the keys that replace those of config.json, and its logits
are called NAME.N. In gguf/: one file for each family of llama.cpp, with its reference beside it.
"""
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "clients"))
import write_gguf  # noqa: E402
COMMON = dict(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
              num_key_value_heads=1, max_position_embeddings=64, bos_token_id=None, eos_token_id=None, pad_token_id=None,
              tie_word_embeddings=False)
MOE = dict(moe_intermediate_size=8, num_experts=6, num_experts_per_tok=2)
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "original_max_position_embeddings": 16}
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.3, 1.9], "long_factor": [1.0, 2.0, 3.5, 4.0]}
MODELS = {
    "qwen2-moe": (dict(model_type="qwen2_moe", **COMMON, **MOE, shared_expert_intermediate_size=12),
                  {"normalized": {"norm_topk_prob": True}}),
    "qwen2-moe-dense-blocks": (dict(model_type="qwen2_moe", **{**COMMON, "num_hidden_layers": 4}, **MOE, shared_expert_intermediate_size=12,
                                    decoder_sparse_step=2, mlp_only_layers=[3], qkv_bias=False), {}),
    "qwen3-moe": (dict(model_type="qwen3_moe", **COMMON, **MOE, head_dim=12, norm_topk_prob=True),
                  {"as-they-are": {"norm_topk_prob": False}}),
    "llama-rope": (dict(model_type="llama", **COMMON), {
        "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
        "dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}},
        "llama3": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                                       "high_freq_factor": 4.0, "original_max_position_embeddings": 16}},
        "yarn": {"rope_parameters": {**YARN, "factor": 4.0}},
        "yarn-steep": {"rope_parameters": {**YARN, "factor": 2.0, "beta_fast": 4, "beta_slow": 0.5, "attention_factor": 0.8}},
        "yarn-mscale": {"rope_parameters": {**YARN, "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False}},
        "longrope": {"rope_parameters": {**LONG, "original_max_position_embeddings": 16}},
    }),
    "phi3-longrope": (dict(model_type="phi3", **COMMON, original_max_position_embeddings=16, partial_rotary_factor=0.75,
                           rope_parameters={**LONG, "short_factor": [1.0, 1.2, 1.6], "long_factor": [1.0, 2.5, 4.0],
                                            "partial_rotary_factor": 0.75}), {}),
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
GEMMA = {**COMMON, "head_dim": 12, "sliding_window": 6, "tie_word_embeddings": True}
GGUF = {
    "llama": dict(model_type="llama", **COMMON, rope_parameters=LLAMA3),
    "mistral": dict(model_type="mistral", **COMMON, sliding_window=6),
    "mixtral": dict(model_type="mixtral", **COMMON, num_local_experts=3, num_experts_per_tok=2),
    "qwen2": dict(model_type="qwen2", **{**COMMON, "tie_word_embeddings": True}, rope_parameters={**YARN, "factor": 4.0}),
    "qwen3": dict(model_type="qwen3", **COMMON, head_dim=12),
    "qwen2moe": dict(model_type="qwen2_moe", **COMMON, **MOE, shared_expert_intermediate_size=12),
    "qwen3moe": dict(model_type="qwen3_moe", **COMMON, **MOE, head_dim=12, norm_topk_prob=True),
    "phi3": dict(model_type="phi3", **COMMON, original_max_position_embeddings=16, sliding_window=9,
                 rope_parameters={**LONG, "original_max_position_embeddings": 16}),
    "gemma2": dict(model_type="gemma2", **GEMMA, query_pre_attn_scalar=7, attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
    "gemma3": dict(model_type="gemma3_text", **GEMMA, query_pre_attn_scalar=12, layer_types=["sliding_attention", "full_attention"],
                   rope_parameters={"full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}),
    "gpt2": dict(model_type="gpt2", vocab_size=48, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=None, eos_token_id=None),
    "gptneox": dict(model_type="gpt_neox", vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                    num_attention_heads=2, max_position_embeddings=64, rotary_pct=0.5, use_parallel_residual=True,
                    bos_token_id=None, eos_token_id=None, tie_word_embeddings=False),
}


def randomize(model, generator):
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim == 1 and "norm" in name:
                value = 0.2 * noise + (0.0 if "gemma" in model.config.model_type and name.endswith("weight") else 1.0)
            elif p.ndim == 1:
                value = 0.3 * noise
            elif "embed" in name:
                value = noise
            else:
                value = noise * (2.0 / p.shape[-1] ** 0.5)
            p.copy_(value.half().float())


def logits(folder, prompts):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return [model(ids[None], use_cache=False).logits[0].contiguous() for ids in prompts]


def make(name, config, variants, seed):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    keys = dict(config)
    made = AutoConfig.for_model(keys.pop("model_type"), **keys)
    model = AutoModelForCausalLM.from_config(made, dtype=torch.float32, attn_implementation="eager").eval()
    randomize(model, generator)
    model.half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    prompts = [torch.randint(0, 48, (n,), generator=generator) for n in (28, 10)]
    tensors = {f"ids.{i}": ids.int() for i, ids in enumerate(prompts)}
    plain = logits(folder, prompts)
    tensors.update({f"logits.{i}": x for i, x in enumerate(plain)})
    text = (folder / "config.json").read_text()
    for variant, changes in variants.items():
        (folder / "config.json").write_text(json.dumps({**json.loads(text), **changes}))
        for i, x in enumerate(logits(folder, prompts)):
            tensors[f"{variant}.{i}"] = x
            print(f"  {name} {variant}.{i}: {float((x - plain[i]).abs().max() / plain[i].abs().max()):.3f} away")
    (folder / "config.json").write_text(text)
    if variants:
        (folder / "variants.json").write_text(json.dumps(variants, indent=1) + "\n")
    save_file(tensors, folder / "reference.safetensors", {"transformers": transformers.__version__})
    print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes")


def make_gguf(name, config, seed):
    folder = HERE / "gguf"
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    keys = dict(config)
    made = AutoConfig.for_model(keys.pop("model_type"), **keys)
    model = AutoModelForCausalLM.from_config(made, dtype=torch.float32, attn_implementation="eager").eval()
    randomize(model, generator)
    ids = torch.randint(0, 48, (20,), generator=generator)
    with tempfile.TemporaryDirectory() as place:
        model.half().save_pretrained(place)
        write_gguf.convert(Path(place), folder / f"{name}.gguf", "f16")
        (x,) = logits(place, [ids])
    save_file({"ids": ids.int(), "logits": x}, folder / f"{name}.safetensors", {"transformers": transformers.__version__})
    print(name, (folder / f"{name}.gguf").stat().st_size, "bytes, logits", float(x.min()), float(x.max()))


wanted = sys.argv[1:]
for number, (name, (config, variants)) in enumerate(MODELS.items()):
    if not wanted or name in wanted:
        make(name, config, variants, 100 + number)
for number, (name, config) in enumerate(GGUF.items()):
    if not wanted or f"gguf/{name}" in wanted:
        make_gguf(name, config, 200 + number)
