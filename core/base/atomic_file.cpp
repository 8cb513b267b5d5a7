// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"

#include "core/base/byte_size.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

constexpr const char* k_part = ".part-"; // and the number of the process
constexpr std::size_t k_large_write = std::size_t{1} << 20;

fs::path part_name(const fs::path& path)
{
    fs::path name = path.has_filename() ? path : path.parent_path();
    name += k_part + std::to_string(getpid());
    return name;
}

Error exists_error(const fs::path& path)
{
    return bad_input("it exists already", path.string(), "Use --force to replace it, or choose another name");
}

/// Makes the rename itself durable; a file system that cannot sync folders is no reason to fail.
void sync_folder(const fs::path& folder)
{
    const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor >= 0) {
        ::fsync(descriptor);
        ::close(descriptor);
    }
}

/// Lets the drive begin with what is written so far, so that it works while the rest is made and the sync at
/// the end has little left to wait for. Where that cannot be asked for, the sync does it all.
void start_writing_out([[maybe_unused]] int descriptor)
{
#ifdef __linux__
    ::sync_file_range(descriptor, 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
}

Status make_parent(const fs::path& path)
{
    std::error_code problem;
    if (!path.parent_path().empty())
        fs::create_directories(path.parent_path(), problem);
    if (problem) {
        errno = problem.value();
        return errno_error("create the folder", path.parent_path().string());
    }
    return {};
}

} // namespace

AtomicFile::AtomicFile(fs::path path, fs::path part, int descriptor)
    : path_(std::move(path)), part_(std::move(part)), descriptor_(descriptor)
{}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)), part_(std::move(other.part_)),
      descriptor_(std::exchange(other.descriptor_, -1))
{}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept
{
    if (this != &other) {
        discard();
        path_ = std::move(other.path_);
        part_ = std::move(other.part_);
        descriptor_ = std::exchange(other.descriptor_, -1);
    }
    return *this;
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept
{
    if (descriptor_ < 0)
        return;
    ::close(std::exchange(descriptor_, -1));
    ::unlink(part_.c_str());
}

Result<AtomicFile> AtomicFile::create(const fs::path& path, bool replace)
{
    std::error_code problem;
    if (!replace && fs::exists(path, problem))
        return exists_error(path);
    if (fs::is_directory(path, problem))
        return io_error("this is a folder, a file was expected", path.string());
    if (auto made = make_parent(path); !made)
        return made.error();
    fs::path part = part_name(path);
    const int descriptor = ::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor < 0)
        return errno_error("create the file", path.string());
    return AtomicFile(path, std::move(part), descriptor);
}

Status AtomicFile::write(const void* data, std::size_t size_bytes)
{
    const char* bytes = static_cast<const char*>(data);
    const bool large = size_bytes >= k_large_write;
    while (size_bytes > 0) {
        const ssize_t written = ::write(descriptor_, bytes, size_bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            Error error = errno_error("write the file", path_.string());
            discard();
            return error;
        }
        bytes += written;
        size_bytes -= static_cast<std::size_t>(written);
    }
    if (large)
        start_writing_out(descriptor_);
    return {};
}

Status AtomicFile::commit()
{
    if (descriptor_ < 0)
        return internal_error("commit of a file that was given up", path_.string());
    const bool synced = ::fsync(descriptor_) == 0 || errno == EINVAL;
    if (!synced || ::rename(part_.c_str(), path_.c_str()) != 0) {
        Error error = errno_error("finish the file", path_.string());
        discard();
        return error;
    }
    ::close(std::exchange(descriptor_, -1));
    sync_folder(path_.parent_path());
    return {};
}

Status write_text_file(const fs::path& path, std::string_view text, bool replace)
{
    auto file = AtomicFile::create(path, replace);
    if (!file)
        return file.error();
    if (auto written = file->write(text); !written)
        return written;
    return file->commit();
}

void remove_unfinished_files(const fs::path& folder)
{
    std::error_code problem;
    for (const auto& entry : fs::directory_iterator(folder, problem)) {
        if (entry.path().filename().string().find(k_part) != std::string::npos)
            fs::remove(entry.path(), problem);
    }
}

