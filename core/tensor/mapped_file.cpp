// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/tensor/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace rankscope {

MappedFile::MappedFile(std::filesystem::path path, int descriptor, const std::byte* data, std::size_t size)
    : path_(std::move(path)), descriptor_(descriptor), data_(data), size_(size)
{}

MappedFile::~MappedFile()
{
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

bool MappedFile::still_whole() const
{
    struct stat info {};
    return ::fstat(descriptor_, &info) == 0 && static_cast<std::size_t>(info.st_size) >= size_;
}

} // namespace rankscope
