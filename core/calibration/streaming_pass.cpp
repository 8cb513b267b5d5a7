// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/streaming_pass.h"

#include "core/base/byte_size.h"
#include "core/base/thread_pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <map>
#include <utility>

namespace rankscope {
namespace {

/// Enough rows for full speed of the products, few enough that a batch of a small model stays in the cache.
constexpr Index k_batch_tokens = 1024;

std::uint64_t float_bytes(Index rows, Index cols)
{
    return static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(cols) * sizeof(float);
}

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

} // namespace

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
    if (tokens == 0 || width == 0)
        return states;
    auto descriptor = open_unnamed_file(folder);
    if (!descriptor)
        return descriptor.error();
    const std::uint64_t bytes = float_bytes(tokens, width);
    // The space is reserved now: a full disk must be an error here, not a SIGBUS at some later write.
    errno = ::posix_fallocate(*descriptor, 0, static_cast<off_t>(bytes));
    void* mapping =
        errno == 0 ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *descriptor, 0) : MAP_FAILED;
    if (mapping == MAP_FAILED) {
        Error error =
            errno_error("reserve " + format_byte_size(bytes) + " for a scratch file", folder.string());
        ::close(*descriptor);
        return error;
    }
    ::close(*descriptor);
    states.mapping_ = static_cast<float*>(mapping);
    states.mapping_bytes_ = bytes;
    return states;
}

HiddenStates::HiddenStates(HiddenStates&& other) noexcept
    : tokens_(other.tokens_), width_(other.width_), memory_(std::move(other.memory_)),
      mapping_(std::exchange(other.mapping_, nullptr)), mapping_bytes_(std::exchange(other.mapping_bytes_, 0))
{}

HiddenStates& HiddenStates::operator=(HiddenStates&& other) noexcept
{
    std::swap(tokens_, other.tokens_);
    std::swap(width_, other.width_);
    std::swap(memory_, other.memory_);
    std::swap(mapping_, other.mapping_);
    std::swap(mapping_bytes_, other.mapping_bytes_);
    return *this;
}

HiddenStates::~HiddenStates()
{
    if (mapping_)
        ::munmap(mapping_, mapping_bytes_);
}

Eigen::Map<Matrix> HiddenStates::rows(Index first, Index count)
{
    float* base = mapping_ ? mapping_ : memory_.data();
    return {base + first * width_, count, width_};
}

void HiddenStates::release(Index first, Index count)
{
    if (!mapping_)
        return;
    // Only whole pages; the content stays in the file, the process no longer counts it as its own.
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const auto row_bytes = static_cast<std::size_t>(width_) * sizeof(float);
    const std::size_t begin = static_cast<std::size_t>(first) * row_bytes / page * page;
    const std::size_t end = std::min(static_cast<std::size_t>(first + count) * row_bytes, mapping_bytes_);
    ::madvise(reinterpret_cast<std::byte*>(mapping_) + begin, end - begin, MADV_DONTNEED);
}

PassMemory pass_memory(const Model& model, Index windows, Index length)
{
    const ModelConfig& config = model.config();
    std::map<int, std::uint64_t> blocks;
    std::uint64_t largest = 0;
    Index widest = 0; // of the MLPs and experts
    for (const LinearLayer& layer : model.linears()) {
        if (layer.role == LinearRole::Down)
            widest = std::max(widest, layer.in);
        blocks[layer.block] += float_bytes(layer.out, layer.in);
        largest = std::max(largest, float_bytes(layer.out, layer.in));
    }
    PassMemory memory;
    for (const auto& [block, bytes] : blocks)
        memory.block_weights = std::max(memory.block_weights, bytes);
    memory.block_weights += largest;
    const Index tokens = std::min(windows, windows_per_batch(length)) * length;
    const Index attention = config.heads * config.head_dim;
    // Hidden state, its norm, q, k, v, attention's result, two of the MLP's width and one on its way to the
    // host.
    memory.activations = float_bytes(tokens, 4 * config.hidden + 4 * attention + 3 * widest)
                         + float_bytes(length, length) * static_cast<std::uint64_t>(thread_count());
    memory.hidden = float_bytes(windows * length, config.hidden);
    return memory;
}

