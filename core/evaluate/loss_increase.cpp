// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/evaluate/loss_increase.h"

#include "core/base/sha256.h"
#include "core/calibration/streaming_pass.h"
#include "core/compute/job_border.h"
#include "core/evaluate/detail/text_pass.h"
#include "core/methods/needed_moments.h"
#include "core/run/decomposed_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace rankscope {
namespace {

/// The checkpoint with one layer compressed.
class OneLayer final : public WeightSource {
public:
    OneLayer(const Model& model, const WeightSource& others, const LinearLayer& layer, Decomposition made)
        : model_(model), others_(others), layer_(layer), made_(std::move(made))
    {}
    Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const override
    {
        return layer.name == layer_.name ? decomposed_weight(model_, layer, made_, backend)
                                         : others_.linear(layer, backend);
    }

private:
    const Model& model_;
    const WeightSource& others_;
    const LinearLayer& layer_;
    Decomposition made_;
};

class LossMeasurement {
public:
    LossMeasurement(const std::shared_ptr<const Model>& model, const CurveSource& source,
                    const LossIncreaseOptions& options, detail::ScoredText text, OutputHead head)
        : model_(*model), source_(source), options_(options), text_(std::move(text)), head_(std::move(head)),
          original_(checkpoint_weights(model))
    {}

    Result<std::vector<double>> run(std::span<const LayerPlan> rows);

private:
    Result<HiddenStates> states() const;
    Result<Decomposition> decompose(const LayerPlan& row, const LinearLayer& layer, const Matrix& weight,
                                    Monitor& monitor) const;
    /// Sends `from`, the input of the layer's block, through the rest of the model.
    Result<double> loss_with(const LinearLayer& layer, Decomposition made, HiddenStates& from,
                             HiddenStates& scratch, Monitor& monitor);
    Result<double> pass(const WeightSource& first, int block, HiddenStates& states, Monitor& monitor);
    Result<double> loss_of(HiddenStates& states);
    std::string key_of(const LayerPlan& row, const Matrix& weight) const;

