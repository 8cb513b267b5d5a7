#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Perplexity and logits of exports in transformers and PEFT: check_exports.py JOBS.json → JSON list on stdout.

A job: {"name", "folder", "adapter": folder or absent, "text", "length", "max_tokens", "prompts"}. An answer: {"name",
"perplexity", "targets", "nll_sum", "adapted_layers", "prompts", "versions"} or {"name", "error"}; "prompts" has
{"ids", "logits"} for each, the logits of the token that would follow. A folder with load_qlr.py is loaded by it. Windows are those of the `windows` protocol of
rankscope-cli evaluate: BOS and length − 1 tokens of text, or length tokens where the tokenizer puts no BOS in front.
"""
import importlib.util
import json
import math
import os
import sys
import traceback
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(2)


def load(job):
    loader = Path(job["folder"]) / "load_qlr.py"
    if loader.exists():
        spec = importlib.util.spec_from_file_location("load_qlr", loader)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.load(job["folder"])[0].eval()
    options = {"dtype": torch.float32, "local_files_only": True}
    config = json.loads((Path(job["folder"]) / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config", {}).get("quant_method") == "compressed-tensors" and job.get("dequantize", True):
        from transformers.utils.quantization_config import CompressedTensorsConfig

        options["quantization_config"] = CompressedTensorsConfig(dequantize=True)  # PEFT needs plain weights
    model = AutoModelForCausalLM.from_pretrained(job["folder"], **options)
    if job.get("adapter"):
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, job["adapter"])
    return model.eval()


def measure(job):
    model = load(job)
    tokenizer = AutoTokenizer.from_pretrained(job["folder"], local_files_only=True)
    text = Path(job["text"]).read_text(encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids[: job["max_tokens"]]
    first = tokenizer("a").input_ids[:1]
    front = first if first == [tokenizer.bos_token_id] else []
    prompts = []
    with torch.no_grad():
        for prompt in job.get("prompts", []):
            tokens = front + tokenizer(prompt, add_special_tokens=False).input_ids
            prompts.append({"ids": tokens, "logits": model(torch.tensor([tokens])).logits[0, -1].tolist()})
    step = job["length"] - len(front)
    loss, targets = 0.0, 0
    with torch.no_grad():
        for begin in range(0, len(ids) - step + 1, step):
            window = torch.tensor([front + ids[begin : begin + step]])
            logits = model(window).logits[0, :-1].double()
            loss += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
            targets += window.shape[1] - 1
    adapted = sum(name.endswith("lora_A") for name, _ in model.named_modules())
    return {"nll_sum": loss, "targets": targets, "perplexity": math.exp(loss / targets), "adapted_layers": adapted, "prompts": prompts,
            "versions": {"transformers": transformers.__version__, "torch": torch.__version__}}


def main():
    answer_stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some clients talk on standard output
    answers = []
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        try:
            answers.append({"name": job["name"], **measure(job)})
        except Exception as error:  # the test names the job that failed
            traceback.print_exc()
            answers.append({"name": job["name"], "error": f"{type(error).__name__}: {error}"})
    print(json.dumps(answers), file=answer_stream, flush=True)


if __name__ == "__main__":
    main()
