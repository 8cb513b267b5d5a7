// SPDX-License-Identifier: GPL-3.0-or-later
// ODLRI step by step (methods-joint §5): the layer, its outlier channels, nearest rounding alone, and then
// the iterates that the method itself leaves in its trace.
#include "core/teaching/steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace rankscope {
namespace {

constexpr std::int64_t k_bits = 2;
constexpr std::int64_t k_group = 64;
constexpr std::int64_t k_iterations = 6;
constexpr Index k_most_rank = 64;
constexpr double k_color_share = 0.995; ///< of |W| lies within the color scale

/// What all steps of the lesson know.
struct Scene {
    const LessonInput& input;
    Backend& backend;
    Monitor& monitor;
    Lesson lesson;
    Index rank = 0;
    Index k = 0;
    Index proposed = 0; ///< k where none is given
    double limit = 0.0; ///< of every map of weights: one color scale
    VectorD energy;     ///< diag H
    double whole = 0.0; ///< Σ H_jj·‖W_:j‖²
    std::vector<Index> outliers;

    GivenParameters joint(std::int64_t iterations, std::string start) const
    {
        return {{"bits", k_bits},
                {"group", k_group},
                {"rank", rank},
                {"k", k},
                {"iterations", iterations},
                {"codebook", std::string("uniform")},
                {"rht", std::string("false")},
                {"tune_passes", std::int64_t{0}},
                {"early_stop", false},
                {"start", std::move(start)}};
    }
    void map(const std::string& name, std::string title, const Matrix& matrix)
    {
        lesson.pictures[name] = matrix_picture(std::move(title), matrix, limit, outliers);
    }
    void channels(const std::string& name, std::string title, std::string label,
                  std::vector<ChannelPicture::Series> series)
    {
        lesson.pictures[name] =
            ChannelPicture{std::move(title), std::move(label), std::move(series), outliers, false, false};
    }
    double& figure(const std::string& name) { return lesson.figures[name]; }
    VectorD shares(const Matrix& matrix) const { return column_shares(matrix, energy, whole); }
};

void show_weight(Scene& scene)
{
    const Matrix& weight = scene.input.weight;
    scene.lesson.pictures["weight"] = matrix_picture("W", weight, scene.limit);
    scene.figure("outputs") = static_cast<double>(weight.rows());
    scene.figure("inputs") = static_cast<double>(weight.cols());
    scene.figure("weights") = static_cast<double>(weight.size());
    scene.figure("weight_rms") =
        weight.cast<double>().norm() / std::sqrt(static_cast<double>(std::max<Index>(1, weight.size())));
    scene.figure("weight_max") = static_cast<double>(weight.cwiseAbs().maxCoeff());
}

void show_outliers(Scene& scene)
{
    const Matrix& weight = scene.input.weight;
    const double energy = scene.energy.sum();
    const VectorD input_share = energy > 0.0 ? VectorD(scene.energy / energy) : scene.energy;
    const double norm = weight.cast<double>().squaredNorm();
    const VectorD weight_share = column_shares(weight, VectorD::Ones(weight.cols()), norm);
    const VectorD product = scene.shares(weight);
    scene.channels("input_energy", "Energy of each input channel", "share of Σ Hⱼⱼ",
                   {{"Hⱼⱼ = mean xⱼ²", SeriesRole::Weight, input_share}});
    scene.channels("weight_energy", "Energy of each weight column", "share of ‖W‖²",
                   {{"‖column j‖²", SeriesRole::Weight, weight_share}});
    scene.channels("product_energy", "Activation × weight", "share of the output's energy",
                   {{"Hⱼⱼ · ‖column j‖²", SeriesRole::Weight, product}});
    scene.figure("outlier_input_share") = sum_over(input_share, scene.outliers);
    scene.figure("outlier_weight_share") = sum_over(weight_share, scene.outliers);
    scene.figure("outlier_product_share") = sum_over(product, scene.outliers);
    scene.figure("even_share") =
        static_cast<double>(scene.outliers.size()) / static_cast<double>(std::max<Index>(1, weight.cols()));
}

Status show_rounding_alone(Scene& scene)
{
    const Matrix& weight = scene.input.weight;
    auto rounded =
        taught(scene.input, {"rtn", {{"bits", k_bits}, {"group", k_group}}}, scene.backend, scene.monitor);
    if (!rounded)
        return rounded.error();
    const Matrix quantized = rounded->reconstruct();
    const Matrix error = weight - quantized;
    scene.map("rtn", "Q: every weight rounded to the nearest step", quantized);
    scene.map("rtn_error", "W − Q", error);
    const VectorD harm = scene.shares(error);
    scene.channels("rtn_harm", "What the error costs, by input channel", "share of the output's energy",
                   {{"Hⱼⱼ · ‖column j of W − Q‖²", SeriesRole::Residual, harm}});
    const DecompositionQuality quality = measure(weight, *rounded, &scene.input.moments);
    scene.figure("rtn_error") = quality.relative_activation_error;
    scene.figure("rtn_weight_error") = quality.relative_error;
    scene.figure("rtn_outlier_share") = harm.sum() > 0.0 ? sum_over(harm, scene.outliers) / harm.sum() : 0.0;
    return {};
}

/// What L₀·R₀ leaves for other k, by the start that the method itself takes: of the whole output, and of the
/// columns that the lesson proposes to lift out.
Status show_choice(Scene& scene)
{
    std::set<Index> counts{scene.k, scene.proposed, scene.rank};
    for (Index k = 1; k <= scene.rank; k *= 2)
        counts.insert(k);
    const auto count = static_cast<Index>(counts.size());
    CurvePicture::Series whole{"of the whole output", SeriesRole::Residual, VectorD(count), VectorD(count)};
    CurvePicture::Series strong{fmt::format("of the {} strongest columns", scene.proposed),
                                SeriesRole::Outlier, VectorD(count), VectorD(count)};
    const std::vector<Index> strongest = strongest_channels(scene.energy, scene.proposed);
    const double all = sum_over(scene.shares(scene.input.weight), strongest);
    Index place = 0;
    for (const Index k : counts) {
        GivenParameters given = scene.joint(0, "whitened");
        given["k"] = std::int64_t{k};
        auto result = taught(scene.input, {"odlri", given, true}, scene.backend, scene.monitor);
        if (!result)
            return result.error();
        if (result->trace.front().stage != "start" || result->start_low_rank.size() == 0)
            return internal_error("the method recorded no start", scene.input.layer);
        const Matrix left = scene.input.weight - result->start_low_rank;
        const double mine = sum_over(scene.shares(left), strongest);
        whole.x[place] = strong.x[place] = static_cast<double>(k);
        whole.y[place] = result->trace.front().relative_activation_error;
        strong.y[place] = all > 0.0 ? std::sqrt(mine / all) : 0.0;
        if (k == scene.k)
            scene.figure("left_strongest") = strong.y[place];
        ++place;
    }
    scene.figure("proposed") = static_cast<double>(scene.proposed);
    scene.lesson.pictures["choice"] =
        CurvePicture{"What L₀·R₀ leaves",           "outlier channels k",
                     "relative error of W − L₀·R₀", {std::move(strong), std::move(whole)},
                     static_cast<double>(scene.k),  true};
    return {};
}

/// L₀·R₀, what it takes and what it leaves; the start and the first rounding of the method itself.
Status show_start(Scene& scene, const Decomposition& result)
{
    const Matrix& weight = scene.input.weight;
    const Matrix& start = result.start_low_rank;
    if (start.size() != weight.size())
        return internal_error("the method kept no L₀·R₀", scene.input.layer);
    const Matrix left = weight - start;
    scene.map("low_rank", fmt::format("L₀·R₀, rank {}", scene.rank), start);
    scene.map("left_over", "W − L₀·R₀", left);
    const VectorD before = scene.shares(weight);
    const VectorD after = scene.shares(left);
    scene.channels("column_energy", "Energy of each column, before and after", "share of the output's energy",
                   {{"W", SeriesRole::Weight, before}, {"W − L₀·R₀", SeriesRole::Residual, after}});
    const double mine = sum_over(before, scene.outliers);
    scene.figure("absorbed") = mine > 0.0 ? 1.0 - sum_over(after, scene.outliers) / mine : 0.0;
    scene.figure("start_error") = result.trace.front().relative_activation_error;

    const std::vector<ValueSeries> values{{"W", SeriesRole::Weight, &weight},
                                          {"W − L₀·R₀", SeriesRole::Residual, &left}};
    scene.lesson.pictures["values"] = histogram_picture("Values", "value of a weight", values);
    const Vector scale = scene.energy.cwiseSqrt().cast<float>();
    const Matrix weighted = weight * scale.asDiagonal();
    const Matrix weighted_left = left * scale.asDiagonal();
    const std::vector<ValueSeries> products{{"W", SeriesRole::Weight, &weighted},
                                            {"W − L₀·R₀", SeriesRole::Residual, &weighted_left}};
    scene.lesson.pictures["weighted_values"] =
        histogram_picture("What each weight adds to the output", "wᵢⱼ · √Hⱼⱼ", products);
    const auto largest = [](const Matrix& matrix) {
        return static_cast<double>(matrix.cwiseAbs().maxCoeff());
    };
    scene.figure("range_before") = largest(weighted);
    scene.figure("range_after") = largest(weighted_left);
    scene.figure("value_range_before") = largest(weight);
    scene.figure("value_range_after") = largest(left);
    return {};
}

/// The first rounding on its grid: every value divided by the step of its group.
Status show_grid(Scene& scene)
{
    auto first =
        taught(scene.input, {"odlri", scene.joint(0, "whitened"), true}, scene.backend, scene.monitor);
    if (!first)
        return first.error();
    const Matrix left = scene.input.weight - first->start_low_rank;
    const QuantizedMatrix& q = first->quantized;
    const Matrix values = q.dequantize();
    HistogramPicture picture =
        histogram_picture("W − L₀·R₀ on the grid of Q", "value / step + zero point, of its group",
                          std::vector<ValueSeries>{{"W − L₀·R₀", SeriesRole::Residual, &left, &q}}, 161);
    const auto levels = static_cast<int>(std::exp2(static_cast<double>(k_bits)));
    for (int level = 0; level < levels; ++level)
        picture.levels.push_back(level);
    scene.figure("levels") = levels;
    scene.lesson.pictures["grid"] = std::move(picture);
    scene.map("quantized", "Q", values);
    scene.map("after_rounding", "W − L₀·R₀ − Q", left - values);
    scene.figure("first_error") = first->trace.back().relative_activation_error;
    scene.figure("scale_after") = first->trace.back().quantization_scale;
    return {};
}

Status show_refinement(Scene& scene, const Decomposition& result)
{
    auto zero =
        taught(scene.input, {"odlri", scene.joint(k_iterations, "zero")}, scene.backend, scene.monitor);
    if (!zero)
        return zero.error();
    auto plain =
        taught(scene.input, {"odlri", scene.joint(k_iterations, "svd")}, scene.backend, scene.monitor);
    if (!plain)
        return plain.error();
    CurvePicture curve;
    curve.title = "Activation error by half-step";
    curve.x_label = "half-step: odd ones round Q, even ones refit L·R";
    curve.y_label = "relative activation error";
    curve.series = {trace_series("ODLRI", SeriesRole::LowRank, result),
                    trace_series("L·R = 0 first", SeriesRole::Quantized, *zero),
                    trace_series("SVD of W first", SeriesRole::Weight, *plain)};
    scene.lesson.pictures["compare"] = curve;
    for (std::size_t i = 0; i < result.trace.size(); ++i) {
        const IterationReport& report = result.trace[i];
        curve.cursor = report.step;
        scene.lesson.pictures[fmt::format("curve.{}", i)] = curve;
        Matrix residual = scene.input.weight;
        if (report.quantized.size() > 0)
            residual -= report.quantized;
        if (report.left.size() > 0)
            residual -= report.left * report.right;
        scene.map(fmt::format("residual.{}", i),
                  fmt::format("W − Q − L·R after half-step {}: error {:.4f}", report.step,
                              report.relative_activation_error),
                  residual);
    }
    const double best = least_error(result);
    scene.figure("half_steps") = result.trace.back().step;
    scene.figure("best_error") = best;
    scene.figure("zero_error") = least_error(*zero);
    scene.figure("svd_error") = least_error(*plain);
    scene.figure("scale_before") = zero->trace.front().quantization_scale;
    scene.figure("against_zero") =
        scene.figure("zero_error") > 0.0 ? 1.0 - best / scene.figure("zero_error") : 0.0;
    scene.figure("against_rtn") =
        scene.figure("rtn_error") > 0.0 ? 1.0 - best / scene.figure("rtn_error") : 0.0;
    scene.lesson.pictures["bars"] =
        BarsPicture{"What is left of the output's energy",
                    "relative activation error",
                    {{"nearest rounding alone", SeriesRole::Residual, scene.figure("rtn_error")},
                     {"L·R = 0 first", SeriesRole::Quantized, scene.figure("zero_error")},
                     {"SVD of W first", SeriesRole::Weight, scene.figure("svd_error")},
                     {"ODLRI", SeriesRole::LowRank, best}},
                    false};
    return {};
}

} // namespace

