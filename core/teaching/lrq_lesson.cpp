// SPDX-License-Identifier: GPL-3.0-or-later
// LRQ (methods-learned §1): a low-rank exponent in the divisor decides which way each weight rounds.
#include "core/methods/learned_method.h"
#include "core/methods/lrq.h"
#include "core/teaching/steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr std::int64_t k_bits = 3;
constexpr std::int64_t k_steps = 400;
constexpr double k_rate = 3e-3; ///< few steps: a larger one than the release's 5e-4 with 5000
constexpr Index k_weights_shown = 12;

/// The trained linear, taken apart.
struct Learned {
    Matrix exponent;             ///< L₂·U₂ + r + c
    Matrix nearest, chosen;      ///< codes
    Matrix first_scales, scales; ///< steps, out × groups
    Index width = 1;             ///< inputs of a group
    ReconstructionReport report;
    double whole = 0.0; ///< ‖W·X‖²
};

Matrix exponent_of(const LearnedParameters& parameters, Index rows, Index cols, Backend& backend)
{
    Matrix exponent = Matrix::Zero(rows, cols);
    if (!parameters.left.empty())
        exponent = backend.download(backend.multiply(parameters.left, parameters.right));
    exponent.colwise() += backend.download(parameters.rows).col(0);
    exponent.rowwise() += backend.download(parameters.columns).row(0);
    return exponent;
}

Result<Learned> learn(const LessonInput& input, Backend& backend, Monitor& monitor)
{
    const MethodInfo& info = lrq_method().info();
    auto parameters =
        Parameters::make(info, {{"bits", k_bits}, {"steps", k_steps}, {"learning_rate", k_rate}});
    if (!parameters)
        return parameters.error();
    LayerProblem problem;
    problem.weight = backend.upload(input.weight);
    problem.moments = &input.moments;
    problem.name = input.layer;
    problem.seed = input.seed;
    if (auto checked = check_problem(problem, info, *parameters, backend); !checked)
        return checked.error();
    LearnedLinear linear = learned_linear(problem.weight, problem.name, *parameters, LearnedKind::Lrq,
                                          problem.seed, backend, monitor);
    Learned result;
    const QuantizedMatrix first = linear.quantized(backend);
    const Buffer hessian = backend.upload(Matrix(input.moments.hessian.cast<float>()));
    result.report = reconstruct_layer(linear, {hessian, {}, 0.0},
                                      reconstruction_options(*parameters, input.seed), backend, monitor);
    const QuantizedMatrix last = linear.quantized(backend);
    result.exponent = exponent_of(linear.parameters(), input.weight.rows(), input.weight.cols(), backend);
    result.nearest = first.codes.cast<float>();
    result.chosen = last.codes.cast<float>();
    result.first_scales = first.scales;
    result.scales = last.scales;
    result.width = first.grid.group_width(input.weight.cols());
    const MatrixD w = input.weight.cast<double>();
    result.whole = (w * input.moments.hessian).cwiseProduct(w).sum();
    return result;
}

/// Weights whose rounding changed and whose channels count most: one of each channel, from the strongest
/// down.
std::vector<std::pair<Index, Index>> telling_weights(const Learned& learned, const VectorD& energy)
{
    std::vector<std::pair<Index, Index>> found;
    std::vector<Index> order = strongest_channels(energy, energy.size());
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return energy[a] > energy[b]; });
    for (const Index channel : order) {
        if (static_cast<Index>(found.size()) == k_weights_shown)
            break;
        for (Index row = 0; row < learned.nearest.rows(); ++row)
            if (learned.nearest(row, channel) != learned.chosen(row, channel)) {
                found.emplace_back(row, channel);
                break;
            }
    }
    return found;
}

void show_rulers(const LessonInput& input, const Learned& learned, Lesson& lesson)
{
    RoundingPicture picture;
    picture.title = "Weights that LRQ rounds another way: ● w / s, ○ w divided as learned";
    picture.x_label = "w / step";
    for (const auto& [row, channel] : telling_weights(learned, input_energy(input.moments))) {
        const auto group = channel / learned.width;
        const double weight = static_cast<double>(input.weight(row, channel));
        const double first = static_cast<double>(learned.first_scales(row, group));
        const double divisor = static_cast<double>(learned.scales(row, group))
                               * std::exp(static_cast<double>(learned.exponent(row, channel)));
        if (!(first > 0.0) || !(divisor > 0.0))
            continue;
        picture.weights.push_back({fmt::format("row {}, channel {}", row, channel), weight / first,
                                   weight / divisor, static_cast<int>(learned.nearest(row, channel)),
                                   static_cast<int>(learned.chosen(row, channel))});
    }
    lesson.pictures["rulers"] = std::move(picture);
}

