// SPDX-License-Identifier: GPL-3.0-or-later
// rankscope-cli smooth: SmoothQuant, folded into the norms of a copy of the checkpoint.
#include "app/cli/jobs.h"
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "app/cli/table.h"
#include "core/export/smoothed_checkpoint.h"
#include "core/methods/smoothing.h"

#include <fmt/format.h>

#include <set>

namespace rankscope::cli {
namespace {

struct SmoothOptions {
    std::filesystem::path path;
    std::filesystem::path calibration;
    std::filesystem::path out;
    std::string alpha = "0.85";
    int bits = 8;
    bool force = false;
};

/// Fixed, or chosen for each group.
Result<std::optional<double>> alpha_of(const SmoothOptions& options)
{
    if (options.alpha == "auto")
        return std::optional<double>();
    auto json = Json::parse(options.alpha);
    if (!json || !json->is_number() || !(json->number() >= 0.0) || !(json->number() <= 1.0))
        return usage_error(fmt::format("\"{}\" is neither a number in 0 … 1 nor auto", options.alpha),
                           "--alpha");
    return std::optional<double>(json->number());
}

/// Moments of what the group's linears read; experts see different tokens, of which the largest values count
/// and the first one's H.
Result<Moments> group_moments(const SmoothingGroup& group, const CalibrationStore& calibration)
{
    Moments all;
    std::set<std::string> seen;
    for (const LinearLayer* layer : group.linears) {
        if (!seen.insert(layer->input_group).second)
            continue;
        auto moments = calibration.moments(layer->input_group);
        if (!moments)
            return moments.error();
        if (all.empty())
            all = std::move(*moments);
        else
            all.max_abs = all.max_abs.cwiseMax(moments->max_abs);
    }
    return all;
}

class Smoothing {
public:
    Smoothing(const Model& model, const CalibrationStore& calibration, std::optional<double> alpha, int bits,
              Backend& backend, Session& session)
        : model_(model), calibration_(calibration), alpha_(alpha), backend_(backend), session_(session)
    {
        grid_.activation_bits = bits;
        grid_.weights.bits = bits;
        grid_.weights.group = 0;
    }

    Result<VectorD> scales(const SmoothingGroup& group)
    {
        session_.monitor().throw_if_cancelled();
        session_.monitor().set_detail(group.norm);
        auto moments = group_moments(group, calibration_);
        if (!moments)
            return moments.error();
        std::vector<Matrix> weights;
        for (const LinearLayer* layer : group.linears) {
            auto weight = model_.weight(*layer);
            if (!weight)
                return weight.error();
            weights.push_back(std::move(*weight));
        }
        const double alpha = alpha_ ? *alpha_ : best_smoothing_alpha(*moments, weights, grid_, backend_);
        const VectorD scales = smooth_scales(moments->max_abs, weights, alpha);
        const double before =
            predicted_smoothing_error(*moments, weights, VectorD::Ones(scales.size()), grid_, backend_);
        const double after = predicted_smoothing_error(*moments, weights, scales, grid_, backend_);
        Json row;
        row.set("norm", group.norm);
        row.set("alpha", alpha);
        row.set("largest_factor", scales.maxCoeff());
        row.set("least_factor", scales.minCoeff());
        row.set("predicted_error_ratio", before > 0.0 ? after / before : 1.0);
        table_.add({group.norm, figure(alpha), figure(scales.minCoeff()), figure(scales.maxCoeff()),
                    figure(before > 0.0 ? after / before : 1.0)});
        rows_.push_back(std::move(row));
        return scales;
    }

    const Json& rows() const { return rows_; }
    std::string text() const { return table_.text(); }

private:
    const Model& model_;
    const CalibrationStore& calibration_;
    std::optional<double> alpha_;
    Backend& backend_;
    Session& session_;
    SmoothingGrid grid_;
    Json rows_{Json::Array{}};
    Table table_{{"norm", "alpha", "least factor", "largest factor", "predicted error"}};
};

Result<Output> smooth(const SmoothOptions& options, Session& session)
{
    auto alpha = alpha_of(options);
    if (!alpha)
        return alpha.error();
    auto model = Model::open(options.path);
    if (!model)
        return model.error();
    auto calibration = CalibrationStore::open(options.calibration);
    if (!calibration)
        return calibration.error();
    if (auto fits = (*calibration)->check(**model); !fits)
        return fits.error();
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    Smoothing smoothing(**model, **calibration, *alpha, options.bits, **backend, session);
    SmoothedCheckpointOptions how;
    how.replace = options.force;
    how.note.set("alpha", options.alpha);
    how.note.set("calibration", (*calibration)->id());
    if (auto written = write_smoothed_checkpoint(
            **model, [&](const SmoothingGroup& group) { return smoothing.scales(group); }, options.out, how,
            session.monitor());
        !written)
        return written.error();
    Output output;
    output.document.set("out", options.out.string());
    output.document.set("groups", smoothing.rows());
    output.document.set("process", session.process());
    output.text =
        smoothing.text()
        + fmt::format("\nWritten to {}. Calibrate it before compressing: its inputs are other ones now.\n",
                      options.out.string());
    return output;
}

} // namespace

void add_smooth(Program& program)
{
    auto options = std::make_shared<SmoothOptions>();
    CLI::App* command = program.add(
        "smooth",
        "Moves outliers of activations into the weights (SmoothQuant): a checkpoint that computes the same",
        [options](Session& session) { return smooth(*options, session); });
    add_path(command, options->path);
    command->add_option("--calibration", options->calibration, "Calibration of this checkpoint")
        ->type_name("CAL")
        ->required();
    command->add_option("--out", options->out, "Folder for the smoothed checkpoint")
        ->type_name("DIR")
        ->required();
    command
        ->add_option(
            "--alpha", options->alpha,
            "How much of the range the weights take, 0 … 1, or auto: the best of 0.5 … 0.95 for each norm")
        ->capture_default_str();
    command
        ->add_option("--bits", options->bits, "Bits of weights and activations that errors are predicted for")
        ->check(CLI::Range(2, 8))
        ->capture_default_str();
    add_force(command, options->force);
}

} // namespace rankscope::cli
