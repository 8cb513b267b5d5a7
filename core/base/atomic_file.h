// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace rankscope {

/// A file that appears under its final name only when whole: written beside it, fsynced, renamed. Destroyed
/// without commit() it leaves nothing behind. Movable; one thread at a time.
class AtomicFile {
public:
    /// Errors: Io, NoSpace; BadInput when `path` exists and `replace` is false ("use --force").
    static Result<AtomicFile> create(const std::filesystem::path& path, bool replace);
    AtomicFile(AtomicFile&& other) noexcept;
    AtomicFile& operator=(AtomicFile&& other) noexcept;
    ~AtomicFile();

    Status write(const void* data, std::size_t size_bytes);
    Status write(std::string_view text) { return write(text.data(), text.size()); }
    Status commit();

private:
    AtomicFile(std::filesystem::path path, std::filesystem::path part, int descriptor);
    void discard() noexcept;

    std::filesystem::path path_;
    std::filesystem::path part_;
    int descriptor_ = -1;
};

/// Writes a small text in one go.
Status write_text_file(const std::filesystem::path& path, std::string_view text, bool replace);

/// Removes from `folder` what a process left that was killed while it wrote an AtomicFile there. Only for a
/// folder that this process alone writes to.
void remove_unfinished_files(const std::filesystem::path& folder);

/// A folder that appears under its final name only when whole; the same promises as AtomicFile.
class AtomicFolder {
public:
    static Result<AtomicFolder> create(const std::filesystem::path& path, bool replace);
    /// The same from a folder `part` beside `path` that is there already and has its content.
    static Result<AtomicFolder> adopt(const std::filesystem::path& path, const std::filesystem::path& part,
                                      bool replace);
    AtomicFolder(AtomicFolder&& other) noexcept;
    AtomicFolder& operator=(AtomicFolder&& other) noexcept;
    ~AtomicFolder();

    const std::filesystem::path& part() const { return part_; } ///< write the content here
    Status commit();

private:
    AtomicFolder(std::filesystem::path path, std::filesystem::path part);
    void discard() noexcept;

    std::filesystem::path path_;
    std::filesystem::path part_;
};

/// --force replaces what this program wrote, never somebody's folder: BadInput when `folder` is a file, or a
/// folder that holds something but no file `marker`.
Status require_replaceable(const std::filesystem::path& folder, std::string_view marker);

/// Fails with NoSpace, naming both figures, when the drive of `folder` has less than `bytes` free.
Status require_free_disk(const std::filesystem::path& folder, std::uint64_t bytes);

} // namespace rankscope
