// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/byte_size.h"
#include "core/calibration/calibration_store.h"
#include "core/calibration/detail/calibration_format.h"
#include "core/calibration/streaming_pass.h"
#include "core/calibration/token_windows.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/compute/job_border.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace rankscope {
namespace {

namespace fs = std::filesystem;
using namespace calibration_format;

template <class T>
std::vector<std::byte> to_bytes(const T* data, std::size_t count)
{
    std::vector<std::byte> bytes(count * sizeof(T));
    if (!bytes.empty())
        std::memcpy(bytes.data(), data, bytes.size());
    return bytes;
}

TensorSource vector_source(std::string name, const VectorD& values)
{
    return tensor_source(std::move(name), DType::F64, {values.size()},
                         to_bytes(values.data(), static_cast<std::size_t>(values.size())));
}

TensorSource counts_source(std::string name, const std::vector<std::int64_t>& values)
{
    return tensor_source(std::move(name), DType::I64, {static_cast<std::int64_t>(values.size())},
                         to_bytes(values.data(), values.size()));
}

/// Widths of the input groups of each block, by name.
using GroupWidths = std::map<std::string, Index>;

std::vector<GroupWidths> groups_by_block(const Model& model)
{
    std::vector<GroupWidths> blocks(static_cast<std::size_t>(model.config().blocks));
    for (const LinearLayer& layer : model.linears())
        blocks[static_cast<std::size_t>(layer.block)][layer.input_group] = layer.in;
    return blocks;
}

/// Second moments of a block: the accumulators, and the largest once more as matrix and bytes while it is
/// written.
std::uint64_t moments_bytes(const std::vector<GroupWidths>& blocks)
{
    std::uint64_t most = 0;
    for (const GroupWidths& groups : blocks) {
        std::uint64_t sum = 0;
        std::uint64_t largest = 0;
        for (const auto& [group, width] : groups) {
            const auto bytes =
                static_cast<std::uint64_t>(width) * static_cast<std::uint64_t>(width) * sizeof(double);
            sum += bytes;
            largest = std::max(largest, bytes);
        }
        most = std::max(most, sum + 2 * largest);
    }
    return most;
}

std::uint64_t stored_bytes(const std::vector<GroupWidths>& blocks)
{
    constexpr std::uint64_t k_fixed = 64 * 1024; // header, histogram, counts
    std::uint64_t bytes = 0;
    for (const GroupWidths& groups : blocks) {
        for (const auto& [group, width] : groups) {
            const auto n = static_cast<std::uint64_t>(width);
            bytes += n * (n + 2 + k_statistics_rows) * sizeof(double) + k_fixed;
        }
    }
    return bytes;
}

/// Moments and statistics of one block's inputs as they come.
class BlockMoments {
public:
    BlockMoments(const GroupWidths& widths, Backend& backend) : backend_(backend)
    {
        for (const auto& [name, width] : widths)
            groups_[name] = {backend.allocate(width, width, Precision::Float64), ActivationStatistics(width)};
    }

    Status add(int block, Index first_window, Index length, const std::string& name, const Buffer& x)
    {
        const auto found = groups_.find(name);
        if (found == groups_.end())
            return internal_error("the forward pass names an input group that the model does not list", name);
        const Matrix host = backend_.download(x);
        if (first_window != first_window_) {
            first_window_ = first_window;
            batch_tokens_ = host.rows(); // attention's input comes first: every token of the batch
        }
        if (!host.allFinite())
            return host.rows() == batch_tokens_ ? not_finite(block, first_window, length, name, host)
                                                : not_finite(block, name);
        backend_.gram(1.0, x, Transpose::Yes, 1.0, found->second.gram);
        found->second.statistics.add(host);
        return {};
    }

    Status write(const fs::path& file) const
    {
        std::vector<TensorSource> sources;
        for (const auto& [name, group] : groups_) {
            const ActivationStatistics& statistics = group.statistics;
            sources.push_back(hessian_source(name + k_hessian, group));
            sources.push_back(vector_source(name + k_mean_abs, statistics.mean_abs()));
            sources.push_back(vector_source(name + k_max_abs, statistics.max_abs()));
            const MatrixD rows = statistics.to_rows();
            sources.push_back(tensor_source(name + k_statistics, Eigen::Ref<const MatrixD>(rows)));
            const auto& histogram = statistics.histogram();
            sources.push_back(counts_source(name + k_histogram, {histogram.begin(), histogram.end()}));
            sources.push_back(
                counts_source(name + k_counts, {static_cast<std::int64_t>(statistics.tokens()),
                                                static_cast<std::int64_t>(statistics.zeros())}));
        }
        return write_safetensors(file, std::move(sources), {{"format", k_format}}, false);
    }

private:
    struct Group {
        Buffer gram; ///< Σ x·xᵀ, float64
        ActivationStatistics statistics;
    };

    /// Leaves the device only when its turn to be written comes.
    TensorSource hessian_source(std::string name, const Group& group) const
    {
        const Buffer gram = group.gram;
        // An expert that no token reached has 0; reading its moments says so.
        const auto tokens = static_cast<double>(std::max<std::uint64_t>(1, group.statistics.tokens()));
        return {std::move(name),
                DType::F64,
                {gram.rows(), gram.cols()},
                [gram, tokens, &backend = backend_]() -> Result<std::vector<std::byte>> {
                    MatrixD hessian = backend.download_double(gram);
                    hessian /= tokens;
                    return to_bytes(hessian.data(), static_cast<std::size_t>(hessian.size()));
                }};
    }

