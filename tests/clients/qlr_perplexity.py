#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Perplexity of an hf-qlr folder through its own loader, as JSON: qlr_perplexity.py FOLDER TEXT LENGTH [--dense]

Windows of LENGTH tokens that each begin with the BOS token, as the `windows` protocol of rankscope-cli evaluate.
"""
import json
import math
import sys
from pathlib import Path

import torch


def main():
    folder, text, length = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    sys.path.insert(0, folder)
    from load_qlr import load

    model, tokenizer = load(folder, dense="--dense" in sys.argv)
    ids = tokenizer(text.read_text(encoding="utf-8"), add_special_tokens=False, verbose=False).input_ids
    loss, targets = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(ids) - length + 2, length - 1):
            window = torch.tensor([[tokenizer.bos_token_id] + ids[first:first + length - 1]])
            logits = model(window).logits[0, :-1].double()
            loss += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
            targets += window.shape[1] - 1
    packed = sum(type(module).__name__ == "QLRLinear" for module in model.modules())
    print(json.dumps({"nll_sum": loss, "targets": targets, "perplexity": math.exp(loss / targets), "packed_layers": packed}))


if __name__ == "__main__":
    main()
