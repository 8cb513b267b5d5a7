// SPDX-License-Identifier: GPL-3.0-or-later
// What an outlier channel is: where it shows, what it does to rounding, and what a rotation does to it.
#include "core/calibration/activation_statistics.h"
#include "core/calibration/quantized_activations.h"
#include "core/linalg/incoherence.h"
#include "core/model/model.h"
#include "core/teaching/steps.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr double k_factor =
    8.0; ///< medians of the energy above which a channel stands out, as in the Channels view
constexpr double k_persistent_share = 0.5;
constexpr int k_activation_bits = 4;

VectorD falling(VectorD values)
{
    std::sort(values.begin(), values.end(), std::greater<>());
    return values;
}

/// What the blocks read from the residual stream: a row an input of attention or of an MLP, in multiples of
/// its median.
void show_model(const ChannelMap& map, Lesson& lesson)
{
    std::vector<const ChannelMap::Row*> rows;
    std::vector<VectorD> energies;
    for (const ChannelMap::Row& row : map.rows)
        if (row.role != LinearRole::Output && row.role != LinearRole::Down
            && (rows.empty() || row.rms.size() == rows.front()->rms.size())) {
            rows.push_back(&row);
            energies.push_back(row.rms.cwiseAbs2());
        }
    std::vector<const VectorD*> values;
    for (const VectorD& energy : energies)
        values.push_back(&energy);
    Matrix picture(static_cast<Index>(rows.size()), rows.empty() ? 0 : rows.front()->rms.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const double unit = rows[i]->median_rms > 0.0 ? rows[i]->median_rms : 1.0;
        picture.row(static_cast<Index>(i)) = (rows[i]->rms / unit).cast<float>().transpose();
    }
    const std::vector<Index> persistent = persistent_channels(values, k_factor, k_persistent_share);
    MatrixPicture drawn = matrix_picture("RMS of each channel in medians, first block on top", picture,
                                         std::sqrt(k_factor), persistent);
    drawn.y_label = "input of attention or MLP";
    lesson.pictures["model"] = std::move(drawn);
    lesson.figures["model_inputs"] = static_cast<double>(rows.size());
    lesson.figures["persistent"] = static_cast<double>(persistent.size());
    lesson.figures["model_channels"] = static_cast<double>(picture.cols());
}

/// One scale for a whole token, as activations are rounded: an outlier makes the step, the others pay.
void show_rounding(const LessonInput& input, const std::vector<Index>& outliers, Lesson& lesson)
{
    const ActivationQuantization rounding{k_activation_bits, 1.0};
    const MatrixD rounded = quantize_tokens(input.tokens, rounding);
    MatrixD without = input.tokens;
    for (const Index channel : outliers)
        without.col(channel).setZero();
    const MatrixD calm = quantize_tokens(without, rounding);
    const auto lost = [&](const MatrixD& exact, const MatrixD& coarse) {
        VectorD share = VectorD::Zero(exact.cols());
        for (Index j = 0; j < exact.cols(); ++j) {
            const double whole = exact.col(j).squaredNorm();
            share[j] = whole > 0.0 ? (exact.col(j) - coarse.col(j)).squaredNorm() / whole : 0.0;
        }
        return share;
    };
    const VectorD with_outliers = lost(input.tokens, rounded);
    VectorD after = lost(without, calm);
    for (const Index channel : outliers)
        after[channel] = 0.0;
    lesson.pictures["token_rounding"] =
        ChannelPicture{"What 4-bit rounding of each token loses of a channel",
                       "share of the channel's energy",
                       {{"with the outliers", SeriesRole::Outlier, with_outliers},
                        {"without them", SeriesRole::Quantized, after}},
                       outliers,
                       false,
                       false};
    const auto others = [&](const VectorD& values) {
        const auto rest = static_cast<double>(values.size()) - static_cast<double>(outliers.size());
        return rest > 0.0 ? (values.sum() - sum_over(values, outliers)) / rest : 0.0;
    };
    lesson.figures["lost_with"] = others(with_outliers);
    lesson.figures["lost_without"] = others(after);
    lesson.figures["tokens"] = static_cast<double>(input.tokens.rows());
}