    static Error not_finite(int block, Index first_window, Index length, const std::string& group,
                            const Matrix& x)
    {
        Index row = 0;
        while (row + 1 < x.rows() && x.row(row).allFinite())
            ++row;
        return bad_input(
            "an activation is not finite in block " + std::to_string(block) + ", input of " + group
                + ", window " + std::to_string(first_window + row / length) + ", token "
                + std::to_string(row % length),
            {}, "The model overflows on this text: check its weights, or calibrate with another text");
    }

    /// Of an expert's input, whose rows are not those of the windows.
    static Error not_finite(int block, const std::string& group)
    {
        return bad_input(
            "an activation is not finite in block " + std::to_string(block) + ", input of " + group, {},
            "The model overflows on this text: check its weights, or calibrate with another text");
    }

    Backend& backend_;
    std::map<std::string, Group> groups_;
    Index first_window_ = -1;
    Index batch_tokens_ = 0;
};

Json index_of(const CalibrationSource& source, const std::vector<GroupWidths>& blocks)
{
    Json json;
    json.set("format", k_format);
    json.set("version", k_version);
    json.set("checkpoint_hash", source.checkpoint_hash);
    json.set("text_file", source.text_file);
    json.set("text_hash", source.text_hash);
    json.set("tokens", source.tokens);
    json.set("samples", std::int64_t{source.samples});
    json.set("length", std::int64_t{source.length});
    Json list = Json::Array{};
    for (std::size_t block = 0; block < blocks.size(); ++block) {
        Json names = Json::Array{};
        for (const auto& [group, width] : blocks[block])
            names.push_back(group);
        Json entry;
        entry.set("file", block_file(static_cast<int>(block)));
        entry.set("groups", std::move(names));
        list.push_back(std::move(entry));
    }
    json.set("blocks", std::move(list));
    return json;
}

Result<TokenWindows> calibration_windows(const TokenizedText& text, const Model& model,
                                         const CalibrationOptions& options, Monitor& monitor)
{
    if (options.samples < 1)
        return usage_error("at least one sample is needed, " + std::to_string(options.samples)
                               + " were asked for",
                           "--samples");
    auto length = window_length(model, options.length);
    if (!length)
        return length.error();
    const auto stride = *length - static_cast<Index>(text.prefix.size());
    auto windows = prefixed_windows(text, *length, stride, options.samples);
    if (windows && windows->count() < options.samples)
        monitor.warn("The text holds " + std::to_string(windows->count()) + " samples of "
                     + std::to_string(*length) + " tokens; " + std::to_string(options.samples)
                     + " were asked for.");
    return windows;
}

Status calibrate_files(const std::shared_ptr<const Model>& model, const fs::path& text, const fs::path& out,
                       const CalibrationOptions& options, Backend& backend, Monitor& monitor)
{
    monitor.report(0, 0, "reading the text");
    auto tokens = tokenize_file(*model, text);
    if (!tokens)
        return tokens.error();
    monitor.throw_if_cancelled();
    auto windows = calibration_windows(*tokens, *model, options, monitor);
    if (!windows)
        return windows.error();
    const auto blocks = groups_by_block(*model);
    if (auto enough = require_free_disk(out.parent_path(), stored_bytes(blocks)); !enough)
        return enough;
    if (auto ours = options.replace ? require_replaceable(out, k_index_file) : Status{}; !ours)
        return ours;
    auto folder = AtomicFolder::create(out, options.replace);
    if (!folder)
        return folder.error();

    const PassMemory memory = pass_memory(*model, windows->count(), windows->length);
    const std::uint64_t fixed = memory.block_weights + memory.activations + moments_bytes(blocks);
    auto states = make_hidden_states(windows->count() * windows->length, model->config().hidden, fixed,
                                     options.memory_budget_bytes, folder->part());
    if (!states)
        return states.error();

    std::unique_ptr<BlockMoments> moments;
    PassEvents events;
    events.block_begins = [&](int block) -> Status {
        moments = std::make_unique<BlockMoments>(blocks[static_cast<std::size_t>(block)], backend);
        return {};
    };
    events.input = [&](int block, Index first_window, const std::string& group, const Buffer& x) {
        return moments->add(block, first_window, windows->length, group, x);
    };
    events.block_ends = [&](int block) { return moments->write(folder->part() / block_file(block)); };
    const auto weights = checkpoint_weights(model);
    if (auto done = stream_blocks(*model, *weights, *windows, *states, events, backend, monitor); !done)
        return done;

    const CalibrationSource source{model->checkpoint().header_hash(),
                                   tokens->file,
                                   tokens->hash,
                                   static_cast<std::uint64_t>(windows->count() * windows->length),
                                   windows->count(),
                                   windows->length};
    if (auto written =
            write_text_file(folder->part() / k_index_file, index_of(source, blocks).dump(2) + "\n", false);
        !written)
        return written;
    return folder->commit();
}

} // namespace

Status calibrate(std::shared_ptr<const Model> model, const fs::path& text, const fs::path& out,
                 const CalibrationOptions& options, Backend& backend, Monitor& monitor)
{
    return at_job_border("nothing was written",
                         [&] { return calibrate_files(model, text, out, options, backend, monitor); });
}

} // namespace rankscope
