// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace rankscope {

/// A file mapped read-only. Shared by every view into it; unmapped with the last owner.
class MappedFile {
public:
    /// Errors: Io. An empty file maps to an empty span.
    static Result<std::shared_ptr<const MappedFile>> open(const std::filesystem::path& path);
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile();

    std::span<const std::byte> bytes() const { return {data_, size_}; }
    const std::filesystem::path& path() const { return path_; }

    /// Whether the file on disk is still at least as long as when it was mapped: reading pages behind a
    /// shortened end would kill the program with SIGBUS, so readers ask before they decode a tensor.
    bool still_whole() const;

private:
    MappedFile(std::filesystem::path path, int descriptor, const std::byte* data, std::size_t size);

    std::filesystem::path path_;
    int descriptor_;
    const std::byte* data_;
    std::size_t size_;
};

} // namespace rankscope
