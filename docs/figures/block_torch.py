# SPDX-License-Identifier: GPL-3.0-or-later
"""What rankscope-bench --benchmark_filter=block_learning does, with PyTorch: LRQ or FlexRound, 3 bits, one scale an output, on
the first block of a Llama checkpoint, 2 sequences of 512 tokens. Prints CPU seconds of the steps and the losses.

    block_torch.py MODEL_FOLDER [lrq|flexround] [STEPS] [THREADS]
"""
import json
import math
import resource
import sys
from pathlib import Path

import torch
from safetensors import safe_open

folder = Path(sys.argv[1])
kind = sys.argv[2] if len(sys.argv) > 2 else "lrq"
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 100
torch.set_num_threads(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
torch.manual_seed(0)

config = json.loads((folder / "config.json").read_text())
tensors = safe_open(str(next(folder.glob("*.safetensors"))), "pt")
hidden, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
head = hidden // heads
bits, batch, length = 3, 2, 512
names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def tensor(name):
    return tensors.get_tensor(name + ".weight").float()


original = [tensor("model.layers.0." + name) for name in names]
gains = [tensor("model.layers.0." + name) for name in ("input_layernorm", "post_attention_layernorm")]
embedding = tensor("model.embed_tokens")
ids = torch.tensor([i * 7919 % embedding.shape[0] for i in range(batch * length)]).view(batch, length)
inputs = embedding[ids]
frequency = config.get("rope_theta", 10000.0) ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
cosine, sine = (f(angle).float().repeat(1, 2) for f in (torch.cos, torch.sin))


def norm(x, gain):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]) * gain


def turned(x):
    low, high = x.chunk(2, -1)
    return x * cosine + torch.cat([-high, low], -1) * sine


def block(x, weights):
    wq, wk, wv, wo, gate, up, down = weights
    n = norm(x, gains[0])
    q, k, v = ((n @ w.T).view(batch, length, -1, head).transpose(1, 2) for w in (wq, wk, wv))
    k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (turned(k), v))
    mixed = torch.nn.functional.scaled_dot_product_attention(turned(q), k, v, is_causal=True)
    h = x + mixed.transpose(1, 2).reshape(batch, length, hidden) @ wo.T
    n = norm(h, gains[1])
    return h + (torch.nn.functional.silu(n @ gate.T) * (n @ up.T)) @ down.T


class Round(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return torch.round(x)

    @staticmethod
    def backward(_, gradient):
        return gradient


class Learned:
    def __init__(self, weight):
        self.weight = weight
        out, width = weight.shape
        low = weight.min(1, keepdim=True)[0].clamp(max=0)
        high = weight.max(1, keepdim=True)[0].clamp(min=0)
        step = ((high - low) / (2**bits - 1)).clamp(min=1e-8)
        self.zero = (-(low / step).round()).clamp(0, 2**bits - 1)
        self.scale = step.log().requires_grad_()
        self.rows = torch.zeros(out, 1, requires_grad=True)
        self.parameters = [self.scale, self.rows]
        if kind == "lrq":
            rank = max(1, min(out, width) // 4)
            self.left = torch.zeros(out, rank, requires_grad=True)
            self.right = ((torch.rand(rank, width) * 2 - 1) / math.sqrt(width)).requires_grad_()
            self.columns = torch.zeros(1, width, requires_grad=True)
            self.parameters += [self.left, self.right, self.columns]
        else:
            self.full = torch.zeros(out, width, requires_grad=True)
            self.parameters.append(self.full)

    def rounded(self):
        exponent = self.left @ self.right + self.columns if kind == "lrq" else self.full
        ratio = self.weight / (self.scale + exponent + self.rows).exp()
        code = torch.clamp(Round.apply(ratio), min=-self.zero, max=2**bits - 1 - self.zero)
        return self.scale.exp() * code


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def loss():
    return (block(inputs, [linear.rounded() for linear in learned]) - target).pow(2).sum() / (batch * hidden)


with torch.no_grad():
    target = block(inputs, original)
learned = [Learned(weight) for weight in original]
optimizer = torch.optim.Adam([p for linear in learned for p in linear.parameters], lr=5e-4)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
for _ in range(2):  # what the first passes allocate and look up
    loss().backward()
    optimizer.zero_grad()
start = cpu_seconds()
for step in range(steps):
    value = loss()
    if step == 0:
        first = value.item()
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    schedule.step()
seconds = cpu_seconds() - start
with torch.no_grad():
    print(f"{kind}: {steps} steps, {seconds:.2f} CPU seconds, loss {first:.4f} -> {loss().item():.4f}")
