// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/qlr_loader.h"

namespace rankscope {

// clang-format off
std::string_view qlr_loader_source()
{
    return R"PYTHON(#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Loads the model in this folder, whose linear layers are stored as W = Q + L @ R.

    from load_qlr import load
    model, tokenizer = load("FOLDER")               # Q stays packed and is unpacked layer by layer when used
    model, tokenizer = load("FOLDER", dense=True)   # ordinary torch.nn.Linear layers

    python load_qlr.py FOLDER --prompt "Once upon a time" [--save-dense OTHER_FOLDER]

Needs torch, safetensors and transformers. rankscope_qlr.json describes the tensors:
  NAME.qlr_codes   int32 [out, ceil(in * bits / 32)]      each row a dense little-endian stream of unsigned codes
  NAME.qlr_zeros   int32 [out, ceil(groups * bits / 32)]  zero points packed alike; absent when symmetric: 2^(bits-1)
  NAME.qlr_scales  [out, groups]                          Q = scale * (code - zero), group = column // group_width
  NAME.qlr_left    [out, rank]    NAME.qlr_right  [rank, in]
"""
import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F


def unpack(words, count, bits):
    """Unsigned values [rows, count] from the bit stream of each row."""
    words = words.to(torch.int64) & 0xFFFFFFFF
    words = torch.cat([words, torch.zeros_like(words[:, :1])], dim=1)
    first = torch.arange(count, device=words.device) * bits
    word, shift = first // 32, first % 32
    return ((words[:, word] >> shift) | (words[:, word + 1] << (32 - shift))) & ((1 << bits) - 1)


class QLRLinear(nn.Module):
    """y = x @ (Q + L @ R).T + bias without ever forming the sum."""

    def __init__(self, spec, tensors, bias, dtype):
        super().__init__()
        self.out_features, self.in_features = spec["shape"]
        self.bits, self.width, self.symmetric = spec["bits"], spec["group_width"], spec["symmetric"]
        for key in ("codes", "zeros"):
            self.register_buffer(key, tensors.get(key))
        for key in ("scales", "left", "right"):
            self.register_buffer(key, tensors[key].to(dtype) if key in tensors else None)
        self.bias = bias

    def quantized(self, dtype):
        if not self.bits:
            return torch.zeros(self.out_features, self.in_features, dtype=dtype)
        groups = self.scales.shape[1]
        zeros = 1 << (self.bits - 1) if self.symmetric else unpack(self.zeros, groups, self.bits)
        group = torch.arange(self.in_features, device=self.codes.device) // self.width
        codes = unpack(self.codes, self.in_features, self.bits) - (zeros if self.symmetric else zeros[:, group])
        return self.scales[:, group].to(dtype) * codes.to(dtype)

    def forward(self, x):
        y = F.linear(x, self.quantized(x.dtype), self.bias)
        return y if self.left is None else y + F.linear(F.linear(x, self.right), self.left)

    def dense(self, dtype):
        weight = self.quantized(dtype)
        return weight if self.left is None else weight + self.left @ self.right


def load(folder, dense=False, dtype=torch.float32):
    """The transformers model and tokenizer (None if there is none) of an hf-qlr folder."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = Path(folder)
    schema = json.loads((folder / "rankscope_qlr.json").read_text(encoding="utf-8"))
    if schema["format"] != "rankscope-qlr" or schema["version"] != 1:
        raise ValueError(f"{folder}: this loader reads rankscope-qlr version 1 only")
    layers, packed, rest = schema["layers"], {}, {}
    with safe_open(folder / schema["weights"], framework="pt") as file:
        for name in file.keys():
            base, _, key = name.rpartition(".qlr_")
            if base in layers:
                packed.setdefault(base, {})[key] = file.get_tensor(name)
            else:
                rest[name] = file.get_tensor(name)

    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    known = set(model.state_dict())
    if "lm_head.weight" in known and "embed_out.weight" in rest:  # GPT-NeoX: transformers has renamed its head
        rest["lm_head.weight"] = rest.pop("embed_out.weight")
    made_by_itself = (".masked_bias", ".attention.bias", ".attn.bias", ".rotary_emb.inv_freq")
    rest = {k: v for k, v in rest.items() if k in known or not k.endswith(made_by_itself)}
    for name, spec in layers.items():
        parent, _, leaf = name.rpartition(".")
        parent = model.get_submodule(parent)
        bias = getattr(getattr(parent, leaf), "bias", None)
        module = QLRLinear(spec, packed.get(name, {}), bias, dtype)
        if dense:
            linear = nn.Linear(module.in_features, module.out_features, bias=bias is not None, dtype=dtype)
            linear.weight.data.copy_(module.dense(dtype))
            linear.bias, module = bias, linear
            rest[name + ".weight"] = linear.weight.data
        setattr(parent, leaf, module)
    missing, unexpected = model.load_state_dict({k: v.to(dtype) for k, v in rest.items()}, strict=False)
    stored = {n + "." + k for n in layers for k in ("codes", "zeros", "scales", "left", "right")}
    tied = {"lm_head.weight"} if getattr(config, "tie_word_embeddings", False) else set()
    if set(missing) - stored - tied or unexpected:
        raise ValueError(f"{folder}: missing {sorted(set(missing) - stored - tied)}, unexpected {sorted(unexpected)}")
    model.tie_weights()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError):
        tokenizer = None
    return model.eval(), tokenizer


def main():
    parser = argparse.ArgumentParser(description="Load a model stored as Q + L R.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--save-dense", type=Path, help="also write an ordinary Hugging Face folder here")
    arguments = parser.parse_args()
    model, tokenizer = load(arguments.folder, dense=arguments.save_dense is not None)
    if arguments.save_dense:
        model.save_pretrained(arguments.save_dense)
        if tokenizer:
            tokenizer.save_pretrained(arguments.save_dense)
    inputs = tokenizer(arguments.prompt, return_tensors="pt")
    with torch.no_grad():
        output = model.generate(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask,
                                max_new_tokens=arguments.tokens, do_sample=False)
    print(tokenizer.decode(output[0]))


if __name__ == "__main__":
    main()
)PYTHON";
}
// clang-format on

} // namespace rankscope
