// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/byte_size.h"
#include "core/calibration/calibration_store.h"
#include "core/calibration/detail/calibration_format.h"
#include "core/calibration/quantized_activations.h"
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
std::uint64_t moments_bytes(const std::vector<GroupWidths>& blocks, std::uint64_t matrices)
{
    std::uint64_t most = 0;
    for (const GroupWidths& groups : blocks) {
        std::uint64_t sum = 0;
        std::uint64_t largest = 0;
        for (const auto& [group, width] : groups) {
            const auto bytes =
                static_cast<std::uint64_t>(width) * static_cast<std::uint64_t>(width) * sizeof(double);
            sum += matrices * bytes;
            largest = std::max(largest, bytes);
        }
        most = std::max(most, sum + 2 * largest);
    }
    return most;
}

std::uint64_t stored_bytes(const std::vector<GroupWidths>& blocks, std::uint64_t matrices)
{
    constexpr std::uint64_t k_fixed = 64 * 1024; // header, histogram, counts
    std::uint64_t bytes = 0;
    for (const GroupWidths& groups : blocks) {
        for (const auto& [group, width] : groups) {
            const auto n = static_cast<std::uint64_t>(width);
            bytes += n * (matrices * n + 2 + k_statistics_rows) * sizeof(double) + k_fixed;
        }
    }
    return bytes;
}

/// Moments and statistics of one block's inputs as they come.
class BlockMoments {
public:
    BlockMoments(const GroupWidths& widths, const ActivationQuantization& activations, Backend& backend)
        : backend_(backend), activations_(activations)
    {
        for (const auto& [name, width] : widths)
            groups_[name] = {CovarianceSums(width, activations.active(), backend),
                             ActivationStatistics(width)};
    }

    /// `rows` names x's tokens among those of the batch; empty: all of them.
    Status add(int block, Index first_window, Index length, const std::string& name, const Buffer& x,
               std::span<const Index> rows)
    {
        const auto found = groups_.find(name);
        if (found == groups_.end())
            return internal_error("the forward pass names an input group that the model does not list", name);
        const Matrix host = backend_.download(x);
        if (!host.allFinite())
            return not_finite(block, first_window, length, name, first_not_finite(host, rows));
        found->second.sums.add(
            x, activations_.active() ? quantized_activations(x, activations_, backend_) : Buffer{}, backend_);
        found->second.statistics.add(host);
        return {};
    }

    Status write(const fs::path& file) const
    {
        std::vector<TensorSource> sources;
        for (const auto& [name, group] : groups_) {
            const ActivationStatistics& statistics = group.statistics;
            sources.push_back(moment_source(name + k_hessian, group.sums.xx(), statistics.tokens()));
            if (group.sums.has_second()) {
                sources.push_back(moment_source(name + k_sigma_xy, group.sums.xy(), statistics.tokens()));
                sources.push_back(moment_source(name + k_sigma_yy, group.sums.yy(), statistics.tokens()));
            }
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
        CovarianceSums sums;
        ActivationStatistics statistics;
    };

    /// Leaves the device only when its turn to be written comes.
    TensorSource moment_source(std::string name, const Buffer& sum, std::uint64_t tokens) const
    {
        // An expert that no token reached has 0; reading its moments says so.
        const auto divisor = static_cast<double>(std::max<std::uint64_t>(1, tokens));
        return {std::move(name),
                DType::F64,
                {sum.rows(), sum.cols()},
                [sum, divisor, &backend = backend_]() -> Result<std::vector<std::byte>> {
                    MatrixD moment = backend.download_double(sum);
                    moment /= divisor;
                    return to_bytes(moment.data(), static_cast<std::size_t>(moment.size()));
                }};
    }

    /// Number in the batch of the first token with a value that is not finite.
    static Index first_not_finite(const Matrix& x, std::span<const Index> rows)
    {
        Index row = 0;
        while (row + 1 < x.rows() && x.row(row).allFinite())
            ++row;
        return rows.empty() ? row : rows[static_cast<std::size_t>(row)];
    }

    static Error not_finite(int block, Index first_window, Index length, const std::string& group, Index row)
    {
        return bad_input(
            "an activation is not finite in block " + std::to_string(block) + ", input of " + group
                + ", window " + std::to_string(first_window + row / length) + ", token "
                + std::to_string(row % length),
            {}, "The model overflows on this text: check its weights, or calibrate with another text");
    }

    Backend& backend_;
    ActivationQuantization activations_;
    std::map<std::string, Group> groups_;
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
    if (source.activations.active()) {
        Json activations;
        activations.set("bits", source.activations.bits);
        activations.set("clip", source.activations.clip);
        json.set("activations", std::move(activations));
    }
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
    if (options.activations.bits != k_unquantized_bits) {
        if (auto fine = check(options.activations); !fine)
            return fine;
    }
    monitor.report(0, 0, "reading the text");
    auto tokens = tokenize_file(*model, text);
    if (!tokens)
        return tokens.error();
    monitor.throw_if_cancelled();
    auto windows = calibration_windows(*tokens, *model, options, monitor);
    if (!windows)
        return windows.error();
    const auto blocks = groups_by_block(*model);
    const std::uint64_t matrices = options.activations.active() ? 3 : 1; // of each input
    if (auto enough = require_free_disk(out.parent_path(), stored_bytes(blocks, matrices)); !enough)
        return enough;
    if (auto ours = options.replace ? require_replaceable(out, k_index_file) : Status{}; !ours)
        return ours;
    auto folder = AtomicFolder::create(out, options.replace);
    if (!folder)
        return folder.error();

    const PassMemory memory = pass_memory(*model, windows->count(), windows->length);
    const std::uint64_t fixed = memory.block_weights + memory.activations + moments_bytes(blocks, matrices);
    auto states = make_hidden_states(windows->count() * windows->length, model->config().hidden, fixed,
                                     options.memory_budget_bytes, folder->part());
    if (!states)
        return states.error();

    std::unique_ptr<BlockMoments> moments;
    PassEvents events;
    events.block_begins = [&](int block) -> Status {
        moments = std::make_unique<BlockMoments>(blocks[static_cast<std::size_t>(block)], options.activations,
                                                 backend);
        return {};
    };
    events.input = [&](int block, Index first_window, const std::string& group, const Buffer& x,
                       std::span<const Index> rows) {
        return moments->add(block, first_window, windows->length, group, x, rows);
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
                                   windows->length,
                                   options.activations};
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
