// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"
#include "core/base/multiarch.h"

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace rankscope::detail {
namespace {

constexpr Index k_stretch = 65536; // elements of a task
constexpr int k_lanes = 16;        // partial sums, so that the order of additions is the same on every CPU

RANKSCOPE_MULTIARCH
void add_scaled_floats(float alpha, const float* x, float beta, float* y, Index count)
{
    for (Index i = 0; i < count; ++i)
        y[i] = alpha * x[i] + beta * y[i];
}

RANKSCOPE_MULTIARCH
double dot_floats(const float* a, const float* b, Index count)
{
    double lanes[k_lanes] = {};
    Index i = 0;
    for (; i + k_lanes <= count; i += k_lanes) {
        for (int lane = 0; lane < k_lanes; ++lane)
            lanes[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
    }
    for (int lane = 0; i < count; ++i, ++lane)
        lanes[lane] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    for (int width = k_lanes / 2; width > 0; width /= 2) {
        for (int lane = 0; lane < width; ++lane)
            lanes[lane] += lanes[lane + width];
    }
    return lanes[0];
}

RANKSCOPE_MULTIARCH
double dot_doubles(const double* a, const double* b, Index count)
{
    double lanes[k_lanes] = {};
    Index i = 0;
    for (; i + k_lanes <= count; i += k_lanes) {
        for (int lane = 0; lane < k_lanes; ++lane)
            lanes[lane] += a[i + lane] * b[i + lane];
    }
    for (int lane = 0; i < count; ++i, ++lane)
        lanes[lane] += a[i] * b[i];
    for (int width = k_lanes / 2; width > 0; width /= 2) {
        for (int lane = 0; lane < width; ++lane)
            lanes[lane] += lanes[lane + width];
    }
    return lanes[0];
}

/// Largest bit pattern without the sign: orders like |x|, with infinities and NaN above every number.
RANKSCOPE_MULTIARCH
std::uint32_t max_magnitude_bits(const float* x, Index count)
{
    std::uint32_t most = 0;
    for (Index i = 0; i < count; ++i) {
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFFU;
        most = bits > most ? bits : most;
    }
    return most;
}

double max_magnitude(const float* x, Index count)
{
    const float most = std::bit_cast<float>(max_magnitude_bits(x, count));
    return std::isfinite(most) ? static_cast<double>(most) : std::numeric_limits<double>::quiet_NaN();
}

double max_magnitude(const double* x, Index count)
{
    double most = 0.0;
    for (Index i = 0; i < count; ++i) {
        if (!std::isfinite(x[i]))
            return std::numeric_limits<double>::quiet_NaN();
        most = std::max(most, std::abs(x[i]));
    }
    return most;
}

double dot_of(const float* a, const float* b, Index count) { return dot_floats(a, b, count); }
double dot_of(const double* a, const double* b, Index count) { return dot_doubles(a, b, count); }

double pairwise_sum(const double* values, std::size_t count)
{
    if (count <= 8) {
        double sum = 0.0;
        for (std::size_t i = 0; i < count; ++i)
            sum += values[i];
        return sum;
    }
    const std::size_t half = count / 2;
    return pairwise_sum(values, half) + pairwise_sum(values + half, count - half);
}

/// f(first, count) for each stretch; the answers in order.
template <class F>
std::vector<double> stretch_values(Index total, const F& f)
{
    std::vector<double> values(static_cast<std::size_t>((total + k_stretch - 1) / k_stretch));
    for_stretches(total, k_stretch, [&](Index first, Index count) {
        values[static_cast<std::size_t>(first / k_stretch)] = f(first, count);
    });
    return values;
}

} // namespace

void CpuBackend::add_scaled(double alpha, const Buffer& x, double beta, Buffer& y)
{
    require(x.rows() == y.rows() && x.cols() == y.cols(), "add_scaled", "shapes differ");
    require(x.precision() == y.precision(), "add_scaled", "precisions differ");
    if (y.empty())
        return;
    if (y.precision() == Precision::Float32) {
        auto& out = elements<float>(y);
        const auto& in = elements<float>(x);
        if (beta == 0.0)
            out.setZero();
        for_stretches(y.size(), k_stretch, [&](Index first, Index count) {
            add_scaled_floats(static_cast<float>(alpha), in.data() + first, static_cast<float>(beta),
                              out.data() + first, count);
        });
        return;
    }
    auto& out = elements<double>(y);
    const auto& in = elements<double>(x);
    if (beta == 0.0)
        out.setZero();
    for_stretches(y.size(), k_stretch, [&](Index first, Index count) {
        Eigen::Map<Eigen::ArrayXd> target(out.data() + first, count);
        target = alpha * Eigen::Map<const Eigen::ArrayXd>(in.data() + first, count) + beta * target;
    });
}

void CpuBackend::scale_columns(Buffer& x, const VectorD& factors)
{
    require(factors.size() == x.cols(), "scale_columns", "one factor per column is needed");
    if (x.empty())
        return;
    with_elements(x, [&](auto& matrix) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        const Eigen::Array<T, 1, Eigen::Dynamic> row = factors.transpose().cast<T>();
        for_stretches(matrix.rows(), rows_per_task(matrix.cols()), [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i)
                matrix.row(i).array() *= row;
        });
    });
}

void CpuBackend::scale_rows(Buffer& x, const VectorD& factors)
{
    require(factors.size() == x.rows(), "scale_rows", "one factor per row is needed");
    if (x.empty())
        return;
    with_elements(x, [&](auto& matrix) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        for_stretches(matrix.rows(), rows_per_task(matrix.cols()), [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i)
                matrix.row(i) *= static_cast<T>(factors[i]);
        });
    });
}

double CpuBackend::dot(const Buffer& a, const Buffer& b)
{
    require(a.rows() == b.rows() && a.cols() == b.cols(), "dot", "shapes differ");
    require(a.precision() == b.precision(), "dot", "precisions differ");
    if (a.empty())
        return 0.0;
    return with_elements(a, [&](const auto& left) {
        using T = typename std::remove_cvref_t<decltype(left)>::Scalar;
        const auto& right = elements<T>(b);
        const auto parts = stretch_values(left.size(), [&](Index first, Index count) {
            return dot_of(left.data() + first, right.data() + first, count);
        });
        return pairwise_sum(parts.data(), parts.size());
    });
}

double CpuBackend::max_abs(const Buffer& x)
{
    if (x.empty())
        return 0.0;
    return with_elements(x, [&](const auto& matrix) {
        double most = 0.0;
        for (const double part : stretch_values(matrix.size(), [&](Index first, Index count) {
                 return max_magnitude(matrix.data() + first, count);
             })) {
            if (std::isnan(part))
                return part;
            most = std::max(most, part);
        }
        return most;
    });
}

} // namespace rankscope::detail
