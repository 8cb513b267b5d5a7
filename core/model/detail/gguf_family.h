// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "core/tensor/matrix.h"

#include <string>
#include <string_view>
#include <vector>

namespace rankscope::detail {

/// What llama.cpp's converter did to a tensor, and reading undoes.
enum class Stored : std::uint8_t {
    AsIs,
    PairedQueryRows, ///< rows (2i, 2i + 1) of a head are turned together; ours are (i, i + d/2)
    PairedKeyRows,
    PartsApart, ///< all rows of q, then of k, then of v; ours are those of one head after the other
    OneAdded,   ///< a gain; ours is its difference from 1
    Experts,    ///< experts × out × in; ours are matrices of their own
    OneRow,     ///< a vector; ours is a matrix of one row
};

/// A tensor's stem and Hugging Face's for it. "#" stands for an expert's number.
struct GgufName {
    std::string_view gguf;
    std::string_view hugging_face;
    Stored stored = Stored::AsIs;
};

enum class KeyKind : std::uint8_t { Whole, Real, Flag };

/// A metadata key (after "ARCHITECTURE.") and the key of config.json that says the same.
struct GgufKey {
    std::string_view gguf;
    std::string_view hugging_face;
    KeyKind kind = KeyKind::Whole;
    bool required = false;
};

/// Metadata of one file, read by keys without the architecture in front.
class GgufMetadata {
public:
    GgufMetadata(const CheckpointReader& gguf, std::string_view architecture)
        : gguf_(gguf), prefix_(std::string(architecture) + ".")
    {}

    const CheckpointReader& gguf() const { return gguf_; }
    bool has(std::string_view key) const { return find(key) != nullptr; }
    /// Null where the key is absent. A whole number is positive; where there is one for each block, all are
    /// equal.
    Result<Json> value(std::string_view key, KeyKind kind) const;
    double real(std::string_view key, double fallback) const;
    std::string place(std::string_view key) const; ///< "file.gguf: key llama.block_count"

private:
    const Json* find(std::string_view key) const { return gguf_.metadata().find(prefix_ + std::string(key)); }

    const CheckpointReader& gguf_;
    std::string prefix_;
};

/// One family of llama.cpp: how it spells what one of our architectures knows.
struct GgufFamily {
    std::string_view id; ///< general.architecture
    std::string_view transformers_id;
    std::string_view when =
        {}; ///< only files in which this key is larger than 0 (llama has several families)
    std::string_view blocks = "model.layers."; ///< before a block's number
    std::vector<GgufName> model_names;
    std::vector<GgufName> block_names; ///< after "blk.N."
    std::vector<GgufKey> keys;
    /// What the keys alone do not say; may be null.
    Status (*complete)(const GgufMetadata& metadata, Json& config) = nullptr;
};

/// The family of this file. Errors: BadInput that lists the known ones.
Result<const GgufFamily*> gguf_family_of(const CheckpointReader& gguf);

/// The family that files of this model_type belong to; null where llama.cpp does not know it.
const GgufFamily* gguf_family_for(std::string_view transformers_id);

/// For each row of ours its row in the file.
using RowOrder = std::vector<Index>;
/// Empty: as it is (also where the rows do not divide, which the check of shapes reports).
RowOrder row_order(Stored stored, Index rows, Index heads, Index kv_heads);

/// A float32 value written as the decimal number that was meant: 1e-5, not 9.99999974737875e-06.
double shortest(double value);

} // namespace rankscope::detail