void show_rotation(const LessonInput& input, const VectorD& energy, Lesson& lesson, Backend& backend)
{
    const Incoherence rotation =
        Incoherence::random(input.weight.rows(), input.weight.cols(), input.seed, input.layer);
    const VectorD rotated =
        rotation.hessian(input.moments.hessian, backend).diagonal().cwiseMax(0.0).cwiseSqrt();
    const VectorD before = energy.cwiseSqrt();
    lesson.pictures["rotation"] =
        ChannelPicture{"RMS of the channels, from the largest down",
                       "RMS of xⱼ",
                       {{"as they are", SeriesRole::Outlier, falling(before)},
                        {"after a random Hadamard rotation", SeriesRole::LowRank, falling(rotated)}},
                       {},
                       true,
                       true};
    const auto crest = [](const VectorD& values) {
        const double middle = median(values);
        return middle > 0.0 ? values.maxCoeff() / middle : 0.0;
    };
    lesson.figures["crest_before"] = crest(before);
    lesson.figures["crest_after"] = crest(rotated);
}

} // namespace

Result<Lesson> outlier_lesson(const LessonInput& input, Backend& backend, Monitor& monitor)
{
    if (input.weight.size() == 0 || input.moments.channels() != input.weight.cols())
        return bad_input("the lesson needs a weight and the moments of its inputs", input.layer,
                         "Calibrate the model first");
    if (input.tokens.rows() == 0 || input.tokens.cols() != input.weight.cols())
        return bad_input("the calibration kept no sample of the inputs", input.layer, "Calibrate once more");
    Lesson lesson;
    lesson.layer = input.layer;
    const VectorD energy = input_energy(input.moments);
    const VectorD rms = energy.cwiseSqrt();
    const double middle = median(rms);
    std::vector<Index> outliers;
    const double usual = median(energy);
    for (Index j = 0; j < energy.size(); ++j)
        if (energy[j] > k_factor * usual)
            outliers.push_back(j);
    // A calm layer has none by that measure: then its strongest channel stands for one.
    lesson.figures["found"] = static_cast<double>(outliers.size());
    if (outliers.empty())
        outliers = strongest_channels(energy, 1);

    lesson.pictures["magnitudes"] = ChannelPicture{
        "Size of each input channel",
        "|xⱼ|",
        {{"largest", SeriesRole::Residual, input.moments.max_abs}, {"RMS", SeriesRole::Weight, rms}},
        outliers,
        false,
        false};
    MatrixPicture tokens =
        matrix_picture("Sampled tokens, one a row", input.tokens.cast<float>(), 0.0, outliers);
    tokens.limit = std::max(1e-12, k_factor * middle);
    tokens.y_label = "token";
    lesson.pictures["tokens"] = std::move(tokens);
    const double whole = energy.sum();
    lesson.pictures["sorted"] =
        ChannelPicture{"Energy of the channels, from the largest down",
                       "share of Σ Hⱼⱼ",
                       {{"Hⱼⱼ", SeriesRole::Weight, falling(whole > 0.0 ? VectorD(energy / whole) : energy)}},
                       {},
                       true,
                       true};
    lesson.figures["inputs"] = static_cast<double>(energy.size());
    lesson.figures["half"] = static_cast<double>(channels_for_share(energy, 0.5));
    lesson.figures["most"] = static_cast<double>(channels_for_share(energy, 0.9));
    lesson.figures["strongest"] = static_cast<double>(strongest_channels(energy, 1).front());
    lesson.figures["strongest_medians"] = usual > 0.0 ? energy.maxCoeff() / usual : 0.0;
    lesson.figures["strongest_share"] = whole > 0.0 ? energy.maxCoeff() / whole : 0.0;
    monitor.throw_if_cancelled();
    ChannelMap own; // where the whole model is not known, this layer is all there is to see
    own.rows.push_back({input.layer, 0, LinearRole::Other, input.moments.max_abs, rms, 0.0, middle});
    show_model(input.map ? *input.map : own, lesson);
    show_rounding(input, outliers, lesson);
    monitor.throw_if_cancelled();
    show_rotation(input, energy, lesson, backend);
    return lesson;
}

} // namespace rankscope
