// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/detail/block_execution.h"

#include "core/base/byte_size.h"
#include "core/calibration/streaming_pass.h"
#include "core/methods/block_reconstruction.h"
#include "core/methods/learned_method.h"
#include "core/run/block_curves.h"
#include "core/run/detail/layer_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>

namespace rankscope {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int k_simulated_bits = 8;

std::string text_or(const LayerPlan& row, std::string_view name)
{
    const auto found = row.parameters.values().find(name);
    const auto* text =
        found == row.parameters.values().end() ? nullptr : std::get_if<std::string>(&found->second);
    return text ? *text : std::string();
}

LearnedKind kind_of(const LayerPlan& row)
{
    return row.method == "lrq" ? LearnedKind::Lrq : LearnedKind::FlexRound;
}

std::string duration_text(double seconds)
{
    return seconds < 90.0 ? fmt::format("{:.0f} seconds", std::max(1.0, seconds))
                          : fmt::format("{:.3g} minutes", seconds / 60.0);
}

/// "block 3 of 30: learn", with the monitor's own cancel.
class BlockMonitor : public Monitor {
public:
    BlockMonitor(std::string block, Monitor& run) : block_(std::move(block)), run_(run) {}
    void report(std::uint64_t done, std::uint64_t total, std::string_view what) override
    {
        run_.report(done, total, fmt::format("{}: {}", block_, what));
    }
    void warn(std::string_view sentence) override { run_.warn(fmt::format("{}: {}", block_, sentence)); }
    bool cancelled() const override { return run_.cancelled(); }

private:
    std::string block_;
    Monitor& run_;
};

/// One part of a block that is learned, and the row that asks for it.
struct Learned {
    BlockPart part;
    const LayerPlan* row = nullptr;
    LearnedLinear linear;
};

/// A block on its way: definition, dense weights as the stream sees them, and what is learned.
struct BlockWork {
    int number = 0;
    DifferentiableBlock block;
    BlockWeights original;
    BlockWeights compressed;
    std::vector<Learned> learned;
    std::set<std::string> layers; ///< learned and not finished
    ActivationRanges ranges;      ///< static ones, where the block is learned with such
};

class BlockExecution {
public:
    BlockExecution(const Model& model, const Plan& plan, const CalibrationStore* calibration,
                   const fs::path& folder, const RunOptions& options, RunFolder& target, Backend& backend,
                   Monitor& monitor, const RunEvents& events)
        : model_(model), plan_(plan), calibration_(calibration), folder_(folder), options_(options),
          target_(target), backend_(backend), monitor_(monitor), events_(events)
    {}

    Status run();

private:
    Status read_text();
    Status check_size();
    Status embed_all(HiddenStates& states);
    Result<BlockWork> load(int number);
    Result<Matrix> compressed_weight(const LinearLayer& layer, const LayerPlan* row);
    BlockQuantizers quantizers(BlockWork& work, HiddenStates& inputs);
    BlockWeights starting_weights(BlockWork& work);
    void advance(const BlockWork& work, const BlockWeights& weights, const BlockQuantizers& quantizers,
                 HiddenStates& states)
    {
        advance_states(work.block, weights, quantizers, states, windows_.length, windows_.count(), backend_,
                       monitor_);
    }
    Status learn(BlockWork& work, const BlockQuantizers& quantizers, HiddenStates& inputs,
                 HiddenStates& targets);
    Status save(BlockWork& work, const std::string& layer, double seconds);
    void tell(const std::string& layer, LayerState state, const std::string& message = {}) const
    {
        if (events_.layer_changed)
            events_.layer_changed(layer, state, message);
    }

