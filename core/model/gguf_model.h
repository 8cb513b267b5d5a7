// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/checkpoint/checkpoint_reader.h"

#include <memory>

namespace rankscope {

// A GGUF file speaks llama.cpp's language. These translate it into Hugging Face's once, so that everything
// behind them (architectures, tokenizer, plans, runs) knows one spelling only.

/// Whether the reader's metadata are those of a GGUF file.
bool is_gguf(const CheckpointReader& reader);

/// The metadata as a config.json. Errors: BadInput naming the key, or the architecture that is not known.
Result<Json> gguf_config(const CheckpointReader& gguf);

/// The vocabulary as a tokenizer.json (formats.md §9). Errors: BadInput naming what is missing or not known.
Result<Json> gguf_tokenizer(const CheckpointReader& gguf);

/// The same tensors under Hugging Face's names, stacked experts as matrices of their own. `read` also undoes what
/// llama.cpp's converter does to values (order of rows, 1 + w in norms); `view`
/// gives the bytes as they are stored. Tensors that the configuration holds (frequency
/// factors) are left out.
Result<std::unique_ptr<CheckpointReader>>
gguf_with_hugging_face_names(std::unique_ptr<CheckpointReader> gguf);

} // namespace rankscope
