// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/tensor/tensor_view.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace rankscope {

struct TensorInfo {
    std::string name;
    DType dtype = DType::F32;
    Shape shape;
    std::uint64_t offset = 0; ///< from the start of its file
    std::uint64_t bytes = 0;
    int file = 0;             ///< index into CheckpointReader::files()
    const BlockLayout* block = nullptr; ///< set for GGUF's block types; dtype then says nothing

    std::string packed; ///< "gptq int4 g64": a linear that is put together from several tensors (packed_checkpoint.h)

    std::string_view type_name() const { return !packed.empty() ? packed : block ? block->name : rankscope::name(dtype); }
    bool holds_floats() const { return is_quantized() || is_float(dtype); }
    /// The values were rounded to few levels when the checkpoint was made; dtype says nothing then.
    bool is_quantized() const { return block || !packed.empty(); }
};

/// The rows of a matrix, decoded to float32 when they are asked for, by several threads at a time if need be. Valid as
/// long as the reader that gave it.
struct RowSource {
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::function<void(std::int64_t row, float* values)> decode;
};

/// One checkpoint (a file, or a folder of shards), mapped. Opening costs a header parse per file; reading decodes only
/// the tensor asked for. Const and thread-safe once open. Every length and offset is checked against the file before
/// the first view is handed out. Errors: BadInput (says offset and what was expected), Io.
class CheckpointReader {
public:
    virtual ~CheckpointReader() = default;

    /// Chooses the format by looking at the bytes: a .safetensors file, a Hugging Face folder (model.safetensors or
    /// model.safetensors.index.json with shards), a .gguf file.
    static Result<std::unique_ptr<CheckpointReader>> open(const std::filesystem::path& path);

    virtual const std::filesystem::path& path() const = 0;   ///< as given to open()
    virtual std::span<const std::filesystem::path> files() const = 0;
    virtual std::span<const TensorInfo> tensors() const = 0; ///< sorted by name
    virtual const Json& metadata() const = 0;                ///< string map of the file, or null
    /// SHA-256 of the headers of all files, hexadecimal: names the checkpoint in calibrations, plans and runs.
    virtual std::string header_hash() const = 0;

    /// Null when there is no such tensor.
    const TensorInfo* find(std::string_view name) const;
    /// Bytes as they are in the mapping. Errors: BadInput when the tensor is missing, the file has shrunk since, or the
    /// tensor has no bytes of its own (packed).
    virtual Result<TensorView> view(std::string_view name) const = 0;
    /// To be asked once the bytes of a view were used: a file that shrinks meanwhile reads as zeros. Errors: BadInput.
    Status confirm(std::string_view name) const;
    /// The tensor's pages leave this process's memory; using a view of it brings them back. Nothing where it has no
    /// bytes of its own.
    void release(std::string_view name) const;
    /// Decoded to float32: rows = outputs, columns = inputs. Refuses non-float types and non-finite values by name.
    virtual Result<Matrix> read(std::string_view name) const;
    /// The rows of what read() gives, without a copy of the whole where they are stored one by one. Values that are not
    /// finite and a file that shrinks meanwhile are the caller's to notice (confirm(), read()). Errors: as read().
    virtual Result<RowSource> rows(std::string_view name) const;

protected:
    /// Of values that are computed as a whole.
    static Result<RowSource> rows_of(Result<Matrix> whole);
    Status require_floats(const TensorInfo& tensor) const;
};

} // namespace rankscope
