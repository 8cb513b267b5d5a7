// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/byte_size.h"
#include "core/calibration/activation_statistics.h"
#include "core/calibration/calibration_store.h"
#include "core/calibration/detail/block_moments.h"
#include "core/calibration/detail/calibration_format.h"
#include "core/calibration/detail/pass_folder.h"
#include "core/calibration/detail/tensor_hashes.h"
#include "core/calibration/streaming_pass.h"
#include "core/calibration/token_windows.h"
#include "core/compute/job_border.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

namespace fs = std::filesystem;
using namespace calibration_format;

std::vector<GroupWidths> groups_by_block(const Model& model)
{
    std::vector<GroupWidths> blocks(static_cast<std::size_t>(model.config().blocks));
    for (const LinearLayer& layer : model.linears())
        blocks[static_cast<std::size_t>(layer.block)][layer.input_group] = layer.in;
    return blocks;
}

Json number_list(const std::vector<double>& values)
{
    Json list = Json::Array{};
    for (const double value : values)
        list.push_back(value);
    return list;
}

Json stamps_json(const std::vector<FileStamp>& stamps)
{
    Json list = Json::Array{};
    for (const FileStamp& stamp : stamps) {
        Json entry;
        entry.set("bytes", stamp.size_bytes);
        entry.set("changed_ns", stamp.changed_ns);
        list.push_back(std::move(entry));
    }
    return list;
}

void add_hashes(const TensorHashes& hashes, Json& tensors)
{
    for (const auto& [name, hash] : hashes)
        tensors.set(name, hash);
}

Status check(const CalibrationOptions& options)
{
    if (options.samples < 1)
        return usage_error("at least one sample is needed, " + std::to_string(options.samples)
                               + " were asked for",
                           "--samples");
    for (const double threshold : options.thresholds) {
        if (!(threshold > 0.0 && std::isfinite(threshold)))
            return usage_error("a threshold of activations must be a positive number", "--threshold");
    }
    return options.activations.bits == k_unquantized_bits ? Status{} : check(options.activations);
}

