// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/quantized_activations.h"

#include <algorithm>
#include <cmath>

namespace rankscope {

Status check(const ActivationQuantization& options)
{
    if (options.bits < 2 || options.bits > 8)
        return usage_error("activations take 2 to 8 bits, " + std::to_string(options.bits)
                               + " were asked for",
                           "--quantized-activations");
    if (!(options.clip > 0.0 && options.clip <= 1.0))
        return usage_error("the clip of activations must lie above 0 and at most at 1", "--activation-clip",
                           "0.9 is usual at 4 bits, 1 clips nothing");
    return {};
}

MatrixD quantize_tokens(const Eigen::Ref<const MatrixD>& x, const ActivationQuantization& options)
{
    const double levels = std::exp2(options.bits - 1);
    MatrixD y(x.rows(), x.cols());
    for (Index token = 0; token < x.rows(); ++token) {
        const double largest = x.cols() > 0 ? x.row(token).cwiseAbs().maxCoeff() : 0.0;
        const double scale = largest > 0.0 ? options.clip * largest / (levels - 1.0) : 1.0;
        for (Index j = 0; j < x.cols(); ++j)
            y(token, j) = std::clamp(std::nearbyint(x(token, j) / scale), -levels, levels - 1.0) * scale;
    }
    return y;
}

Moments moments_of(const Eigen::Ref<const MatrixD>& x, const ActivationQuantization& options)
{
    const auto tokens = static_cast<double>(x.rows());
    Moments moments;
    moments.tokens = static_cast<std::uint64_t>(x.rows());
    moments.hessian = x.transpose() * x / tokens;
    moments.mean_abs = x.cwiseAbs().colwise().mean().transpose();
    moments.max_abs = x.cwiseAbs().colwise().maxCoeff().transpose();
    if (!options.active())
        return moments;
    const MatrixD y = quantize_tokens(x, options);
    moments.activations = options;
    moments.sigma_xy = x.transpose() * y / tokens;
    moments.sigma_yy = y.transpose() * y / tokens;
    return moments;
}

CovarianceSums::CovarianceSums(Index channels, bool with_second, Backend& backend)
    : xx_(backend.allocate(channels, channels, Precision::Float64))
{
    if (!with_second)
        return;
    xy_ = backend.allocate(channels, channels, Precision::Float64);
    yy_ = backend.allocate(channels, channels, Precision::Float64);
}

void CovarianceSums::add(const Buffer& x, const Buffer& y, Backend& backend)
{
    backend.gram(1.0, x, Transpose::Yes, 1.0, xx_);
    if (y.empty())
        return;
    backend.gemm(1.0, x, Transpose::Yes, y, Transpose::No, 1.0, xy_);
    backend.gram(1.0, y, Transpose::Yes, 1.0, yy_);
}

} // namespace rankscope
