// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace rankscope {

namespace detail {
class FaultGuard;
}

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

    /// Whether what was read so far is what the file holds. Bytes that lie behind the end of a file that has been cut
    /// off since it was mapped, or that the drive does not give, read as zeros: ask before and after using bytes().
    /// Errors: BadInput.
    Status check() const;

private:
    MappedFile(std::filesystem::path path, int descriptor, const std::byte* data, std::size_t size);

    std::filesystem::path path_;
    int descriptor_;
    const std::byte* data_;
    std::size_t size_;
    std::unique_ptr<detail::FaultGuard> guard_; ///< null for an empty file
};

} // namespace rankscope