void show_maps(const LessonInput& input, const Learned& learned, Lesson& lesson)
{
    const auto strong = strongest_channels(input_energy(input.moments),
                                           std::min<Index>(8, std::max<Index>(1, input.weight.cols() / 8)));
    const double limit = std::max(1e-9, magnitude_quantile(learned.exponent, 0.99));
    lesson.pictures["exponent"] =
        matrix_picture("L₂·U₂ + r + c: the exponent of each divisor", learned.exponent, limit, strong);
    const Matrix moved = learned.chosen - learned.nearest;
    MatrixPicture changed = matrix_picture("Codes that changed, in steps", moved, 1.0, strong);
    changed.limit = 1.0;
    lesson.pictures["changed"] = std::move(changed);
    const double count = (moved.array() != 0.0F).cast<double>().sum();
    const auto size = static_cast<double>(moved.size());
    lesson.figures["changed"] = size > 0.0 ? count / size : 0.0;
    lesson.figures["changed_up"] = count > 0.0 ? (moved.array() > 0.0F).cast<double>().sum() / count : 0.0;
    lesson.figures["largest_divisor"] = std::exp(static_cast<double>(learned.exponent.maxCoeff()));
    lesson.figures["smallest_divisor"] = std::exp(static_cast<double>(learned.exponent.minCoeff()));
    VectorD share = VectorD::Zero(moved.cols());
    for (Index j = 0; j < moved.cols(); ++j)
        share[j] = (moved.col(j).array() != 0.0F).cast<double>().mean();
    lesson.pictures["changed_channels"] = ChannelPicture{"Share of each channel's weights that changed",
                                                         "share of the column",
                                                         {{"changed", SeriesRole::Quantized, share}},
                                                         strong,
                                                         false,
                                                         false};
}

void show_training(const Learned& learned, Lesson& lesson)
{
    const auto rows = static_cast<double>(learned.nearest.rows());
    const auto error = [&](double loss) {
        return learned.whole > 0.0 ? std::sqrt(std::max(0.0, loss) * rows / learned.whole) : 0.0;
    };
    CurvePicture::Series series{"LRQ", SeriesRole::LowRank, {}, {}};
    const auto count = static_cast<Index>(learned.report.curve.size());
    series.x.resize(count);
    series.y.resize(count);
    double least = 1.0;
    for (Index i = 0; i < count; ++i) {
        const LossPoint& point = learned.report.curve[static_cast<std::size_t>(i)];
        series.x[i] = static_cast<double>(point.step);
        series.y[i] = error(point.training);
        least = std::min(least, series.y[i]);
    }
    CurvePicture curve{"Error of the output while it learns",
                       "step of gradient descent",
                       "relative activation error",
                       {series},
                       -1.0,
                       false};
    lesson.figures["nearest_error"] = count > 0 ? series.y[0] : 0.0;
    lesson.figures["learned_error"] = least;
    lesson.figures["gain"] =
        lesson.figures["nearest_error"] > 0.0 ? 1.0 - least / lesson.figures["nearest_error"] : 0.0;
    for (Index i = 0; i < count; ++i) {
        curve.cursor = series.x[i];
        lesson.pictures[fmt::format("curve.{}", i)] = curve;
    }
}

} // namespace

Result<Lesson> lrq_lesson(const LessonInput& input, Backend& backend, Monitor& monitor)
{
    if (input.weight.size() == 0 || input.moments.channels() != input.weight.cols())
        return bad_input("the lesson needs a weight and the moments of its inputs", input.layer,
                         "Calibrate the model first");
    Lesson lesson;
    lesson.layer = input.layer;
    monitor.report(0, 2, "steps of the lesson");
    auto learned = learn(input, backend, monitor);
    if (!learned)
        return learned.error();
    monitor.report(1, 2, "steps of the lesson");
    const double limit = magnitude_quantile(input.weight, 0.995);
    const Index rank = default_learned_rank(input.weight.rows(), input.weight.cols());
    lesson.pictures["weight"] = matrix_picture("W", input.weight, limit);
    lesson.figures["bits"] = static_cast<double>(k_bits);
    lesson.figures["outputs"] = static_cast<double>(input.weight.rows());
    lesson.figures["inputs"] = static_cast<double>(input.weight.cols());
    lesson.figures["weights"] = static_cast<double>(input.weight.size());
    lesson.figures["rank"] = static_cast<double>(rank);
    lesson.figures["steps"] = static_cast<double>(k_steps);
    lesson.figures["numbers"] = static_cast<double>(rank * (input.weight.rows() + input.weight.cols())
                                                    + 2 * input.weight.rows() + input.weight.cols());
    show_rulers(input, *learned, lesson);
    show_maps(input, *learned, lesson);
    show_training(*learned, lesson);
    lesson.pictures["bars"] =
        BarsPicture{"What the output loses",
                    "relative activation error",
                    {{"nearest rounding", SeriesRole::Quantized, lesson.figures["nearest_error"]},
                     {"LRQ", SeriesRole::LowRank, lesson.figures["learned_error"]}},
                    false};
    monitor.report(2, 2, "steps of the lesson");
    return lesson;
}

} // namespace rankscope
