// SPDX-License-Identifier: GPL-3.0-or-later
// LRC (methods-joint §6): rounding the activations takes a part of the output out of every Q's reach, and a
// low-rank path that reads them unrounded brings it back.
#include "core/calibration/quantized_activations.h"
#include "core/teaching/steps.h"

#include <Eigen/Cholesky>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr int k_bits = 4;
constexpr double k_clip = 0.9;
constexpr std::int64_t k_iterations = 4;

/// ‖W·X − Q·Y − L·R·Z‖ / ‖W·X‖ with Z = X or Y, from the moments.
double output_error(const Matrix& weight, const Decomposition& result, const Moments& moments,
                    bool correction_reads_exact)
{
    const MatrixD w = weight.cast<double>();
    const MatrixD q = result.quantized.empty() ? MatrixD(MatrixD::Zero(w.rows(), w.cols()))
                                               : MatrixD(result.quantized.dequantize().cast<double>());
    const MatrixD lr = result.low_rank.rank() > 0
                           ? MatrixD((result.low_rank.left * result.low_rank.right).cast<double>())
                           : MatrixD(MatrixD::Zero(w.rows(), w.cols()));
    const MatrixD exact = correction_reads_exact ? MatrixD(w - lr) : w;  // meets x
    const MatrixD coarse = correction_reads_exact ? q : MatrixD(q + lr); // meets y
    const double squared = (exact * moments.hessian).cwiseProduct(exact).sum()
                           - 2.0 * (exact * moments.sigma_xy).cwiseProduct(coarse).sum()
                           + (coarse * moments.sigma_yy).cwiseProduct(coarse).sum();
    const double whole = (w * moments.hessian).cwiseProduct(w).sum();
    return whole > 0.0 ? std::sqrt(std::max(0.0, squared) / whole) : 0.0;
}

void show_activations(const LessonInput& input, Lesson& lesson)
{
    const MatrixD rounded = quantize_tokens(input.tokens, {k_bits, k_clip});
    const Matrix x = input.tokens.cast<float>();
    const Matrix lost = (input.tokens - rounded).cast<float>();
    const double limit = magnitude_quantile(x, 0.99);
    const auto outliers = strongest_channels(input_energy(input.moments), std::min<Index>(8, x.cols() / 8));
    for (const auto& [name, title, matrix] :
         {std::tuple<const char*, const char*, const Matrix*>{"tokens", "X: sampled tokens, one a row", &x},
          {"lost_tokens", "X − Y: what 4 bits a token lose", &lost}}) {
        MatrixPicture picture = matrix_picture(title, *matrix, limit, outliers);
        picture.y_label = "token";
        lesson.pictures[name] = std::move(picture);
    }
    const double whole = input.tokens.squaredNorm();
    lesson.figures["activation_loss"] =
        whole > 0.0 ? std::sqrt((input.tokens - rounded).squaredNorm() / whole) : 0.0;
    lesson.figures["tokens"] = static_cast<double>(input.tokens.rows());
}

GivenParameters correction(Index rank, const char* start)
{
    return {{"bits", std::int64_t{k_bits}},
            {"activation_bits", std::int64_t{k_bits}},
            {"clip", k_clip},
            {"rank", std::int64_t{rank}},
            {"iterations", k_iterations},
            {"start", std::string(start)}};
}