    const Model& model_;
    const Plan& plan_;
    const CalibrationStore* calibration_;
    const fs::path& folder_;
    const RunOptions& options_;
    RunFolder& target_;
    Backend& backend_;
    Monitor& monitor_;
    const RunEvents& events_;
    TokenWindows windows_;
    Index held_out_ = 0;
    int last_block_ = -1; ///< beyond it nothing is learned
};

Status BlockExecution::read_text()
{
    auto text = tokenize_file(model_, options_.text);
    if (!text)
        return text.error();
    auto length = window_length(model_, options_.length);
    if (!length)
        return length.error();
    auto windows =
        prefixed_windows(*text, *length, *length - static_cast<Index>(text->prefix.size()), options_.samples);
    if (!windows)
        return windows.error();
    windows_ = std::move(*windows);
    held_out_ = held_out_sequences(windows_.count());
    if (held_out_ == 0)
        monitor_.warn(
            fmt::format("{} sequences leave none to hold out: whether what is learned generalizes will not "
                        "be seen. Give at least 8.",
                        windows_.count()));
    return {};
}

Status BlockExecution::check_size()
{
    const LayerPlan* first = nullptr;
    std::map<int, ReconstructionSize> sizes;
    for (const LayerPlan& row : plan_.rows) {
        if (!row.include || !learns_from_blocks(row) || target_.finished.contains(row.layer))
            continue;
        first = first ? first : &row;
        const LinearLayer& layer = *model_.find_linear(row.layer);
        last_block_ = std::max(last_block_, layer.block);
        ReconstructionSize& size = sizes[layer.block];
        const bool lrq = kind_of(row) == LearnedKind::Lrq;
        const Index given = lrq ? row.parameters.integer("learned_rank") : 0;
        const Index rank = lrq && given == 0 ? default_learned_rank(layer.out, layer.in) : given;
        UniformGrid grid;
        grid.group = row.parameters.integer("group");
        size.weights += layer.out * layer.in;
        size.factor_numbers += rank * (layer.out + layer.in);
        size.learned_bytes +=
            learned_linear_bytes(kind_of(row), layer.out, layer.in, rank, grid.groups(layer.in));
    }
    if (!first)
        return {};
    const ModelConfig& config = model_.config();
    const ReconstructionOptions how = reconstruction_options(first->parameters, plan_.seed);
    ReconstructionEstimate all;
    for (auto& [block, size] : sizes) {
        size.widest = config.intermediate;
        size.hidden = config.hidden;
        size.attention = config.heads * config.head_dim;
        size.length = windows_.length;
        size.sequences = windows_.count();
        const ReconstructionEstimate one = estimate_reconstruction(size, how, backend_);
        all.seconds += one.seconds;
        all.bytes = std::max(all.bytes, one.bytes);
    }
    if (options_.memory_budget_bytes > 0 && all.bytes > options_.memory_budget_bytes)
        return Error{ErrorKind::NoSpace,
                     fmt::format("learning a block needs about {} of memory, the budget is {}",
                                 format_byte_size(all.bytes), format_byte_size(options_.memory_budget_bytes)),
                     {},
                     "Raise --memory, or lower --samples, --length or batch"};
    monitor_.warn(fmt::format("Learning {} {} takes about {} and {} of memory.", sizes.size(),
                              sizes.size() == 1 ? "block" : "blocks", duration_text(all.seconds),
                              format_byte_size(all.bytes)));
    return {};
}

Status BlockExecution::embed_all(HiddenStates& states)
{
    const Index step = windows_per_batch(windows_.length);
    for (Index first = 0; first < windows_.count(); first += step) {
        monitor_.throw_if_cancelled();
        const Index count = std::min(step, windows_.count() - first);
        auto embedded = embed(model_, windows_.range(first, count), windows_.length, backend_);
        if (!embedded)
            return embedded.error();
        states.rows(first * windows_.length, count * windows_.length) = backend_.download(*embedded);
    }
    return {};
}

/// As the run has it: finished layers as they were written, others as they are in the checkpoint.
Result<Matrix> BlockExecution::compressed_weight(const LinearLayer& layer, const LayerPlan* row)
{
    if (!row || !row->include || !target_.finished.contains(layer.name))
        return model_.weight(layer);
    auto decomposition = read_layer_file(layer_file_path(folder_, layer.name));
    if (!decomposition)
        return decomposition.error();
    return decomposition->reconstruct();
}

Result<BlockWork> BlockExecution::load(int number)
{
    auto block = DifferentiableBlock::load(model_, number, backend_);
    if (!block)
        return block.error();
    BlockWork work{number, std::move(*block), {}, {}, {}, {}, {}};
    for (const BlockPart& part : block_parts(model_, number)) {
        const LayerPlan* row = plan_.find(part.layer->name);
        auto original = model_.weight(*part.layer);
        if (!original)
            return original.error();
        auto compressed = compressed_weight(*part.layer, row);
        if (!compressed)
            return compressed.error();
        const auto rows_of = [&](const Matrix& matrix) {
            const Buffer whole = backend_.upload(matrix);
            return part.rows.empty() ? whole : backend_.gather_rows(whole, part.rows);
        };
        work.original[part.role] = rows_of(*original);
        work.compressed[part.role] = rows_of(*compressed);
        if (!row || !row->include || !learns_from_blocks(*row))
            continue;
        work.learned.push_back(
            {part, row,
             learned_linear(work.original[part.role],
                            fmt::format("{} {}", part.layer->name, short_name(part.role)), row->parameters,
                            kind_of(*row), plan_.seed, backend_, monitor_)});
        if (!target_.finished.contains(part.layer->name))
            work.layers.insert(part.layer->name);
    }
    return work;
}

BlockWeights BlockExecution::starting_weights(BlockWork& work)
{
    BlockWeights weights = work.compressed;
    for (Learned& learned : work.learned)
        weights[learned.part.role] = learned.linear.forward(backend_);
    return weights;
}

/// The block's activation rounding, as its learned rows have it. Static ranges are those of the block before
/// it is learned, on the compressed stream.
BlockQuantizers BlockExecution::quantizers(BlockWork& work, HiddenStates& inputs)
{
    BlockQuantizers result;
    const std::string how = work.learned.empty() ? "none" : text_or(*work.learned.front().row, "simulate");
    if (how == "none" || how.empty())
        return result;
    result.keys_values = per_token_quantizer(k_simulated_bits, backend_);
    result.input = result.keys_values;
    if (how != "a8kv8-static")
        return result;
    work.ranges = activation_ranges(work.block, starting_weights(work), k_simulated_bits, inputs,
                                    windows_.length, windows_.count() - held_out_, backend_, monitor_);
    result.input = static_quantizer(k_simulated_bits, work.ranges, backend_);
    return result;
}

/// The parts of one layer, put together; file first, row second.
Status BlockExecution::save(BlockWork& work, const std::string& layer, double seconds)
{
    const LinearLayer& linear = *model_.find_linear(layer);
    auto weight = model_.weight(linear);
    if (!weight)
        return weight.error();
    QuantizedMatrix whole;
    const LayerPlan* row = nullptr;
    for (Learned& learned : work.learned) {
        if (learned.part.layer->name != layer)
            continue;
        row = learned.row;
        QuantizedMatrix part = learned.linear.quantized(backend_);
        if (learned.part.rows.empty()) {
            whole = std::move(part);
            continue;
        }
        if (whole.empty()) {
            whole.grid = part.grid;
            whole.codes.resize(linear.out, linear.in);
            whole.scales.resize(linear.out, part.scales.cols());
            whole.zeros.resize(linear.out, part.zeros.cols());
        }
        for (std::size_t i = 0; i < learned.part.rows.size(); ++i) {
            const Index to = learned.part.rows[i];
            whole.codes.row(to) = part.codes.row(static_cast<Index>(i));
            whole.scales.row(to) = part.scales.row(static_cast<Index>(i));
            whole.zeros.row(to) = part.zeros.row(static_cast<Index>(i));
        }
    }
    const Decomposition decomposition = decomposition_of(std::move(whole), *weight);
    Moments moments;
    if (calibration_) {
        auto read = calibration_->moments(linear.input_group);
        if (!read)
            return read.error();
        moments = std::move(*read);
    }
    if (auto written = write_layer_file(layer_file_path(folder_, layer), *row, decomposition); !written)
        return written;
    LayerResult result;
    result.layer = layer;
    result.method = row->method;
    result.parameters = row->parameters.to_json();
    result.seconds = seconds;
    result.bits_per_weight = decomposition.bits_per_weight();
    result.quantization_scale = decomposition.quantization_scale;
    result.quality = measure(*weight, decomposition, calibration_ ? &moments : nullptr);
    result.backend = backend_.id();
    if (auto inserted = target_.index.insert(result); !inserted)
        return inserted;
    target_.finished.insert(layer);
    for (const Learned& learned : work.learned) {
        if (learned.part.layer->name == layer) {
            const Buffer dense = backend_.upload(decomposition.reconstruct());
            work.compressed[learned.part.role] =
                learned.part.rows.empty() ? dense : backend_.gather_rows(dense, learned.part.rows);
        }
    }
    tell(layer, LayerState::Done, fmt::format("{:.4g} bits per weight", result.bits_per_weight));
    return {};
}

Status BlockExecution::learn(BlockWork& work, const BlockQuantizers& quantizers, HiddenStates& inputs,
                             HiddenStates& targets)
{
    const auto start = Clock::now();
    BlockProblem problem;
    problem.block = &work.block;
    problem.fixed = work.compressed;
    problem.quantizers = quantizers;
    problem.streams = {&inputs, &targets, windows_.length, held_out_};
    const LayerPlan* row = nullptr;
    for (Learned& learned : work.learned) {
        if (!work.layers.contains(learned.part.layer->name))
            continue;
        problem.learned[learned.part.role] = &learned.linear;
        row = row ? row : learned.row;
        tell(learned.part.layer->name, LayerState::Running);
    }
    BlockMonitor monitor(fmt::format("block {} of {}", work.number + 1, model_.config().blocks), monitor_);
    const ReconstructionReport report = reconstruct_block(
        problem,
        reconstruction_options(row->parameters, plan_.seed + static_cast<std::uint64_t>(work.number)),
        backend_, monitor);
    monitor_.throw_if_cancelled();
    if (auto saved = write_block_curve(folder_, {work.number, report.curve, report.best_step,
                                                 report.learning_rate, report.halvings, work.ranges});
        !saved)
        return saved;
    const double seconds =
        std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(work.layers.size());
    for (const std::string& layer : work.layers) {
        if (auto saved = save(work, layer, seconds); !saved)
            return saved;
    }
    return {};
}

Status BlockExecution::run()
{
    if (auto read = read_text(); !read)
        return read;
    if (auto fits = check_size(); !fits)
        return fits;
    const PassMemory memory = pass_memory(model_, windows_.count(), windows_.length);
    const std::uint64_t fixed = 4 * memory.block_weights + 2 * memory.activations + memory.hidden;
    std::vector<HiddenStates> streams; // the compressed one, the full-precision one
    for (int i = 0; i < 2; ++i) {
        auto states = make_hidden_states(windows_.count() * windows_.length, model_.config().hidden, fixed,
                                         options_.memory_budget_bytes, folder_);
        if (!states)
            return states.error();
        streams.push_back(std::move(*states));
        if (auto embedded = embed_all(streams.back()); !embedded)
            return embedded;
    }
    for (int number = 0; number <= last_block_; ++number) {
        monitor_.throw_if_cancelled();
        if (options_.control && options_.control->paused())
            throw Cancelled();
        auto work = load(number);
        if (!work)
            return work.error();
        advance(*work, work->original, {}, streams[1]);
        const BlockQuantizers rounding = quantizers(*work, streams[0]);
        if (!work->layers.empty()) {
            if (auto learned = learn(*work, rounding, streams[0], streams[1]); !learned)
                return learned;
        }
        advance(*work, work->compressed, rounding, streams[0]);
    }
    return {};
}

} // namespace