Result<Lesson> odlri_lesson(const LessonInput& input, Backend& backend, Monitor& monitor)
{
    if (input.weight.size() == 0 || input.moments.channels() != input.weight.cols())
        return bad_input("the lesson needs a weight and the moments of its inputs", input.layer,
                         "Calibrate the model first");
    Scene scene{input, backend, monitor, {}, 0, 0, 0, 0.0, {}, 0.0, {}};
    const Index smaller = std::min(input.weight.rows(), input.weight.cols());
    scene.rank = std::clamp<Index>(smaller / 2, 1, k_most_rank);
    scene.proposed = std::max<Index>(1, std::min<Index>(16, scene.rank / 2));
    scene.k = std::clamp<Index>(input.outliers > 0 ? input.outliers : scene.proposed, 1, scene.rank);
    scene.limit = magnitude_quantile(input.weight, k_color_share);
    scene.energy = input_energy(input.moments);
    scene.whole = column_shares(input.weight, scene.energy, 1.0).sum();
    scene.outliers = strongest_channels(scene.energy, scene.k);
    scene.lesson.layer = input.layer;
    scene.lesson.adjustable_to["outliers"] = scene.rank;
    scene.figure("k") = static_cast<double>(scene.k);
    scene.figure("rank") = static_cast<double>(scene.rank);
    scene.figure("bits") = static_cast<double>(k_bits);
    scene.figure("group") = static_cast<double>(k_group);

    monitor.report(0, 5, "steps of the lesson");
    show_weight(scene);
    show_outliers(scene);
    if (auto done = show_rounding_alone(scene); !done)
        return done.error();
    monitor.report(1, 5, "steps of the lesson");
    if (auto done = show_choice(scene); !done)
        return done.error();
    monitor.report(2, 5, "steps of the lesson");
    auto result = taught(input, {"odlri", scene.joint(k_iterations, "whitened"), true}, backend, monitor);
    if (!result)
        return result.error();
    if (auto done = show_start(scene, *result); !done)
        return done.error();
    monitor.report(3, 5, "steps of the lesson");
    if (auto done = show_grid(scene); !done)
        return done.error();
    monitor.report(4, 5, "steps of the lesson");
    if (auto done = show_refinement(scene, *result); !done)
        return done.error();
    monitor.report(5, 5, "steps of the lesson");
    return std::move(scene.lesson);
}

} // namespace rankscope
