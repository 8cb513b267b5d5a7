// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/hidden_states.h"

#include "core/base/byte_size.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace rankscope {
namespace {

/// A file that has no name any more: it goes away with its last descriptor or mapping.
Result<int> open_unnamed_file(const std::filesystem::path& folder)
{
    std::string name = (folder.empty() ? std::filesystem::path(".") : folder) / "rankscope-scratch-XXXXXX";
    const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
    if (descriptor < 0)
        return errno_error("create a scratch file", folder.string());
    ::unlink(name.c_str());
    return descriptor;
}

/// pread or pwrite of the whole range.
template <class Transfer, class Pointer>
bool transfer_all(const Transfer& transfer, int descriptor, Pointer* bytes, std::uint64_t size)
{
    constexpr std::uint64_t k_most = 1 << 30;
    for (std::uint64_t done = 0; done < size;) {
        const ssize_t moved =
            transfer(descriptor, bytes + done, std::min(size - done, k_most), static_cast<off_t>(done));
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved == 0)
            errno = EIO;
        if (moved <= 0)
            return false;
        done += static_cast<std::uint64_t>(moved);
    }
    return true;
}

} // namespace

std::uint64_t HiddenStates::bytes() const
{
    return static_cast<std::uint64_t>(tokens_) * static_cast<std::uint64_t>(width_) * sizeof(float);
}

std::filesystem::path HiddenStates::generation_file(const std::filesystem::path& folder, int generation)
{
    return folder / ("hidden-" + std::to_string(generation));
}

Result<HiddenStates> HiddenStates::in_memory(Index tokens, Index width)
{
    HiddenStates states(tokens, width);
    states.memory_.resize(tokens, width);
    return states;
}

Result<HiddenStates> HiddenStates::in_scratch_file(Index tokens, Index width,
                                                   const std::filesystem::path& folder)
{
    HiddenStates states(tokens, width);
    if (states.bytes() == 0)
        return states;
    auto descriptor = open_unnamed_file(folder);
    if (!descriptor)
        return descriptor.error();
    states.files_[0].descriptor = *descriptor;
    if (auto mapped = states.map(states.files_[0], folder); !mapped)
        return mapped.error();
    return states;
}

Status HiddenStates::map(File& file, const std::filesystem::path& folder)
{
    // The space is reserved now: a full disk must be an error here, not a SIGBUS at some later write.
    errno = ::posix_fallocate(file.descriptor, 0, static_cast<off_t>(bytes()));
    void* mapping = errno == 0
                        ? ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor, 0)
                        : MAP_FAILED;
    if (mapping == MAP_FAILED)
        return errno_error("reserve " + format_byte_size(bytes()) + " for a scratch file", folder.string());
    file.mapping = static_cast<float*>(mapping);
    return {};
}

Result<HiddenStates> HiddenStates::durable(Index tokens, Index width, const Durable& options)
{
    HiddenStates states(tokens, width);
    states.durable_ = true;
    states.folder_ = options.folder;
    // Without a valid one the embedding goes to the first.
    states.current_ = options.valid_generation >= 0 ? options.valid_generation : 1;
    if (!options.mapped)
        states.memory_.resize(tokens, width);
    if (auto opened = states.open_generations(options); !opened)
        return opened.error();
    if (!options.mapped && options.valid_generation >= 0) {
        if (auto read = states.read_generation(options.valid_generation); !read)
            return read.error();
    }
    return states;
}

Status HiddenStates::open_generations(const Durable& options)
{
    for (int generation = 0; generation < 2; ++generation) {
        const std::filesystem::path name = generation_file(folder_, generation);
        std::error_code problem;
        if (generation == options.valid_generation
            && std::filesystem::file_size(name, problem) != (problem ? 0 : bytes()))
            return bad_input("the hidden states of the interrupted pass are not there or not whole",
                             name.string(), "Start again with --force");
        File& file = files_[static_cast<std::size_t>(generation)];
        file.descriptor = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (file.descriptor < 0)
            return errno_error("create a scratch file", name.string());
        if (options.mapped && bytes() > 0) {
            if (auto mapped = map(file, name); !mapped)
                return mapped;
        } else if (bytes() > 0) {
            errno = ::posix_fallocate(file.descriptor, 0, static_cast<off_t>(bytes()));
            if (errno != 0)
                return errno_error("reserve " + format_byte_size(bytes()) + " for a scratch file",
                                   name.string());
        }
    }
    return {};
}

HiddenStates::HiddenStates(HiddenStates&& other) noexcept : HiddenStates(0, 0) { *this = std::move(other); }