namespace {

/// Linears of one block go down one gradient: what belongs to the descent must be the same in their rows.
Status check_together(const LayerPlan& first, const LayerPlan& row)
{
    for (const std::string_view name : {"steps", "learning_rate", "batch", "simulate"}) {
        const ParameterValue& one = first.parameters.values().find(name)->second;
        const ParameterValue& other = row.parameters.values().find(name)->second;
        if (one != other)
            return usage_error(
                fmt::format("layers of one block learn together, but {} is {} here and {} in {}", name,
                            to_string(other), to_string(one), first.layer),
                row.layer, "Give both rows the same value");
    }
    return {};
}

} // namespace

bool learns_from_blocks(const LayerPlan& row) { return text_or(row, "objective") == "block"; }

Status check_block_rows(const Model& model, const Plan& plan, const RunOptions& options)
{
    std::map<int, const LayerPlan*> first;
    for (const LayerPlan& row : plan.rows) {
        if (!row.include || !learns_from_blocks(row))
            continue;
        if (options.text.empty())
            return usage_error("objective=block learns from text, and none was given", row.layer,
                               "Give one with --text, or choose objective=layer");
        if (model.rotation())
            return usage_error(
                "objective=block takes blocks by themselves, but a rotated model turns activations "
                "between their products",
                row.layer, "Choose objective=layer, or compress the model before its rotation");
        const LinearLayer& layer = *model.find_linear(row.layer);
        if (auto agree = check_together(*first.emplace(layer.block, &row).first->second, row); !agree)
            return agree;
        if (!model.architecture().block_names(model.config(), layer.block).router.empty())
            return usage_error(
                "objective=block is for blocks with one MLP; this one routes tokens among experts", row.layer,
                "Choose objective=layer");
    }
    return {};
}

Status run_blocks(const Model& model, const Plan& plan, const CalibrationStore* calibration,
                  const fs::path& folder, const RunOptions& options, RunFolder& target, Backend& backend,
                  Monitor& monitor, const RunEvents& events)
{
    const bool needed = std::any_of(plan.rows.begin(), plan.rows.end(), [&](const LayerPlan& row) {
        return row.include && learns_from_blocks(row) && !target.finished.contains(row.layer);
    });
    if (!needed)
        return {};
    return BlockExecution(model, plan, calibration, folder, options, target, backend, monitor, events).run();
}

} // namespace rankscope
