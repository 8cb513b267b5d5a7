// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/tensor/mapped_file.h"

#include "core/tensor/detail/fault_guard.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace rankscope {

MappedFile::MappedFile(std::filesystem::path path, int descriptor, const std::byte* data, std::size_t size)
    : path_(std::move(path)), descriptor_(descriptor), data_(data), size_(size),
      guard_(data ? std::make_unique<detail::FaultGuard>(data, size) : nullptr)
{}

MappedFile::~MappedFile()
{
    guard_.reset();
    if (data_)
        ::munmap(const_cast<std::byte*>(data_), size_);
    ::close(descriptor_);
}

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::filesystem::path& path)
{
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return errno_error("open the file", path.string());
    struct stat info {};
    if (::fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
        ::close(descriptor);
        return io_error("this is no regular file", path.string());
    }
    const auto size = static_cast<std::size_t>(info.st_size);
    const std::byte* data = nullptr;
    if (size > 0) {
        void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
        if (address == MAP_FAILED) {
            Error error = errno_error("map the file", path.string());
            ::close(descriptor);
            return error;
        }
        data = static_cast<const std::byte*>(address);
    }
    return std::shared_ptr<const MappedFile>(new MappedFile(path, descriptor, data, size));
}

Status MappedFile::check() const
{
    struct stat info {};
    if (::fstat(descriptor_, &info) != 0 || static_cast<std::size_t>(info.st_size) < size_)
        return bad_input("the file has become shorter since it was opened", path_.string(),
                         "Close whatever is writing to it and open the checkpoint again");
    if (guard_ && guard_->damaged())
        return bad_input("a part of the file could not be read: it was cut off for a while, or its drive failed",
                         path_.string(), "Check the file and open the checkpoint again");
    return {};
}

} // namespace rankscope