Result<TokenWindows> calibration_windows(const TokenizedText& text, const Model& model,
                                         const CalibrationOptions& options, Monitor& monitor)
{
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

/// One pass of a text through a model, from its windows to the finished folder.
class Calibration {
public:
    Calibration(std::shared_ptr<const Model> model, TokenizedText text, TokenWindows windows,
                const CalibrationOptions& options, Backend& backend, Monitor& monitor)
        : model_(std::move(model)), windows_(std::move(windows)), options_(options), backend_(backend),
          monitor_(monitor), blocks_(groups_by_block(*model_)), stamps_(file_stamps(model_->checkpoint()))
    {
        source_ = {model_->checkpoint().header_hash(),
                   std::move(text.file),
                   std::move(text.hash),
                   static_cast<std::uint64_t>(windows_.count() * windows_.length),
                   windows_.count(),
                   windows_.length,
                   options.activations};
        plan_.length = windows_.length;
        plan_.activations = options.activations;
        plan_.thresholds = {ActivationStatistics::k_outlier_threshold};
        plan_.thresholds.insert(plan_.thresholds.end(), options.thresholds.begin(), options.thresholds.end());
        plan_.sampled_tokens =
            sample_tokens(windows_.count() * windows_.length, k_sampled_tokens, options.seed);
    }

    Status run(const fs::path& out)
    {
        const auto in_memory = hidden_fit();
        if (!in_memory)
            return in_memory.error();
        if (auto enough = require_free_disk(out.parent_path(), disk_bytes()); !enough)
            return enough;
        auto folder = PassFolder::open(out, settings(), {options_.resume, options_.replace});
        if (!folder)
            return folder.error();
        const auto done = run_in(*folder, !*in_memory);
        // What a repetition would run into again is no use to go on from.
        if (!done && done.error().kind == ErrorKind::BadInput)
            folder->discard();
        return done;
    }

private:
    Result<bool> hidden_fit() const
    {
        const PassMemory memory = pass_memory(*model_, windows_.count(), windows_.length);
        std::uint64_t moments = 0;
        for (const GroupWidths& groups : blocks_)
            moments = std::max(moments, BlockMoments::memory_bytes(groups, model_->config().hidden, plan_));
        const std::uint64_t fixed = resident_bytes() + memory.block_weights + memory.activations + moments;
        return hidden_states_fit(memory.hidden, fixed, options_.memory_budget_bytes);
    }

    std::uint64_t disk_bytes() const
    {
        std::uint64_t bytes = 2 * pass_memory(*model_, windows_.count(), windows_.length).hidden;
        for (const GroupWidths& groups : blocks_)
            bytes += BlockMoments::file_bytes(groups, model_->config().hidden, plan_);
        return bytes;
    }

    /// What the result depends on.
    Json settings() const
    {
        Json json;
        json.set("version", k_version);
        json.set("checkpoint_hash", source_.checkpoint_hash);
        json.set("files", stamps_json(stamps_));
        json.set("text_hash", source_.text_hash);
        json.set("samples", std::int64_t{source_.samples});
        json.set("length", std::int64_t{source_.length});
        json.set("activation_bits", source_.activations.bits);
        json.set("activation_clip", source_.activations.clip);
        json.set("thresholds", number_list(plan_.thresholds));
        json.set("seed", options_.seed);
        json.set("backend", backend_.id());
        return json;
    }

    Status run_in(PassFolder& folder, bool mapped)
    {
        const int blocks = static_cast<int>(blocks_.size());
        PassFolder::Progress progress = folder.progress();
        if (progress.finished_blocks < blocks) {
            if (auto streamed = stream(folder, progress, mapped); !streamed)
                return streamed;
        }
        const Json index = index_of(progress.tensors);
        if (auto written = write_text_file(folder.path() / k_index_file, index.dump(2) + "\n", true);
            !written)
            return written;
        return folder.commit();
    }

    Status stream(PassFolder& folder, PassFolder::Progress& progress, bool mapped)
    {
        auto states = HiddenStates::durable(windows_.count() * windows_.length, model_->config().hidden,
                                            {folder.path(), mapped, progress.generation});
        if (!states)
            return states.error();
        if (!mapped) // they fit --memory
            states->stay_on_device(backend_);
        std::unique_ptr<BlockMoments> moments;
        PassEvents events;
        events.block_begins = [&](int block) -> Status {
            moments.reset();
            moments = std::make_unique<BlockMoments>(block, blocks_[static_cast<std::size_t>(block)],
                                                     model_->config().hidden, plan_, backend_);
            return learn_tensors(block, progress.tensors);
        };
        events.input = [&](int, Index first_window, const std::string& group, const Buffer& x,
                           std::span<const Index> rows) {
            return moments->add(first_window, group, x, rows);
        };
        events.output = [&](int, Index first_window, const Buffer& hidden) {
            return moments->add_output(first_window, hidden);
        };
        events.block_ends = [&](int block) {
            return moments->write(folder.path() / block_file(block),
                                  [&](Index token) { return states->result_row(token); });
        };
        events.block_finished = [&](int block) -> Status {
            if (!states->saved() && block + 1 < static_cast<int>(blocks_.size()))
                return {}; // still on the device: a resumed pass does this block again
            progress.finished_blocks = block + 1;
            progress.generation = states->generation();
            return folder.record(progress);
        };
        const auto weights = checkpoint_weights(model_);
        return stream_blocks(*model_, *weights, windows_, *states, events, backend_, monitor_,
                             progress.finished_blocks);
    }

    /// Hashes a block's tensors, and before the first block those of the embedding.
    Status learn_tensors(int block, Json& tensors)
    {
        auto names = block_tensors(*model_, block);
        if (block == 0) {
            const auto further = embedding_tensors(*model_);
            names.insert(names.end(), further.begin(), further.end());
        }
        const auto hashes = hash_tensors(model_->checkpoint(), names, monitor_);
        if (!hashes)
            return hashes.error();
        add_hashes(*hashes, tensors);
        if (block == 0)
            for (const std::string& name : embedding_tensors(*model_))
                model_->checkpoint().release(name);
        return {};
    }

    Json index_of(const Json& tensors) const
    {
        Json json;
        json.set("format", k_format);
        json.set("version", k_version);
        json.set("checkpoint_hash", source_.checkpoint_hash);
        json.set("files", stamps_json(stamps_));
        json.set("tensors", tensors);
        json.set("text_file", source_.text_file);
        json.set("text_hash", source_.text_hash);
        json.set("tokens", source_.tokens);
        json.set("samples", std::int64_t{source_.samples});
        json.set("length", std::int64_t{source_.length});
        json.set("seed", options_.seed);
        json.set("thresholds", number_list(plan_.thresholds));
        if (source_.activations.active()) {
            Json activations;
            activations.set("bits", source_.activations.bits);
            activations.set("clip", source_.activations.clip);
            json.set("activations", std::move(activations));
        }
        Json list = Json::Array{};
        for (std::size_t block = 0; block < blocks_.size(); ++block) {
            Json names = Json::Array{};
            for (const auto& [group, width] : blocks_[block])
                names.push_back(group);
            Json entry;
            entry.set("file", block_file(static_cast<int>(block)));
            entry.set("groups", std::move(names));
            list.push_back(std::move(entry));
        }
        json.set("blocks", std::move(list));
        return json;
    }

    std::shared_ptr<const Model> model_;
    TokenWindows windows_;
    const CalibrationOptions& options_;
    Backend& backend_;
    Monitor& monitor_;
    std::vector<GroupWidths> blocks_;
    std::vector<FileStamp> stamps_;
    CalibrationSource source_;
    CollectionPlan plan_;
};

Status calibrate_files(const std::shared_ptr<const Model>& model, const fs::path& text, const fs::path& out,
                       const CalibrationOptions& options, Backend& backend, Monitor& monitor)
{
    if (auto fine = check(options); !fine)
        return fine;
    if (auto ours = options.replace ? require_replaceable(out, k_index_file) : Status{}; !ours)
        return ours;
    monitor.report(0, 0, "reading the text");
    auto tokens = tokenize_file(*model, text);
    if (!tokens)
        return tokens.error();
    monitor.throw_if_cancelled();
    auto windows = calibration_windows(*tokens, *model, options, monitor);
    if (!windows)
        return windows.error();
    tokens->tokens = {};
    return Calibration(model, std::move(*tokens), std::move(*windows), options, backend, monitor).run(out);
}

} // namespace

Status calibrate(std::shared_ptr<const Model> model, const fs::path& text, const fs::path& out,
                 const CalibrationOptions& options, Backend& backend, Monitor& monitor)
{
    auto done = at_job_border("finished blocks are saved",
                              [&] { return calibrate_files(model, text, out, options, backend, monitor); });
    if (!done && done.error().kind == ErrorKind::Cancelled)
        return Error{ErrorKind::Cancelled, done.error().message, out.string(), "Go on with --resume"};
    return done;
}

} // namespace rankscope