Status show_corrections(const LessonInput& input, const Moments& moments, Lesson& lesson, Backend& backend,
                        Monitor& monitor)
{
    const Matrix& weight = input.weight;
    const Index smaller = std::min(weight.rows(), weight.cols());
    const Index rank = std::max<Index>(1, smaller / 10);
    lesson.figures["rank"] = static_cast<double>(rank);
    auto plain = taught(input, moments, {"lrc", correction(0, "zero")}, backend, monitor);
    if (!plain)
        return plain.error();
    auto corrected = taught(input, moments, {"lrc", correction(rank, "relaxed"), true}, backend, monitor);
    if (!corrected)
        return corrected.error();
    auto residual = taught(input, moments,
                           {"qera_exact",
                            {{"bits", std::int64_t{k_bits}},
                             {"group", std::int64_t{0}},
                             {"symmetric", true},
                             {"sym_rule", std::string("restricted")},
                             {"clip_search", std::string("shrink")},
                             {"rank", std::int64_t{rank}},
                             {"rounding", std::string("gptq")}}},
                           backend, monitor);
    if (!residual)
        return residual.error();
    lesson.figures["plain_error"] = output_error(weight, *plain, moments, true);
    lesson.figures["residual_error"] = output_error(weight, *residual, moments, false);
    lesson.figures["lrc_error"] = output_error(weight, *corrected, moments, true);
    lesson.figures["lrc_on_rounded"] = output_error(weight, *corrected, moments, false);
    lesson.figures["closed"] = lesson.figures["plain_error"] > 0.0
                                   ? 1.0 - lesson.figures["lrc_error"] / lesson.figures["plain_error"]
                                   : 0.0;
    lesson.pictures["bars"] = BarsPicture{
        "What the output loses with 4-bit weights and 4-bit activations",
        "relative error of the output",
        {{"Q alone", SeriesRole::Quantized, lesson.figures["plain_error"]},
         {"+ L·R fitted to the weight, reads Y", SeriesRole::Residual, lesson.figures["residual_error"]},
         {"+ LRC's L·R, but it reads Y", SeriesRole::Weight, lesson.figures["lrc_on_rounded"]},
         {"+ LRC's L·R, reads X", SeriesRole::LowRank, lesson.figures["lrc_error"]}},
        false};
    const double limit = magnitude_quantile(weight, 0.995);
    lesson.pictures["low_rank"] = matrix_picture(fmt::format("L·R of rank {}", rank),
                                                 corrected->low_rank.left * corrected->low_rank.right, limit);
    lesson.pictures["quantized"] = matrix_picture("Q", corrected->quantized.dequantize(), limit);
    CurvePicture curve;
    curve.title = "Error by half-step";
    curve.x_label = "half-step: odd ones round Q, even ones refit L·R";
    curve.y_label = "relative error of the output";
    curve.series = {trace_series("LRC", SeriesRole::LowRank, *corrected)};
    for (std::size_t i = 0; i < corrected->trace.size(); ++i) {
        curve.cursor = corrected->trace[i].step;
        lesson.pictures[fmt::format("curve.{}", i)] = curve;
    }
    return {};
}

/// What no Q can reach: the least error of a Q that may be any matrix, and of one with L·R beside it.
void show_limits(const LessonInput& input, const Moments& moments, Lesson& lesson)
{
    const MatrixD w = input.weight.cast<double>();
    MatrixD sigma_y = moments.sigma_yy;
    // Fewer tokens than channels tell y exactly by chance; then it is the damped estimate that says
    // something.
    const double damping = input.tokens.rows() > 2 * input.tokens.cols() ? 1e-9 : 0.01;
    sigma_y.diagonal().array() += damping * sigma_y.diagonal().mean() + 1e-12;
    const MatrixD regression =
        Eigen::LLT<MatrixD>(sigma_y).solve(MatrixD(moments.sigma_xy.transpose())); // Σ_y⁻¹·Σ_yx
    const MatrixD unseen = moments.hessian - moments.sigma_xy * regression;
    const double whole = (w * moments.hessian).cwiseProduct(w).sum();
    const double lost = (w * unseen).cwiseProduct(w).sum();
    lesson.figures["floor"] = whole > 0.0 ? std::sqrt(std::max(0.0, lost) / whole) : 0.0;
    const VectorD before = moments.hessian.diagonal();
    lesson.pictures["unseen"] = ChannelPicture{
        "Energy of each channel, and the part that Y does not tell",
        "mean square",
        {{"x", SeriesRole::Weight, before},
         {"x, given y", SeriesRole::Residual, unseen.diagonal().cwiseMax(0.0).cwiseMin(before)}},
        strongest_channels(input_energy(moments), std::min<Index>(8, before.size() / 8)),
        true,
        false};
}

} // namespace

Result<Lesson> lrc_lesson(const LessonInput& input, Backend& backend, Monitor& monitor)
{
    if (input.weight.size() == 0 || input.tokens.rows() == 0 || input.tokens.cols() != input.weight.cols())
        return bad_input("the calibration kept no sample of the inputs", input.layer, "Calibrate once more");
    Lesson lesson;
    lesson.layer = input.layer;
    lesson.figures["bits"] = k_bits;
    lesson.figures["inputs"] = static_cast<double>(input.weight.cols());
    lesson.figures["outputs"] = static_cast<double>(input.weight.rows());
    monitor.report(0, 3, "steps of the lesson");
    show_activations(input, lesson);
    // The sampled tokens give all three covariances of the same inputs, which no calibration without
    // rounded activations holds.
    const Moments moments = moments_of(input.tokens, {k_bits, k_clip});
    monitor.report(1, 3, "steps of the lesson");
    show_limits(input, moments, lesson);
    monitor.report(2, 3, "steps of the lesson");
    if (auto done = show_corrections(input, moments, lesson, backend, monitor); !done)
        return done.error();
    monitor.report(3, 3, "steps of the lesson");
    return lesson;
}

} // namespace rankscope
