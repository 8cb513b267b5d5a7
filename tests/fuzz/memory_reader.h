// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace rankscope::fuzz {

/// A checkpoint whose file is a piece of memory; the tensors are those of a parsed header.
class MemoryReader : public CheckpointReader {
public:
    MemoryReader(std::span<const std::byte> file, std::vector<TensorInfo> tensors, Json metadata)
        : file_(file), tensors_(std::move(tensors)), metadata_(std::move(metadata))
    {}

    const std::filesystem::path& path() const override { return files_[0]; }
    std::span<const std::filesystem::path> files() const override { return files_; }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    const Json& metadata() const override { return metadata_; }
    std::string header_hash() const override { return {}; }
    Result<TensorView> view(std::string_view name) const override
    {
        const TensorInfo* tensor = find(name);
        if (!tensor)
            return bad_input("there is no such tensor");
        return TensorView{
            tensor->dtype, tensor->shape,
            file_.subspan(static_cast<std::size_t>(tensor->offset), static_cast<std::size_t>(tensor->bytes)),
            tensor->block};
    }

private:
    std::span<const std::byte> file_;
    std::vector<TensorInfo> tensors_;
    Json metadata_;
    std::array<std::filesystem::path, 1> files_ = {"memory"};
};

/// What a parser refuses, it refuses as bad input and in words.
inline void check_refusal(const Error& error)
{
    if (error.kind != ErrorKind::BadInput || error.message.empty())
        __builtin_trap();
}

} // namespace rankscope::fuzz
