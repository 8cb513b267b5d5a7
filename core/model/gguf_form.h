// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/gguf_writer.h"
#include "core/model/model.h"

#include <string>
#include <string_view>
#include <vector>

namespace rankscope {

/// One tensor as a GGUF file holds it, and which of ours it is made of.
struct GgufTensor {
    std::string name;                 ///< "blk.0.attn_q.weight"
    std::vector<std::string> sources; ///< ours; several: experts that are stacked
    Shape shape;                      ///< in the file
    std::vector<Index> row_order;     ///< row r of the file is row row_order[r] of ours; empty: as they are
    bool one_added = false;           ///< a gain; ours is its difference from 1
    bool transposed = false;          ///< ours stands as in × out
    bool exact_floats = false;        ///< llama.cpp wants it as F32 (norms, biases, routers, positions)
};

/// A tensor that says what config.json has as numbers (factors of rotary frequencies).
struct GgufFactors {
    std::string name;
    std::vector<float> values;
};

/// How llama.cpp's files spell one of our models: the way back from gguf_model.h, by the same table of names.
struct GgufForm {
    std::string architecture; ///< "llama"
    GgufValues metadata;      ///< all but the tokenizer's
    std::vector<GgufTensor> tensors;
    std::vector<GgufFactors> factors;
    std::vector<std::string> warnings; ///< what llama.cpp is known to compute otherwise

    /// Errors: Usage (a family that llama.cpp does not know, or something of this model that its files cannot
    /// say), BadInput (a tensor without a counterpart).
    static Result<GgufForm> of(const Model& model);
    /// The tensor that one of ours goes into; null: none does.
    const GgufTensor* find(std::string_view source) const;
};

/// The tokenizer's metadata. Errors: why there is no tokenizer; Usage for one that llama.cpp has no name for.
Result<GgufValues> gguf_vocabulary(const Model& model);

} // namespace rankscope
