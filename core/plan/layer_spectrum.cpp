// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/layer_spectrum.h"

#include "core/base/thread_pool.h"
#include "core/linalg/weighted_low_rank.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

/// Σ_{i ≥ first} values², from the small end so that nothing small is lost.
double tail_energy(const VectorD& values, Index first)
{
    double sum = 0.0;
    for (Index i = values.size(); i-- > std::max<Index>(first, 0);)
        sum += values(i) * values(i);
    return sum;
}

/// Singular values of A·H^½; squares that rounding left below zero are zero.
VectorD weighted_singular_values(const Buffer& a, const Buffer& hessian, Backend& backend)
{
    return weighted_spectrum(a, hessian, backend).cwiseMax(0.0).cwiseSqrt();
}

} // namespace

double LayerSpectrum::predicted_error(Index rank) const
{
    const bool is_weighted = weighted_residual.size() > 0;
    const double norm = is_weighted ? weighted_norm : weight_norm;
    const double left = tail_energy(is_weighted ? weighted_residual : residual, rank);
    if (norm > 0.0)
        return std::sqrt(left) / norm;
    return left > 0.0 ? 1.0 : 0.0;
}

double LayerSpectrum::tail_share(const VectorD& values, Index rank)
{
    const double whole = tail_energy(values, 0);
    return whole > 0.0 ? tail_energy(values, rank) / whole : 0.0;
}

Index LayerSpectrum::rank_for_energy(const VectorD& values, double share)
{
    const double whole = tail_energy(values, 0);
    double kept = 0.0;
    for (Index i = 0; i < values.size(); ++i) {
        if (kept >= share * whole)
            return i;
        kept += values(i) * values(i);
    }
    return values.size();
}

LayerSpectrum layer_spectrum(const Matrix& weight, const Moments* moments, const UniformGrid& grid,
                             Backend& backend, Monitor& monitor)
{
    LayerSpectrum spectrum;
    const bool is_weighted = moments && !moments->empty();
    const Buffer w = backend.upload(weight);
    const Buffer hessian = is_weighted ? backend.upload(moments->hessian) : Buffer{};
    const std::uint64_t stages = is_weighted ? 4 : 2;
    std::uint64_t stage = 0;
    const auto next = [&] {
        monitor.throw_if_cancelled();
        monitor.report(stage++, stages, "spectrum");
    };
    next();
    spectrum.weight = backend.singular_values(w);
    spectrum.weight_norm = std::sqrt(tail_energy(spectrum.weight, 0));
    next();
    const Buffer error = backend.difference(w, backend.round_nearest(w, backend.fit_grid(w, grid)).values);
    spectrum.residual = backend.singular_values(error);
    if (is_weighted) {
        next();
        spectrum.weighted = weighted_singular_values(w, hessian, backend);
        spectrum.weighted_norm = std::sqrt(tail_energy(spectrum.weighted, 0));
        next();
        spectrum.weighted_residual = weighted_singular_values(error, hessian, backend);
    }
    monitor.report(stages, stages, "spectrum");
    return spectrum;
}

SpectrumSummary summarize_spectrum(const VectorD& values)
{
    SpectrumSummary summary;
    const double energy = tail_energy(values, 0);
    if (!(energy > 0.0))
        return summary;
    summary.stable_rank = energy / (values(0) * values(0));
    const VectorD shares = values / values.sum();
    double entropy = 0.0;
    for (const double share : shares)
        entropy -= share > 0.0 ? share * std::log(share) : 0.0;
    summary.effective_rank = std::exp(entropy);
    summary.participation = energy * energy / values.array().pow(4).sum();
    summary.rank_90 = LayerSpectrum::rank_for_energy(values, 0.90);
    summary.rank_99 = LayerSpectrum::rank_for_energy(values, 0.99);
    return summary;
}

double incoherence(const Eigen::Ref<const MatrixD>& a)
{
    const double norm = a.norm();
    return norm > 0.0 ? a.cwiseAbs().maxCoeff() * std::sqrt(static_cast<double>(a.size())) / norm : 0.0;
}

ChannelProfile channel_profile(const Matrix& weight, const Moments* moments)
{
    ChannelProfile profile;
    const Index channels = weight.cols();
    profile.weight_max_abs = VectorD::Zero(channels);
    profile.weighted_energy = VectorD::Zero(channels);
    for (Index row = 0; row < weight.rows();
         ++row) { // row by row: a column of a row-major matrix is far apart in memory
        const auto values = weight.row(row).transpose().cast<double>();
        profile.weight_max_abs = profile.weight_max_abs.cwiseMax(values.cwiseAbs());
        profile.weighted_energy += values.cwiseAbs2();
    }
    const double rows = static_cast<double>(std::max<Index>(1, weight.rows()));
    profile.weight_rms = (profile.weighted_energy / rows).cwiseSqrt();
    if (moments && !moments->empty()) {
        profile.hessian_diagonal = moments->hessian.diagonal();
        profile.activation_max_abs = moments->max_abs;
        profile.weighted_energy = profile.weighted_energy.cwiseProduct(profile.hessian_diagonal);
    }
    return profile;
}

} // namespace rankscope