Result<HiddenStates> make_hidden_states(Index tokens, Index width, std::uint64_t fixed_bytes,
                                        std::uint64_t budget_bytes, const std::filesystem::path& folder)
{
    if (budget_bytes == 0)
        return HiddenStates::in_memory(tokens, width);
    if (fixed_bytes > budget_bytes)
        return Error{ErrorKind::NoSpace,
                     "this needs at least " + format_byte_size(fixed_bytes)
                         + " of memory for one block and one batch, and the budget is "
                         + format_byte_size(budget_bytes),
                     {},
                     "Raise --memory or choose a smaller --length"};
    if (float_bytes(tokens, width) <= budget_bytes - fixed_bytes)
        return HiddenStates::in_memory(tokens, width);
    return HiddenStates::in_scratch_file(tokens, width, folder);
}

Index windows_per_batch(Index length)
{
    return std::max<Index>(1, k_batch_tokens / std::max<Index>(1, length));
}

namespace {

/// The batches of one pass and what they report.
class Pass {
public:
    Pass(const Model& model, const TokenWindows& windows, HiddenStates& states, Backend& backend,
         Monitor& monitor)
        : model_(model), windows_(windows), states_(states), backend_(backend), monitor_(monitor),
          step_(windows_per_batch(windows.length))
    {}

    Status embed_all()
    {
        return each_batch("embedding", [&](Index first, Index count) -> Status {
            auto embedded = embed(model_, windows_.range(first, count), windows_.length, backend_);
            if (!embedded)
                return embedded.error();
            states_.rows(first * windows_.length, count * windows_.length) = backend_.download(*embedded);
            return {};
        });
    }

    Status run_block(int block, const WeightSource& weights, const PassEvents& events)
    {
        auto loaded = TransformerBlock::load(model_, weights, block, backend_);
        if (!loaded)
            return loaded.error();
        const std::string what =
            "block " + std::to_string(block + 1) + " of " + std::to_string(model_.config().blocks);
        return each_batch(what, [&](Index first, Index count) -> Status {
            Status seen;
            const InputObserver observer = [&](const std::string& group, const Buffer& x,
                                               std::span<const Index> rows) {
                monitor_.throw_if_cancelled();
                if (events.input && seen)
                    seen = events.input(block, first, group, x, rows);
            };
            auto tokens = states_.rows(first * windows_.length, count * windows_.length);
            Buffer hidden = backend_.upload(tokens);
            loaded->forward(hidden, windows_.length, backend_, observer);
            tokens = backend_.download(hidden);
            return seen;
        });
    }

private:
    template <class Body>
    Status each_batch(const std::string& what, const Body& body)
    {
        const Index batches = (windows_.count() + step_ - 1) / step_;
        const Index total = batches * (model_.config().blocks + 1);
        for (Index first = 0; first < windows_.count(); first += step_) {
            monitor_.throw_if_cancelled();
            monitor_.report(static_cast<std::uint64_t>(done_++), static_cast<std::uint64_t>(total), what);
            const Index count = std::min(step_, windows_.count() - first);
            if (auto status = body(first, count); !status)
                return status;
            states_.release(first * windows_.length, count * windows_.length);
        }
        return {};
    }

    const Model& model_;
    const TokenWindows& windows_;
    HiddenStates& states_;
    Backend& backend_;
    Monitor& monitor_;
    Index step_;
    Index done_ = 0;
};

} // namespace

Status stream_blocks(const Model& model, const WeightSource& weights, const TokenWindows& windows,
                     HiddenStates& states, const PassEvents& events, Backend& backend, Monitor& monitor)
{
    Pass pass(model, windows, states, backend, monitor);
    if (auto status = pass.embed_all(); !status)
        return status;
    for (int block = 0; block < static_cast<int>(model.config().blocks); ++block) {
        monitor.throw_if_cancelled();
        if (events.block_begins) {
            if (auto status = events.block_begins(block); !status)
                return status;
        }
        if (auto status = pass.run_block(block, weights, events); !status)
            return status;
        if (events.block_ends) {
            if (auto status = events.block_ends(block); !status)
                return status;
        }
    }
    return {};
}

} // namespace rankscope
