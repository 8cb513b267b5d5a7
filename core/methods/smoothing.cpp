// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/smoothing.h"

#include "core/linalg/weighted_low_rank.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

/// Largest magnitude of any weight on each input, at least eps.
VectorD weight_magnitudes(std::span<const Matrix> weights, Index inputs, double eps)
{
    VectorD most = VectorD::Constant(inputs, eps);
    for (const Matrix& weight : weights)
        if (weight.rows() > 0)
            most = most.cwiseMax(weight.cwiseAbs().colwise().maxCoeff().transpose().cast<double>());
    return most;
}

Buffer nearest(const Buffer& x, const UniformGrid& grid, Backend& backend)
{
    return backend.round_nearest(x, backend.fit_grid(x, grid)).values;
}

/// One smoothing candidate of SVDQuant.
struct Candidate {
    double alpha = 0.0;
    bool weight_term = false;
};

class SvdQuantSearch {
public:
    SvdQuantSearch(const Buffer& weight, const Buffer& x, const SvdQuantOptions& options, Backend& backend,
                   Monitor& monitor)
        : weight_(weight), x_(x), options_(options), backend_(backend), monitor_(monitor),
          output_(backend.multiply(x, Transpose::No, weight, Transpose::Yes))
    {
        const Matrix host = backend.download(weight);
        activation_magnitudes_ =
            backend.download(x).cwiseAbs().colwise().maxCoeff().transpose().cast<double>();
        weight_magnitudes_ = weight_magnitudes(std::span(&host, 1), weight.cols(), 1e-5);
    }

    SvdQuantResult run()
    {
        try_candidate({0.0, false});
        for (const bool weight_term : {false, true})
            for (int i = 1; i < options_.grid; ++i)
                try_candidate({static_cast<double>(i) / options_.grid, weight_term});
        const double whole = backend_.dot(output_, output_);
        best_.relative_output_error = whole > 0.0 ? std::sqrt(least_ / whole) : 0.0;
        return std::move(best_);
    }

private:
    VectorD scales(const Candidate& candidate) const
    {
        const double beta = candidate.weight_term ? 1.0 - candidate.alpha : 0.0;
        VectorD s =
            activation_magnitudes_.array().pow(candidate.alpha) / weight_magnitudes_.array().pow(beta);
        for (double& value : s)
            value = value > 0.0 && std::isfinite(value) ? value : 1.0; // an input that is never active
        return s;
    }

    void try_candidate(const Candidate& candidate)
    {
        const VectorD s = scales(candidate);
        Buffer weight = backend_.copy(weight_);
        backend_.scale_columns(weight, s);
        Buffer x = backend_.copy(x_);
        backend_.scale_columns(x, s.cwiseInverse());
        UniformGrid tokens;
        tokens.bits = options_.activation_bits;
        tokens.group = options_.activation_group;
        tokens.symmetric = true;
        const Buffer rounded = nearest(x, tokens, backend_);
        double before = std::numeric_limits<double>::infinity();
        Buffer remainder = backend_.copy(weight); // W·diag(s) − Q with Q = 0
        for (int step = 0; step < options_.iterations; ++step) {
            monitor_.throw_if_cancelled();
            const LowRankBuffers branch = weighted_low_rank(remainder, {}, options_.rank, backend_);
            Buffer rest = backend_.copy(weight);
            backend_.gemm(-1.0, branch.left, Transpose::No, branch.right, Transpose::No, 1.0, rest);
            const Buffer quantized = nearest(rest, options_.weights, backend_);
            const double error = output_error(x, rounded, branch, quantized);
            if (!(error <= before))
                return;
            before = error;
            if (error < least_)
                keep(candidate, s, quantized, branch, error);
            remainder = backend_.difference(weight, quantized);
        }
    }

    double output_error(const Buffer& x, const Buffer& rounded, const LowRankBuffers& branch,
                        const Buffer& quantized)
    {
        Buffer error = backend_.copy(output_);
        backend_.gemm(-1.0, rounded, Transpose::No, quantized, Transpose::Yes, 1.0, error);
        const Buffer inner = backend_.multiply(x, Transpose::No, branch.right, Transpose::Yes);
        backend_.gemm(-1.0, inner, Transpose::No, branch.left, Transpose::Yes, 1.0, error);
        return backend_.dot(error, error);
    }

    void keep(const Candidate& candidate, const VectorD& s, const Buffer& quantized,
              const LowRankBuffers& branch, double error)
    {
        least_ = error;
        best_.smooth = s;
        best_.quantized = backend_.download(quantized);
        best_.left = backend_.download(branch.left);
        best_.right = backend_.download(branch.right);
        balance(best_.left, best_.right);
        best_.alpha = candidate.alpha;
        best_.weight_term = candidate.weight_term;
    }

    const Buffer& weight_;
    const Buffer& x_;
    const SvdQuantOptions& options_;
    Backend& backend_;
    Monitor& monitor_;
    Buffer output_;
    VectorD activation_magnitudes_, weight_magnitudes_;
    SvdQuantResult best_;
    double least_ = std::numeric_limits<double>::infinity();
};

} // namespace

VectorD smooth_scales(const VectorD& max_abs, std::span<const Matrix> weights, double alpha, double eps)
{
    const VectorD magnitudes = weight_magnitudes(weights, max_abs.size(), eps);
    return (max_abs.array().pow(alpha) / magnitudes.array().pow(1.0 - alpha)).max(eps).matrix();
}

double predicted_smoothing_error(const Moments& moments, std::span<const Matrix> weights,
                                 const VectorD& scales, const SmoothingGrid& grid, Backend& backend)
{
    const Buffer hessian = backend.upload(moments.hessian);
    const double steps = std::ldexp(1.0, grid.activation_bits) - 1.0;
    const double step = 2.0 * moments.max_abs.cwiseQuotient(scales).maxCoeff() / steps;
    double error = 0.0;
    for (const Matrix& weight : weights) {
        Buffer smoothed = backend.upload(weight);
        backend.scale_columns(smoothed, scales);
        error += step * step / 12.0 * backend.dot(smoothed, smoothed);
        Buffer lost = backend.difference(smoothed, nearest(smoothed, grid.weights, backend));
        backend.scale_columns(lost, scales.cwiseInverse());
        error += weighted_squared_norm(lost, hessian, backend);
    }
    return error;
}

double best_smoothing_alpha(const Moments& moments, std::span<const Matrix> weights,
                            const SmoothingGrid& grid, Backend& backend)
{
    double best = 0.5;
    double least = std::numeric_limits<double>::infinity();
    for (int i = 10; i < 20; ++i) {
        const double alpha = 0.05 * i;
        const double error = predicted_smoothing_error(
            moments, weights, smooth_scales(moments.max_abs, weights, alpha), grid, backend);
        if (error < least) {
            least = error;
            best = alpha;
        }
    }
    return best;
}

SvdQuantResult svdquant(const Buffer& weight, const Buffer& x, const SvdQuantOptions& options,
                        Backend& backend, Monitor& monitor)
{
    return SvdQuantSearch(weight, x, options, backend, monitor).run();
}

} // namespace rankscope
