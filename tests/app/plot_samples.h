// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

// Made-up layers for the plots' tests: shapes of real ones, values by formula, so that every run draws the
// same.
#include "app/workbench/plots/activations_plot.h"
#include "app/workbench/plots/error_plot.h"
#include "app/workbench/plots/matrices_plot.h"
#include "core/plan/layer_parts.h"
#include "core/plan/layer_spectrum.h"

#include <cmath>
#include <memory>

namespace rankscope::test {

/// Channels of a calm layer with three hot ones at 1/7, 1/2 and 6/7.
inline std::shared_ptr<ChannelProfile> channel_profile_of(Index channels)
{
    auto profile = std::make_shared<ChannelProfile>();
    profile->weight_max_abs = VectorD(channels);
    profile->weight_rms = VectorD(channels);
    profile->hessian_diagonal = VectorD(channels);
    profile->activation_max_abs = VectorD(channels);
    profile->weighted_energy = VectorD(channels);
    for (Index j = 0; j < channels; ++j) {
        const auto x = static_cast<double>(j);
        const bool hot = channels >= 7 && (j == channels / 7 || j == channels / 2 || j == 6 * channels / 7);
        const double wave = 1.0 + 0.5 * std::sin(0.37 * x) + 0.35 * std::sin(11.3 * x);
        profile->weight_rms[j] = 0.02 * wave;
        profile->weight_max_abs[j] = 0.08 * wave;
        profile->hessian_diagonal[j] = (hot ? 900.0 : 1.0) * (1.0 + 0.6 * std::cos(1.7 * x));
        profile->activation_max_abs[j] = 4.0 * std::sqrt(profile->hessian_diagonal[j]);
        profile->weighted_energy[j] = profile->hessian_diagonal[j] * 4.096 * wave * wave;
    }
    return profile;
}

inline std::shared_ptr<LayerSpectrum> layer_spectrum_of(Index size, bool weighted)
{
    auto spectrum = std::make_shared<LayerSpectrum>();
    spectrum->weight = VectorD(size);
    spectrum->residual = VectorD(size);
    if (weighted) {
        spectrum->weighted = VectorD(size);
        spectrum->weighted_residual = VectorD(size);
    }
    for (Index i = 0; i < size; ++i) {
        const double share = static_cast<double>(i) / static_cast<double>(size);
        spectrum->weight[i] = 12.0 / std::sqrt(1.0 + 0.05 * static_cast<double>(i)) * (1.02 - share);
        spectrum->residual[i] = 1.6 * (1.02 - 0.9 * share);
        if (weighted) {
            spectrum->weighted[i] =
                90.0 * std::exp(-0.18 * static_cast<double>(i)) + 6.0 * std::exp(-5.0 * share);
            spectrum->weighted_residual[i] =
                14.0 * std::exp(-0.25 * static_cast<double>(i)) + 1.1 * std::exp(-4.0 * share);
        }
    }
    spectrum->weight_norm = spectrum->weight.norm();
    spectrum->weighted_norm = spectrum->weighted.norm();
    return spectrum;
}

inline QVector<ErrorTrace> error_traces(int count)
{
    const QStringList methods = {
        QStringLiteral("odlri"), QStringLiteral("caldera"), QStringLiteral("svd_residual"),
        QStringLiteral("loftq"), QStringLiteral("lrc"),     QStringLiteral("qera"),
        QStringLiteral("lqer"),  QStringLiteral("gptq"),    QStringLiteral("rtn")};
    QVector<ErrorTrace> traces;
    for (int t = 0; t < count; ++t) {
        ErrorTrace trace{QStringLiteral("model.layers.0.mlp.down_proj"), methods[t % methods.size()], {}, {}};
        for (int i = 0; i <= 20; ++i) {
            trace.steps.append(i);
            trace.errors.append(0.02 * (1.0 + 0.35 * t) * (1.0 + (1.5 + t) * std::exp(-0.25 * i)));
        }
        traces.append(trace);
    }
    return traces;
}

/// A weight with two strong columns, which L·R of the decomposition takes.
inline Matrix weight_of(Index out, Index in)
{
    return Matrix::NullaryExpr(out, in, [in](Index i, Index j) {
        const double wave = std::sin(0.7 * static_cast<double>(i) + 1.3 * static_cast<double>(j))
                            * std::cos(0.31 * static_cast<double>(i * j % 97));
        const double hot = j == in / 3 || j == 2 * in / 3 ? 8.0 : 1.0;
        return static_cast<float>(0.02 * hot * wave);
    });
}

inline Decomposition decomposition_of(const Matrix& weight, const UniformGrid& grid)
{
    const auto backend = make_cpu_backend();
    Decomposition result;
    const Index in = weight.cols();
    result.low_rank.left = Matrix(weight.rows(), 2);
    result.low_rank.left << weight.col(in / 3), weight.col(2 * in / 3);
    result.low_rank.right = Matrix::Zero(2, in);
    result.low_rank.right(0, in / 3) = 1.0F;
    result.low_rank.right(1, 2 * in / 3) = 1.0F;
    const Buffer rest = backend->upload(Matrix(weight - result.low_rank.left * result.low_rank.right));
    const GridBuffers fitted = backend->fit_grid(rest, grid);
    result.quantized = to_host(backend->round_nearest(rest, fitted), fitted, *backend);
    return result;
}

inline std::shared_ptr<LayerMatrices> layer_matrices_of(Index out, Index in, bool run)
{
    const Matrix weight = weight_of(out, in);
    const UniformGrid grid{2, 64};
    const auto backend = make_cpu_backend();
    const LayerParts parts = run ? *layer_parts(weight, decomposition_of(weight, grid), *backend)
                                 : planned_parts(weight, grid, *backend);
    auto matrices = std::make_shared<LayerMatrices>();
    const Matrix* all[] = {&parts.weight, &parts.quantized, &parts.low_rank, &parts.residual};
    for (std::size_t part = 0; part < matrices->parts.size(); ++part)
        matrices->parts[part] = std::make_shared<MagnitudePyramid>(*all[part]);
    matrices->from_run = run;
    return matrices;
}

/// Tokens of all kinds, the first of which is massive in one channel.
inline std::shared_ptr<ActivationPicture> activations_of(Index tokens, Index channels)
{
    const char* texts[] = {"<s>", " Once",        " upon", "\n", "\xE4\xB8\x96\xE7\x95\x8C",
                           "\a",  "na\xC3\xAFve", "",      " ",  ","};
    auto picture = std::make_shared<ActivationPicture>();
    TokenActivations& all = picture->activations;
    Matrix values = Matrix::NullaryExpr(tokens, channels, [](Index i, Index j) {
        return static_cast<float>(
            std::sin(0.7 * static_cast<double>(i * 31 % 17) + 1.9 * static_cast<double>(j)));
    });
    values(0, channels / 3) = 250.0F;
    all.stretch = {"made_up.txt", std::string(64, 'a'), 5000, 0, {}};
    for (Index i = 0; i < tokens; ++i) {
        all.stretch.tokens.push_back(static_cast<TokenId>(i));
        all.texts.emplace_back(texts[i % 10]);
        all.positions.push_back(i);
    }
    all.median_abs = 0.7;
    all.strongest = {{0, channels / 3, 250.0}, {1, 2, static_cast<double>(values(1, 2))}};
    all.massive = {{0, 1, 1800.0}};
    picture->values = std::make_shared<MagnitudePyramid>(std::move(values));
    return picture;
}

inline std::shared_ptr<LayerHistogram> layer_histogram_of(Index out, Index in, bool run)
{
    const Matrix weight = weight_of(out, in);
    const UniformGrid grid{2, 64};
    const auto backend = make_cpu_backend();
    const Decomposition decomposition = decomposition_of(weight, grid);
    auto histogram =
        layer_histogram(weight, run ? &decomposition : nullptr, grid, {}, *backend, silent_monitor());
    return histogram ? std::make_shared<LayerHistogram>(std::move(*histogram)) : nullptr;
}

} // namespace rankscope::test