HiddenStates& HiddenStates::operator=(HiddenStates&& other) noexcept
{
    std::swap(tokens_, other.tokens_);
    std::swap(width_, other.width_);
    std::swap(memory_, other.memory_);
    std::swap(files_, other.files_);
    std::swap(device_, other.device_);
    std::swap(resident_, other.resident_);
    std::swap(save_interval_, other.save_interval_);
    std::swap(last_saved_, other.last_saved_);
    std::swap(saved_, other.saved_);
    std::swap(folder_, other.folder_);
    std::swap(durable_, other.durable_);
    std::swap(current_, other.current_);
    return *this;
}

HiddenStates::~HiddenStates()
{
    for (const File& file : files_) {
        if (file.mapping)
            ::munmap(file.mapping, bytes());
        if (file.descriptor >= 0)
            ::close(file.descriptor);
    }
}

float* HiddenStates::base(int generation)
{
    return in_file() ? files_[static_cast<std::size_t>(generation)].mapping : memory_.data();
}

Eigen::Map<Matrix> HiddenStates::rows(Index first, Index count)
{
    return {base(current_) + first * width_, count, width_};
}

Eigen::Map<Matrix> HiddenStates::next_rows(Index first, Index count)
{
    return {base(durable_ ? 1 - current_ : current_) + first * width_, count, width_};
}

Status HiddenStates::write_generation(int generation)
{
    const int descriptor = files_[static_cast<std::size_t>(generation)].descriptor;
    const auto* content = reinterpret_cast<const std::byte*>(memory_.data());
    if (in_file() || transfer_all(::pwrite, descriptor, content, bytes())) {
        if (::fdatasync(descriptor) == 0 || errno == EINVAL)
            return {};
    }
    return errno_error("write the hidden states", generation_file(folder_, generation).string());
}

Status HiddenStates::read_generation(int generation)
{
    const int descriptor = files_[static_cast<std::size_t>(generation)].descriptor;
    if (transfer_all(::pread, descriptor, reinterpret_cast<std::byte*>(memory_.data()), bytes()))
        return {};
    return errno_error("read the hidden states", generation_file(folder_, generation).string());
}

void HiddenStates::stay_on_device(Backend& backend, std::chrono::milliseconds save_interval)
{
    if (backend.host_matrix(backend.allocate(1, 1)) != nullptr)
        return;
    device_ = &backend;
    save_interval_ = save_interval;
    last_saved_ = std::chrono::steady_clock::now();
}

Buffer HiddenStates::batch(Index first, Index count, Backend& backend)
{
    const auto found = resident_.find(first);
    return found != resident_.end() ? found->second : backend.upload(rows(first, count));
}

void HiddenStates::set_batch(Index first, const Buffer& hidden, Backend& backend)
{
    if (device_ != nullptr) {
        resident_[first] = hidden;
        return;
    }
    next_rows(first, hidden.rows()) = backend.download(hidden);
    release(first, hidden.rows());
}

Eigen::RowVectorXf HiddenStates::result_row(Index token)
{
    if (resident_.empty())
        return next_rows(token, 1).row(0);
    const auto& [first, hidden] = *std::prev(resident_.upper_bound(token));
    return device_->download(device_->rows_of(hidden, token - first, 1)).row(0);
}

void HiddenStates::bring_back()
{
    for (const auto& [first, hidden] : resident_) {
        next_rows(first, hidden.rows()) = device_->download(hidden);
        release(first, hidden.rows());
    }
}

Status HiddenStates::finish_block()
{
    saved_ = false;
    if (!durable_)
        return {};
    if (device_ != nullptr) {
        const auto now = std::chrono::steady_clock::now();
        if (now - last_saved_ < save_interval_)
            return {};
        last_saved_ = now;
        bring_back();
    }
    if (auto written = write_generation(1 - current_); !written)
        return written;
    current_ = 1 - current_;
    saved_ = true;
    return {};
}

void HiddenStates::release(Index first, Index count)
{
    // Only whole pages; the content stays in the file, the process no longer counts it as its own.
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const auto row_bytes = static_cast<std::size_t>(width_) * sizeof(float);
    const std::size_t begin = static_cast<std::size_t>(first) * row_bytes / page * page;
    const std::size_t end =
        std::min<std::size_t>(static_cast<std::size_t>(first + count) * row_bytes, bytes());
    for (const File& file : files_) {
        if (file.mapping)
            ::madvise(reinterpret_cast<std::byte*>(file.mapping) + begin, end - begin, MADV_DONTNEED);
    }
}

} // namespace rankscope