    const Model& model_;
    const CurveSource& source_;
    const LossIncreaseOptions& options_;
    detail::ScoredText text_;
    OutputHead head_;
    std::unique_ptr<WeightSource> original_;
};

std::string LossMeasurement::key_of(const LayerPlan& row, const Matrix& weight) const
{
    Json content;
    content.set("curve",
                curve_key(row, weight, source_.calibration ? source_.calibration->id() : std::string(),
                          options_.seed));
    content.set("parameters", row.parameters.to_json()); // with the rank
    content.set("text", text_.hash);
    content.set("protocol", id(options_.windows.protocol));
    content.set("windows", std::int64_t{text_.windows.count()});
    content.set("length", std::int64_t{text_.windows.length});
    content.set("checkpoint", model_.checkpoint().header_hash());
    content.set("backend", source_.backend.id());
    return sha256_hex(content.dump());
}

Result<HiddenStates> LossMeasurement::states() const
{
    std::error_code ignored;
    const PassMemory memory = pass_memory(model_, text_.windows.count(), text_.windows.length);
    return make_hidden_states(static_cast<Index>(text_.windows.tokens.size()), model_.config().hidden,
                              memory.block_weights + memory.activations + memory.hidden,
                              options_.windows.memory_budget_bytes,
                              std::filesystem::temp_directory_path(ignored));
}

Result<Decomposition> LossMeasurement::decompose(const LayerPlan& row, const LinearLayer& layer,
                                                 const Matrix& weight, Monitor& monitor) const
{
    const Method& method = *find_method(row.method);
    Moments moments;
    if (source_.calibration) {
        auto read = needed_moments(method.info(), row.parameters, *source_.calibration, layer.input_group);
        if (!read)
            return read.error();
        moments = std::move(*read);
    }
    LayerProblem problem;
    problem.weight = source_.backend.upload(weight);
    problem.moments = source_.calibration ? &moments : nullptr;
    problem.name = row.layer;
    problem.seed = options_.seed;
    return method.decompose(problem, row.parameters, source_.backend, monitor);
}

Result<double> LossMeasurement::loss_of(HiddenStates& states)
{
    double sum = 0.0;
    std::uint64_t targets = 0;
    auto done = detail::visit_scored_rows(
        text_, detail::logit_rows(model_), [&](const detail::ScoredRows& rows) -> Status {
            source_.monitor.throw_if_cancelled();
            const Buffer hidden = source_.backend.upload(states.rows(rows.first, rows.count));
            const double loss =
                source_.backend.cross_entropy(head_.logits(hidden, source_.backend), rows.targets).sum();
            if (!std::isfinite(loss))
                return detail::logits_not_finite(rows.window);
            sum += loss;
            targets += static_cast<std::uint64_t>(rows.count);
            return {};
        });
    if (!done)
        return done.error();
    return sum / static_cast<double>(targets);
}

Result<double> LossMeasurement::pass(const WeightSource& first, int block, HiddenStates& states,
                                     Monitor& monitor)
{
    StreamingPass pass(model_, text_.windows, source_.backend, monitor);
    const int blocks = static_cast<int>(model_.config().blocks);
    for (int next = block; next < blocks; ++next) {
        if (auto done = pass.run_block(next, {next == block ? first : *original_, states}, {}); !done)
            return done.error();
    }
    return loss_of(states);
}

Result<double> LossMeasurement::loss_with(const LinearLayer& layer, Decomposition made, HiddenStates& from,
                                          HiddenStates& scratch, Monitor& monitor)
{
    const Index tokens = from.tokens();
    scratch.next_rows(0, tokens) = from.rows(0, tokens);
    if (auto ready = scratch.finish_block(); !ready)
        return ready.error();
    const OneLayer weights(model_, *original_, layer, std::move(made));
    return pass(weights, layer.block, scratch, monitor);
}

Result<std::vector<double>> LossMeasurement::run(std::span<const LayerPlan> rows)
{
    auto base = states();
    auto scratch = states();
    if (!base || !scratch)
        return (base ? scratch : base).error();
    StreamingPass base_pass(model_, text_.windows, source_.backend, source_.monitor);
    std::vector<double> losses(rows.size(), 0.0);
    std::map<int, std::vector<std::size_t>> blocks; // rows that are not known yet
    std::vector<std::string> keys(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        source_.monitor.throw_if_cancelled();
        const LinearLayer& layer = *model_.find_linear(rows[i].layer);
        const auto weight = model_.weight(layer);
        if (!weight)
            return weight.error();
        keys[i] = key_of(rows[i], *weight);
        if (const auto known = source_.store.loss_increase(keys[i]))
            losses[i] = *known;
        else
            blocks[layer.block].push_back(i);
    }
    if (blocks.empty())
        return losses;
    if (auto embedded = base_pass.embed(*base); !embedded)
        return embedded.error();
    std::map<std::size_t, double> measured;
    std::size_t done = 0;
    const std::size_t total = rows.size();
    for (int block = 0; block < static_cast<int>(model_.config().blocks); ++block) {
        for (const std::size_t i : blocks.contains(block) ? blocks[block] : std::vector<std::size_t>()) {
            detail::StageMonitor stage(source_.monitor,
                                       fmt::format("loss with layer {} of {} compressed: ", ++done, total));
            const LinearLayer& layer = *model_.find_linear(rows[i].layer);
            const auto weight = model_.weight(layer);
            if (!weight)
                return weight.error();
            auto made = decompose(rows[i], layer, *weight, stage);
            if (!made)
                return made.error().in(rows[i].layer);
            const auto loss = loss_with(layer, std::move(*made), *base, *scratch, stage);
            if (!loss)
                return loss.error().in(rows[i].layer);
            measured[i] = *loss;
        }
        if (auto advanced = base_pass.run_block(block, {*original_, *base}, {}); !advanced)
            return advanced.error();
    }
    const auto reference = loss_of(*base);
    if (!reference)
        return reference.error();
    for (const auto& [i, loss] : measured) {
        losses[i] = loss - *reference;
        source_.store.put_loss_increase(keys[i], losses[i]);
    }
    if (auto saved = source_.store.save(); !saved)
        return saved.error();
    return losses;
}

} // namespace

Result<std::vector<double>> loss_increases(const std::shared_ptr<const Model>& model,
                                           std::span<const LayerPlan> rows, const CurveSource& source,
                                           const LossIncreaseOptions& options)
{
    return at_job_border("nothing was measured", [&]() -> Result<std::vector<double>> {
        auto text = detail::score_text(*model, options.text, options.windows);
        if (!text)
            return text.error();
        auto head = OutputHead::load(*model, source.backend);
        if (!head)
            return head.error();
        return LossMeasurement(model, source, options, std::move(*text), std::move(*head)).run(rows);
    });
}

} // namespace rankscope
