#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""llama.cpp's own quantizer and its perplexity, through the libraries inside node-llama-cpp 3.22.1 (x86-64).

    llama_cpp_types.py quantize SOURCE.gguf OUT.gguf TYPE [--calibration FOLDER] [--embedding F32|BF16]
    llama_cpp_types.py perplexity MODEL.gguf (--text FILE | --ids IDS.json) [--lora ADAPTER.gguf] [--tokens N] [--length L]

Needs numpy and safetensors, and RANKSCOPE_NODE_MODULES as tests/clients/test_llama_cpp.cpp does. --calibration: a folder of
rankscope-cli calibrate of a Llama model; the diagonals of its moments are the importance matrix. Windows are those of
rankscope-cli evaluate --protocol windows; IDS.json is {"ids": [...], "bos": id or null}, for vocabularies without byte tokens,
which llama.cpp cannot tokenize with. One JSON line is printed, with CPU seconds of one thread."""
import argparse
import ctypes as C
import json
import os
import time
from pathlib import Path

import numpy as np

FILE_TYPES = dict(F32=0, F16=1, Q4_0=2, Q4_1=3, Q8_0=7, Q2_K=10, Q3_K_S=11, Q3_K_M=12, Q4_K_S=14, Q4_K_M=15, Q5_K_S=16,
                  Q6_K=18, IQ2_XXS=19, IQ2_XS=20, IQ3_XXS=23, IQ4_NL=25, IQ3_S=26, IQ2_S=28, IQ4_XS=30)
TENSOR_TYPES = dict(F32=0, BF16=30)
INPUTS = dict(attn_q="self_attn.q_proj", attn_k="self_attn.q_proj", attn_v="self_attn.q_proj", attn_output="self_attn.o_proj",
              ffn_gate="mlp.gate_proj", ffn_up="mlp.gate_proj", ffn_down="mlp.down_proj")


class QuantizeParameters(C.Structure):  # llama_model_quantize_params; room for fields that later versions add
    _fields_ = [("nthread", C.c_int32), ("ftype", C.c_int32), ("output", C.c_int32), ("embedding", C.c_int32)] \
        + [(name, C.c_bool) for name in ("requantize", "quantize_output", "copy", "pure", "keep_split", "dry_run")] \
        + [(name, C.c_void_p) for name in ("imatrix", "overrides", "types", "prune")] + [("room", C.c_int64 * 16)]


class Importance(C.Structure):
    _fields_ = [("name", C.c_char_p), ("data", C.c_void_p), ("size", C.c_size_t)]


class Parameters(C.Structure):  # of models and contexts: 32-bit fields by their place
    _fields_ = [("fields", C.c_int32 * 64)]


class Batch(C.Structure):
    _fields_ = [("count", C.c_int32), ("token", C.POINTER(C.c_int32)), ("embedding", C.c_void_p), ("position", C.POINTER(C.c_int32)),
                ("sequences", C.POINTER(C.c_int32)), ("sequence", C.POINTER(C.POINTER(C.c_int32))), ("logits", C.POINTER(C.c_int8))]


def load_library():
    folder = Path(os.environ["RANKSCOPE_NODE_MODULES"]) / "@node-llama-cpp/linux-x64/bins/linux-x64"
    C.CDLL(str(folder / "libggml-base.so"), mode=C.RTLD_GLOBAL)
    ggml = C.CDLL(str(next(folder.glob("libggml.v*.so"))), mode=C.RTLD_GLOBAL)
    llama = C.CDLL(str(next(folder.glob("libllama.v*.so"))), mode=C.RTLD_GLOBAL)
    llama.log = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)(lambda *_: None)  # kept: the library calls it
    llama.llama_log_set(llama.log, None)
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    llama.llama_backend_init()
    return llama


def importance_matrix(folder):
    from safetensors.numpy import load_file

    rows = []
    for block, entry in enumerate(json.loads((folder / "calibration.json").read_text())["blocks"]):
        moments = load_file(folder / entry["file"])
        for name, source in INPUTS.items():
            diagonal = np.diagonal(moments[f"model.layers.{block}.{source}.hessian"]).astype("f4").copy()
            rows.append((f"blk.{block}.{name}.weight".encode(), diagonal))
    return rows


def quantize(llama, options):
    llama.llama_model_quantize_default_params.restype = QuantizeParameters
    parameters = llama.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype, parameters.requantize = 1, FILE_TYPES[options.type], True
    if options.embedding:
        parameters.embedding = parameters.output = TENSOR_TYPES[options.embedding]
    rows = importance_matrix(options.calibration) if options.calibration else []
    entries = (Importance * (len(rows) + 1))(*[Importance(name, data.ctypes.data, data.size) for name, data in rows])
    if rows:
        parameters.imatrix = C.cast(entries, C.c_void_p).value
    start = time.process_time()
    llama.llama_model_quantize.restype = C.c_uint32
    if llama.llama_model_quantize(str(options.source).encode(), str(options.out).encode(), C.byref(parameters)):
        raise SystemExit("llama_model_quantize failed")
    return {"type": options.type, "bytes": options.out.stat().st_size, "cpu_seconds": time.process_time() - start}


def declare(llama):
    pointer = C.c_void_p
    for name, result, arguments in (
            ("llama_model_default_params", Parameters, []), ("llama_context_default_params", Parameters, []),
            ("llama_model_load_from_file", pointer, [C.c_char_p, Parameters]), ("llama_init_from_model", pointer, [pointer, Parameters]),
            ("llama_adapter_lora_init", pointer, [pointer, C.c_char_p]),
            ("llama_set_adapters_lora", C.c_int32, [pointer, pointer, C.c_size_t, pointer]),
            ("llama_model_get_vocab", pointer, [pointer]), ("llama_vocab_n_tokens", C.c_int32, [pointer]),
            ("llama_tokenize", C.c_int32, [pointer, C.c_char_p, C.c_int32, pointer, C.c_int32, C.c_bool, C.c_bool]),
            ("llama_batch_init", Batch, [C.c_int32] * 3), ("llama_get_memory", pointer, [pointer]),
            ("llama_memory_clear", None, [pointer, C.c_bool]), ("llama_decode", C.c_int32, [pointer, Batch]),
            ("llama_get_logits", C.POINTER(C.c_float), [pointer])):
        function = getattr(llama, name)
        function.restype, function.argtypes = result, arguments


def open_context(llama, options):
    model = llama.llama_model_load_from_file(str(options.model).encode(), llama.llama_model_default_params())
    parameters = llama.llama_context_default_params()
    size = max(options.length, 64)
    # context, batch and ubatch sizes; one thread; no flash attention; K and V in F32
    for place, value in ((0, size), (1, size), (2, size), (7, 1), (8, 1), (13, 0), (26, 0), (27, 0)):
        parameters.fields[place] = value
    context = llama.llama_init_from_model(model, parameters) if model else None
    if not context:
        raise SystemExit(f"llama.cpp cannot load {options.model}")
    if options.lora:
        adapter = llama.llama_adapter_lora_init(model, str(options.lora).encode())
        if not adapter or llama.llama_set_adapters_lora(context, (C.c_void_p * 1)(adapter), 1, (C.c_float * 1)(1.0)):
            raise SystemExit(f"llama.cpp cannot load {options.lora}")
    return context, llama.llama_model_get_vocab(model)


def token_ids(llama, vocabulary, options):
    if options.ids:
        given = json.loads(options.ids.read_text())
        return given["ids"], [] if given["bos"] is None else [given["bos"]]
    text = options.text.read_text(encoding="utf-8")[: 8 * options.tokens].encode()
    buffer = (C.c_int32 * (len(text) + 8))()
    return list(buffer[: llama.llama_tokenize(vocabulary, text, len(text), buffer, len(buffer), False, False)]), []


def perplexity(llama, options):
    declare(llama)
    context, vocabulary = open_context(llama, options)
    ids, front = token_ids(llama, vocabulary, options)
    ids, step = ids[: options.tokens], options.length - len(front)
    shape = (options.length, llama.llama_vocab_n_tokens(vocabulary))
    batch = llama.llama_batch_init(options.length, 0, 1)
    loss, targets, start = 0.0, 0, time.process_time()
    for begin in range(0, len(ids) - step + 1, step):
        window = front + ids[begin: begin + step]
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        batch.count = len(window)
        for place, token in enumerate(window):
            batch.token[place], batch.position[place], batch.sequences[place] = token, place, 1
            batch.sequence[place][0], batch.logits[place] = 0, 1
        if llama.llama_decode(context, batch):
            raise SystemExit("llama_decode failed")
        logits = np.ctypeslib.as_array(llama.llama_get_logits(context), shape=shape)[:-1]
        most = logits.max(1)
        rows = np.arange(len(window) - 1)
        loss += float((most + np.log(np.exp(logits - most[:, None]).sum(1)) - logits[rows, window[1:]]).astype("f8").sum())
        targets += len(window) - 1
    size = options.model.stat().st_size + (options.lora.stat().st_size if options.lora else 0)
    return {"model": str(options.model), "bytes": size, "perplexity": float(np.exp(loss / targets)), "targets": targets,
            "cpu_seconds": time.process_time() - start}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("quantize")
    one.set_defaults(run=quantize)
    one.add_argument("source", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("type", choices=FILE_TYPES)
    one.add_argument("--calibration", type=Path)
    one.add_argument("--embedding", choices=TENSOR_TYPES)
    one = commands.add_parser("perplexity")
    one.set_defaults(run=perplexity)
    one.add_argument("model", type=Path)
    one.add_argument("--text", type=Path)
    one.add_argument("--ids", type=Path)
    one.add_argument("--lora", type=Path)
    one.add_argument("--tokens", type=int, default=5120)
    one.add_argument("--length", type=int, default=512)
    options = parser.parse_args()
    print(json.dumps(options.run(load_library(), options)))


if __name__ == "__main__":
    main()