AtomicFolder::AtomicFolder(fs::path path, fs::path part) : path_(std::move(path)), part_(std::move(part)) {}

AtomicFolder::AtomicFolder(AtomicFolder&& other) noexcept
    : path_(std::move(other.path_)), part_(std::exchange(other.part_, {}))
{}

AtomicFolder& AtomicFolder::operator=(AtomicFolder&& other) noexcept
{
    if (this != &other) {
        discard();
        path_ = std::move(other.path_);
        part_ = std::exchange(other.part_, {});
    }
    return *this;
}

AtomicFolder::~AtomicFolder() { discard(); }

void AtomicFolder::discard() noexcept
{
    if (part_.empty())
        return;
    std::error_code ignored;
    fs::remove_all(std::exchange(part_, {}), ignored);
}

Result<AtomicFolder> AtomicFolder::create(const fs::path& path, bool replace)
{
    std::error_code problem;
    const bool taken =
        fs::exists(path, problem) && !(fs::is_directory(path, problem) && fs::is_empty(path, problem));
    if (taken && !replace)
        return exists_error(path);
    if (auto made = make_parent(path.has_filename() ? path : path.parent_path()); !made)
        return made.error();
    fs::path part = part_name(path);
    fs::remove_all(part, problem);
    fs::create_directory(part, problem);
    if (problem) {
        errno = problem.value();
        return errno_error("create the folder", path.string());
    }
    return AtomicFolder(path.has_filename() ? path : path.parent_path(), std::move(part));
}

Result<AtomicFolder> AtomicFolder::adopt(const fs::path& path, const fs::path& part, bool replace)
{
    std::error_code problem;
    const bool taken =
        fs::exists(path, problem) && !(fs::is_directory(path, problem) && fs::is_empty(path, problem));
    if (taken && !replace)
        return exists_error(path);
    return AtomicFolder(path.has_filename() ? path : path.parent_path(), part);
}

Status AtomicFolder::commit()
{
    // Two renames, so that the old content is whole until the new one stands in its place.
    std::error_code problem;
    fs::path old;
    if (fs::exists(path_, problem)) {
        old = part_;
        old += ".old";
        fs::rename(path_, old, problem);
        if (problem) {
            errno = problem.value();
            return errno_error("replace the folder", path_.string());
        }
    }
    fs::rename(part_, path_, problem);
    if (problem) {
        const int code = problem.value();
        if (!old.empty())
            fs::rename(old, path_, problem);
        errno = code;
        return errno_error("finish the folder", path_.string());
    }
    part_.clear();
    if (!old.empty())
        fs::remove_all(old, problem);
    sync_folder(path_.parent_path());
    return {};
}

Status require_replaceable(const fs::path& folder, std::string_view marker)
{
    std::error_code problem;
    if (!fs::exists(folder, problem))
        return {};
    if (!fs::is_directory(folder, problem))
        return bad_input("this is a file, and a folder is to be written", folder.string(),
                         "Choose another name");
    if (fs::is_empty(folder, problem) || fs::exists(folder / marker, problem))
        return {};
    return bad_input("this folder holds something else (there is no " + std::string(marker)
                         + " in it), so it is not replaced",
                     folder.string(), "Choose another folder");
}

Status require_free_disk(const fs::path& folder, std::uint64_t bytes)
{
    std::error_code problem;
    fs::path place = fs::absolute(folder, problem);
    while (!place.empty() && !fs::exists(place, problem) && place != place.root_path())
        place = place.parent_path();
    const auto space = fs::space(place, problem);
    // A file system without any capacity (/proc) is no drive: creating the file will say what is wrong.
    if (problem || space.capacity == 0 || space.available >= bytes)
        return {};
    return Error{ErrorKind::NoSpace,
                 "this needs " + format_byte_size(bytes) + ", but only " + format_byte_size(space.available)
                     + " is free on the drive",
                 folder.string(), "Free some space or choose another drive"};
}

} // namespace rankscope
